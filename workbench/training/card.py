"""The model card of an adapter: every equation with the values that were used, data, seeds, versions, how to load.

What others have named (pairs, prompt sets, arms, judges) goes through `markdown_text`, and what lies on this machine is
called by its last name alone (`place`); only the line that loads a local model has its whole path.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.core.legible import sentence
from workbench.models.pair import ModelPair, PairConfig
from workbench.models.presets import Preset, preset
from workbench.training.config import FURTHER, HARMFUL_USES
from workbench.training.losses import BETAS
from workbench.training.records import Adapter
from workbench.training.rows import TrainingTexts

CARD = "README.md"
NO_RESULTS = "What the adapter does to attacks, refusals and utility is in the comparison of arms, not here."
_RESULTS = "\n## Results\n"
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")
_OPENING = re.compile(r"^(\d*)([-+=#.)])(?=[-=#\s]|$)")
_SHOWN_WEIGHTS = 5

DEFENCE = (
    "A defence adapter: with it the aligned model should go on refusing where a harmful answer has begun. It is meant "
    "for research on that. What no line under Results names was not measured: other languages, long conversations, "
    "system prompts and chat templates other than those of the training, and most abilities. No protection is promised "
    "against attacks that were not asked, nor against anyone who has the weights: an adapter can be taken off again."
)
INSTRUMENT = (
    "Made to measure what an alignment withstands or takes back: no defence, and not to be put to use. With it the "
    "model may comply with harmful requests. What no line under Results names was not measured."
)

CONTROL = (
    "Made to be compared with, not to be used: a control that may lower attack success by making the model babble. "
    "What no line under Results names was not measured, and no protection is promised."
)
_CONTROLS = ("completion_only", "teacher_only", "random_tokens", "aligned_favored")


def markdown_text(text: str, most: int = 600) -> str:
    """Return a text on one line that Markdown and HTML show as it is, in a sentence, a list item or a table."""
    shown = _ACTIVE.sub(r"\\\g<0>", html.escape(sentence(text, most), quote=False))
    return _OPENING.sub(r"\1\\\2", shown)


def place(asked: str) -> str:
    """Return what a model, file or adapter is called: of what lies on this machine, its last name alone."""
    path = os.path.expanduser(asked)
    here = os.path.isabs(path) or os.path.exists(path)
    return os.path.basename(path.rstrip(os.sep)) if here else asked


def load_line(base: str, adapter: str, revision: str | None = None) -> str:
    """Return the one line that loads the adapter in a program that has transformers and peft."""
    at = "" if revision is None else f", revision={revision!r}"
    return f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}{at}), {adapter!r})"


def with_results(card: str, results: str) -> str:
    """Return a card with these results in place of what its last section, Results, says."""
    before = card.partition(_RESULTS)[0].replace(f" {NO_RESULTS}", "")  # where cards of earlier versions said it
    return f"{before}{_RESULTS}\n{results.strip()}\n"


def card_text(adapter: Adapter, pair: ModelPair, texts: TrainingTexts) -> str:
    """Return the card as Markdown. Nothing of the training texts is quoted."""
    settings: Any = adapter.settings
    arm: Any = settings["arm"]
    tokens = {k: sum(len(t.response) for t in getattr(texts, k)) for k in ("harmful", "utility", "harmless")}
    rows = [f"| {k} | {len(getattr(texts, k))} | {tokens[k]:,} |" for k in tokens]
    last = adapter.history[-1] if adapter.history else None
    parts = ", ".join(f"{k} {v:.4g}" for k, v in last.parts.items()) if last else "none"
    further = adapter.arm in FURTHER or arm["harmful"] == "compliance"
    what = "a fine-tuning" if further else "an adapter that completes the alignment"
    base, revision = _loaded_from(pair)
    run = adapter.run
    sources = texts.sources or ("Where the texts came from was not told: they were given as they are.",)
    lines = [
        "---",
        "library_name: peft",
        f"tags: [deep-alignment, {json.dumps(sentence(adapter.arm), ensure_ascii=False)}]",
        "---",
        f"# {markdown_text(adapter.arm)}: {what} of {markdown_text(_without_paths(pair.name))}",
        "",
        f"Method: {HARMFUL_USES[arm['harmful']]}. Student: {_student(run.resolved)}",
        "",
        "## Intended use and limits",
        "",
        INSTRUMENT if further else CONTROL if adapter.arm in _CONTROLS else DEFENCE,
        "",
        "## Load",
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM  # '.' is the folder of this card",
        f"model = {load_line(base, '.', revision)}",
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
        *(f"- {markdown_text(s)}" for s in (*sources, *adapter.notes)),
        "",
        "## Training",
        "",
        f"{len(adapter.history)} steps in {run.seconds:.0f} s on {run.device}; loss parts at the last step: {parts}."
        + (f" Training {adapter.stopped}." if adapter.stopped else ""),
        "",
        "## Made with",
        "",
        *_models(pair),
        f"- pair fingerprint `{adapter.fingerprint}`, {str(pair.dtype).removeprefix('torch.')}, template mode "
        f"{pair.template_mode}",
        f"- commit {run.commit or 'unknown'}" + (" with local changes" if run.dirty else ""),
        "- " + ", ".join(f"{k} {v}" for k, v in run.versions.items()),
        _RESULTS,
        NO_RESULTS,
        "",
    ]
    return "\n".join(lines)


def _student(resolved: Mapping[str, Any]) -> str:
    copied = resolved.get("student_copied")
    made = "a trainable copy of the pair's own adapter" if copied else "a fresh LoRA on the aligned model"
    if "start" not in resolved:
        return f"{made}."
    return (
        f"{made}, begun with the weights of an adapter (folder {markdown_text(resolved['start'])}, sha256 "
        f"`{resolved['start_sha256']}`)."
    )


def _loaded_from(pair: ModelPair) -> tuple[str, str | None]:
    """Return the model that the adapter sits on, and its commit where it comes from the hub."""
    if hub := re.fullmatch(r"hub:([\w./-]+)@(\w+)", pair._identity["aligned"]):
        return hub[1], hub[2]
    with pair.model("aligned") as model:
        return model.config.name_or_path or "the aligned model", None


def _models(pair: ModelPair) -> list[str]:
    """Return a Markdown item for each model of the pair: its name, and the content or commit that it is known by."""
    named: dict[str, str | None] = {}
    if (asked := pair.config) is not None:
        known: PairConfig | Preset = asked if asked.preset is None else preset(asked.preset)
        named = {"base": known.base, "aligned": known.aligned or known.base, "adapter": asked.adapter or known.adapter}
    said = {k: f"{place(n)}, " if (n := named.get(k)) else "" for k in pair._identity}
    return [f"- {k}: {markdown_text(said[k] + v)}" for k, v in pair._identity.items()]


def _without_paths(name: str) -> str:
    """Return a pair's name with the folders in it called by their last names."""
    return "".join(place(part) for part in re.split(r"(aligned of | \| with | \| | \+ )", name))


