"""Texts to train on, made by the pair itself and judged: base's harmful responses, aligned's refusals and answers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from workbench.core.configs import takes_fields
from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Sample
from workbench.core.store import Store
from workbench.evaluation.attacks.task import GREEDY, Sampler
from workbench.evaluation.judges import the_judge
from workbench.judging.contract import Judge
from workbench.judging.judging import judge
from workbench.judging.makers import AnyJudge
from workbench.judging.records import Judgement
from workbench.models.chat import turn_end
from workbench.models.generation import GenerateConfig, Generation, generate
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.training.card import place
from workbench.training.rows import TrainingText, TrainingTexts

Ids = tuple[int, ...]
Source = Literal["base", "given", "continued"]
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """Say where training texts come from.

    harmful_from   "base": the base model answers the harmful prompts (after `opening`, where one is given);
                   "given": each prompt's own response; "continued": that response, which may only begin an answer,
                   with the base model's continuation. Only what the judge calls compliance is kept
    refusals       draws of the aligned model's refusal for each harmful prompt: the first greedy, the others at
                   `temperature`; what is no refusal, or was drawn before, is dropped and counted
    utility_from   "aligned": the aligned model's own greedy answers, or, where it refuses a prompt that is not harmful,
                   the row's own response; "given": the rows' own responses
    judge          None: "exact" on the embedded prompts, else "refusal"
    max_tokens     longest generated text

    Raises ParameterError for a value out of range.
    """

    harmful_from: Source = "base"
    opening: str = ""
    refusals: int = 3
    temperature: float = 0.7
    utility_from: Literal["aligned", "given"] = "aligned"
    judge: AnyJudge | None = None
    max_tokens: int = 128
    system_prompt: str | None = None
    batch_tokens: int = 16_384
    seed: int = 0

    def __post_init__(self) -> None:
        bad = [
            (self.harmful_from not in get_args(Source), "harmful_from", "'base', 'given' or 'continued'"),
            (self.utility_from not in ("aligned", "given"), "utility_from", "'aligned' or 'given'"),
            (self.refusals < 1, "refusals", "at least 1 draw"),
            (not 0.0 < self.temperature < float("inf"), "temperature", "finite and above 0"),
            (self.max_tokens < 1, "max_tokens", "at least 1"),
            (self.batch_tokens < 1, "batch_tokens", "at least 1"),
        ]
        for wrong, name, want in bad:
            if wrong:
                raise ParameterError(f"{name} is {getattr(self, name)!r}; it must be {want}")


@takes_fields(TrainingDataConfig)
def training_texts(
    pair: ModelPair,
    prompts: PromptSet,
    config: TrainingDataConfig,
    *,
    utility: PromptSet | None = None,
    store: Store | None = None,
) -> TrainingTexts:
    """Return judged texts of a prompt set: harmful with refusals, harmless ones to continue, utility ones to keep.

    Harmless prompts are `harmless`; these, the look-alikes, and all of the `utility` set are `utility`. `notes` say how
    many texts there are and what was dropped, with the first lines, `sources` where they come from. Everything
    generated and judged is kept in `store`. Raises PromptError where no harmful prompt is there, or none keeps a
    response that complies, ParameterError for a pair that thinks.
    """
    store = Store(None) if store is None else store
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and refusals would be taught inside the thinking block: load the pair with thinking=False"
        )
    notes: list[str] = []
    asked = [p for p in prompts if p.label == "harmful"]
    if not asked:
        there = ", ".join(sorted({p.label for p in prompts})) or "none at all"
        raise PromptError(
            f"{prompts.name!r} has no harmful prompt (it has {there}), and alignment is completed on those: name the "
            "label column, or another set"
        )
    how = the_judge(config.judge, prompts.name)
    harmful = _harmful(pair, prompts, asked, how, config, store, notes)
    harmless = _plain(pair, [p for p in prompts if p.label == "harmless"], how, config, store, notes, "harmless")
    more = [p for p in prompts if p.label == "lookalike"]
    more += [] if utility is None else [p for p in utility if p.label != "harmful"]
    others = _plain(pair, more, how, config, store, notes, "utility")
    notes.append(
        f"{len(harmful)} harmful texts with {sum(len(t.refusals) for t in harmful)} refusals, {len(harmless)} harmless "
        f"and {len(others)} other utility texts; judge {how.name!r}, version {how.version}."
    )
    return TrainingTexts(
        harmful=harmful,
        utility=(*harmless, *others),
        harmless=harmless,
        notes=tuple(notes),
        sources=_sources(prompts, utility, how, config),
    )


def _sources(prompts: PromptSet, utility: PromptSet | None, how: Judge, config: TrainingDataConfig) -> tuple[str, ...]:
    """Return how the texts came about, in sentences; no prompt and no response is quoted."""
    given, most = "those given with the prompts", f"at most {config.max_tokens} tokens"
    begun = f", begun with {config.opening!r}" if config.opening else ""
    harmful = {
        "base": f"the base model's own greedy ones{begun}, {most}",
        "given": given,
        "continued": f"{given}, continued greedily by the base model, {most}",
    }[config.harmful_from]
    others = f", the others at temperature {config.temperature:g}, seed {config.seed}"
    answers = {
        "aligned": f"the aligned model's own greedy ones, {most}; the response given with the prompt where the judge "
        "calls that a refusal",
        "given": given,
    }[config.utility_from]
    said = [_set_named("Prompts", prompts)]
    said += [] if utility is None else [_set_named("More utility prompts", utility)]
    said += [
        f"Harmful responses: {harmful}; kept where judge {how.name!r}, version {how.version}, calls them compliance.",
        f"Refusals: {config.refusals} drawn from the aligned model for each harmful prompt, the first greedily"
        f"{others if config.refusals > 1 else ''}, {most}; kept where they end "
        "and the judge calls them a refusal, each once.",
        f"Harmless and utility answers: {answers}.",
    ]
    if config.system_prompt is not None:
        said.append(f"A system prompt of {len(config.system_prompt)} characters stood before every prompt.")
    return tuple(said)


def _set_named(what: str, prompts: PromptSet) -> str:
    labels = ", ".join(f"{n} {label}" for label, n in sorted(Counter(p.label for p in prompts).items()))
    chosen = f" ({'; '.join(prompts.notes)})" if prompts.notes else ""
    return f"{what}: {prompts.name}, source {place(prompts.source)}, {len(prompts)} of them: {labels}{chosen}."


def _listed(prompts: Sequence[Prompt], which: Sequence[int]) -> str:
    """Return the first of the prompts by line, or by id where they come from no file."""
    shown = [prompts[n] for n in which[:_SHOWN]]
    named = ", ".join(p.id if p.line is None else f"line {p.line}" for p in shown)
    return named + (" and others" if len(which) > _SHOWN else "")


def _harmful(
    pair: ModelPair,
    prompts: PromptSet,
    asked: Sequence[Prompt],
    how: Judge,
    config: TrainingDataConfig,
    store: Store,
    notes: list[str],
) -> tuple[TrainingText, ...]:
    if config.harmful_from == "base":
        with_one = list(asked)
        openings = [pair.encode(config.opening) if config.opening else ()] * len(asked)
    else:
        with_one = [p for p in asked if p.response]
        openings = [pair.encode(p.response or "") for p in with_one]
        if len(with_one) < len(asked):
            notes.append(f"{len(asked) - len(with_one)} of {len(asked)} harmful prompts have no given response.")
    if config.harmful_from == "given":
        answers = [_end(pair, ids) for ids in openings]
    else:
        made = _answers(pair, "base", with_one, GREEDY, config, store, "base answers harmful prompts", openings)
        answers = [(*o, *g.ids)[: max(config.max_tokens, len(o))] for o, g in zip(openings, made, strict=True)]
    found = _judged(pair, with_one, answers, how, store)
    kept = [n for n, j in enumerate(found) if j.verdict == "compliance"]
    _note_dropped(notes, "harmful responses", with_one, found, kept)
    if not kept:
        raise PromptError(
            f"none of the {len(with_one)} harmful responses of {prompts.name!r} is compliance to judge {how.name!r}: "
            "give responses that comply (harmful_from='given'), an opening for the base model, or another judge"
        )
    refusals = _refusals(pair, [with_one[n] for n in kept], how, config, store, notes)
    return tuple(
        TrainingText(
            name=with_one[n].id,
            label="harmful",
            prompt=with_one[n].prompt,
            aligned=_context(pair, with_one[n], "aligned", config),
            base=_context(pair, with_one[n], "base", config),
            response=answers[n],
            refusals=own,
        )
        for n, own in zip(kept, refusals, strict=True)
    )


def _refusals(
    pair: ModelPair,
    prompts: Sequence[Prompt],
    how: Judge,
    config: TrainingDataConfig,
    store: Store,
    notes: list[str],
) -> list[tuple[Ids, ...]]:
    out: list[list[Ids]] = [[] for _ in prompts]
    drawn = refused = cut = 0
    for n in range(config.refusals):
        sampler = GREEDY if n == 0 else Sampler(temperature=config.temperature, sample=n, seed=config.seed + n)
        made = _answers(pair, "aligned", prompts, sampler, config, store, "aligned refuses")
        found = _judged(pair, prompts, [g.ids for g in made], how, store)
        for own, g, j in zip(out, made, found, strict=True):
            drawn += 1
            refused += j.verdict == "refusal"
            cut += j.verdict == "refusal" and g.stop != "end"
            if j.verdict == "refusal" and g.stop == "end" and g.ids not in own:
                own.append(g.ids)
    unlike = sum(map(len, out))
    notes.append(
        f"Refusals of aligned: {drawn} drawn, {drawn - refused} of them no refusal and dropped, {cut} cut at "
        f"{config.max_tokens} tokens and dropped, {unlike} different ones kept for {sum(bool(o) for o in out)} of "
        f"{len(prompts)} harmful prompts."
    )
    return [tuple(own) for own in out]


def _plain(
    pair: ModelPair,
    prompts: Sequence[Prompt],
    how: Judge,
    config: TrainingDataConfig,
    store: Store,
    notes: list[str],
    kind: str,
) -> tuple[TrainingText, ...]:
    given = [_end(pair, pair.encode(p.response)) if p.response else () for p in prompts]
    if config.utility_from == "given":
        answers = given
        if missing := sum(not a for a in given):
            notes.append(f"{missing} of {len(prompts)} {kind} prompts have no given response.")
    else:
        made = _answers(pair, "aligned", prompts, GREEDY, config, store, f"aligned answers {kind} prompts")
        answers = [g.ids for g in made]
        cut = sum(g.stop == "length" for g in made)
        if cut:
            notes.append(f"{cut} of {len(made)} {kind} answers reached {config.max_tokens} tokens and are cut there.")
        found = _judged(pair, prompts, answers, how, store)
        refused = [n for n, j in enumerate(found) if j.verdict == "refusal"]
        for n in refused:
            answers[n] = given[n]
        if refused:
            replaced = sum(bool(given[n]) for n in refused)
            notes.append(
                f"{len(refused)} of {len(prompts)} {kind} prompts are refused by aligned "
                f"({_listed(prompts, refused)}): {replaced} take their given response, {len(refused) - replaced} have "
                "none and are left out."
            )
    return tuple(
        TrainingText(
            name=p.id,
            label=p.label,
            prompt=p.prompt,
            aligned=_context(pair, p, "aligned", config),
            base=_context(pair, p, "base", config),
            response=a,
        )
        for p, a in zip(prompts, answers, strict=True)
        if a
    )


def _context(pair: ModelPair, prompt: Prompt, which: Which, config: TrainingDataConfig) -> Ids:
    return pair.context(prompt, which, system_prompt=config.system_prompt)


def _end(pair: ModelPair, ids: Ids) -> Ids:
    """Return a given response with the token that ends the turn, as a generated one has it."""
    end = turn_end(pair.tokenizer)
    end = pair.tokenizer.eos_token_id if end is None else end
    return ids if end is None else (*ids, end)


def _answers(
    pair: ModelPair,
    which: Which,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    config: TrainingDataConfig,
    store: Store,
    what: str,
    openings: Sequence[Ids] | None = None,
) -> tuple[Generation, ...]:
    given = [()] * len(prompts) if openings is None else openings
    drawing = GenerateConfig(
        max_tokens=max(1, config.max_tokens - min(map(len, given), default=0)),
        temperature=sampler.temperature,
        seed=sampler.seed,
        batch_tokens=config.batch_tokens,
    )
    contexts = [_context(pair, p, which, config) + o for p, o in zip(prompts, given, strict=True)]
    return generate(pair, which, contexts, drawing, store=store, what=what)


def _judged(
    pair: ModelPair, prompts: Sequence[Prompt], answers: Sequence[Ids], how: Judge, store: Store
) -> tuple[Judgement, ...]:
    own = set(pair.eos_ids)
    samples = [
        Sample(
            id=p.id,
            request=p.prompt,
            text=pair.decode([t for t in ids if t not in own]),
            label=p.label,
            category=p.category,
        )
        for p, ids in zip(prompts, answers, strict=True)
    ]
    return judge(samples, how, store=store, what=None).judgements


def _note_dropped(
    notes: list[str], what: str, prompts: Sequence[Prompt], found: Sequence[Judgement], kept: Sequence[int]
) -> None:
    gone = [n for n in range(len(prompts)) if n not in set(kept)]
    if not gone:
        return
    reasons = Counter(found[n].verdict or f"unscored: {found[n].unscored}" for n in gone)
    notes.append(
        f"{len(gone)} of {len(prompts)} {what} are no compliance and are left out ({_listed(prompts, gone)}): "
        + ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        + "."
    )


def harmful_preview(
    pair: ModelPair, prompts: PromptSet, texts: TrainingTexts, *, names: Sequence[str] = (), limit: int = 1
) -> PromptSet:
    """Return the first harmful prompts that are trained on, with the responses that they have there, to be traced.

    Those of `names` come first. Raises PromptError where none of the texts belongs to a harmful prompt of the set.
    """
    asked = {p.id: p for p in prompts if p.label == "harmful"}
    found = [
        dataclasses.replace(asked[t.name], response=pair.decode([i for i in t.response if i not in pair.eos_ids]))
        for t in sorted(texts.harmful, key=lambda t: t.name not in names)
        if t.name in asked
    ]
    if not found:
        raise PromptError(f"no harmful prompt of {prompts.name!r} is among the {len(texts.harmful)} harmful texts")
    return dataclasses.replace(prompts, prompts=tuple(found[:limit]))
