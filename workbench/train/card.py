"""The model card of an adapter: every equation with the values that were used, data, seeds, versions, how to load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.pair import ModelPair
from workbench.records import Adapter
from workbench.train.config import FURTHER, HARMFUL_USES
from workbench.train.rows import TrainingTexts

LOAD = "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE), ADAPTER)"


def load_line(base: str, adapter: str) -> str:
    """Return the one line that loads the adapter in a program that has transformers and peft."""
    return LOAD.replace("BASE", repr(base)).replace("ADAPTER", repr(adapter))


def write_card(file: Path, adapter: Adapter, pair: ModelPair, texts: TrainingTexts) -> None:
    """Write the card of a finished training as README.md."""
    file.write_text(card_text(adapter, pair, texts), "utf-8")


def card_text(adapter: Adapter, pair: ModelPair, texts: TrainingTexts) -> str:
    """Return the card as Markdown. Nothing of the training texts is quoted."""
    settings: Any = adapter.settings
    arm: Any = settings["arm"]
    with pair.model("aligned") as model:
        base = model.config.name_or_path or "the aligned model"
    tokens = {k: sum(len(t.response) for t in getattr(texts, k)) for k in ("harmful", "utility", "harmless")}
    rows = [f"| {k} | {len(getattr(texts, k))} | {tokens[k]:,} |" for k in tokens]
    last = adapter.history[-1] if adapter.history else None
    parts = ", ".join(f"{k} {v:.4g}" for k, v in last.parts.items()) if last else "none"
    copied = adapter.run.resolved.get("student_copied")
    what = "a fine-tuning" if adapter.arm in FURTHER else "an adapter that completes the alignment"
    lines = [
        "---",
        "library_name: peft",
        f"tags: [deep-alignment, {adapter.arm}]",
        "---",
        f"# {adapter.arm}: {what} of {pair.name}",
        "",
        f"Method: {HARMFUL_USES[arm['harmful']]}. Student: "
        + ("a trainable copy of the pair's own adapter." if copied else "a fresh LoRA on the aligned model."),
        "",
        "## Load",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM  # '.' is the folder of this card",
        f"model = {load_line(base, '.')}",
        "```",
        "",
        "## What was minimised",
        "",
        *equations(arm),
        "",
        "## How",
        "",
        *_settings_table(settings),
        "",
        "## Data",
        "",
        "| rows | texts | response tokens |",
        "|---|---|---|",
        *rows,
        "",
        *(f"- {n}" for n in adapter.notes),
        "",
        "## Result",
        "",
        f"{len(adapter.history)} steps in {adapter.run.seconds:.0f} s on {adapter.run.device}; loss parts at the last "
        f"step: {parts}."
        + (f" Training {adapter.stopped}." if adapter.stopped else "")
        + " What the adapter does to attacks, refusals and utility is in the comparison of arms, not here.",
        "",
        "## Made with",
        "",
        f"Pair fingerprint `{adapter.fingerprint}`; commit {adapter.run.commit or 'unknown'}"
        + (" with local changes" if adapter.run.dirty else "")
        + "; "
        + ", ".join(f"{k} {v}" for k, v in adapter.run.versions.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def equations(arm: Any) -> list[str]:
    """Return the arm's losses as formulas with their actual values, one Markdown item each."""
    loss: Any = arm["loss"]
    w: Any = loss["weights"]
    lam, tau = loss["teacher_lambda"], loss["temperature"]
    kl = {
        "reverse": "KL(softmax(z_s / tau) || softmax(z_teacher / tau))",
        "forward": "KL(softmax(z_teacher / tau) || softmax(z_s / tau))",
        "jsd": "JSD(softmax(z_s / tau), softmax(z_teacher / tau))",
    }[loss["direction"]]
    paid = {
        "squared": "z_s(v)^2",
        "centred": "(z_s(v) - mean z_s)^2",
        "one_sided": "relu(z_s(v) - mean z_s)^2",
        "logprob_hinge": f"relu(l_s(v) - l_a(v) + {loss['hinge_margin']:g})",
        "unlikelihood": "-log(1 - p_s(v))",
    }[loss["completion"]]
    sets = {"logit": "z_b - z_a", "mass": "p_b - p_a", "random": "a random number", "aligned_favored": "z_a - z_b"}
    chosen: Any = arm["harmful"]
    distil = f"L_KL = {tau**2:g} {kl}, z_teacher = {lam:g} z_a + {1 - lam:g} z_b, tau = {tau:g}"
    penalty = (
        f"L_completion = {w['complete']:g} x {loss['alpha_base']:g} (1 + {loss['gamma']:g} |B_t| / |V|) x "
        f"{loss['lambda_reg']:g} x sum over M of {paid}, M = the {loss['set_size']} tokens with the largest "
        f"{sets[loss['ranking']]}"
    )
    level = loss["clip_percentile"]
    clipped = f"clipped at its {level:g}th percentile in a step" if level < 100.0 else "not clipped"
    out = []
    if chosen == "recovery":
        out.append(
            f"- {w['recover']:g} x KL(p_a(. | x, r_<j) || p_s(. | x, h, r_<j)) at every token j of a refusal r of the "
            f"aligned model, {clipped}; h: a harmful prefix, empty half of the time"
        )
    if chosen == "completion" or arm["penalise_rest"]:
        where = "after the prefix" if arm["penalise_rest"] else "of the harmful response"
        out.append(f"- {penalty}; at the positions {where}")
    if chosen == "teacher":
        out.append(f"- {w['distil']:g} x {distil}; at the positions of the harmful response")
    if chosen in ("refusal", "recovery_labels"):
        where = "after a harmful prefix" if chosen == "recovery_labels" else "right after the prompt"
        out.append(f"- {w['label'] * arm['harmful_weight']:g} x -log p_s of a refusal, {where}")
    if arm["utility"] == "distil" and w["distil"]:
        out.append(f"- {w['distil']:g} x {distil}; on utility rows and harmless continuations")
    held = arm["utility"] == "constrain"
    own = "(2 / beta_t) softplus(beta_t (l_a - l_s))" if held else "-log p_s"
    weight = w["constrain" if held else "label"]
    if chosen == "compliance":
        out.append(f"- {weight * arm['harmful_weight']:g} x {own} of the harmful responses")
    if arm["utility"] in ("labels", "constrain"):
        out.append(f"- {weight * (1 - arm['harmful_weight']):g} x {own} of the utility responses")
    return [*out, "- each a mean over its positions in the optimizer step"]


def _settings_table(settings: Any) -> Sequence[str]:
    arm: Any = settings["arm"]
    flat = {
        **{k: settings[k] for k in ("steps", "batch_size", "micro_batch", "harmful_share", "max_tokens", "seed")},
        "prefix_tokens": settings["prefix_tokens"],
        "harmless_share": arm["harmless_share"],
        **arm["optimiser"],
        **{f"lora {k}": v for k, v in arm["lora"].items()},
    }
    return ["| setting | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in flat.items())]
