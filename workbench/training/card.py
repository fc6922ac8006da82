"""The model card of an adapter: every equation with the values that were used, data, seeds, versions, how to load.

Names that others have given (pairs, prompt sets, arms, judges) go through `markdown_text`, and paths on this machine
appear by their last name alone (`place`); only the line that loads a local model has its whole path.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.core.legible import sentence
from workbench.models.pair import ModelPair, PairConfig
from workbench.models.presets import Preset, preset
from workbench.training.config import FURTHER, HARMFUL_USES, PERTURBING
from workbench.training.losses import BETAS
from workbench.training.records import Adapter
from workbench.training.rows import TrainingTexts

CARD = "README.md"
NO_RESULTS = "The comparison of arms measures attacks, refusals and utility; its results are not in this card."
_RESULTS = "\n## Results\n"
_ACTIVE = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")
_OPENING = re.compile(r"^(\d*)([-+=#.)])(?=[-=#\s]|$)")
_SHOWN_WEIGHTS = 5

DEFENCE = (
    "A defence adapter for research: with it the aligned model should continue to refuse after a harmful answer has "
    "begun. What no line under Results names was not measured: other languages, long conversations, system prompts and "
    "chat templates other than those of the training, and most abilities. It promises no protection against other "
    "attacks, nor against anyone who has the weights: an adapter can be removed again."
)
INSTRUMENT = (
    "An instrument that measures what an alignment withstands or takes back: it is no defence, and must not be put to "
    "use. With it the model may comply with harmful requests. What no line under Results names was not measured."
)
CONTROL = (
    "A control to compare with, not to use: it may lower attack success by making the model babble. What no line under "
    "Results names was not measured, and it promises no protection."
)
_CONTROLS = ("completion_only", "teacher_only", "random_tokens", "aligned_favored")


def markdown_text(text: str, most: int = 600) -> str:
    """Return a text on one line that Markdown and HTML show as it is, in a sentence, a list item or a table."""
    shown = _ACTIVE.sub(r"\\\g<0>", html.escape(sentence(text, most), quote=False))
    return _OPENING.sub(r"\1\\\2", shown)


def place(asked: str) -> str:
    """Return the name of a model, file or adapter; of a path on this machine, the last part alone."""
    path = os.path.expanduser(asked)
    here = os.path.isabs(path) or os.path.exists(path)
    return os.path.basename(path.rstrip(os.sep)) if here else asked


def load_line(base: str, adapter: str, revision: str | None = None) -> str:
    """Return the one line that loads the adapter in a program that has transformers and peft."""
    at = "" if revision is None else f", revision={revision!r}"
    return f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}{at}), {adapter!r})"


def with_results(card: str, results: str) -> str:
    """Return a card with these results as its last section, Results."""
    return f"{card.partition(_RESULTS)[0]}{_RESULTS}\n{results.strip()}\n"


def card_text(adapter: Adapter, pair: ModelPair, texts: TrainingTexts) -> str:
    """Return the card as Markdown. It quotes no training text."""
    settings: Any = adapter.settings
    arm, run = settings["arm"], adapter.run
    kinds = {k: getattr(texts, k) for k in ("harmful", "utility", "harmless")}
    rows = [(k, len(own), f"{sum(len(t.response) for t in own):,}") for k, own in kinds.items()]
    parts = ", ".join(f"{k} {v:.4g}" for k, v in adapter.history[-1].parts.items()) if adapter.history else "none"
    further = adapter.arm in FURTHER or arm["harmful"] == "compliance"
    what = "a fine-tuning" if further else "an adapter that completes the alignment"
    sources = texts.sources or ("The texts were given as they are; their source was not recorded.",)
    steps = (
        f"{len(adapter.history)} steps in {run.seconds:.0f} s on {run.device}; loss parts at the last step: {parts}."
    )
    made_with = [
        *_models(pair),
        f"pair fingerprint `{adapter.fingerprint}`, {str(pair.dtype).removeprefix('torch.')}, template mode "
        f"{pair.template_mode}",
        f"commit {run.commit or 'unknown'}" + (" with local changes" if run.dirty else ""),
        ", ".join(f"{k} {v}" for k, v in run.versions.items()),
    ]
    sections = {
        "Intended use and limits": [INSTRUMENT if further else CONTROL if adapter.arm in _CONTROLS else DEFENCE],
        "Load": [
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM  # '.' is the folder of this card",
            f"model = {_loaded_from(pair)}",
            "```",
        ],
        "What was minimised": equations(arm),
        "How": _table("setting | value", _flat(settings).items()),
        "Data": [
            *_table("rows | texts | response tokens", rows),
            "",
            *(f"- {markdown_text(s)}" for s in (*sources, *adapter.notes)),
        ],
        "Training": [steps + (f" Training {adapter.stopped}." if adapter.stopped else "")],
        "Made with": [f"- {line}" for line in made_with],
        "Results": [NO_RESULTS],
    }
    title = f"{markdown_text(adapter.arm)}: {what} of {markdown_text(_without_paths(pair.name))}"
    tag = json.dumps(sentence(adapter.arm), ensure_ascii=False)
    head = f"---\nlibrary_name: peft\ntags: [deep-alignment, {tag}]\n---\n# {title}\n\n"
    method = f"Method: {HARMFUL_USES[arm['harmful']]}. Student: {_student(run.resolved)}\n"
    return head + method + "".join(f"\n## {name}\n\n{chr(10).join(lines)}\n" for name, lines in sections.items())


def _table(heads: str, rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [f"| {' | '.join(markdown_text(str(cell)) for cell in row)} |" for row in rows]
    return [f"| {heads} |", "|---" * (heads.count("|") + 1) + "|", *lines]


def _student(resolved: Mapping[str, Any]) -> str:
    copied = resolved.get("student_copied")
    made = "a trainable copy of the pair's own adapter" if copied else "a fresh LoRA on the aligned model"
    if "start" in resolved:
        folder, digest = markdown_text(resolved["start"]), resolved["start_sha256"]
        made += f", begun with the weights of an adapter (folder {folder}, sha256 `{digest}`)"
    return f"{made}."


def _loaded_from(pair: ModelPair) -> str:
    """Return the line that loads the adapter on its model, at its commit where the model comes from the hub."""
    if hub := re.fullmatch(r"hub:([\w./-]+)@(\w+)", pair._identity["aligned"]):
        return load_line(hub[1], ".", hub[2])
    with pair.model("aligned") as model:
        return load_line(model.config.name_or_path or "the aligned model", ".")


def _models(pair: ModelPair) -> list[str]:
    """Return a Markdown text for each model of the pair: its name, and its content's hash or its commit."""
    named: dict[str, str | None] = {}
    if (asked := pair.config) is not None:
        known: PairConfig | Preset = asked if asked.preset is None else preset(asked.preset)
        named = {"base": known.base, "aligned": known.aligned or known.base, "adapter": asked.adapter or known.adapter}
    said = {k: f"{place(n)}, " if (n := named.get(k)) else "" for k in pair._identity}
    return [f"{k}: {markdown_text(said[k] + v)}" for k, v in pair._identity.items()]


