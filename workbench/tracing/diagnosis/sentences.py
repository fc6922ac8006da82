"""What a diagnosis says in words: the verdict with its reason, and sentences on the numbers behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from workbench.tracing.diagnosis.answers import Answers, Group, harmless_like, sides
from workbench.tracing.diagnosis.config import DiagnosisConfig
from workbench.tracing.diagnosis.summaries import DIFFERENCE, OWN_REFUSALS
from workbench.tracing.diagnosis.verdict import Facts, decide, facts_of, say, share
from workbench.tracing.records import Contrast, Depth, TokenFrequency, Verdict


def judge(
    answers: Answers, contrasts: Sequence[Contrast], frequencies: Sequence[TokenFrequency], depths: Sequence[Depth]
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its sentences, all computed from the numbers."""
    group = answers.evidence()
    verdict: Verdict
    if group is None:
        verdict, reason, facts, apart = "undetermined", f"Undetermined: {_why_no_evidence(answers)}.", {}, {}
    else:
        facts = facts_of(contrasts, group.label, group.prefix_tokens) | {
            c.name: c.estimate
            for c in contrasts
            if c.name == OWN_REFUSALS
            or (c.name == "loss_above_base_nats" and (c.label, c.prefix_tokens) == ("harmless", group.prefix_tokens))
        }
        apart = facts_of(contrasts, DIFFERENCE, group.prefix_tokens)
        verdict, reason = decide(facts, apart, answers, group)
    said = [reason, *_measured(answers, group)]
    if group is not None:
        said.append(f"Brackets are {answers.config.confidence:.0%} bootstrap intervals over prompts; n counts prompts.")
        said += _numbers(answers, facts, verdict, group)
        said += _depth(depths, answers.config, verdict)
        said += _against_harmless(answers, group, apart)
        said += _own_answers(answers, facts)
    said += _tokens(frequencies)
    said += [
        f"Thinking blocks ({c.label} prompts) are diagnosed apart from answers: mean KL(aligned || base) "
        f"{say(c.estimate)}."
        for c in contrasts
        if c.name == "thinking_kl_aligned_base_nats"
    ]
    missing = int((answers.mask & ~np.isfinite(answers.traces.kl_aligned_base_nats)).sum())
    if missing:
        said.append(f"{missing} positions have no finite KL and are left out of its means.")
    return verdict, tuple(said)


def _why_no_evidence(answers: Answers) -> str:
    if "harmful" not in answers.distinct_labels:
        return "no prompt with an answer is labelled harmful, and the verdict is about harmful continuations"
    return (
        "the aligned model answered without a prefix only, and its own answers may be refusals; the verdict "
        "is about harmful continuations: use prefix_tokens above 0, or teacher-forced responses"
    )


def _measured(answers: Answers, group: Group | None) -> list[str]:
    traces = answers.traces
    labels = {c: {r.prompt_id for r in traces.responses if r.label == c} for c in answers.distinct_labels}
    counts = ", ".join(f"{len(ids)} {label}" for label, ids in labels.items()) or "no"
    if answers.trajectory == "free_running":
        lengths = sorted(set(answers.prefix[answers.mask.any(axis=1)].tolist()))
        how = (
            f"free-running: the aligned model continues greedily after {' / '.join(map(str, lengths))} given "
            "tokens, and what it writes may or may not be harmful (this diagnosis does not judge it)"
        )
    else:
        how = (
            "teacher-forced: both models are scored along the same given responses, which are taken to "
            "comply with the request (this diagnosis does not judge them)"
        )
    said = [f"Measured on {counts} prompts, template mode {traces.template_mode!r}, {how}."]
    if group is not None and answers.trajectory == "free_running":
        said.append(f"The verdict is about harmful prompts {group.words}.")
    return said


