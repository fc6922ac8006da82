"""The penalty as a transformers LogitsProcessor, for `aligned.generate(logits_processor=...)`."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from workbench.core.errors import ParameterError
from workbench.core.passages import check_fits
from workbench.decoding.config import PenaltyConfig, check_generates
from workbench.decoding.penalty import penalise_fully
from workbench.models.generation import check_finite
from workbench.models.pair import ModelPair


class PenaltyProcessor(LogitsProcessor):
    """A processor that penalises the scores of an aligned model's own `generate`, with base in its own cache.

    The base model sees the same token ids. `attention_mask` is the prompts' mask (1 where there is a token), needed
    where prompts are padded on the left. `prefix_tokens` is the number of response tokens at the end of the prompts,
    from which positions continue. One processor serves one `generate` at a time.

    It works with greedy decoding, sampling and beams (base's cache follows the reordering); with prompt lookup or
    assisted decoding, which take tokens back, base is recomputed, which is slow. Stop strings, repetition penalties and
    the like belong to `generate`; scores changed by earlier processors count as aligned's.
    """

    def __init__(
        self,
        pair: ModelPair,
        penalty: PenaltyConfig,
        *,
        attention_mask: Int[Tensor, "batch context"] | None = None,
        prefix_tokens: int = 0,
    ) -> None:
        """Take the pair whose aligned model generates. Raises ParameterError for a penalty no generator may use."""
        check_generates(penalty)
        if prefix_tokens < 0:
            raise ParameterError(f"prefix_tokens is {prefix_tokens}; it must be at least 0")
        self._pair, self._penalty, self._given, self._prefix = pair, penalty, attention_mask, prefix_tokens
        self._seen: Tensor | None = None  # the ids whose keys and values base's cache holds
        self._cache = pair.new_cache("base")
        self._mask = torch.empty(0, 0, dtype=torch.long)
        self._prompt_width = 0

    def __call__(
        self, input_ids: Int[Tensor, "batch context"], scores: Float[Tensor, "batch rows"]
    ) -> Float[Tensor, "batch rows"]:
        """Return the penalised scores, float32; tokens outside the shared vocabulary are ruled out."""
        vocab = self._pair.vocab
        if scores.shape[-1] < vocab:
            raise ParameterError(
                f"generate gave scores for {scores.shape[-1]:,} tokens, and the pair {self._pair.name!r} has "
                f"{vocab:,}: use the processor with the aligned model of that pair"
            )
        check_fits("the text that generate continues", input_ids.shape[1], self._pair.context_length)
        with torch.inference_mode():
            own = scores[:, :vocab].float()
            base = self._base_logits(input_ids)
            position = self._position(input_ids)
            made = penalise_fully(base.log_softmax(-1), own.log_softmax(-1), self._penalty, position=position)
            plain = base if self._penalty.method == "safe_decoding" else own
            changed = torch.where((made.strength != 0.0).unsqueeze(-1), made.logprobs, plain)
        out = scores.new_full(scores.shape, -math.inf, dtype=torch.float32)
        out[:, :vocab] = changed
        return out

    def _position(self, input_ids: Int[Tensor, "batch context"]) -> int:
        generated = input_ids.shape[1] - self._prompt_width
        return generated + 1 + (self._prefix if self._penalty.count_from == "response" else 0)

    def _base_logits(self, input_ids: Int[Tensor, "batch context"]) -> Float[Tensor, "batch vocab"]:
        start = self._follow(input_ids)
        width = input_ids.shape[1]
        fresh = self._mask.new_ones(len(input_ids), width - self._prompt_width)
        hidden = self._pair.hidden(
            "base", input_ids[:, start:], attention_mask=torch.cat((self._mask, fresh), -1), cache=self._cache
        )
        logits = self._pair.logits("base", hidden[:, -1]).float()
        check_finite("base", logits, range(len(input_ids)), width - self._prompt_width + 1)
        self._seen = input_ids.clone()
        return logits

    def _follow(self, ids: Int[Tensor, "batch context"]) -> int:
        """Update base's cache to the prefix of `ids`; return the first column that it does not hold."""
        seen = self._seen
        if seen is not None:
            width = seen.shape[1]
            if ids.shape[1] > width:
                same = (ids[:, None, :width] == seen[None]).all(-1)  # which row was which
                if bool(same.any(-1).all()):
                    if not bool(same.diagonal().all()) or len(ids) != len(seen):  # beams were reordered
                        came_from = same.long().argmax(-1)
                        self._cache.batch_select_indices(came_from)
                        self._mask = self._mask[came_from]
                    return width
            prompt = self._prompt_width
            again = len(ids) == len(seen) and ids.shape[1] > prompt and torch.equal(ids[:, :prompt], seen[:, :prompt])
            if again:  # tokens were taken back
                self._cache = self._pair.new_cache("base")
                return 0
        self._prompt_width = ids.shape[1]
        self._mask = self._prompt_mask(ids)
        self._cache = self._pair.new_cache("base")
        return 0

    def _prompt_mask(self, ids: Int[Tensor, "batch context"]) -> Int[Tensor, "batch context"]:
        given = self._given
        if given is not None:
            times, rest = divmod(len(ids), len(given))
            if given.shape[1] != ids.shape[1] or rest or not times:
                raise ParameterError(
                    f"attention_mask is {tuple(given.shape)} and the prompts are {tuple(ids.shape)}: give the mask of "
                    "the prompts that generate continues"
                )
            return given.to(ids.device, torch.long).repeat_interleave(times, 0)  # beams, or several draws a prompt
        pad = self._pair.tokenizer.pad_token_id
        if len(ids) > 1 and pad is not None and bool((ids[:, 0] == pad).any()):
            row = int((ids[:, 0] == pad).nonzero()[0])
            raise ParameterError(
                f"prompt {row + 1} of {len(ids)} starts with the padding token {pad}, which may be text: give the "
                "prompts' attention_mask to the PenaltyProcessor too"
            )
        return torch.ones_like(ids)
