"""Experimental: vLLM in place of our own generator, for large evaluations.

This is written for vLLM's documented interface (`LLM.generate` on token ids) and tested against a stand-in with that
interface. It has not been tested on a GPU with vLLM itself, so `evaluate` also measures how far the two agree.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.core.batching import Budget, in_batches
from workbench.core.comparisons import share
from workbench.core.errors import NonFiniteLogits, NotPresent, PairError, ParameterError
from workbench.core.passages import Ids, Passage, check_fits
from workbench.core.progress import Progress
from workbench.core.provenance import settings_of
from workbench.core.records import Estimate, Row
from workbench.core.store import Store, key_of
from workbench.evaluation.attacks.task import as_prompt
from workbench.evaluation.records import AttackSet
from workbench.models.generation import GenerateConfig, Generation, OnToken, check_not_empty, generate
from workbench.models.pair import ModelPair, Which

BATCH = 256
"""How many contexts are sent together; a killed run loses at most these. The engine plans its own batches."""
AGREE_ON = 16
"""How many contexts show the agreement of an engine with our own generator."""


@runtime_checkable
class Engine(Protocol):
    """The part of vLLM that is used: it continues token ids, each with its own settings, in order."""

    version: str

    def generate(self, contexts: Sequence[Ids], settings: Sequence[dict[str, Any]]) -> list[Any]:
        """Return vLLM's RequestOutput for each context."""
        ...


def check_vllm() -> None:
    """Raise NotPresent where vLLM is not installed. Does not import it, which takes long."""
    if importlib.util.find_spec("vllm") is None:
        raise NotPresent(_NO_VLLM)


_NO_VLLM = "vLLM is not installed: install the extra `vllm`, or take another engine"


class VllmEngine:
    """A vLLM model. Raises NotPresent where vLLM is not installed, PairError where it cannot load the model."""

    def __init__(self, model: str, **options: Any) -> None:
        try:
            import vllm
        except ImportError:
            raise NotPresent(_NO_VLLM) from None
        self.version = str(vllm.__version__)
        self._settings, self._prompt = vllm.SamplingParams, vllm.TokensPrompt
        try:
            self._model = vllm.LLM(model=model, **options)
        except (ValueError, RuntimeError, OSError) as error:
            raise PairError(f"vLLM cannot load {model!r}: {' '.join(str(error).split())[:300]}") from None

    def generate(self, contexts: Sequence[Ids], settings: Sequence[dict[str, Any]]) -> list[Any]:
        prompts = [self._prompt(prompt_token_ids=list(c)) for c in contexts]
        done: list[Any] = self._model.generate(prompts, [self._settings(**s) for s in settings], use_tqdm=False)
        return done


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineArm:
    """The base or the aligned model of a pair, run by an engine that holds the same weights.

    Greedy continuations equal those of our generator but for rounding; draws differ, because an engine has its own
    random numbers. `called` None: the model's name and "(vLLM)". `room` is the engine's longest context in tokens,
    None: the model's.
    """

    pair: ModelPair
    which: Which
    engine: Engine
    called: str | None = None
    room: int | None = None

    @property
    def name(self) -> str:
        return self.called or f"{self.which} (vLLM)"

    def on(self, pair: ModelPair) -> EngineArm:
        """Raise ParameterError, because an engine cannot change the weights that it holds."""
        raise ParameterError(
            f"arm {self.name!r} is run by vLLM, whose weights cannot be fine-tuned: set engine='transformers'"
        )

    def continue_(
        self,
        passages: Sequence[Passage],
        config: GenerateConfig,
        *,
        store: Store,
        on_token: OnToken | None = None,
        what: str | None = None,
    ) -> tuple[Generation, ...]:
        """Continue every passage; `on_token` is called when a continuation is complete.

        Raises PromptError for an empty context, ContextOverflow before any work, NonFiniteLogits where the engine
        stops a continuation early.
        """
        contexts = [p.whole(self.which) for p in passages]
        check_not_empty(contexts)
        longest = max(map(len, contexts), default=0)
        check_fits("the longest context", longest, self.room or self.pair.context_length, config.max_tokens)
        settings = {k: v for k, v in settings_of(config).items() if k != "batch_tokens"}
        own = ("engine 1", self.engine.version, self.pair.fingerprint, self.which, settings)
        asked = {key_of(*own, list(c)): c for c in contexts}
        keys = list(asked)

        def work(rows: list[int], finished: Callable[[int, Generation], None]) -> None:
            wanted = [asked[keys[n]] for n in rows] if config.max_tokens else []
            done = self.engine.generate(wanted, [self._settings(config, keys[n]) for n in rows]) if wanted else []
            for n, output in zip(rows, done or [None] * len(rows), strict=True):
                finished(n, Generation(ids=(), stop="length") if output is None else self._generation(output, config))

        made = in_batches(
            keys,
            [1] * len(keys),
            work,
            budget=Budget(BATCH),
            store=store,
            entry=Generation.entry,
            read=Generation.read,
            what=what,
        )
        by_context = dict(zip(asked.values(), made, strict=True))
        found = tuple(by_context[c] for c in contexts)
        if on_token is not None:
            for n, one in enumerate(found):
                for token in one.ids:
                    on_token(n, token)
        return found

    def _settings(self, config: GenerateConfig, key: str) -> dict[str, Any]:
        return {
            "max_tokens": config.max_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k or -1,
            "stop": list(config.stop),
            "stop_token_ids": sorted({*self.pair.eos_ids, *config.stop_ids}),
            "seed": int(key[:8], 16) if config.temperature > 0 else None,
        }

    def _generation(self, output: Any, config: GenerateConfig) -> Generation:
        one = output.outputs[0]
        ids = tuple(int(i) for i in one.token_ids)
        if one.finish_reason not in ("stop", "length"):
            raise NonFiniteLogits(
                f"the engine stopped a continuation after {len(ids)} tokens ({one.finish_reason!r}): set "
                "engine='transformers'"
            )
        if one.finish_reason == "length":
            return Generation(ids=ids, stop="length")
        ended = bool(ids) and ids[-1] in self.pair.eos_ids and ids[-1] not in config.stop_ids
        return Generation(ids=ids, stop="end" if ended else "stop")


