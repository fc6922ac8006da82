"""The verb: traces in, Diagnosis out. Needs no model and no torch."""

from __future__ import annotations

from workbench.core.configs import takes_fields
from workbench.core.provenance import Stopwatch
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.diagnosis.frequencies import frequencies
from workbench.tracing.diagnosis.summaries import Answers, contrasts, curves, divergent, heat_map, noise_floor
from workbench.tracing.diagnosis.verdict import judge
from workbench.tracing.records import Diagnosis, TraceSet


@takes_fields(DiagnosisConfig)
def diagnose(traces: TraceSet, config: DiagnosisConfig) -> Diagnosis:
    """Summarise traces: what differs between base and aligned, where, on which prompts, and how surely.

    Curves are means over responses at one position; a headline number is the mean over all positions of its
    region, each position with the same weight. Intervals are percentile bootstraps over prompts (a prompt's
    tokens, and its responses after several prefixes, stay together); groups of harmful and harmless prompts
    are resampled independently. Order of responses changes nothing; the same seed gives the same intervals.
    Thinking blocks enter only their own contrast. Missing data are NaN in arrays, None in estimates, never 0.
    The verdict's rule: `diagnosis.verdict`. The quantities: arXiv 2511.12155, and Qi et al., arXiv
    2406.05946, for KL by position on harmful continuations.

    Raises ParameterError when teacher-forced and free-running answers are mixed.
    """
    watch = Stopwatch("diagnose", config)
    answers = Answers(traces, config)
    headlines, tokens = contrasts(answers), frequencies(answers)
    verdict, sentences = judge(answers, headlines, tokens)
    return Diagnosis(
        curves=curves(answers),
        noise_floor=noise_floor(traces),
        contrasts=headlines,
        frequencies=tokens,
        heat_map=heat_map(answers),
        divergent=divergent(answers),
        entropy_floor_nats=traces.entropy_floor_nats,
        verdict=verdict,
        sentences=sentences,
        run=watch.record(
            resolved={
                "trajectory": answers.trajectory,
                "template_mode": traces.template_mode,
                "count_space": traces.count_space,
                "ranking": traces.ranking,
                "prompt_set": traces.prompt_set,
            },
            seed=config.seed,
            fingerprint=traces.run.fingerprint,
        ),
    )
