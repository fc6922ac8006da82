"""Checks of a pair on a device, each with what is expected: `make gpu`, `make gpu DEVICE=cpu PAIR=embedded`.

On the day that there is a GPU this measures what a CPU cannot; on a CPU the same checks run with a small pair, so that
only the device is missing. Results go to benchmarks/gpu.json; `python -m docs.making.parts --write` makes the page.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

import workbench as wb
from benchmarks.reads import Reads
from workbench.core.errors import WorkbenchError
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.contexts import DecodeConfig
from workbench.models.generation import GenerateConfig, generate
from workbench.models.noise import Noise
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.models.presets import PRESET_NAMES
from workbench.prompts.loading import PromptSet

RESULTS = Path(__file__).with_name("gpu.json")
PROMPTS, TOKENS = 8, 32
BATCHES = (1, 16)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: what was expected, what was found, and whether it holds; None where it could not be measured here."""

    name: str
    expected: str
    found: str
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The pair under test in float32 and in the device's own dtype, and prompts to ask."""

    config: PairConfig
    exact: ModelPair
    own: ModelPair
    prompts: PromptSet

    @property
    def device(self) -> torch.device:
        return self.own.device

    def contexts(self, n: int = PROMPTS) -> list[tuple[int, ...]]:
        rows = [self.exact.context(p) for p in self.prompts]
        return [rows[i % len(rows)] for i in range(n)]


