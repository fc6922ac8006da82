"""Time and peak memory of scoring, against the two bare forward passes and against the naive way.

Every comparison is of one process, one pair and one shape, the variants in turn. `bare` is what any scorer must pay:
both bodies over the whole sequences and both output heads on the response positions. `naive` makes both full logits and
both log_softmax, then the same quantities, with a formula a line.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from workbench.core.passages import Passage
from workbench.models.pair import ModelPair
from workbench.tracing import metrics
from workbench.tracing.scoring import ScoreConfig, score

PROMPTS, LENGTH, RESPONSE = 8, 192, 128


@dataclass(frozen=True, kw_only=True)
class Task:
    """A pair and the sequences to score on it."""

    pair: ModelPair
    ids: Tensor
    response: int

    @property
    def context(self) -> int:
        return self.ids.shape[1] - self.response

    def items(self) -> list[Passage]:
        rows = self.ids.tolist()
        return [
            Passage(name=str(n), aligned=tuple(r[: self.context]), response=tuple(r[self.context :]))
            for n, r in enumerate(rows)
        ]  # fmt: skip


def task(pair: ModelPair, prompts: int = PROMPTS, length: int = LENGTH, response: int = RESPONSE) -> Task:
    g = torch.Generator().manual_seed(0)
    return Task(pair=pair, ids=torch.randint(8, pair.vocab, (prompts, length), generator=g), response=response)


def ours(t: Task) -> object:
    return score(t.pair, t.items(), ScoreConfig(), what=None)


def bare(t: Task) -> object:
    """Both models' own calls: the body over everything, the head on the response positions."""
    with torch.inference_mode():
        for which in ("base", "aligned"):
            with t.pair.model(which) as model:  # type: ignore[arg-type]
                # logits_to_keep is transformers' own way to send only the last positions to the head
                model(t.ids[:, :-1], use_cache=False, logits_to_keep=t.response)
    return None


def naive(t: Task) -> object:
    """Both full logits and log-probabilities, then every quantity, a formula a line."""
    logits = []
    with torch.inference_mode():
        for which in ("base", "aligned"):
            with t.pair.model(which) as model:  # type: ignore[arg-type]
                logits.append(model(t.ids[:, :-1], use_cache=False).logits)
        base, aligned = (x[:, -t.response :].float().log_softmax(-1) for x in logits)
        observed = t.ids[:, -t.response :]
        at = observed.unsqueeze(-1)
        return {
            "kl_aligned_base_nats": metrics.kl_nats(aligned, base),
            "kl_base_aligned_nats": metrics.kl_nats(base, aligned),
            "js_nats": metrics.js_nats(base, aligned),
            "excess_mass": metrics.excess_mass(base, aligned),
            "base_favored_count": metrics.base_favored_count(base, aligned),
            "entropy_base_nats": metrics.entropy_nats(base),
            "entropy_aligned_nats": metrics.entropy_nats(aligned),
            "logprob_base_nats": base.gather(-1, at),
            "logprob_aligned_nats": aligned.gather(-1, at),
            "rank_base": metrics.rank(base, observed),
            "rank_aligned": metrics.rank(aligned, observed),
            "detected": (base.exp() - aligned.exp()).topk(min(100, base.shape[-1]), -1),
            "shown": (base.topk(10, -1), aligned.topk(10, -1)),
        }


VARIANTS: dict[str, Callable[[Task], object]] = {"ours": ours, "bare": bare, "naive": naive}


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Hold how long each round took: on the clock, and in seconds of all cores, which a busy machine stretches less."""

    wall_s: list[float]
    cores_s: list[float]


def times(t: Task, rounds: int) -> dict[str, Timed]:
    """Time the variants in turn, after one warm-up of each."""
    out = {name: Timed(wall_s=[], cores_s=[]) for name in VARIANTS}
    for n in range(rounds + 1):
        for name, run in VARIANTS.items():
            gc.collect()
            wall, cores = time.perf_counter(), time.process_time()
            run(t)
            if n:
                out[name].wall_s.append(time.perf_counter() - wall)
                out[name].cores_s.append(time.process_time() - cores)
    return out


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Return median, least and greatest of a / b, round by round."""
    each = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(each), "least": min(each), "greatest": max(each), "rounds": len(each)}


def peak_mib(run: Callable[[], object]) -> float:
    """Return the peak of this process's resident memory during a call, above what it held before, MiB (Linux).

    Meant for a fresh process: memory that the allocator kept from earlier work would hide what the call needs.
    """
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
    run()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}: peak memory is measured on Linux only")