def _without_paths(name: str) -> str:
    """Return a pair's name with the last part alone of each folder in it."""
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
        "squared": "z_s(v)^2 (which raises a token whose logit is negative)",
        "centred": "(z_s(v) - mean z_s)^2",
        "one_sided": "relu(z_s(v) - mean z_s)^2",
        "logprob_hinge": f"relu(l_s(v) - l_a(v) + {loss['hinge_margin']:g})",
        "unlikelihood": "-log(1 - p_s(v))",
    }[loss["completion"]]
    sets = {"logit": "z_b - z_a", "mass": "p_b - p_a", "random": "a random number", "aligned_favored": "z_a - z_b"}
    chosen = arm["harmful"]
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
            f"{loss['recovery_weight']:g} x KL(p_a(. | x, r_<j) || p_s(. | x, h, r_<j)) at every token j of a "
            f"refusal r of the aligned model, {clipped}; h: a harmful prefix, empty half of the time"
        )
    if chosen == "completion" or arm["penalise_rest"]:
        where = "after the prefix" if arm["penalise_rest"] else "of the harmful response"
        out.append(f"{penalty}; at the positions {where}")
    if chosen == "teacher":
        out.append(f"{loss['teacher_weight']:g} x {distil}; at the positions of the harmful response")
    if chosen in ("refusal", "recovery_labels"):
        where = "after a harmful prefix" if chosen == "recovery_labels" else "right after the prompt"
        out.append(f"{loss['label_weight'] * arm['harmful_weight']:g} x -log p_s of a refusal, {where}")
    if arm.get("transition") and loss["transition_weight"]:
        out.append(
            f"L_trans = {loss['transition_weight']:g} x KL(p_a(. | x) || p_s(. | x, h_<t)) at every position t of a "
            "harmful response h"
        )
    if arm.get("perturbed"):
        few, most = PERTURBING
        out.append(
            f"in {100 * arm['perturbed']:g} % of the rows the student reads {few} to {most} random tokens at the end "
            "of the user's turn, and its teacher does not"
        )
    if arm["utility"] == "teacher" and loss["teacher_weight"]:
        out.append(
            f"{loss['teacher_weight']:g} x {distil}; on utility rows and harmless continuations (rows whose teacher is "
            "base have z_teacher = z_b, those whose teacher is the label have -log p_s; see Data)"
        )
    held = arm["utility"] == "constrain"
    betas = f", beta_t = {', '.join(f'{b:g}' for b in BETAS)} at positions 1 to {len(BETAS)}, the last one beyond"
    own = "(2 / beta_t) softplus(beta_t (l_a - l_s))" if held else "-log p_s"
    weight = loss["constraint_weight" if held else "label_weight"]
    if chosen == "compliance":
        out.append(f"{weight * arm['harmful_weight']:g} x {own} of the harmful responses{betas if held else ''}")
    if arm["utility"] in ("labels", "constrain"):
        share = weight * (1 - arm["harmful_weight"])
        out.append(f"{share:g} x {own} of the utility responses{betas if held else ''}")
    out += [
        "each times w_t, and a mean over its positions t in the optimizer step",
        _position_weights(arm),
        "z, l, p: logits, log-probabilities and probabilities of student (s), aligned (a) and base (b) over the "
        "vocabulary V; B_t: the tokens with p_b > p_a",
    ]
    return [f"- {line}" for line in out]


def _position_weights(arm: Any) -> str:
    """Describe w_t, as `ArmConfig.weight_at` and the rows compute it."""
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


def _flat(settings: Any) -> Mapping[str, Any]:
    """Return the settings of a training that the card lists, by name."""
    arm: Any = settings["arm"]
    names = ("steps", "batch_size", "micro_batch", "harmful_share", "max_tokens", "seed", "prefix_tokens")
    return {
        **{k: settings[k] for k in names},
        "harmless_share": arm["harmless_share"],
        **arm["optimiser"],
        **{f"lora {k}": v for k, v in arm["lora"].items()},
        "kl_budget_nats": settings["watch"]["kl_budget_nats"],
    }
