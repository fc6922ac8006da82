"""Arms as models of the harness. Importing this module needs lm-evaluation-harness (`lm-eval`)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float, Int
from lm_eval.api.group import Group
from lm_eval.api.model import CachingLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.group import AggMetricConfig
from lm_eval.models.huggingface import HFLM
from torch import Tensor

from workbench.core.errors import ParameterError
from workbench.core.passages import Passage
from workbench.core.store import Store
from workbench.decoding.config import PenaltyConfig
from workbench.decoding.penalty import penalise_fully
from workbench.evaluation.attacks.answer import Arm
from workbench.evaluation.capability.config import CapabilityConfig
from workbench.models.chat import answer_opening, template_settings
from workbench.models.generation import GenerateConfig, Generation
from workbench.models.pair import ModelPair

Scores = Callable[[Tensor, int], Tensor]
"""From token ids (batch, context) and the column of the first answer token to scores (batch, context, vocabulary)."""


class ArmLM(HFLM):
    """A harness model whose questions end where the answer's own text begins, as the arm's own contexts do."""

    def __init__(self, *, opening: str, **settings: Any) -> None:
        super().__init__(**settings)
        self._opening = opening

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the messages by the chat template, with what the generation prompt leaves out."""
        written = super().apply_chat_template(chat_history, add_generation_prompt)
        return written + self._opening if add_generation_prompt else written


class ChangedLM(ArmLM):
    """A harness model with changed next-token distributions.

    `scores(ids, start)` returns, for each column, the scores of the token after it; `start` is the column of the first
    scored token of the answer, so that a penalty can count positions of the answer from 1. `continue_` generates, as
    that of an arm.
    """

    def __init__(self, *, scores: Scores, continue_: Callable[..., tuple[Generation, ...]], **settings: Any) -> None:
        super().__init__(logits_cache=False, **settings)
        self._scores, self._continue, self._start = scores, continue_, 1

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> Any:
        """Score requests whose answers begin at the same column together; return them in the order given."""

        def start(n: int) -> int:
            _, context, answer = requests[n]
            cut = max(0, len(context) + len(answer) - (self.max_length + 1))
            return int(len(context) - cut)

        found: dict[int, Any] = {}
        for self._start, places in groupby(sorted(range(len(requests)), key=start), key=start):
            rows = list(places)
            made = super()._loglikelihood_tokens([requests[n] for n in rows], True, override_bs)
            found.update(zip(rows, made, strict=True))
        return [found[n] for n in range(len(requests))]

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        with torch.inference_mode():
            return self._scores(inps, self._start)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **kwargs: Any) -> Tensor:
        """Generate with the arm's own generator. Raises ParameterError for settings that it does not have."""
        mask = kwargs.pop("attention_mask", torch.ones_like(context))
        sampled = kwargs.pop("do_sample", None) or False
        drawn = {n: kwargs.pop(n) for n in ("temperature", "top_p", "top_k") if n in kwargs}
        if kwargs:
            raise ParameterError(
                f"the task generates with {', '.join(kwargs)}, which an arm with a penalty does not have: take another"
            )
        config = GenerateConfig(
            max_tokens=max_length - context.shape[1],
            temperature=float(drawn.get("temperature") or 1.0) if sampled else 0.0,
            top_p=float(drawn.get("top_p") or 1.0) if sampled else 1.0,
            top_k=int(drawn.get("top_k") or 0) if sampled else 0,
            stop=tuple(s for s in stop if s),
        )
        rows = [
            Passage(name=f"question {n}", aligned=tuple(ids[there.bool()].tolist()))
            for n, (ids, there) in enumerate(zip(context, mask, strict=True), 1)
        ]
        made = self._continue(rows, config, store=Store(None), on_token=None, what=None)
        width = max((len(g.ids) for g in made), default=0)
        pad = self.tokenizer.pad_token_id
        tail = [[*g.ids, *[pad] * (width - len(g.ids))] for g in made]
        return torch.cat((context, torch.tensor(tail, dtype=context.dtype, device=context.device)), 1)


def penalised_scores(pair: ModelPair, penalty: PenaltyConfig) -> Scores:
    """Return the penalised log-probabilities of every column; the answer's first token has position 1."""

    def scores(ids: Int[Tensor, "batch context"], start: int) -> Float[Tensor, "batch context vocab"]:
        base, aligned = (pair.logits(w, pair.hidden(w, ids)).float().log_softmax(-1) for w in ("base", "aligned"))
        column = torch.arange(ids.shape[1], device=ids.device) - (start - 1)
        position = (column + 1).clamp(min=1).expand(ids.shape)
        return penalise_fully(base, aligned, penalty, position=position).logprobs

    return scores


@contextlib.contextmanager
def harness_model(arm: Arm, batch_size: int) -> Iterator[HFLM]:
    """Yield an arm as a model of the harness, with a copy of the tokenizer, because the harness changes it."""
    pair = arm.pair
    settings: dict[str, Any] = {"tokenizer": copy.deepcopy(pair.tokenizer), "batch_size": batch_size}
    settings["chat_template_args"] = template_settings(pair.tokenizer, pair.thinking, pair.template_date)
    settings["opening"] = "" if pair.thinking else answer_opening(pair.tokenizer, pair.template_date)
    if pair.thinking:
        settings |= {"enable_thinking": True, "think_end_token": pair.think_end_id}
    penalty = getattr(arm, "penalty", None)
    with pair.model(arm.which) as model:
        if penalty is None:
            yield ArmLM(pretrained=model, **settings)
            return
        yield ChangedLM(scores=penalised_scores(pair, penalty), continue_=arm.continue_, pretrained=model, **settings)


def harness_task(config: str | dict[str, Any]) -> Any:
    """Return a task for the harness: a name unchanged, a local file's config as a task or a group of tasks."""
    if isinstance(config, str):
        return config
    if "group" not in config:
        return ConfigurableTask(config=config)
    metrics = [AggMetricConfig(**m) for m in config["aggregate_metric_list"]]
    group = Group(name=config["group"], aggregate_metric_list=metrics, metadata=config["metadata"])
    for task in config["task"]:
        group.add(ConfigurableTask(config=task))
    return group


def prepared(tasks: Mapping[str, Any], config: CapabilityConfig, names: frozenset[str]) -> None:
    """Set the number of examples, longest answer and seed of loaded tasks by the harness's own rules.

    A task with 0 examples keeps 0; a task without a number has 0. A local file's config has its longest answer.
    """
    for task in tasks.values():
        own = task.get_config("num_fewshot")
        if own is None or (config.shots is not None and own != 0):
            task.set_config(key="num_fewshot", value=config.shots or 0)
        if config.max_tokens is not None and names and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": config.max_tokens}, update=True)
        task.set_fewshot_seed(seed=config.seed)


@contextlib.contextmanager
def answers_kept(model: HFLM, file: str | None) -> Iterator[Any]:
    """Yield a model that stores its answers in the harness's cache, a file for each model; None stores nothing."""
    if file is None:
        yield model
        return
    kept = CachingLM(model, file)
    try:
        yield kept
    finally:
        kept.dbdict.close()
