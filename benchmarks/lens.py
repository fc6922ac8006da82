"""How fast the token lens is in a browser: first paint, hover, sliders, scrolling, and what it sends.

`python -m benchmarks.lens` prints JSON. Times are read in the page, from the event to the frame after the change.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from tests.browser.module_page import ModulePage, browser_at, module_page
from tests.trace_makers import make_response, run_record
from widgets.payload import SCALAR_BYTES
from widgets.token_lens import TokenLens
from workbench.core.quantities import QUANTITIES
from workbench.tracing.records import TraceSet

TIMES = """
() => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  window.timed = async (act) => {
    await frame();
    const start = performance.now();
    act();
    await frame();
    return performance.now() - start;
  };
}
"""
HOVER = """
async (n) => {
  const box = document.querySelector(".wb-running").getBoundingClientRect(), times = [];
  const tokens = [...document.querySelectorAll("[role=option]")].slice(0, 400).filter((token) => {
    const spot = token.getBoundingClientRect();
    return spot.top > box.top && spot.bottom < box.bottom;
  });
  for (let i = 0; i < n; i += 1) {
    const token = tokens[(i * 37) % tokens.length];
    times.push(await timed(() => token.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }))));
    if (!document.querySelector(".wb-lens-card").textContent) throw new Error("no card");
  }
  return times;
}
"""
SLIDE = """
async ([css, n]) => {
  const slider = document.querySelector(`input.${css}`), times = [];
  for (let i = 0; i < n; i += 1) {
    const before = slider.getAttribute("aria-valuetext");
    times.push(await timed(() => {
      slider.value = String((Number(slider.value) + 1) % (Number(slider.max) + 1));
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    }));
    if (slider.getAttribute("aria-valuetext") === before) throw new Error("nothing changed");
  }
  return times;
}
"""
FILL = """
async () => {
  const select = document.querySelector("select.wb-fill"), times = [];
  for (const option of [...select.options].slice(1)) {
    times.push(await timed(() => {
      select.value = option.value;
      select.dispatchEvent(new Event("change", { bubbles: true }));
    }));
  }
  return times;
}
"""
SCROLL = """
async (n) => {
  const text = document.querySelector(".wb-running"), times = [];
  for (let i = 1; i <= n; i += 1) times.push(await timed(() => { text.scrollTop = (text.scrollHeight * i) / n; }));
  const last = document.querySelectorAll("[role=option]");
  return { times, built: last.length, end: text.scrollTop + text.clientHeight >= text.scrollHeight - 2 };
}
"""
START = """
async (source) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const module = await import(url);
  await new Promise((done) => requestAnimationFrame(done));
  const start = performance.now();
  module.default.render({ model: window.model, el: document.getElementById("el") });
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - start;
}
"""


def made_up(tokens: int, *, k: int = 10, vocab: int = 4_000, seed: int = 0) -> TraceSet:
    """Return a record of one response: random scores of plausible size, made-up words, a line break now and then."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab, (1, tokens)).astype(np.int32)
    pieces = tuple("\n" if i % 97 == 0 else f" w{i}" for i in ids[0].tolist())
    top = np.argsort(rng.random((tokens, vocab // 10)), axis=1)[None, :, : 2 * k].astype(np.int32)
    drawn = (rng.dirichlet(np.full(2 * k, 0.3), (1, tokens)) for _ in "ba")
    on_base, on_aligned = (np.log(p + 1e-9).astype(np.float32) for p in drawn)
    one = {name: rng.gamma(0.5, 0.4, (1, tokens)).astype(np.float32) for name in ("kl", "reverse", "js", "eb", "ea")}
    excess = rng.beta(0.4, 2, (1, tokens)).astype(np.float32)
    base, aligned = (-rng.gamma(1, 1.5, (1, tokens)).astype(np.float32) for _ in "ba")
    no = np.zeros((1, tokens), bool)
    scalars = {
        **dict.fromkeys(QUANTITIES, one["js"]),
        "kl_aligned_base_nats": one["kl"], "kl_base_aligned_nats": one["reverse"],
        "excess_mass": excess, "retention": 1 - excess, "entropy_base_nats": one["eb"],
        "entropy_aligned_nats": one["ea"], "logprob_base_nats": base, "logprob_aligned_nats": aligned,
        "logprob_shift_nats": aligned - base,
        **{n: rng.integers(1, 100, (1, tokens)).astype(np.int32) for n, q in QUANTITIES.items() if q.count},
    }  # fmt: skip
    return TraceSet(
        run=run_record(), prompt_set="made up", classroom_safe=True, template_mode="shared", count_space="aligned_topk",
        ranking="mass", warnings=(), responses=(make_response("p1", "harmless"),), pieces=(pieces,), token_ids=ids,
        mask=~no, partial=no, special=no, topk_ids=top, topk_logprob_base_nats=on_base,
        topk_logprob_aligned_nats=on_aligned, entropy_floor_nats=0.1, scalars=scalars,
        detected_response=np.zeros(0, np.int32),
        detected_token=np.zeros(0, np.int32), detected_count=np.zeros(0, np.int32),
        detected_mass=np.zeros(0, np.float32), noise_kl_nats=np.zeros((0, tokens), np.float32),
        label_ids=np.arange(vocab, dtype=np.int32), labels=tuple(f"·w{i}" for i in range(vocab)),
    )  # fmt: skip


def _said(times: list[float]) -> dict[str, float]:
    return {"median_ms": round(statistics.median(times), 1), "most_ms": round(max(times), 1), "n": len(times)}


def _paint(browser: Browser, lens: TokenLens, rounds: int) -> list[float]:
    """Return the time from the module's start to the frame with the text, in pages of their own."""
    times = []
    for _ in range(rounds):
        with module_page(browser, module="export default { render() {} }", css=str(lens.face._css)) as bare:
            bare.tell(**_state(lens))
            times.append(bare.page.evaluate(START, str(lens.face._esm)))
            assert bare.page.locator("[role=option]").count() > 300
    return times


def _state(lens: TokenLens) -> dict[str, Any]:
    return {name: getattr(lens.face, name) for name in ("lens", "columns", "state", "asked", "error")}


def _acts(opened: ModulePage, hovers: int, slides: int) -> dict[str, Any]:
    page = opened.page
    page.evaluate(TIMES)
    page.wait_for_timeout(1500)  # until what is built when there is time is built
    out: dict[str, Any] = {"hover": _said(page.evaluate(HOVER, hovers)), "fill": _said(page.evaluate(FILL))}
    for css in ("wb-minimum-base", "wb-ratio", "wb-top-k"):
        out[f"slider {css.removeprefix('wb-')}"] = _said(page.evaluate(SLIDE, [css, slides]))
    page.evaluate("document.querySelector('input.wb-only-sampled').click()")
    out["slider minimum-base, only sampled"] = _said(page.evaluate(SLIDE, ["wb-minimum-base", slides]))
    scrolled = page.evaluate(SCROLL, 40)
    assert scrolled["end"]
    out["scroll"] = _said(scrolled["times"])
    out["tokens_built"] = scrolled["built"]
    return out


def measure(sizes: tuple[int, ...] = (10_000, 100_000), rounds: int = 5) -> dict[str, Any]:
    """Return the times and bytes of lenses over made-up records of these sizes, in a headless Chromium."""
    chromium = next((p for name in ("chromium", "google-chrome") if (p := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("no Chromium here: install it (Debian: apt-get install chromium) and run this again")
    out: dict[str, Any] = {}
    with browser_at(chromium) as browser:
        for tokens in sizes:
            lens = TokenLens(made_up(tokens))
            sent = len(lens.face.columns[0])
            result: dict[str, Any] = {
                "scalar_bytes_a_token": SCALAR_BYTES,
                "all_bytes_a_token": round(sent / tokens, 1),
                "first_paint": _said(_paint(browser, lens, rounds)),
            }
            with module_page(browser, lens.face) as opened:
                result |= _acts(opened, hovers=40, slides=12)
                assert opened.problems == []
            out[f"{tokens} tokens"] = result
    return out


if __name__ == "__main__":
    print(json.dumps(measure(tuple(map(int, sys.argv[1:])) or (10_000, 100_000)), indent=1))
