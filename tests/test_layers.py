"""The layers at which two models part, against a plain loop over transformers' own hidden states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from tests.errors import refuses
from tests.test_odd_models import wrapped_pair
from tests.tiny_pair import ARCHITECTURES, Arch, tiny_adapter, tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import NonFiniteLogits, PairError, PromptError
from workbench.core.records import load, save
from workbench.display import figures
from workbench.evaluation.rows import rows_of
from workbench.models.pair import ModelPair
from workbench.models.weights import body_of
from workbench.prompts.loading import Prompt, PromptSet
from workbench.tracing.layers import trace_layers
from workbench.tracing.parting import layer_rows, parting_layer
from workbench.tracing.records import LayerTrace
from workbench.tracing.traces import trace

RESPONSES = ("the dog sat on the log", "Sure, here is a story about the sea.", "no")


def asked(*responses: str) -> PromptSet:
    each = (Prompt(id=f"p{n}", prompt=f"story {n}", label="harmful", response=r) for n, r in enumerate(responses))
    return PromptSet(name="given", source="test", prompts=tuple(each))


def naive(pair: ModelPair, one: PromptSet, norm: dict[str, str]) -> dict[str, np.ndarray]:
    """Read both models with transformers' own output_hidden_states, a position and a layer at a time."""
    (prompt,) = one
    passage = pair.passage(prompt)
    logps, last = {}, {}
    for which in ("base", "aligned"):
        with pair.model(which) as model, torch.no_grad():  # type: ignore[arg-type]
            body = body_of(model)
            ids = torch.tensor([passage.whole(which)])  # type: ignore[arg-type]
            out = body(input_ids=ids, output_hidden_states=True, use_cache=False)
            # transformers gives the last state normalised, all others as they leave a block
            states = [body.get_submodule(norm[which])(h) for h in out.hidden_states[1:-1]] + [out.hidden_states[-1]]
            at = slice(len(passage.context(which)) - 1, -1)  # type: ignore[arg-type]
            logps[which] = torch.stack([pair.logits(which, s[0, at]).float().log_softmax(-1) for s in states], 1)  # type: ignore[arg-type]
            last[which] = logps[which][:, -1].argmax(-1)
    a, b = logps["aligned"], logps["base"]
    made = {"excess_mass": (a.exp() - b.exp()).clamp(min=0).sum(-1)}
    for name, ids in (("rank_base", last["base"]), ("rank_opening", last["aligned"][:1].expand(len(a)))):
        order = a.argsort(-1, descending=True)
        made[name] = (order == ids[:, None, None]).int().argmax(-1).float() + 1
    return {name: x.numpy() for name, x in made.items()}