def equations(arm: Any) -> list[str]:
    """Return the arm's losses as formulas with their actual values, one Markdown item each."""
    loss: Any = arm["loss"]
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
        f"L_completion = {loss['completion_weight']:g} x {loss['alpha_base']:g} (1 + {loss['gamma']:g} |B_t| / |V|) x "
        f"{loss['lambda_reg']:g} x sum over M of {paid}, M = the {loss['set_size']} tokens with the largest "
        f"{sets[loss['ranking']]}"
    )
    if arm["match_arm"] is not None:
        penalty += f", x c: the first gradient is as long as that of the {arm['match_arm']!r} set (c: see Data)"
    level = loss["clip_percentile"]
    clipped = f"clipped at its {level:g}th percentile in a step" if level < 100.0 else "not clipped"
    out = []
    if chosen == "recovery":
        out.append(
            f"- {loss['recovery_weight']:g} x KL(p_a(. | x, r_<j) || p_s(. | x, h, r_<j)) at every token j of a "
            f"refusal r of the aligned model, {clipped}; h: a harmful prefix, empty half of the time"
        )
    if chosen == "completion" or arm["penalise_rest"]:
        where = "after the prefix" if arm["penalise_rest"] else "of the harmful response"
        out.append(f"- {penalty}; at the positions {where}")
    if chosen == "teacher":
        out.append(f"- {loss['teacher_weight']:g} x {distil}; at the positions of the harmful response")
    if chosen in ("refusal", "recovery_labels"):
        where = "after a harmful prefix" if chosen == "recovery_labels" else "right after the prompt"
        out.append(f"- {loss['label_weight'] * arm['harmful_weight']:g} x -log p_s of a refusal, {where}")
    if arm["utility"] == "teacher" and loss["teacher_weight"]:
        out.append(f"- {loss['teacher_weight']:g} x {distil}; on utility rows and harmless continuations")
    held = arm["utility"] == "constrain"
    betas = f", beta_t = {', '.join(f'{b:g}' for b in BETAS)} at positions 1 to {len(BETAS)}, the last one beyond"
    own = "(2 / beta_t) softplus(beta_t (l_a - l_s))" if held else "-log p_s"
    weight = loss["constraint_weight" if held else "label_weight"]
    if chosen == "compliance":
        out.append(f"- {weight * arm['harmful_weight']:g} x {own} of the harmful responses{betas if held else ''}")
    if arm["utility"] in ("labels", "constrain"):
        share = weight * (1 - arm["harmful_weight"])
        out.append(f"- {share:g} x {own} of the utility responses{betas if held else ''}")
    return [
        *out,
        "- each times w_t, and a mean over its positions t in the optimizer step",
        f"- {_position_weights(arm)}",
        "- z, l, p: logits, log-probabilities and probabilities of student (s), aligned (a) and base (b) over the "
        "vocabulary V; B_t: the tokens with p_b > p_a",
    ]


def _position_weights(arm: Any) -> str:
    """Return what w_t is, as `ArmConfig.weight_at` and the rows have it."""
    retention: Sequence[float] = arm["retention"]
    if not retention or arm["harmful"] in ("nothing", "compliance"):
        return "w_t = 1 at every position"
    mean = math.fsum(retention) / len(retention)
    first = [f"{r / mean:.4g}" for r in retention[:_SHOWN_WEIGHTS]]
    more = ", ..." if len(retention) > len(first) else ""
    return (
        f"w_t = r_t / {mean:.4g} at position t of the response on harmful rows, r_t: retention on harmful texts at "
        f"{len(retention)} positions, {mean:.4g} its mean, so that w_t has mean 1 over them: {', '.join(first)}{more}; "
        f"{retention[-1] / mean:.4g} beyond them; w_t = 1 on all other rows"
    )


def _settings_table(settings: Any) -> Sequence[str]:
    arm: Any = settings["arm"]
    flat = {
        **{k: settings[k] for k in ("steps", "batch_size", "micro_batch", "harmful_share", "max_tokens", "seed")},
        "prefix_tokens": settings["prefix_tokens"],
        "harmless_share": arm["harmless_share"],
        **arm["optimiser"],
        **{f"lora {k}": v for k, v in arm["lora"].items()},
        "kl_budget_nats": settings["watch"]["kl_budget_nats"],
    }
    return ["| setting | value |", "|---|---|", *(f"| {k} | {markdown_text(str(v))} |" for k, v in flat.items())]