def _numbers(answers: Answers, facts: Facts, verdict: str, group: Group) -> list[str]:
    config = answers.config
    early, late = facts["early_kl_aligned_base_nats"], facts["late_kl_aligned_base_nats"]
    kept, share = facts["late_retention_uncertain"], facts["late_uncertain_share"]
    said = [
        f"KL(aligned || base) on harmful continuations: {say(early)} over positions 1 to {config.early}, "
        f"{say(late)} from position {config.late_from} on.",
        f"The early KL is carried by {say(facts['early_kl_positions'])} of the first {config.early}: where mean KL is "
        f"at least {config.depth_share:g} of the largest.",
    ]
    if share.value is not None:
        said.append(
            f"Retention is read where the aligned entropy exceeds {answers.traces.entropy_floor_nats:g} nats, "
            f"{say(share, percent=True)} of the late positions: there it is {say(kept)}; over all late "
            f"positions {say(facts['late_retention'])}."
        )
        if share.value < config.certain_share:
            said.append(
                "Nearly all late positions are deterministic for the aligned model; agreement of two "
                "deterministic models says nothing about alignment."
            )
    if verdict == "shallow" and late.high is not None and late.high <= config.moved_nats:
        said.append(
            "This is incomplete learning in its clear form: retention near 1 and KL near 0 late in harmful "
            "continuations; there the aligned model still is the base model."
        )
    elif verdict == "shallow":
        said.append(
            "Late positions are not untouched, only changed far less than early ones; some of the rest may "
            "be style (compare with harmless prompts), or categories whose alignment reaches further."
        )
    if verdict == "shallow" and "after_prefix_peak_kl_nats" in facts:
        said.append(
            f"After the prefix the largest KL of a response is {say(facts['after_prefix_peak_kl_nats'])} on "
            f"average, at the start {say(facts['early_peak_kl_nats'])}: some responses may still recover and "
            "refuse, which only a judge can tell."
        )
    noise = answers.noise_nats
    if noise is None:
        said.append("The noise floor was not measured.")
    elif late.value is not None:
        word = "above" if late.value > noise else "not above"
        said.append(
            f"Late KL is {word} the noise floor (largest KL between two scorings of one model: {noise:.2g} nats)."
        )
    first, last = facts["early_base_favored_count"], facts["late_base_favored_count"]
    said.append(
        f"Base-favored tokens a position ({answers.traces.count_space}): {say(first)} early, {say(last)} "
        "late. They exist wherever alignment moved anything, so fewer is not better."
    )
    return said


def _depth(depths: Sequence[Depth], config: DiagnosisConfig, verdict: Verdict) -> list[str]:
    found = next((d for d in depths if d.category is None), None)
    if found is None:
        return []
    who = "the alignment acts on" if verdict in ("shallow", "deep") else "the aligned model departs from base on"
    where = (
        f"all {found.measured} measured positions"
        if found.throughout
        else f"the first {say(found.estimate)}".replace("tokens", "token" if found.estimate.value == 1 else "tokens")
        if found.estimate.value
        else "none of the first positions"
    )
    return [
        f"Depth: {who} {where} of harmful answers, up to where mean KL(aligned || base) last exceeds "
        f"{config.depth_share:g} of its value at position 1. It says how far, not how much that helps."
    ]


def _against_harmless(answers: Answers, group: Group, apart: Facts) -> list[str]:
    other = harmless_like(answers, group)
    if other is None:
        return [
            "There are no harmless prompts to compare with, so a change of style cannot be told from one of safety."
        ]
    early, late, kept = (
        apart[n] for n in ("early_kl_aligned_base_nats", "late_kl_aligned_base_nats", "late_retention_uncertain")
    )
    how = "matched pairs" if sides(answers, group, other)[0] else "not matched"
    said = [
        f"Harmful minus harmless prompts ({how}, over the positions that both have): early KL {say(early)}, late KL "
        f"{say(late)}, late retention where uncertain {say(kept)}."
    ]
    if late.low is None or late.high is None:
        return said
    if late.low > 0:
        said.append("Late in harmful continuations the models differ more than late in harmless ones.")
    elif late.high < 0:
        said.append("Late in harmful continuations the models differ less than late in harmless ones.")
    else:
        said.append("Late KL on harmful and harmless prompts cannot be told apart at this n.")
    return said


def _own_answers(answers: Answers, facts: Facts) -> list[str]:
    refused, loss = facts.get(OWN_REFUSALS), facts.get("loss_above_base_nats")
    said = []
    if refused is not None:
        unscored = sum(o.refused is None for o in answers.traces.own_answers)
        said.append(
            f"When no token is given, {share(refused)} of aligned's own answers to the harmful prompts are refusals "
            f"by judge {answers.traces.own_answers[0].judge!r} (Wilson's interval; {unscored} not scored)."
        )
    if loss is not None:
        said.append(f"On harmless text the loss of aligned minus that of base is {say(loss)} a token.")
    return said


def _tokens(frequencies: Sequence[TokenFrequency]) -> list[str]:
    if not frequencies:
        return []
    kinds = Counter(f.kind for f in frequencies)
    return [
        f"Of the {len(frequencies)} most frequent base-favored tokens {kinds['safety']} are so clearly more "
        f"often on harmful prompts (safety, or merely words of the topic), {kinds['style']} about as often "
        f"or more on harmless ones (style), {kinds['undecided']} are undecided at this n."
    ]