def engine_arms(pair: ModelPair, **options: Any) -> tuple[EngineArm, EngineArm]:
    """Return base and aligned of a pair of folders or hub ids, each run by its own vLLM, under its usual name.

    The pair stays loaded for scoring, so each engine has three tenths of the GPU's memory; contexts have up to 8,192
    tokens. `options` are passed to vLLM and override these. Raises ParameterError for weights that vLLM would load
    differently (a preset, a GGUF file, an adapter, quantised), and what VllmEngine raises.
    """
    config = pair.config
    if config is None or config.preset or not config.base or not config.aligned:
        raise ParameterError(
            f"engine 'experimental_vllm' loads folders and hub ids, not {pair.name!r}: give base and aligned"
        )
    files = (config.base.lower(), config.aligned.lower())
    if config.adapter or config.experimental_quantised or any(f.endswith(".gguf") for f in files):
        raise ParameterError(
            "engine 'experimental_vllm' needs the same weights as the pair, so it takes no GGUF file, adapter or "
            "quantised model: merge an adapter first (`workbench merge`)"
        )
    shared = {
        "dtype": str(pair.dtype).removeprefix("torch."),
        "gpu_memory_utilization": 0.3,
        "max_model_len": min(pair.context_length, 8192),
        "trust_remote_code": config.trust_remote_code,
        **options,
    }
    base = VllmEngine(config.base, **{"revision": config.base_revision, **shared})
    aligned = VllmEngine(config.aligned, **{"revision": config.aligned_revision, **shared})
    room = int(shared["max_model_len"])
    return (
        EngineArm(pair=pair, which="base", engine=base, called="base", room=room),
        EngineArm(pair=pair, which="aligned", engine=aligned, called="aligned", room=room),
    )


def greedy_agreement(arm: EngineArm, passages: Sequence[Passage], *, max_tokens: int = 32) -> dict[str, Estimate]:
    """Continue passages greedily by engine and by our generator; return the shares of equal continuations and tokens.

    Tokens count as equal up to the first difference, because the context differs after it. Half precision rounds
    differently in each: a few late differences are normal, early ones in most prompts mean different weights.
    """
    config = GenerateConfig(max_tokens=max_tokens)
    theirs = arm.continue_(passages, config, store=Store(None))
    ours = generate(arm.pair, arm.which, [p.whole(arm.which) for p in passages], config, what=None)
    same = tokens = whole = 0
    for a, b in zip(ours, theirs, strict=True):
        agreed = next(
            (n for n, (x, y) in enumerate(zip(a.ids, b.ids, strict=False)) if x != y), min(len(a.ids), len(b.ids))
        )
        same += agreed
        tokens += max(len(a.ids), len(b.ids))
        whole += a.ids == b.ids
    return {"continuations": share(whole, len(ours)), "tokens": share(same, tokens)}


def agreement_rows(arms: Sequence[Any], attacks: Sequence[AttackSet]) -> tuple[Row, ...]:
    """Return the greedy agreement with our generator on the first attempts, for each arm that an engine runs."""
    asked = [a for source in attacks for a in source.attempts][:AGREE_ON]
    rows = []
    for arm in arms:
        if isinstance(arm, EngineArm):
            found = greedy_agreement(arm, [arm.pair.passage(as_prompt(a), a.prefix_ids) for a in asked])
            with Progress(None, 0, "") as progress:
                shares = ", ".join(f"{what} {share}" for what, share in found.items())
                progress.note(f"{arm.name}: greedy agreement with our generator: {shares}")
            rows += [Row.of("greedy_agreement", e, arm=arm.name, setting=what) for what, e in found.items()]
    return tuple(rows)
