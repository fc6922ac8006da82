"""The live page: the embedded pair in one HTML file, for any browser. `python -m docs.making.live FILE` writes it."""

from __future__ import annotations

import gzip
import json
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from workbench.core.quantities import quantity_named
from workbench.display.views.scales import scale_html
from workbench.display.views.view import beside_script, style_text
from workbench.prompts.loading import Prompt, load_prompts

ROOT = Path(__file__).resolve().parents[2]
PAIR = ROOT / "workbench" / "models" / "embedded"
PARTS = ROOT / "docs" / "live"
FILLS = {"kl": ("kl_aligned_base_nats", "KL(arm ‖ aligned), nats"), "retention": ("retention", None)}


def page() -> str:
    """Return the page: weights, tokenizer, examples and scripts inside."""
    held = json.dumps(_held(), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    legends = "".join(
        f'<div class="wb-legend-of" data-of="{key}">{scale_html(quantity_named(name), title)}</div>'
        for key, (name, title) in FILLS.items()
    )
    scripts = beside_script() + "".join((PARTS / name).read_text("utf-8") for name in ("model.js", "page.js"))
    text = (PARTS / "page.html").read_text("utf-8")
    for mark, part in (("STYLE", style_text()), ("LEGENDS", legends), ("SCRIPTS", scripts), ("HELD", held)):
        text = text.replace(mark, part, 1)
    return text


def examples() -> list[Prompt]:
    """Return a held-out harmful prompt of each kind, the shallowest first, and three harmless twins."""
    prompts = [p for p in load_prompts(source="embedded") if p.split == "heldout"]
    kinds: dict[str | None, Prompt] = {}
    for one in sorted((p for p in prompts if p.label == "harmful"), key=lambda p: p.depth or float("inf")):
        kinds.setdefault(one.category, one)
    harmful = list(kinds.values())
    twins = {p.id: p for p in prompts if p.label == "harmless"}
    return [*harmful, *(twins[p.pair_id] for p in harmful[:3] if p.pair_id in twins)]


def _held() -> dict[str, Any]:
    def packed(path: Path) -> str:
        return b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()

    def read(path: Path) -> Any:
        return json.loads(path.read_text("utf-8"))

    fills = {key: quantity_named(name) for key, (name, _) in FILLS.items()}
    tokenizer = read(PAIR / "aligned" / "tokenizer.json")
    return {
        "tokenizer": {"model": tokenizer["model"], "added_tokens": tokenizer["added_tokens"]},
        "config": read(PAIR / "aligned" / "config.json"),
        "adapter": read(PAIR / "completed" / "adapter_config.json"),
        "weights": {
            "base": packed(PAIR / "base" / "model.safetensors"),
            "aligned": packed(PAIR / "aligned" / "model.safetensors"),
            "completed": packed(PAIR / "completed" / "adapter_model.safetensors"),
        },
        "examples": [{"prompt": p.prompt, "label": p.label, "category": p.category} for p in examples()],
        "fills": {k: {"edges": q.edges, "css": [q.css(level) for level in range(6)]} for k, q in fills.items()},
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
