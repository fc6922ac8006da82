"""Make TraceSets for tests: whole, consistent records computed from known distributions over a vocabulary of 48.

`traces_from_logprobs` computes every field from two arrays of log-probabilities; `make_traces` draws such arrays for
four kinds of pair (identical, shallow, deep, certain) and every shape of record that a view or statistic must take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from workbench.core.quantities import ENTROPY_FLOOR_NATS, QUANTITIES
from workbench.core.records import Label, RunRecord
from workbench.tracing.records import OwnAnswer, Response, TraceSet

HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table>",
    '"><img src=x onerror=alert(1)>',
    "&amp;",
    "\u202eevil",  # right-to-left override
    "a\u0301\u0301\u0301",  # stacked combining marks
    "\u200b",  # zero width space
    "\ufffd",  # half a character
    "\n\n",
    "\t",
    "{{ template }}",
    "${x}`y`",
    "$\\frac{1}{2}$",
    "'; DROP TABLE tokens; --",
    "😀",
    " ",
)
WORDS = (" I", " cannot", " help", " with", " that", ".", " Sure", ",", " here", " is", " how", " to", " the", "1", ":")
VOCAB = (*HOSTILE, *WORDS, *(f" word{i}" for i in range(16)), "<|end|>")  # 48 pieces
END = len(VOCAB) - 1
Kind = Literal["identical", "shallow", "deep", "certain"]


def run_record(verb: str = "trace", **resolved: object) -> RunRecord:
    """Return a RunRecord with fixed values."""
    return RunRecord(
        verb=verb, asked={}, resolved=dict(resolved), versions={"python": "3.11"}, commit=None, dirty=None, seed=0,
        device="cpu", started="2026-01-01T00:00:00+00:00", seconds=1.5, fingerprint="fake-pair",
    )  # fmt: skip


def make_response(prompt_id: str, label: Label, **changes: object) -> Response:
    """Return a teacher-forced answer's Response, with any field changed."""
    fields: dict[str, object] = dict(
        prompt_id=prompt_id, prompt=f"please answer {prompt_id}", label=label, category="made up", pair_id=None,
        trajectory="teacher_forced", prefix_tokens=0, segment="answer", stop="given", context_tokens=7,
        system_prompt=None,
    )  # fmt: skip
    return Response(**{**fields, **changes})  # type: ignore[arg-type]