NORMS: dict[Arch, str] = dict.fromkeys(ARCHITECTURES, "norm") | {"gpt2": "ln_f"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_equals_a_plain_loop(arch: Arch) -> None:
    pair, some = tiny_pair(arch), asked(*RESPONSES)
    found = trace_layers(pair, some)
    assert found.layers == 2
    assert found.mask.sum(1).tolist() == [len(pair.encode(r)) for r in RESPONSES]
    norms = dict.fromkeys(("base", "aligned"), NORMS[arch])
    for n, prompt in enumerate(some):
        want = naive(pair, PromptSet(name="one", source="test", prompts=(prompt,)), norms)
        for name, values in want.items():
            np.testing.assert_allclose(getattr(found, name)[n, : len(values)], values, atol=2e-5, err_msg=name)


def test_an_adapter_and_a_vision_wrapper_are_read_too(tmp_path: Path) -> None:
    base, _ = tiny_models("llama")
    pair = ModelPair.from_models(base, base, tiny_tokenizer()).with_aligned(str(tiny_adapter(tmp_path / "a", base)))
    want = naive(pair, asked(RESPONSES[0]), dict.fromkeys(("base", "aligned"), "norm"))
    found = trace_layers(pair, asked(RESPONSES[0]))
    np.testing.assert_allclose(found.excess_mass[0], want["excess_mass"], atol=2e-5)
    assert found.excess_mass.max() > 0
    wrapped, alone = wrapped_pair()
    a, b = (trace_layers(p, asked(*RESPONSES)) for p in (wrapped, alone))
    np.testing.assert_allclose(a.excess_mass, b.excess_mass, atol=1e-5)


def test_the_last_layer_is_what_the_engine_scores() -> None:
    pair, some = wb.load_pair(preset="embedded"), wb.load_prompts(source="embedded", limit=9)
    found, scored = trace_layers(pair, some, limit=3, max_tokens=20), trace(pair, some, max_tokens=21)
    order = [[r.prompt_id for r in scored.responses].index(i) for i in found.prompt_ids]
    np.testing.assert_allclose(found.excess_mass[..., -1], scored.excess_mass[order, :20], atol=1e-5)
    assert {o.strip() for o, label in zip(found.openings, found.labels, strict=True) if label == "harmful"} == {"I"}
    at_start = found.rank_opening[:, 0, -1]
    assert (at_start == 1).all()  # the opening token is what aligned likes best there
    parted = parting_layer(found)
    assert parted.n == 3
    assert 1 <= parted.low <= parted.value <= parted.high <= 4


def test_one_model_with_itself_never_parts() -> None:
    model, _ = tiny_models("llama")
    found = trace_layers(ModelPair.from_models(model, model, tiny_tokenizer()), asked(*RESPONSES))
    assert np.nanmax(found.excess_mass) == 0
    assert parting_layer(found).value is None
    assert parting_layer(found, label="harmless").n == 0


def test_batches_resume_and_records_and_rows_hold_the_numbers(tmp_path: Path) -> None:
    pair, some, store = tiny_pair(), asked(*RESPONSES), wb.Store(tmp_path / "cache")
    one = trace_layers(pair, some, store=store, batch_tokens=1)
    again = trace_layers(pair, some, store=store)  # read from the store
    np.testing.assert_array_equal(one.excess_mass, again.excess_mass)
    np.testing.assert_allclose(one.excess_mass, trace_layers(pair, some).excess_mass, atol=1e-5)
    assert load(save(one, tmp_path / "layers"), LayerTrace) == one
    rows = rows_of(one)
    assert rows == layer_rows(one)
    row = next(r for r in rows if r.name == "layer_rank_base" and r.layer == 2 and r.position == 2)
    assert row.value == pytest.approx(np.exp(np.nanmean(np.log(one.rank_base[:, 1, 1]))), rel=1e-5)
    assert (row.unit, row.n) == ("rank", int(one.mask[:, 1].sum()))
    drawn = figures.layers(one)
    assert drawn.layout.meta["rows"][0][2] == pytest.approx(float(np.nanmean(one.excess_mass[:, 0, 0])), rel=1e-5)
    assert "no harmless prompt" in figures.layers(one, "harmless").layout.annotations[0].text


def test_what_cannot_be_read_is_refused() -> None:
    pair = tiny_pair()
    refuses(lambda: trace_layers(pair, asked("", "")), PromptError, "no responses")
    base, _ = tiny_models("llama")
    other, _ = tiny_models("llama")
    other.model.layers = other.model.layers[:1]
    other.config.num_hidden_layers = 1
    short = ModelPair.from_models(base, other, tiny_tokenizer())
    refuses(lambda: trace_layers(short, asked(*RESPONSES)), PairError, "2 layers", "1")
    base.model.norm = torch.nn.Identity()
    unlike = ModelPair.from_models(base, base, tiny_tokenizer())
    base.config.num_hidden_layers = 7
    refuses(lambda: trace_layers(unlike, asked(*RESPONSES)), PairError, "final norm")
    broken = tiny_pair()
    with broken.model("aligned") as model, torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(torch.nan)
    refuses(lambda: trace_layers(broken, asked(*RESPONSES)), NonFiniteLogits, "layer 2", "position 1")


def test_a_report_says_that_a_set_without_responses_has_no_layers() -> None:
    report = wb.Report("Diagnosis", {"__annotations__": {"seed": int}, "seed": 0})
    assert report.attempt(trace_layers, tiny_pair(), asked("", ""), section="Layers") is None
    assert "no responses" in str(report.show(None, section="Layers"))
