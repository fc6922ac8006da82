"""PenalisedModel: an aligned model under a penalty, used like one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.core.configs import configured
from workbench.core.passages import Passage, check_room
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig, check_generates
from workbench.decoding.contexts import Contexts, DecodeConfig
from workbench.decoding.penalised import OnEntry, decode
from workbench.decoding.processor import PenaltyProcessor
from workbench.decoding.records import Continuations
from workbench.models.generation import GenerateConfig, Generation, OnToken
from workbench.models.pair import ModelPair, Which
from workbench.prompts.loading import Prompt


class PenalisedModel:
    """The aligned model of a pair under a penalty, with its name in results (default: the penalty's title).

    Raises ParameterError for a penalty that no generator may use.
    """

    which: Which = "aligned"

    def __init__(self, pair: ModelPair, penalty: PenaltyConfig, *, name: str | None = None) -> None:
        check_generates(penalty)
        self.pair, self.penalty, self.name = pair, penalty, name or penalty.title

    def __repr__(self) -> str:
        return f"PenalisedModel({self.pair.name!r}, {self.penalty.title!r})"

    def on(self, pair: ModelPair) -> PenalisedModel:
        """Return the same penalty, under the same name, on another pair."""
        return PenalisedModel(pair, self.penalty, name=self.name)

    def generate(
        self,
        prompts: str | Sequence[str] | Contexts,
        *,
        prefill: str = "",
        prefix_tokens: int = 0,
        system_prompt: str | None = None,
        on_token: OnEntry | None = None,
        store: Store | None = None,
        **generation: Any,
    ) -> Continuations:
        """Continue prompts, given as texts or as for `decode`; other keywords are GenerateConfig's fields.

        `model.generate("Tell me ...", prefill="Sure,", max_tokens=64).continuations[0].text` is the answer's text.
        """
        config = DecodeConfig(
            penalty=self.penalty,
            generation=configured(GenerateConfig, None, generation),
            prefill=prefill,
            prefix_tokens=prefix_tokens,
            system_prompt=system_prompt,
        )
        texts = [prompts] if isinstance(prompts, str) else prompts
        asked = [
            Prompt(id=f"prompt {n + 1}", prompt=p, label="unlabelled") if isinstance(p, str) else p
            for n, p in enumerate(texts)
        ]
        whole: Contexts = asked if any(isinstance(p, str) for p in texts) else texts  # type: ignore[assignment]
        return decode(self.pair, whole, config, on_token=on_token, store=store)

    def continue_(
        self,
        passages: Sequence[Passage],
        config: GenerateConfig,
        *,
        store: Store | None = None,
        on_token: OnToken | None = None,
        what: str | None = "decoding",
    ) -> tuple[Generation, ...]:
        """Continue passages and return generations without a ledger, as `generate` does.

        Raises ContextOverflow before any work, as `generate` does, and what `decode` raises.
        """
        check_room(passages, self.pair.context_length, config.max_tokens)
        made = decode(
            self.pair,
            passages,
            DecodeConfig(penalty=self.penalty, generation=config, shown_k=0),
            on_token=None if on_token is None else lambda i, entry: on_token(i, entry.token_id),
            store=store,
            what=what,
        )
        return tuple(
            Generation(ids=tuple(ids[there].tolist()), stop=c.stop)  # type: ignore[arg-type]  # never "stopped"
            for ids, there, c in zip(made.token_ids, made.mask, made.continuations, strict=True)
        )

    def processor(self, **options: Any) -> PenaltyProcessor:
        """Return the penalty for `aligned.generate(logits_processor=[...])`; options as for PenaltyProcessor."""
        return PenaltyProcessor(self.pair, self.penalty, **options)