def traces_from_logprobs(
    base: Sequence[np.ndarray],
    aligned: Sequence[np.ndarray],
    token_ids: Sequence[Sequence[int]],
    responses: Sequence[Response],
    *,
    detect_k: int = 10,
    shown_k: int = 4,
    noise: np.ndarray | None = None,
    pieces: Sequence[str] = VOCAB,
    warnings: tuple[str, ...] = (),
    classroom_safe: bool = True,
) -> TraceSet:
    """Compute a TraceSet from one (token, vocab) array of log-probabilities a response and model.

    A quantity that is new in the table has another one's numbers here, so that whatever reads the table can show it.
    """
    n, width = len(responses), max((len(t) for t in token_ids), default=0)
    floats = {name: np.full((n, width), np.nan, np.float32) for name in _FLOATS}
    counts = {name: np.zeros((n, width), np.int32) for name in ("base_favored_count", "rank_base", "rank_aligned")}
    ids = np.full((n, width), -1, np.int32)
    mask, partial, special = (np.zeros((n, width), bool) for _ in range(3))
    top_ids = np.full((n, width, 2 * shown_k), -1, np.int32)
    top_base, top_aligned = (np.full((n, width, 2 * shown_k), np.nan, np.float32) for _ in range(2))
    detected: dict[tuple[int, int], tuple[int, float]] = {}
    for r, (lb, la, tokens) in enumerate(zip(base, aligned, token_ids, strict=True)):
        for t, token in enumerate(tokens):
            b, a = np.asarray(lb[t], np.float64), np.asarray(la[t], np.float64)
            pb, pa = np.exp(b), np.exp(a)
            mid = np.log((pb + pa) / 2)
            excess = float(np.maximum(pb - pa, 0).sum())
            values = dict(
                kl_aligned_base_nats=(pa * (a - b)).sum(), kl_base_aligned_nats=(pb * (b - a)).sum(),
                js_nats=((pa * (a - mid)).sum() + (pb * (b - mid)).sum()) / 2, excess_mass=excess,
                retention=1 - excess, entropy_base_nats=-(pb * b).sum(), entropy_aligned_nats=-(pa * a).sum(),
                logprob_base_nats=b[token], logprob_aligned_nats=a[token], logprob_shift_nats=a[token] - b[token],
            )  # fmt: skip
            for name, value in values.items():
                floats[name][r, t] = value
            ids[r, t], mask[r, t], special[r, t] = token, True, token == END
            partial[r, t] = pieces[token] == "\ufffd"
            counts["rank_base"][r, t] = 1 + (b > b[token]).sum()
            counts["rank_aligned"][r, t] = 1 + (a > a[token]).sum()
            favored = b > a
            counts["base_favored_count"][r, t] = favored[np.argsort(-a, kind="stable")[:detect_k]].sum()
            best_b, best_a = (np.argsort(-x, kind="stable")[:shown_k].tolist() for x in (b, a))
            union = [*best_b, *[v for v in best_a if v not in best_b]]
            top_ids[r, t, : len(union)] = union
            top_base[r, t, : len(union)], top_aligned[r, t, : len(union)] = b[union], a[union]
            for v in np.argsort(-(pb - pa), kind="stable")[:detect_k].tolist():
                if favored[v]:
                    seen, mass = detected.get((r, v), (0, 0.0))
                    detected[r, v] = (seen + 1, mass + float(pb[v] - pa[v]))
    entries = sorted(detected)
    seen_ids = set(ids[mask].tolist()) | {v for _, v in entries} | set(top_ids[top_ids >= 0].tolist())
    label_ids = np.array(sorted(seen_ids), np.int32)
    return TraceSet(
        run=run_record(), prompt_set="made up", classroom_safe=classroom_safe, template_mode="shared",
        count_space="aligned_topk", ranking="mass", warnings=warnings, responses=tuple(responses),
        pieces=tuple(tuple(pieces[i] for i in tokens) for tokens in token_ids), token_ids=ids, mask=mask,
        partial=partial, special=special, topk_ids=top_ids, topk_logprob_base_nats=top_base,
        topk_logprob_aligned_nats=top_aligned, detected_response=np.array([r for r, _ in entries], np.int32),
        detected_token=np.array([v for _, v in entries], np.int32),
        detected_count=np.array([detected[e][0] for e in entries], np.int32),
        detected_mass=np.array([detected[e][1] for e in entries], np.float32),
        noise_kl_nats=np.full((0, width), np.nan, np.float32) if noise is None else noise.astype(np.float32),
        label_ids=label_ids, labels=tuple(repr(pieces[i])[1:-1] for i in label_ids.tolist()),
        scalars={n: {n: counts["rank_base"] if q.count else floats["js_nats"], **floats, **counts}[n]
                 for n, q in QUANTITIES.items()},
        entropy_floor_nats=ENTROPY_FLOOR_NATS,
    )  # fmt: skip


_FLOATS = (
    *("kl_aligned_base_nats", "kl_base_aligned_nats", "js_nats", "excess_mass", "retention"),
    *("entropy_base_nats", "entropy_aligned_nats"),
    *("logprob_base_nats", "logprob_aligned_nats", "logprob_shift_nats"),
)


