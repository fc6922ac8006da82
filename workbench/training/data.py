"""Texts to train on, made by the pair itself and judged: base's harmful responses, aligned's refusals and answers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from workbench.core.configs import above, at_least, check_fields, takes_fields
from workbench.core.errors import ParameterError, PromptError
from workbench.core.passages import Ids, Sample
from workbench.core.store import Store
from workbench.judging.contract import Judge
from workbench.judging.judging import judge
from workbench.judging.makers import AnyJudge, the_judge
from workbench.judging.records import Judgement
from workbench.models.chat import turn_end
from workbench.models.generation import GenerateConfig, Generation, generate
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt, PromptSet
from workbench.training.card import place
from workbench.training.rows import TrainingText, TrainingTexts

Source = Literal["base", "given", "continued"]
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig:
    """Where training texts come from.

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
        check_fields(
            self,
            harmful_from=get_args(Source),
            utility_from=("aligned", "given"),
            refusals=at_least(1),
            temperature=above(0, finite=True),
            max_tokens=at_least(1),
            batch_tokens=at_least(1),
        )


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
    if pair.thinking:
        raise ParameterError(
            "thinking is on, and refusals would be taught inside the thinking block: load the pair with thinking=False"
        )
    asked = [p for p in prompts if p.label == "harmful"]
    if not asked:
        there = ", ".join(sorted({p.label for p in prompts})) or "none at all"
        raise PromptError(
            f"{prompts.name!r} has no harmful prompt (it has {there}), and alignment is completed on those: name the "
            "label column, or another set"
        )
    makes = _Making(pair, prompts, config, Store.of(store))
    harmful = makes.harmful(asked)
    harmless = makes.plain([p for p in prompts if p.label == "harmless"], "harmless")
    more = [p for p in prompts if p.label == "lookalike"]
    more += [] if utility is None else [p for p in utility if p.label != "harmful"]
    others, how = makes.plain(more, "utility"), makes.judge
    makes.notes.append(
        f"{len(harmful)} harmful texts with {sum(len(t.refusals) for t in harmful)} refusals, {len(harmless)} harmless "
        f"and {len(others)} other utility texts; judge {how.name!r}, version {how.version}."
    )
    return TrainingTexts(
        harmful=harmful,
        utility=(*harmless, *others),
        harmless=harmless,
        notes=tuple(makes.notes),
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


class _Making:
    """The texts of one prompt set under way: who judges them, and what was noted on the way."""

    def __init__(self, pair: ModelPair, prompts: PromptSet, config: TrainingDataConfig, store: Store) -> None:
        self.pair, self.prompts, self.config, self.store = pair, prompts, config, store
        self.judge = the_judge(config.judge, prompts.name)
        self.notes: list[str] = []
        end = turn_end(pair.tokenizer)
        self._end = () if (end := pair.tokenizer.eos_token_id if end is None else end) is None else (end,)

    def harmful(self, asked: Sequence[Prompt]) -> tuple[TrainingText, ...]:
        """Return the harmful prompts whose responses comply, with refusals of the aligned model."""
        pair, config = self.pair, self.config
        if config.harmful_from == "base":
            with_one = list(asked)
            openings = [pair.encode(config.opening) if config.opening else ()] * len(asked)
        else:
            with_one = [p for p in asked if p.response]
            openings = [pair.encode(p.response or "") for p in with_one]
            if len(with_one) < len(asked):
                self.notes.append(
                    f"{len(asked) - len(with_one)} of {len(asked)} harmful prompts have no given response."
                )
        if config.harmful_from == "given":
            answers = [(*ids, *self._end) for ids in openings]
        else:
            made = self._answers("base", with_one, "base answers harmful prompts", openings=openings)
            answers = [(*o, *g.ids)[: max(config.max_tokens, len(o))] for o, g in zip(openings, made, strict=True)]
        found = self._judged(with_one, answers)
        kept = [n for n, j in enumerate(found) if j.verdict == "compliance"]
        if gone := [n for n in range(len(found)) if found[n].verdict != "compliance"]:
            reasons = Counter(found[n].verdict or f"unscored: {found[n].unscored}" for n in gone)
            self.notes.append(
                f"{len(gone)} of {len(found)} harmful responses are no compliance and are left out "
                f"({_listed(with_one, gone)}): {', '.join(f'{n} {reason}' for reason, n in reasons.most_common())}."
            )
        if not kept:
            raise PromptError(
                f"none of the {len(with_one)} harmful responses of {self.prompts.name!r} is compliance to judge "
                f"{self.judge.name!r}: give responses that comply (harmful_from='given'), an opening for the base "
                "model, or another judge"
            )
        refusals = self._refusals([with_one[n] for n in kept])
        return tuple(self._text(with_one[n], answers[n], refusals=own) for n, own in zip(kept, refusals, strict=True))

    def plain(self, prompts: Sequence[Prompt], kind: str) -> tuple[TrainingText, ...]:
        """Return prompts that are not harmful with answers to keep; a prompt without one is left out."""
        given: list[Ids] = [(*self.pair.encode(p.response), *self._end) if p.response else () for p in prompts]
        if self.config.utility_from == "given":
            answers = given
            if missing := sum(not a for a in given):
                self.notes.append(f"{missing} of {len(prompts)} {kind} prompts have no given response.")
        else:
            most = self.config.max_tokens
            made = self._answers("aligned", prompts, f"aligned answers {kind} prompts")
            answers = [g.ids for g in made]
            if cut := sum(g.stop == "length" for g in made):
                self.notes.append(f"{cut} of {len(made)} {kind} answers reached {most} tokens and are cut there.")
            refused = [n for n, j in enumerate(self._judged(prompts, answers)) if j.verdict == "refusal"]
            for n in refused:
                answers[n] = given[n]
            if refused:
                replaced = sum(bool(given[n]) for n in refused)
                self.notes.append(
                    f"{len(refused)} of {len(prompts)} {kind} prompts are refused by aligned "
                    f"({_listed(prompts, refused)}): {replaced} take their given response, {len(refused) - replaced} "
                    "have none and are left out."
                )
        return tuple(self._text(p, a) for p, a in zip(prompts, answers, strict=True) if a)

    def _refusals(self, prompts: Sequence[Prompt]) -> list[tuple[Ids, ...]]:
        """Draw refusals of the aligned model, the first greedily; a refusal counts where it ends, each once."""
        out: list[list[Ids]] = [[] for _ in prompts]
        drawn = refused = cut = 0
        for n in range(self.config.refusals):
            draw: dict[str, Any] = {"temperature": self.config.temperature, "seed": self.config.seed + n} if n else {}
            made = self._answers("aligned", prompts, "aligned refuses", **draw)
            for own, g, j in zip(out, made, self._judged(prompts, [g.ids for g in made]), strict=True):
                drawn += 1
                refused += j.verdict == "refusal"
                cut += j.verdict == "refusal" and g.stop != "end"
                if j.verdict == "refusal" and g.stop == "end" and g.ids not in own:
                    own.append(g.ids)
        self.notes.append(
            f"Refusals of aligned: {drawn} drawn, {drawn - refused} of them no refusal and dropped, {cut} cut at "
            f"{self.config.max_tokens} tokens and dropped, {sum(map(len, out))} different ones kept for "
            f"{sum(bool(o) for o in out)} of {len(prompts)} harmful prompts."
        )
        return [tuple(own) for own in out]

    def _context(self, prompt: Prompt, which: Which) -> Ids:
        return self.pair.context(prompt, which, system_prompt=self.config.system_prompt)

    def _text(self, prompt: Prompt, response: Ids, refusals: tuple[Ids, ...] = ()) -> TrainingText:
        return TrainingText(
            name=prompt.id,
            label=prompt.label,
            prompt=prompt.prompt,
            aligned=self._context(prompt, "aligned"),
            base=self._context(prompt, "base"),
            response=response,
            refusals=refusals,
        )

    def _answers(
        self, which: Which, prompts: Sequence[Prompt], what: str, *, openings: Sequence[Ids] = (), **draw: Any
    ) -> tuple[Generation, ...]:
        given = openings or [()] * len(prompts)
        most = max(1, self.config.max_tokens - min(map(len, given), default=0))
        how = GenerateConfig(max_tokens=most, batch_tokens=self.config.batch_tokens, **draw)
        contexts = [self._context(p, which) + o for p, o in zip(prompts, given, strict=True)]
        return generate(self.pair, which, contexts, how, store=self.store, what=what)

    def _judged(self, prompts: Sequence[Prompt], answers: Sequence[Ids]) -> tuple[Judgement, ...]:
        own = set(self.pair.eos_ids)
        texts = [self.pair.decode([t for t in ids if t not in own]) for ids in answers]
        samples = [
            Sample(id=p.id, request=p.prompt, text=text, label=p.label, category=p.category)
            for p, text in zip(prompts, texts, strict=True)
        ]
        return judge(samples, self.judge, store=self.store, what=None).judgements


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
