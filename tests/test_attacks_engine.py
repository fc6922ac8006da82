"""An engine in the place of our generator, against a stand-in with vLLM's documented interface (no vLLM runs here)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.errors import refuses
from tests.tiny_pair import save_model, tiny_models, tiny_pair, tiny_tokenizer
from workbench.core.errors import ContextOverflow, NonFiniteLogits, NotPresent, ParameterError, PromptError, UnknownName
from workbench.core.passages import Ids, Passage
from workbench.core.store import Store
from workbench.evaluation.attacks import NoAttack, answer, attack
from workbench.evaluation.attacks import engine as engine_room
from workbench.evaluation.attacks.answer import Arm
from workbench.evaluation.attacks.engine import EngineArm, VllmEngine, agreement_rows, greedy_agreement
from workbench.evaluation.attacks.finetuning import BenignTuning
from workbench.evaluation.evaluate import evaluate
from workbench.evaluation.setup import arms_of
from workbench.models.generation import GenerateConfig, generate
from workbench.models.pair import ModelPair, PairConfig, load_pair
from workbench.prompts.loading import Prompt, PromptSet

CONTEXTS = [(5, 9, 20 + n, 31) for n in range(6)]
PASSAGES = [Passage(name=str(n), aligned=c) for n, c in enumerate(CONTEXTS)]


@pytest.fixture(scope="module")
def pair() -> ModelPair:
    return tiny_pair("llama")


@dataclass
class StandIn:
    """Answer as vLLM would, with our own model; `wrong` changes one token of some continuations."""

    pair: ModelPair
    version: str = "0"
    wrong: int = 0
    reason: str | None = None
    asked: list[tuple[Ids, dict[str, Any]]] = field(default_factory=list)

    def generate(self, contexts: Sequence[Ids], settings: Sequence[dict[str, Any]]) -> list[Any]:
        out = []
        for context, wish in zip(contexts, settings, strict=True):
            self.asked.append((tuple(context), wish))
            (made,) = generate(
                self.pair, "aligned", [context], GenerateConfig(max_tokens=wish["max_tokens"]), what=None
            )
            ids = list(made.ids)
            if len(self.asked) <= self.wrong:
                ids[3] = (ids[3] + 1) % 300
            finish = self.reason or ("length" if made.stop == "length" else "stop")
            out.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason=finish)]))
        return out


def test_an_engine_continues_as_our_generator_and_differences_are_counted(pair: ModelPair) -> None:
    arm = EngineArm(pair=pair, which="aligned", engine=StandIn(pair))
    assert isinstance(arm, Arm)
    assert arm.name == "aligned (vLLM)"
    config = GenerateConfig(max_tokens=12)
    told: list[tuple[int, int]] = []
    made = arm.continue_(PASSAGES, config, store=Store(None), on_token=lambda n, t: told.append((n, t)))
    assert made == generate(pair, "aligned", CONTEXTS, config, what=None)
    assert told == [(n, t) for n, one in enumerate(made) for t in one.ids]
    found = greedy_agreement(arm, PASSAGES, max_tokens=8)
    assert (found["continuations"].value, found["continuations"].n, found["tokens"].value) == (1.0, 6, 1.0)
    found = greedy_agreement(
        EngineArm(pair=pair, which="aligned", engine=StandIn(pair, wrong=2)), PASSAGES, max_tokens=8
    )
    assert found["continuations"].value == pytest.approx(4 / 6)
    lengths = [len(g.ids) for g in generate(pair, "aligned", CONTEXTS, GenerateConfig(max_tokens=8), what=None)]
    assert found["tokens"].n == sum(lengths)
    assert found["tokens"].value == pytest.approx((2 * 3 + sum(lengths[2:])) / sum(lengths))
    assert str(found["continuations"]).startswith("0.667 [")


def test_the_engine_is_asked_once_with_its_own_settings(pair: ModelPair, tmp_path: Path) -> None:
    engine = StandIn(pair)
    arm = EngineArm(pair=pair, which="aligned", engine=engine)
    drawn = GenerateConfig(max_tokens=4, temperature=0.7, top_p=0.9, top_k=5, stop=("x",), stop_ids=(7,), seed=3)
    arm.continue_(PASSAGES[:2], drawn, store=Store(None))
    (context, wish), (_, other) = engine.asked
    seed = wish.pop("seed")
    assert context == CONTEXTS[0]
    assert wish == {
        "max_tokens": 4, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "stop": ["x"],
        "stop_token_ids": sorted({*pair.eos_ids, 7}),
    }  # fmt: skip
    assert isinstance(seed, int)
    assert seed != other["seed"]
    engine.asked.clear()
    arm.continue_(PASSAGES[:1], drawn, store=Store(None))
    assert engine.asked[0][1]["seed"] == seed
    engine.asked.clear()
    arm.continue_(PASSAGES[:1], GenerateConfig(max_tokens=4), store=Store(None))
    assert (engine.asked[0][1]["seed"], engine.asked[0][1]["top_k"]) == (None, -1)
    engine = StandIn(pair)
    arm, config = EngineArm(pair=pair, which="aligned", engine=engine), GenerateConfig(max_tokens=5)
    first = arm.continue_(PASSAGES[:3], config, store=Store(tmp_path))
    again = arm.continue_([*PASSAGES[:4], PASSAGES[3]], config, store=Store(tmp_path))
    assert (again[:3], again[3], len(engine.asked)) == (first, again[4], 4)
    assert arm.continue_(PASSAGES[:1], GenerateConfig(max_tokens=0), store=Store(None))[0].ids == ()


def test_vllm_is_imported_when_wanted_and_called_by_its_documented_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    refuses(lambda: VllmEngine("model"), NotPresent, "extra `vllm`")
    calls: dict[str, Any] = {}

    class LLM:
        def __init__(self, model: str, **options: Any) -> None:
            calls["made"] = (model, options)

        def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[str]:
            calls["asked"] = (prompts, sampling_params, use_tqdm)
            return ["done"]

    module = ModuleType("vllm")
    vars(module).update(__version__="0.99", LLM=LLM, SamplingParams=dict, TokensPrompt=dict)
    monkeypatch.setitem(sys.modules, "vllm", module)
    engine = VllmEngine("folder", dtype="bfloat16")
    assert (engine.version, engine.generate([(1, 2)], [{"max_tokens": 3}])) == ("0.99", ["done"])
    assert calls["made"] == ("folder", {"dtype": "bfloat16"})
    assert calls["asked"] == ([{"prompt_token_ids": [1, 2]}], [{"max_tokens": 3}], False)


@pytest.fixture
def folders(tmp_path: Path) -> PairConfig:
    """A base and an aligned model on disk."""
    for name, model in zip(("base", "aligned"), tiny_models("llama"), strict=True):
        save_model(tmp_path / name, model, tiny_tokenizer())
    return PairConfig(base=str(tmp_path / "base"), aligned=str(tmp_path / "aligned"), device="cpu")


def test_notebook_04s_engine_continues_base_and_aligned(folders: PairConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class StandInVllm(StandIn):
        def __init__(self, model: str, **options: Any) -> None:
            asked[model] = options
            super().__init__(loaded)

    loaded = load_pair(folders)
    monkeypatch.setattr(engine_room, "VllmEngine", StandInVllm)
    arms = arms_of(loaded, engine="experimental_vllm", penalties=(1.0,))
    assert [(a.name, type(a).__name__) for a in arms[:2]] == [("base", "EngineArm"), ("aligned", "EngineArm")]
    assert (arms[2].name, set(asked)) == ("penalty 1", {folders.base, folders.aligned})
    assert asked[str(folders.base)]["dtype"] == "float32"
    assert asked[str(folders.base)]["max_model_len"] == loaded.context_length
    prompts = PromptSet(
        name="two", source="two", prompts=tuple(Prompt(id=str(n), prompt=f"say {n}", label="harmful") for n in "ab")
    )
    rows = agreement_rows(arms, [attack(loaded, prompts, NoAttack(max_tokens=4))])
    assert [(r.arm, r.setting) for r in rows] == [
        (arm, what) for arm in ("base", "aligned") for what in ("continuations", "tokens")
    ]
    assert (rows[2].value, rows[2].n) == (1.0, 2)
    assert agreement_rows(arms[2:], []) == ()


def test_an_engine_needs_the_same_weights_and_keeps_them(folders: PairConfig, pair: ModelPair) -> None:
    refuses(lambda: arms_of(pair, engine="experimental_vllm"), ParameterError, "base", "aligned")
    with pytest.raises(ParameterError):
        arms_of(replace(load_pair(folders), config=replace(folders, adapter="some")), engine="experimental_vllm")
    refuses(lambda: arms_of(pair, engine="vllm"), UnknownName, "'vllm'", "experimental_vllm")
    engine = StandIn(pair)
    arm = EngineArm(pair=pair, which="aligned", engine=engine)
    prompts = PromptSet(
        name="p",
        source="p",
        prompts=tuple(Prompt(id=k, prompt=f"say {k}", label=k, response="ok") for k in ("harmful", "harmless")),  # type: ignore[arg-type]
    )
    plain = attack(pair, prompts, NoAttack(max_tokens=4))
    tuning = attack(pair, prompts, BenignTuning(max_tokens=4))
    refuses(lambda: evaluate([arm], [plain, tuning], ["refusal"]), ParameterError, "weights")
    assert engine.asked == [], "refused before anything is answered"
    assert len(answer(arm, plain).completions) == 2


def test_what_an_engine_cannot_continue_is_refused(pair: ModelPair) -> None:
    arm, config = (
        EngineArm(pair=pair, which="aligned", engine=StandIn(pair, reason="abort")),
        GenerateConfig(max_tokens=4),
    )
    refuses(lambda: arm.continue_([Passage(name="none", aligned=())], config, store=Store(None)), PromptError, "empty")
    with pytest.raises(ContextOverflow, match="context"):
        arm.continue_(PASSAGES, GenerateConfig(max_tokens=10_000), store=Store(None))
    refuses(lambda: arm.continue_(PASSAGES, config, store=Store(None)), NonFiniteLogits, "'abort'")
    arm = EngineArm(pair=pair, which="aligned", engine=StandIn(pair), room=6)
    with pytest.raises(ContextOverflow, match=r"4.*3.*6"):
        arm.continue_(PASSAGES, GenerateConfig(max_tokens=3), store=Store(None))