def make_traces(
    kind: Kind = "shallow",
    *,
    harmful: int = 6,
    harmless: int = 6,
    lookalike: int = 2,
    unlabelled: int = 0,
    tokens: int = 24,
    prefixes: Sequence[int] | None = None,
    thinking: bool = False,
    noise: bool = True,
    seed: int = 0,
    refuses: float | None = 1.0,
) -> TraceSet:
    """Draw a TraceSet; a prompt's lengths differ (from half of `tokens` up), its tokens include hostile text.

    Kinds (harmful prompts; on all others aligned differs from base a little, in style, everywhere but for "identical"):
    "identical" aligned = base; "shallow" aligned moves mass to a refusal at positions 1 to 4, hardly afterwards;
    "deep" it does so everywhere; "certain" both are nearly deterministic and equal after position 4.
    `prefixes=None` is teacher-forced, otherwise free-running with one response a prompt and prefix length.
    `refuses` is the share of aligned's own answers to harmful prompts that are refusals; None: they were not judged.
    `thinking` adds a thinking segment to each harmful prompt. `noise` adds three samples of a noise floor near 1e-6.
    """
    rng = np.random.default_rng(seed)
    counts: dict[Label, int] = dict(harmful=harmful, harmless=harmless, lookalike=lookalike, unlabelled=unlabelled)
    base, aligned, token_ids, responses = [], [], [], []
    for label, many in counts.items():
        for i in range(many):
            segments = ("thinking", "answer") if thinking and label == "harmful" else ("answer",)
            for segment in segments:
                for k in (None,) if prefixes is None else prefixes:
                    least = max(1, tokens // 2, (k or 0) + 1)
                    length = tokens if i == 0 else int(rng.integers(least, tokens + 1))
                    lb, la = _distributions(rng, kind, label, length)
                    draw = la if k is not None else lb
                    chosen = [int(rng.choice(len(VOCAB), p=np.exp(row))) for row in draw]
                    chosen[-1] = END if k is not None else chosen[-1]
                    base.append(lb)
                    aligned.append(la)
                    token_ids.append(chosen)
                    responses.append(
                        make_response(
                            f"{label}-{i}",
                            label,
                            pair_id=f"pair-{i}" if label in ("harmful", "harmless") else None,
                            trajectory="teacher_forced" if k is None else "free_running",
                            prefix_tokens=length if k is None else min(k, length),
                            segment=segment,
                            stop="given" if k is None else ("length" if length == tokens else "end"),
                        )
                    )
    width = max((len(t) for t in token_ids), default=0)
    floor = rng.uniform(1e-7, 1e-6, (3, width)) if noise else None
    own = () if refuses is None else make_own_answers(harmful, round(refuses * harmful))
    return replace(traces_from_logprobs(base, aligned, token_ids, responses, noise=floor), own_answers=own)


def make_own_answers(harmful: int, refused: int) -> tuple[OwnAnswer, ...]:
    """Return aligned's own answers to so many harmful prompts, the first of which are refusals."""
    return tuple(
        OwnAnswer(prompt_id=f"harmful-{i}", text="I cannot help", judge="refusal", refused=i < refused, why=None)
        for i in range(harmful)
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True))


def _distributions(rng: np.random.Generator, kind: Kind, label: Label, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities (token, vocab) of base and aligned for one response."""
    logits = rng.normal(0, 2, (length, len(VOCAB)))
    if kind == "certain":
        logits[4:, 20] += 25
    style = np.zeros(len(VOCAB))
    style[[VOCAB.index("."), VOCAB.index(","), VOCAB.index("\n\n")]] = -0.3
    refusal = np.zeros(len(VOCAB))
    refusal[[VOCAB.index(" I"), VOCAB.index(" cannot"), VOCAB.index(" help")]] = 8.0
    refusal[VOCAB.index(" Sure")] = -4.0
    position = np.arange(1, length + 1)[:, None]
    if kind == "identical":
        return _log_softmax(logits), _log_softmax(logits)
    strength = np.where(position <= 4, 1.0, 1.0 if kind == "deep" else 0.0)
    moved = logits + style + (strength * refusal if label == "harmful" else 0.0)
    return _log_softmax(logits), _log_softmax(moved)
