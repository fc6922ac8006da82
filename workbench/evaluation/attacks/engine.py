"""vLLM in the place of our own generator, for large evaluations: the same contract, and an agreement measured first.

Written to vLLM's documented interface (`LLM.generate` on token ids) and tested against a stand-in with that interface.
It has not been run with vLLM itself, which needs a GPU: measure `greedy_agreement` before you trust a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from workbench.core.batching import in_batches
from workbench.core.comparisons import share
from workbench.core.errors import NonFiniteLogits, NotPresent, PairError, ParameterError
from workbench.core.passages import Ids, Passage, check_fits
from workbench.core.provenance import settings_of
from workbench.core.records import Estimate
from workbench.core.store import Store, key_of
from workbench.models.generation import (
    GenerateConfig,
    Generation,
    OnToken,
    check_not_empty,
    generate,
)
from workbench.models.pair import ModelPair, Which

BATCH = 256
"""Contexts that are sent together; the engine plans its own batches, this is what a killed run may lose."""


@runtime_checkable
class Engine(Protocol):
    """What is used of vLLM: continue token ids under settings, in order; `sampling` makes the settings."""

    version: str

    def generate(self, contexts: Sequence[Ids], settings: Sequence[dict[str, Any]]) -> list[Any]:
        """Return vLLM's RequestOutput of each context."""
        ...


class VllmEngine:
    """A vLLM model. Raises NotPresent where vLLM is not installed, PairError where it cannot load the model."""

    def __init__(self, model: str, **options: Any) -> None:
        try:
            import vllm
        except ImportError:
            raise NotPresent("vLLM is not installed: install the extra `vllm`, or leave the engine out") from None
        self.version = str(vllm.__version__)
        self._settings, self._prompt = vllm.SamplingParams, vllm.TokensPrompt
        try:
            self._model = vllm.LLM(model=model, **options)
        except (ValueError, RuntimeError, OSError) as error:
            raise PairError(f"vLLM cannot load {model!r}: {' '.join(str(error).split())[:300]}") from None

    def generate(self, contexts: Sequence[Ids], settings: Sequence[dict[str, Any]]) -> list[Any]:
        """Return vLLM's RequestOutput of each context."""
        prompts = [self._prompt(prompt_token_ids=list(c)) for c in contexts]
        done: list[Any] = self._model.generate(prompts, [self._settings(**s) for s in settings], use_tqdm=False)
        return done


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineArm:
    """The base or the aligned model of a pair, run by an engine that holds the very same weights.

    Greedy continuations are those of our generator as far as rounding lets them; draws are others, since an engine has
    random numbers of its own. `called` None: the model's name and "(vLLM)", so that results say it. `room` is the
    engine's own longest context in tokens, None: the model's. The engine's weights stay what they are: see `on`.
    """

    pair: ModelPair
    which: Which
    engine: Engine
    called: str | None = None
    room: int | None = None

    @property
    def name(self) -> str:
        """Return what results call this arm."""
        return self.called or f"{self.which} (vLLM)"

    def on(self, pair: ModelPair) -> EngineArm:
        """Refuse another pair: raise ParameterError, because the engine would go on with the weights that it holds."""
        raise ParameterError(
            f"arm {self.name!r} is run by vLLM, which holds its weights: an attack that fine-tunes them needs "
            "engine='transformers'"
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
        """Continue every passage; tokens are told when a continuation is complete.

        Raises PromptError for an empty context, ContextOverflow before any work, NonFiniteLogits where the engine
        breaks a continuation off.
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
            batch_tokens=BATCH,
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
            raise NonFiniteLogits(f"the engine broke a continuation off after {len(ids)} tokens: {one.finish_reason!r}")
        if one.finish_reason == "length":
            return Generation(ids=ids, stop="length")
        ended = bool(ids) and ids[-1] in self.pair.eos_ids and ids[-1] not in config.stop_ids
        return Generation(ids=ids, stop="end" if ended else "stop")


def engine_arms(pair: ModelPair, **options: Any) -> tuple[EngineArm, EngineArm]:
    """Return base and aligned of a pair of folders or hub ids, each run by a vLLM of its own, under its usual name.

    The pair stays loaded, because it scores and reads: three tenths of the GPU's memory go to each engine, contexts are
    up to 8,192 tokens long. `options` are vLLM's and win. Raises ParameterError for weights that vLLM would load
    otherwise than the pair did (a preset, a GGUF file, an adapter, quantised), and what VllmEngine raises.
    """
    config = pair.config
    if config is None or config.preset or not config.base or not config.aligned:
        raise ParameterError(f"engine 'vllm' loads folders and hub ids, not {pair.name!r}: give base and aligned")
    files = (config.base.lower(), config.aligned.lower())
    if config.adapter or config.experimental_quantised or any(f.endswith(".gguf") for f in files):
        raise ParameterError(
            "engine 'vllm' has to hold the very same weights as the pair: no GGUF file, nothing quantised, and an "
            "adapter merged first (`workbench merge`)"
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


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far an engine agrees with our generator: whole continuations, and tokens before the first difference."""

    continuations: Estimate
    tokens: Estimate

    def __str__(self) -> str:
        return f"greedy agreement with our generator: continuations {self.continuations}, tokens {self.tokens}"


def greedy_agreement(arm: EngineArm, passages: Sequence[Passage], *, max_tokens: int = 32) -> Agreement:
    """Continue a few passages greedily by engine and by our generator, and return the shares that are the same.

    A token counts as the same up to the first difference, since what follows answers another context. Half precision
    rounds otherwise in each: a few late differences are no fault, early ones in most prompts are another model.
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
    return Agreement(continuations=share(whole, len(ours)), tokens=share(same, tokens))
