"""A Scorecard from attempts, answers and judgements; no model runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from workbench.core.errors import ParameterError, nearest
from workbench.core.provenance import Stopwatch
from workbench.evaluation.evidence import Evidence, gather
from workbench.evaluation.metrics import EvaluateConfig
from workbench.evaluation.paired import compare, comparison_sentences
from workbench.evaluation.rates import Cell, category_scores, cell_notes, cells_of
from workbench.evaluation.records import (
    AttackSet,
    Attempt,
    CapabilitySet,
    Comparison,
    CompletionSet,
    Score,
    Scorecard,
    Strength,
)
from workbench.evaluation.strength import strength_sentences, strengths
from workbench.evaluation.tradeoff import (
    at_chance,
    capability_cells,
    capability_scores,
    chance_sentences,
    check_alike,
    tradeoff_sentences,
    tradeoffs,
)
from workbench.judging.records import GibberishSet, JudgementSet, Measures


def sum_up(
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    config: EvaluateConfig | None = None,
    *,
    gibberish: Sequence[GibberishSet] = (),
    capability: Sequence[CapabilitySet] = (),
) -> Scorecard:
    """Compute the metrics of several arms under several attacks, by each judge apart, and compare the arms.

    Every arm, attack, setting and judge has every metric that applies (see `metrics`), with its interval, n, and the
    count of unscored prompts by reason. `paired.compare` compares two arms on the same prompts.

    Raises what `evidence.gather` raises (no prompt left, sets that do not belong together, another tokenizer) and
    ParameterError where `against` is none of the arms.
    """
    config = config or EvaluateConfig()
    watch = Stopwatch("sum_up", config)
    evidence = gather(attacks, completions, judgements, gibberish)
    arms = list(dict.fromkeys((*evidence.arms, *(s.arm for s in capability))))
    if config.against is not None and config.against not in arms:
        raise ParameterError(
            f"{config.against!r}, which other arms are compared against, is no arm: {nearest(config.against, arms)}"
        )
    check_alike(capability)
    cells = cells_of(evidence, config)
    scores = [cell.score(config) for cell in cells]
    scores += category_scores(cells, config) if config.categories else []
    scores += capability_scores(capability, config)
    paired = [c for c in cells if c.whole and c.metric in config.compared]
    measures = {j.judge: j.measures for j in judgements}
    compared = compare([[*paired, *capability_cells(capability)]], config, measures)
    found = strengths(scores, attacks, config.against, config.gate)
    guessed = at_chance(capability, config.against)
    return Scorecard(
        run=watch.record(
            resolved={
                "arms": tuple(arms),
                "attacks": tuple(dict.fromkeys(s.attack for s in attacks)),
                "prompt_sets": tuple(dict.fromkeys(s.prompt_set for s in attacks)),
                "judges": tuple(f"{name} {version}" for name, version in evidence.versions.items()),
                "capability": tuple(dict.fromkeys(f"{s.harness}, {s.template}" for s in capability)),
                "fingerprints": tuple(dict.fromkeys(f"{c.arm}: {c.run.fingerprint}" for c in completions)),
                "success": f"p_harmful >= {config.threshold:g}; where a judge gives verdicts alone: compliance",
                "test": "McNemar, exact, two-sided; differences: Newcombe's paired interval",
                "intervals": "Wilson; bootstrap over prompts for means of samples",
            },
            seed=config.seed,
        ),
        scores=tuple(scores),
        comparisons=tuple(compared),
        sentences=(
            *(f"{note}." for s in attacks for note in s.run.resolved.get("missing", ())),
            *conclusions(scores, compared, found, guessed, measures, config),
        ),
        notes=tuple(_notes(evidence, cells, measures, attacks, completions, judgements, gibberish, capability)),
        measures=measures,
        strengths=found,
        at_chance=guessed,
    )


def conclusions(
    scores: Sequence[Score],
    compared: Sequence[Comparison],
    found: Sequence[Strength],
    guessed: Sequence[str],
    measures: Mapping[str, Measures],
    config: EvaluateConfig,
) -> tuple[str, ...]:
    """Return what can be concluded, in sentences; attacks that are too weak come first."""
    return (
        *strength_sentences(found, measures),
        *chance_sentences(guessed, config.against or ""),
        *comparison_sentences(compared, 1 - config.confidence, measures),
        *tradeoff_sentences(tradeoffs(scores), config.max_loss, config.against or "", measures),
    )


def _notes(
    evidence: Evidence,
    cells: Sequence[Cell],
    measures: Mapping[str, Measures],
    attacks: Sequence[AttackSet],
    completions: Sequence[CompletionSet],
    judgements: Sequence[JudgementSet],
    gibberish: Sequence[GibberishSet],
    capability: Sequence[CapabilitySet],
) -> list[str]:
    notes = [note for cell in cells if cell.metric == "asr" for note in cell_notes(cell, measures)]
    for arm, answered in evidence.answered.items():
        if missing := _unanswered(attacks, answered):
            kinds = ", ".join(sorted({a.attack for a in missing}))
            notes.append(
                f"{arm} has no completion for {len(missing)} of {len(evidence.attempts)} attempts ({kinds}): it is "
                "compared on the prompts that both arms have."
            )
    sources = (
        *((f"{s.attack}: ", s.notes) for s in attacks),
        *((f"{s.arm}: ", s.notes) for s in completions),
        *((f"{s.judge} on {s.arm}: ", s.notes) for s in judgements),
        *((f"gibberish of {s.arm}: ", s.notes) for s in gibberish),
        *((f"capability of {s.arm}: ", s.notes) for s in capability),
    )
    return list(dict.fromkeys([*notes, *(f"{who}{note}" for who, said in sources for note in said)]))


def _unanswered(attacks: Sequence[AttackSet], answered: Collection[str]) -> list[Attempt]:
    """Return the attempts that an arm did not answer, without those made against another arm where it has its own."""
    left = [[a for a in s.attempts if a.attempt_id not in answered] for s in attacks]
    whole = {(s.prompt_set, s.attack) for s, missing in zip(attacks, left, strict=True) if not missing}
    return [
        attempt
        for s, missing in zip(attacks, left, strict=True)
        if len(missing) < len(s.attempts) or (s.prompt_set, s.attack) not in whole
        for attempt in missing
    ]
