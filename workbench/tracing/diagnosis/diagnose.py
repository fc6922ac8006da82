"""From traces to a Diagnosis, without a model or torch."""

from __future__ import annotations

from workbench.core.configs import takes_fields
from workbench.core.provenance import Stopwatch
from workbench.tracing.diagnosis.answers import Answers
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.diagnosis.depths import depths
from workbench.tracing.diagnosis.frequencies import frequencies
from workbench.tracing.diagnosis.sentences import judge
from workbench.tracing.diagnosis.summaries import contrasts, curves, divergent, heat_map, noise_floor
from workbench.tracing.records import Diagnosis, TraceSet


@takes_fields(DiagnosisConfig)
def diagnose(traces: TraceSet, config: DiagnosisConfig) -> Diagnosis:
    """Summarise how base and aligned differ in traces: by position, on which prompts, and with what certainty.

    Curves are means over responses at one position; a headline number is the mean over all positions of its region, all
    with equal weight. Intervals are percentile bootstraps over prompts (a prompt's tokens, and its responses after
    several prefixes, stay together); harmful minus harmless is resampled in matched pairs where there are any, else
    independently. The order of responses changes nothing, and the same seed gives the same intervals. Thinking blocks
    enter only their own contrast. Missing data are NaN in arrays and None in estimates. `diagnosis.verdict` has the
    verdict's rule. The quantities are from arXiv 2511.12155 and, for KL by position on harmful continuations, Qi et
    al., arXiv 2406.05946.

    Raises ParameterError where teacher-forced and free-running answers are mixed.
    """
    watch = Stopwatch("diagnose", config)
    answers = Answers(traces, config)
    headlines, tokens, found = contrasts(answers), frequencies(answers), depths(answers)
    verdict, sentences = judge(answers, headlines, tokens, found)
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
        depths=found,
        run=watch.record(
            resolved={
                "trajectory": answers.trajectory,
                "judge": next((o.judge for o in traces.own_answers), None),
                **{k: getattr(traces, k) for k in ("template_mode", "count_space", "ranking", "prompt_set")},
            },
            seed=config.seed,
            fingerprint=traces.run.fingerprint,
        ),
    )
