"""Pairs with the traits that families differ in: the first notebook runs to its end, and its KL is a slow reference's.

`make families` does this with real tokenizers; here tokenizers and templates are our own, with the same traits.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.notebook_cells import run_cells
from tests.test_odd_models import made, shifted, wrapped_pair
from tests.tiny_pair import CHAT_TEMPLATE, save_model, tiny_models, tiny_tokenizer
from workbench.models.pair import ModelPair
from workbench.tracing.records import TraceSet

OPENED = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
TEXTS = (
    ("How do I open a jar?", "First hold the jar, then turn the lid until it opens."),
    ("Name a colour of the sea.", "Grey, and a kind of violet that fades into the night."),
    ("Write a line about tea.", "Tea is warm, and the cup is warm as well."),
)


def written(trait: str, folder: Path) -> tuple[Path, Path]:
    """Write base and aligned with a trait, as a user has them: two folders."""
    template = OPENED if trait == "thinking" else CHAT_TEMPLATE
    match trait:
        case "dense" | "thinking":
            models = tiny_models("llama" if trait == "dense" else "qwen3")
        case "padded head":
            models = tiny_models("qwen2", head_rows=(352, 384))
        case "mixture":
            base = made("mixtral", num_local_experts=4)
            models = (base, shifted(base))
        case _:  # a vision wrapper
            wrapper = wrapped_pair()[0]
            with wrapper.model("base") as base, wrapper.model("aligned") as aligned:
                models = (base, aligned)
    places = (folder / "base", folder / "aligned")
    for place, model in zip(places, models, strict=True):
        save_model(place, model, tiny_tokenizer(template=template))
    return places


def direct_kl(pair: ModelPair, context: list[int], response: list[int]) -> torch.Tensor:
    """Return KL(aligned || base) in nats at each position of a response, by one uncached pass of each model."""
    found = []
    for which in ("aligned", "base"):
        with torch.inference_mode(), pair.model(which) as model:
            logits = model(input_ids=torch.tensor([[*context, *response]]), use_cache=False).logits[0].double()
        found.append(logits[len(context) - 1 : -1, : pair.vocab].log_softmax(-1))
    return (found[0].exp() * (found[0] - found[1])).sum(-1)


@pytest.mark.parametrize("trait", ["dense", "padded head", "mixture", "thinking", "vision wrapper"])
def test_the_first_notebook_runs_whole(trait: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, aligned = written(trait, tmp_path)
    rows = [
        {"prompt": f"{start}{p}", "response": r, "label": "harmful" if i % 2 else "harmless"}
        for start in ("", "Please: ")
        for i, (p, r) in enumerate(TEXTS)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    asked = {"base": str(base), "aligned": str(aligned), "prompts": "prompts.jsonl", "max_tokens": 12, "out": "run"}
    space = run_cells("01_diagnosis", {**asked, "prefix_tokens": [0, 4]})
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))["rows"]
    pair, traces, prompts = space["models"], space["traces"], {p.id: p for p in space["prompt_set"]}
    assert isinstance(traces, TraceSet)
    assert pair.vocab == {"padded head": 352}.get(trait, 320)
    for i, response in enumerate(traces.responses[:3]):
        context = list(pair.context(prompts[response.prompt_id]))
        assert pair.decode(context).endswith("</think>\n\n") == (trait == "thinking")
        want = direct_kl(pair, context, traces.token_ids[i][traces.mask[i]].tolist())
        got = torch.tensor(traces.kl_aligned_base_nats[i][traces.mask[i]]).double()
        torch.testing.assert_close(got, want, atol=2e-4, rtol=2e-3)