def seconds(run: Callable[[], object], device: torch.device, rounds: int = 3) -> float:
    """Return the median wall seconds of a run, the device's work included; one run before is not counted."""
    taken = []
    for _ in range(rounds + 1):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def peak_mib(run: Callable[[], object], device: torch.device) -> float | None:
    """Return the MiB that a run needs beside what is there, on a GPU; None on a CPU, where torch does not count."""
    if device.type != "cuda":
        run()
        return None
    _wait(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    _wait(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ------------------------------------------------------------------------------------------------------- checks


def own_dtype(b: Bench) -> Check:
    half = b.own if b.own.dtype != torch.float32 else load_pair(dataclasses.replace(b.config, dtype="bfloat16"))
    kl = [wb.trace(p, b.prompts, max_tokens=TOKENS, store=Store(None)) for p in (b.exact, half)]
    both = kl[0].mask & kl[1].mask
    off = abs(kl[0].kl_aligned_base_nats - kl[1].kl_aligned_base_nats)[both]
    name = str(half.dtype).removeprefix("torch.")
    return Check(
        name=f"KL in {name} against float32", expected="differs by 0.05 nats or less on average",
        found=f"{off.mean():.4f} nats on average, {off.max():.3f} at most, n = {off.size} positions",
        holds=bool(off.mean() <= 0.05),
    )  # fmt: skip


def batched(b: Bench) -> Check:
    how = GenerateConfig(max_tokens=TOKENS)
    together = [g.ids for g in generate(b.exact, "aligned", b.contexts(), how)]
    alone = [generate(b.exact, "aligned", [c], how)[0].ids for c in b.contexts()]
    same = sum(x == y for x, y in zip(together, alone, strict=True))
    return Check(
        name="greedy text in a batch against alone", expected="equal, token for token",
        found=f"{same} of {len(alone)} equal", holds=same == len(alone),
    )  # fmt: skip


def strength_zero(b: Bench) -> Check:
    how = GenerateConfig(max_tokens=TOKENS)
    plain = [list(g.ids) for g in generate(b.own, "aligned", b.contexts(), how)]
    made = wb.decode(b.own, b.contexts(), DecodeConfig(penalty=PenaltyConfig(strength=0.0), generation=how))
    same = sum(made.token_ids[i][made.mask[i]].tolist() == ids for i, ids in enumerate(plain))
    return Check(
        name="strength 0 against plain generation", expected="equal, token for token",
        found=f"{same} of {len(plain)} equal", holds=same == len(plain),
    )  # fmt: skip


def sampler(b: Bench) -> Check:
    keys = list(range(1, 5))
    noise = [Noise(keys, d).exponential(b.own.vocab).cpu() for d in (b.device, torch.device("cpu"))]
    how = GenerateConfig(max_tokens=TOKENS, temperature=1.0, seed=3)
    together = [g.ids for g in generate(b.exact, "aligned", b.contexts(), how)]
    alone = [generate(b.exact, "aligned", [c], how)[0].ids for c in b.contexts()]
    bits, same = torch.equal(*noise), sum(x == y for x, y in zip(together, alone, strict=True))
    return Check(
        name="sampling", expected="the same noise as on a CPU, bit for bit; the same draw in any batch",
        found=f"noise {'equal' if bits else 'differs'}; {same} of {len(alone)} draws equal",
        holds=bits and same == len(alone),
    )  # fmt: skip


def speed(b: Bench) -> Check:
    endless = dataclasses.replace(b.own, eos_ids=frozenset())
    how, penalty = GenerateConfig(max_tokens=TOKENS), PenaltyConfig(strength=2.0)
    said, rates = [], []
    for rows in BATCHES:
        asked = b.contexts(rows)
        plain = seconds(lambda asked=asked: generate(endless, "aligned", asked, how), b.device)
        pushed = DecodeConfig(penalty=penalty, generation=how)
        both = seconds(lambda asked=asked, pushed=pushed: wb.decode(endless, asked, pushed), b.device)
        rates.append(rows * TOKENS / plain)
        said.append(f"batch {rows}: {rates[-1]:,.0f} tokens/s, penalised {rows * TOKENS / both:,.0f}")
    return Check(
        name="speed of decoding", expected=f"batch {BATCHES[1]} gives at least twice the tokens of batch 1",
        found="; ".join(said), holds=rates[1] >= 2 * rates[0],
    )  # fmt: skip


def reads(b: Bench) -> Check:
    endless = dataclasses.replace(b.own, eos_ids=frozenset())
    counts = []
    for tokens in (3, 7):
        with Reads() as counted:
            generate(endless, "aligned", b.contexts(4), GenerateConfig(max_tokens=tokens))
        counts.append(counted.count)
    each = (counts[1] - counts[0]) / 4
    return Check(
        name="reads of the device in a decoding step", expected="1 (the loop's own stop)",
        found=f"{each:g}", holds=each <= 1,
    )  # fmt: skip


def scoring(b: Bench) -> Check:
    rows = [b.own.passage(p) for p in b.prompts]
    ids = [torch.tensor([p.whole("aligned")], device=b.device) for p in rows]

    def bare() -> None:
        with torch.inference_mode():
            for which in ("base", "aligned"):
                for row in ids:
                    b.own.hidden(which, row)  # type: ignore[arg-type]

    def ours() -> None:
        wb.trace(b.own, b.prompts, trajectory="teacher_forced", max_tokens=TOKENS, store=Store(None))

    ratio, peak = seconds(ours, b.device) / seconds(bare, b.device), peak_mib(ours, b.device)
    whole = sum(len(p.response) for p in rows) * b.own.vocab * 4 * 2 / 2**20
    memory = "peak not measured on a CPU" if peak is None else f"peak {peak:,.0f} MiB"
    return Check(
        name="scoring", expected=f"below {whole:,.0f} MiB, what all logits of these prompts would take",
        found=f"{memory}; {ratio:.2f} of the bare passes one by one, own answers and notes included",
        holds=None if peak is None else peak < whole,
    )  # fmt: skip


def training(b: Bench) -> Check:
    texts = wb.training_texts(b.own, b.prompts, harmful_from="given", utility_from="given", store=Store(None))
    allowed = torch.backends.cuda.matmul.allow_tf32
    made: list[tuple[bool, float, float | None, float]] = []

    def train(tf32: bool) -> None:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        how = wb.TrainConfig(arm="augmentation", steps=4, batch_size=4, watch=wb.WatchSettings(film_every=0))
        done: list[Any] = []
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            peak = peak_mib(lambda: done.append(wb.distil(b.own, texts, how, out=folder)), b.device)
            made.append((tf32, done[0].preflight.memory_mib, peak, time.perf_counter() - started))

    for tf32 in (False, True) if b.device.type == "cuda" else (allowed,):
        train(tf32)
    torch.backends.cuda.matmul.allow_tf32 = allowed
    said = "; ".join(
        f"{'TF32 ' if tf32 else ''}estimate {guess:,.0f} MiB, peak {'not measured' if p is None else f'{p:,.0f} MiB'}"
        f", {took:.1f} s with its look before"
        for tf32, guess, p, took in made
    )
    measured = [(e, p) for _, e, p, _ in made if p is not None]
    return Check(
        name="training, 4 steps of 4 rows", expected="the peak is within 20 % of the estimate", found=said,
        holds=all(abs(e / p - 1) <= 0.2 for e, p in measured) if measured else None,
    )  # fmt: skip


def placement(b: Bench) -> Check:
    said = [n for n in b.own.notes if "eights" in n]
    return Check(
        name="placement", expected="said in a note of the pair", found=" ".join(said) or "no note", holds=bool(said)
    )


def suffix_search(b: Bench) -> Check:
    from workbench.evaluation.attacks import GCG, attack
    from workbench.evaluation.attacks.suffixes import searches
    from workbench.tracing.suffix.search import Budget

    budget = Budget(steps=4, candidates=8, top_k=16, buffer=0, save_every=4)
    asked = dataclasses.replace(b.prompts, prompts=tuple(p for p in b.prompts if p.label == "harmful")[:1])
    started = time.perf_counter()
    made = attack(b.own, asked, GCG(budget=budget, max_tokens=16, escalations=0), store=Store(None))
    (found,) = searches(made)
    return Check(
        name="suffix search (GCG), 4 steps", expected="the target's loss does not rise",
        found=f"{found.loss[0]:.3f} to {found.loss[-1]:.3f} nats in {time.perf_counter() - started:.1f} s",
        holds=bool(found.loss[-1] <= found.loss[0]),
    )  # fmt: skip


def smaller(b: Bench) -> Check:
    """Load the pair with base in memory, and on a GPU in 4 bits, and compare KL with the whole pair's."""
    how: dict[str, Any] = {"trajectory": "teacher_forced", "max_tokens": 8, "prefix_tokens": (0,), "store": Store(None)}
    want = wb.trace(b.own, b.prompts, **how)
    said, right = [], []
    ways: list[dict[str, Any]] = [{"offload_base": True}]
    ways += [{"experimental_quantised": "4bit"}] if b.device.type == "cuda" else []
    for way in ways:
        try:
            pair = load_pair(dataclasses.replace(b.config, **way))
        except WorkbenchError as error:
            said.append(f"{next(iter(way))}: {error}")
            continue
        got = wb.trace(pair, b.prompts, **how)
        off = float(abs(got.kl_aligned_base_nats - want.kl_aligned_base_nats)[want.mask].mean())
        said.append(f"{next(iter(way))}: KL differs by {off:.4f} nats on average")
        right.append(off <= (0.5 if "experimental_quantised" in way else 0.01))
    return Check(
        name="base in memory; 4 bits", expected="KL as the whole pair's (0.01 nats; 4 bits: 0.5)",
        found="; ".join(said), holds=all(right) if right else None,
    )  # fmt: skip


CHECKS = (
    own_dtype, batched, strength_zero, sampler, speed, reads, scoring, training, placement, suffix_search, smaller
)  # fmt: skip


def run(base: PairConfig, device: str, prompts: str) -> list[Check]:
    """Run every check on a pair; one that fails with an error says it, and the rest goes on."""
    config = dataclasses.replace(base, device=device)
    own = load_pair(config)
    exact = own if own.dtype == torch.float32 else load_pair(dataclasses.replace(config, dtype="float32"))
    asked = wb.load_prompts(source=prompts, limit=PROMPTS * 3)
    bench = Bench(config=config, exact=exact, own=own, prompts=asked)
    made = []
    for check in CHECKS:
        try:
            one = check(bench)
        except Exception as error:
            last = traceback.format_exception_only(error)[-1].strip()
            one = Check(name=check.__name__, expected="an answer", found=f"an error: {last[:300]}", holds=False)
        made.append(one)
        mark = {True: "holds", False: "FAILS", None: "not measured"}[one.holds]
        print(f"{mark:<13} {one.name}: {one.found} (expected: {one.expected})", flush=True)
    return made


def main() -> int:
    """Run the checks, keep them with date and device, and return 1 where one fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Check a pair on a device.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, cpu")
    parser.add_argument("--pair", default="embedded", help="a preset, or BASE,ALIGNED")
    parser.add_argument("--prompts", default="embedded", help="a built-in set or a file, with responses")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    named = asked.pair in PRESET_NAMES
    base, _, aligned = asked.pair.partition(",")
    config = PairConfig(preset=asked.pair) if named else PairConfig(base=base, aligned=aligned)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no NVIDIA GPU here: try make gpu DEVICE=cpu", file=sys.stderr)
        return 2
    made = run(config, asked.device, asked.prompts)
    name = torch.cuda.get_device_name(asked.device) if asked.device.startswith("cuda") else platform.machine()
    kept = json.loads(asked.out.read_text("utf-8")) if asked.out.exists() else {}
    kept[f"{asked.pair} on {asked.device.partition(':')[0]}"] = {
        "date": date.today().isoformat(), "device": name, "torch": torch.__version__,
        "checks": [dataclasses.asdict(one) for one in made],
    }  # fmt: skip
    asked.out.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 1 if any(one.holds is False for one in made) else 0


if __name__ == "__main__":
    sys.exit(main())
