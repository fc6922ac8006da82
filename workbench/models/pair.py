"""Two models to compare, loaded and checked: PairConfig -> load_pair -> ModelPair.

one preset                    a name from `workbench pairs`; a preset of one model may take an adapter
base and aligned              two folders, hub ids or GGUF files
base and an adapter           one copy of the weights: adapter off is base, adapter on is aligned
base, aligned and an adapter  the adapter is on aligned (likewise for a preset of two models)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase, StaticCache

from workbench.core.batching import Budget
from workbench.core.configs import takes_fields
from workbench.core.errors import NotPresent, PairError, ParameterError
from workbench.core.passages import Ids, Passage, check_fits
from workbench.core.store import key_of
from workbench.models import chat, placement, sources, weights
from workbench.models.caches import RoomyCache, can_be_static
from workbench.models.chat import TemplateMode
from workbench.models.fetched import fetch
from workbench.models.free_memory import memory_of
from workbench.models.presets import adapter_folder, preset
from workbench.models.sources import Source
from workbench.models.weights import Adapters, Weights
from workbench.prompts.loading import Prompt

Which = Literal["base", "aligned"]
_BOTH: tuple[Which, Which] = ("base", "aligned")
STATIC_STEP = 64
"""A static cache has room for a multiple of so many tokens, so that few lengths are compiled."""


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """The two models to compare: `preset`, or `base` with `aligned` or `adapter` or both.

    preset           a name that `workbench pairs` lists
    base, aligned    a folder, a hub id, or a .gguf file
    adapter          a folder or hub id of a saved PEFT adapter, or the name of one that ships with the preset
                     ("completed" for embedded); put on aligned, or on base where there is no aligned; it replaces the
                     preset's own
    template_mode    "shared": aligned's chat template for both; "own": each its own; "plain": none
    thinking         keep the thinking block on, in models that have the switch
    template_date    the date (year-month-day) for chat templates that write today's; others do not use it
    dtype            "auto" (float32 on a CPU, bfloat16 or float16 on a GPU), "float32", "bfloat16", "float16"
    device           "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"
    device_map       "auto": spread over all GPUs, then memory; or module name -> device for both models, as accelerate
                     takes it; replaces device
    experimental_quantised   "8bit" or "4bit" (NF4): weights by bitsandbytes, on an NVIDIA GPU; numbers and fingerprint
                     are then those of the quantised models. Not yet tested on a GPU
    compile          compile each model's pass over one token (torch.compile, with transformers' static cache), so that
                     the first tokens take long; models with sliding windows or recurrent layers stay as they are
    offload_base     base's weights stay in memory and move to the device layer by layer: half the room, and slower
    base_revision, aligned_revision   a branch, tag or commit of a hub id
    trust_remote_code   run code that comes with a model: only for authors you trust

    Raises ParameterError for fields that contradict each other, UnknownName for an unknown preset.
    """

    preset: str | None = None
    base: str | None = None
    aligned: str | None = None
    adapter: str | None = None
    template_mode: TemplateMode = "shared"
    thinking: bool = False
    template_date: str = chat.TEMPLATE_DATE
    dtype: str = "auto"
    device: str = "auto"
    base_revision: str | None = None
    aligned_revision: str | None = None
    trust_remote_code: bool = False
    device_map: str | Mapping[str, str | int] | None = None
    experimental_quantised: str | None = None
    offload_base: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        chat.check_template_mode(self.template_mode)
        chat.check_template_date(self.template_date)
        placement.check(self)
        if self.preset is not None:
            preset(self.preset)
            if also := [n for n in ("base", "aligned") if getattr(self, n) is not None]:
                both = f"preset {self.preset!r} and {' and '.join(also)} were both given"
                raise ParameterError(f"{both}: give a preset, or base and aligned")
        elif self.base is None:
            raise ParameterError("no pair was given: give a preset such as 'embedded', or base and aligned")
        elif self.aligned is None and self.adapter is None:
            raise ParameterError(f"base {self.base!r} has no model to compare it with: give aligned or adapter")


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two models: its weights and the adapters that are on."""

    weights: Weights
    adapters: Adapters = ()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ModelPair:
    """Base and aligned: two models, or one with an adapter off and on. Heavy, never saved.

    vocab           vocabulary rows that both heads have; logits are cut to them
    context_length  the longest context of both, in tokens
    fingerprint     hash of both models' content, the tokenizer and its template, head widths and dtype; it does not
                    depend on template_mode and thinking, which change the contexts, not the models
    notes           decisions and cuts made while loading, in sentences
    eos_ids         tokens that end a response: of both models' generation settings and the end of a chat turn
    think_end_id    the token that ends a thinking block, or None
    config          the config that was loaded, for other processes; None for a pair in memory
    compile, template_date   see PairConfig

    It never touches gradient flags and disables no gradients: callers use `torch.inference_mode()`.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    dtype: torch.dtype
    vocab: int
    context_length: int
    fingerprint: str
    template_mode: TemplateMode
    thinking: bool
    notes: tuple[str, ...]
    eos_ids: frozenset[int]
    think_end_id: int | None
    config: PairConfig | None = None
    compile: bool = False
    template_date: str = chat.TEMPLATE_DATE
    _sides: Mapping[Which, _Side] = field(repr=False)
    _tokenizers: Mapping[Which, PreTrainedTokenizerBase] = field(repr=False)
    _identity: Mapping[str, str] = field(repr=False)
    _unlike: frozenset[int] = field(repr=False)

    def __repr__(self) -> str:
        return f"ModelPair({self.name!r}, vocab={self.vocab}, {self.dtype}, {self.device}, {self.fingerprint[:8]})"

    @classmethod
    def from_models(
        cls,
        base: nn.Module,
        aligned: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        base_tokenizer: PreTrainedTokenizerBase | None = None,
        name: str = "in memory",
        template_mode: TemplateMode = "shared",
        thinking: bool = False,
        fingerprint: str | None = None,
    ) -> ModelPair:
        """Make a pair of models in memory; both are put into eval mode.

        Where `aligned` is a PEFT model, its active adapters are on for aligned; where `base` is the same object, or the
        model inside it, base is that model with them off. `base_tokenizer` is for template mode "own". Raises PairError
        where the two cannot be compared.
        """
        chat.check_template_mode(template_mode)
        aligned_weights = Weights(aligned)
        one = base is aligned or base is aligned_weights.model
        base_weights = aligned_weights if one else Weights(base)
        for each in (base_weights, aligned_weights):
            each.model.eval()
        sides: dict[Which, _Side] = {
            "base": _Side(weights=base_weights, adapters=() if one else base_weights.on()),
            "aligned": _Side(weights=aligned_weights, adapters=aligned_weights.on()),
        }
        hashes = {w: f"{weights.parameter_hash(s.weights.model)}+{s.adapters}" for w, s in sides.items()}
        identity = {str(w): fingerprint or h for w, h in hashes.items()}
        return _assemble(
            sides, {"base": base_tokenizer or tokenizer, "aligned": tokenizer}, identity, name, template_mode, thinking
        )

    # -------------------------------------------------------------------------------------------- the models

    @contextlib.contextmanager
    def model(self, which: Which) -> Iterator[PreTrainedModel]:
        """Yield base or aligned in eval mode, its adapters switched; the former state is restored afterwards."""
        side = self._sides[which]
        with side.weights.active(side.adapters) as model:
            yield model

    def hidden(
        self,
        which: Which,
        input_ids: Int[Tensor, "batch context"],
        *,
        attention_mask: Int[Tensor, "batch total"] | Bool[Tensor, "batch total"] | None = None,
        position_ids: Int[Tensor, "batch context"] | None = None,
        cache: Cache | None = None,
        positions: Int[Tensor, "batch selected"] | None = None,
    ) -> Float[Tensor, "batch selected hidden"]:
        """Return the last hidden state after the final norm, the input of the output head.

        `attention_mask` covers cache and input together; without `position_ids`, positions are counted in it, so
        left-padded rows equal unpadded ones. `cache` is filled. `positions` selects columns of each row (default: all).
        """
        with self.model(which) as model:
            hidden = weights.body_hidden(
                model,
                input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                cache=cache,
                compiled=isinstance(cache, StaticCache) and input_ids.shape[1] == 1,
            ).to(self.device)
        if positions is None:
            return hidden
        return hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))

    def logits(
        self,
        which: Which,
        hidden: Float[Tensor, "*position hidden"],
        *,
        float32: bool = False,
        out: Float[Tensor, "room vocab"] | None = None,
    ) -> Float[Tensor, "*position vocab"]:
        """Return the logits of hidden states over the shared vocabulary, in the model's dtype or at least in `float32`.

        They are scaled and soft-capped as the model does, which is checked once, at loading. In bfloat16 a logit near
        16 is off by up to .06, so what is measured asks for float32. Rows of positions may be written to `out` instead
        of fresh memory (without gradients).
        """
        one = self._sides[which].weights
        # switching adapters for a head without any costs more than small blocks
        with self.model(which) if one.head_switches() else contextlib.nullcontext():
            made = weights.head_logits(one.model, hidden, self.vocab, float32=float32, out=out)
        return made.to(self.device)

    def new_cache(self, which: Which, room: int | None = None) -> Cache:
        """Return an empty key-value cache for `hidden(..., cache=)`, with room for so many tokens where that is known.

        Only a pair that compiles gets transformers' static cache: attending to all of its room costs what it saves.
        """
        model = self._sides[which].weights.model
        if room is None:
            return DynamicCache(config=model.config)
        if self.compile and can_be_static(model):
            return StaticCache(config=model.config, max_cache_len=room + -room % STATIC_STEP)
        return RoomyCache(model.config, room)

    def budget(self, tokens: int | None, first: int) -> Budget:
        """Return a batch's budget: `tokens`, or for None `first` and then what the device's free memory holds.

        Models on several devices, and devices that do not say what they have free, stay at `first`.
        """
        spread = any(getattr(s.weights.model, "hf_device_map", None) for s in self._sides.values())
        return Budget(tokens or first, None if tokens or spread else memory_of(self.device))

    def one_copy(self) -> tuple[Weights, Adapters, Adapters] | None:
        """Return the weights that both models share, with base's and aligned's adapters; None for two models."""
        base, aligned = self._sides["base"], self._sides["aligned"]
        return (base.weights, base.adapters, aligned.adapters) if base.weights is aligned.weights else None

    # ------------------------------------------------------------------------------------------------- tokens

    def context(self, prompt: Prompt, which: Which = "aligned", *, system_prompt: str | None = None) -> tuple[int, ...]:
        """Return the token ids of a prompt by the template mode, up to and including the generation prompt.

        Raises PromptError for an empty prompt, PairError where the template refuses the turns or uses a token that only
        one model has, ContextOverflow without room for a single response token.
        """
        messages = chat.conversation(prompt, system_prompt)
        tokenizer = self._tokenizers["base" if which == "base" and self.template_mode == "own" else "aligned"]
        if self.template_mode == "plain" or chat.template_of(tokenizer) is None:
            ids = chat.plain_ids(tokenizer, messages, bos=any(map(chat.takes_bos, self._tokenizers.values())))
        else:
            ids = chat.chat_ids(tokenizer, messages, thinking=self.thinking, template_date=self.template_date)
        shared = self.template_mode != "own"
        rows = self.vocab if shared else weights.head_rows(self._sides[which].weights.model)
        chat.check_shared(f"prompt {prompt.id!r}", ids, rows, self._unlike if shared else (), tokenizer)
        check_fits(f"prompt {prompt.id!r}", len(ids), self.context_length, more=1)
        return ids

    def passage(
        self, prompt: Prompt, response: Ids | None = None, *, given: int | None = None, system_prompt: str | None = None
    ) -> Passage:
        """Return a prompt as both models see it, with a response (default: its own, all of it given).

        Raises what `context` raises.
        """
        if response is None:
            response = self.encode(prompt.response) if prompt.response else ()
        aligned = self.context(prompt, "aligned", system_prompt=system_prompt)
        own = self.template_mode == "own"
        base = self.context(prompt, "base", system_prompt=system_prompt) if own else aligned
        return Passage(
            name=prompt.id,
            aligned=aligned,
            base=None if base == aligned else base,
            response=response,
            given=len(response) if given is None else given,
            label=prompt.label,
        )

    def encode(self, text: str) -> tuple[int, ...]:
        """Return a response's token ids; control tokens typed into the text stay text.

        Raises PairError for a text with an added token that only one of the models has.
        """
        ids = chat.encode_response(self.tokenizer, text)
        chat.check_shared("the text", ids, self.vocab, self._unlike, self.tokenizer)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def settings(self) -> dict[str, Any]:
        """Return the pair's settings for a RunRecord."""
        return {
            "pair": self.name,
            "template_mode": self.template_mode,
            "thinking": self.thinking,
            **({"template_date": self.template_date} if chat.writes_date(self.tokenizer) else {}),
            "dtype": str(self.dtype).removeprefix("torch."),
            "pair_notes": self.notes,
        }

    # ---------------------------------------------------------------------------------------------- variations

    def with_template_mode(self, mode: TemplateMode) -> ModelPair:
        """Return the same pair in another template mode, without thinking where the mode has no template.

        Raises MissingChatTemplate where the mode needs one and the tokenizer has none.
        """
        chat.check_template_mode(mode)
        thinking = self.thinking and mode != "plain"
        chat.check_template(self.tokenizer, self.name, mode, thinking)
        return dataclasses.replace(self, template_mode=mode, thinking=thinking)

    def with_aligned(self, adapter: str) -> ModelPair:
        """Return a pair with the same base, and aligned with another adapter; this pair stays as it is.

        The adapter replaces the one on aligned's weights: for a pair of one model, it is on base alone. The weights are
        not copied. Raises NotPresent or PairError for an adapter that is missing or does not fit.
        """
        source = locate_adapter(adapter, None if self.config is None else self.config.preset)
        side = self._sides["aligned"]
        on = (side.weights.add(source),)
        sides: dict[Which, _Side] = {**self._sides, "aligned": _Side(weights=side.weights, adapters=on)}
        identity = {**self._identity, "adapter": weights.adapter_identity(source)}
        kept = tuple(n for n in self.notes if n != _ONE_MODEL)
        name = f"{self.name.partition(' + ')[0]} + {adapter}"
        made = _assemble(sides, self._tokenizers, identity, name, self.template_mode, self.thinking)
        config = None if self.config is None else dataclasses.replace(self.config, adapter=adapter)
        notes = tuple(dict.fromkeys((*kept, *made.notes)))
        return self._as_here(made, notes=notes, config=config)

    def with_expert(self, adapter: str) -> ModelPair:
        """Return the pair of aligned and aligned with a safety adapter too (SafeDecoding's original and expert).

        Raises NotPresent or PairError for an adapter that is missing or does not fit.
        """
        source = locate_adapter(adapter, None if self.config is None else self.config.preset)
        side = self._sides["aligned"]
        on = dict.fromkeys((*side.adapters, side.weights.add(source)))
        expert = _Side(weights=side.weights, adapters=tuple(on))
        own = "+".join(v for k, v in self._identity.items() if k != "base")
        identity = {"base": own, "aligned": own, "adapter": weights.adapter_identity(source)}
        both: dict[Which, PreTrainedTokenizerBase] = dict.fromkeys(_BOTH, self._tokenizers["aligned"])
        name = f"aligned of {self.name} | with {adapter}"
        sides: dict[Which, _Side] = {"base": side, "aligned": expert}
        return self._as_here(_assemble(sides, both, identity, name, self.template_mode, self.thinking))

    def _as_here(self, made: ModelPair, **changes: Any) -> ModelPair:
        """Return another pair that runs and writes as this one does."""
        return dataclasses.replace(made, compile=self.compile, template_date=self.template_date, **changes)


_ONE_MODEL = "Base and aligned are the same model: every difference is 0 and retention is 1 everywhere."


def _assemble(
    sides: Mapping[Which, _Side],
    tokenizers: Mapping[Which, PreTrainedTokenizerBase],
    identity: Mapping[str, str],
    name: str,
    mode: TemplateMode,
    thinking: bool,
    notes: Sequence[str] = (),
) -> ModelPair:
    """Check that two models can be compared, and make them a pair."""
    base, aligned = (sides[w].weights.model for w in _BOTH)
    tokenizer = tokenizers["aligned"]
    said = [*notes, *chat.check_same_tokenizer(tokenizers["base"], tokenizer)]
    chat.check_template(tokenizer, name, mode, thinking)
    said += [n for s in sides.values() for n in s.weights.trained_elsewhere(s.adapters)]
    rows = {w: weights.head_rows(s.weights.model) for w, s in sides.items()}
    vocab, cut = _shared_rows(rows, tokenizer, name)
    said += cut
    if sides["base"] == sides["aligned"]:
        said.append(_ONE_MODEL)
    if mode == "own" and chat.template_of(tokenizers["base"]) is None:
        said.append("Base has no chat template of its own, so it gets plain text in mode 'own'.")
    places = [_input_device(m) for m in (base, aligned)]
    if base.dtype != aligned.dtype or places[0].type != places[1].type:
        where = f"base is {base.dtype} on {places[0]}, aligned is {aligned.dtype} on {places[1]}"
        raise PairError(f"{where}: load both with one dtype on one kind of device")
    parts = {**identity, "tokenizer": chat.tokenizer_hash(tokenizer), "rows": str(rows), "dtype": str(aligned.dtype)}
    if tokenizers["base"] is not tokenizer:
        parts["base tokenizer"] = chat.tokenizer_hash(tokenizers["base"])
    pair = ModelPair(
        name=name,
        tokenizer=tokenizer,
        device=_input_device(aligned),
        dtype=aligned.dtype,
        vocab=vocab,
        context_length=min(sources.context_length(m.config, tokenizer) for m in (base, aligned)),
        fingerprint=key_of("pair", parts),
        template_mode=mode,
        thinking=thinking,
        notes=tuple(dict.fromkeys(said)),
        eos_ids=_eos_ids((base, aligned), tokenizer, vocab),
        think_end_id=chat.think_end(tokenizer),
        _sides=dict(sides),
        _tokenizers=dict(tokenizers),
        _identity=dict(identity),
        _unlike=chat.unlike_tokens(tokenizers["base"], tokenizer),
    )
    for which in _BOTH if sides["base"] != sides["aligned"] else _BOTH[:1]:
        with pair.model(which) as model:
            weights.check_split(model, vocab, f"{which} of {name}", pair.device)
            weights.check_cache(model, pair.new_cache(which), vocab, f"{which} of {name}", pair.device)
    return pair


def _shared_rows(rows: Mapping[Which, int], tokenizer: PreTrainedTokenizerBase, name: str) -> tuple[int, list[str]]:
    """Return how many rows both heads have, with notes on what is cut: padding, or added tokens without a row."""
    vocab, tokens, notes = min(rows.values()), len(tokenizer), []
    if vocab < tokens:
        added = tokenizer.added_tokens_decoder
        beyond = sorted(i for i in tokenizer.get_vocab().values() if i >= vocab)
        if any(i not in added for i in beyond):
            raise PairError(
                f"the tokenizer of {name} has {tokens:,} entries, but the output head has {rows['base']:,} rows in "
                f"base and {rows['aligned']:,} in aligned: use the tokenizer that the models were trained with"
            )
        named = ", ".join(repr(str(added[i])) for i in beyond[:5])
        notes.append(
            f"{len(beyond)} added tokens ({named}) have no row in both heads: a prompt or response with one is refused."
        )
    if len(set(rows.values())) > 1:
        notes.append(
            f"The output head has {rows['base']:,} rows in base and {rows['aligned']:,} in aligned (the tokenizer has "
            f"{tokens:,} entries), so both are cut to {vocab:,}."
        )
    return vocab, notes


def _eos_ids(models: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase, vocab: int) -> frozenset[int]:
    found: set[int | None] = {tokenizer.eos_token_id, chat.turn_end(tokenizer)}
    for model in models:
        ends = getattr(model.generation_config, "eos_token_id", None)
        found.update(ends if isinstance(ends, list | tuple) else (ends,))
    return frozenset(i for i in found if i is not None and 0 <= i < vocab)


def _input_device(model: PreTrainedModel) -> torch.device:
    placed = getattr(model, "hf_device_map", None)
    if not placed:
        return model.device
    first = next((d for d in placed.values() if str(d) not in ("cpu", "disk")), "cpu")
    return torch.device("cuda", first) if isinstance(first, int) else torch.device(first)


# ------------------------------------------------------------------------------------------------------ loading


@takes_fields(PairConfig)
def load_pair(config: PairConfig) -> ModelPair:
    """Load the two models that a config names; tokenizers and configs are checked before the weights are read.

    Raises NotPresent for a missing model, TokenizerMismatch, MissingChatTemplate or PairError for two that cannot be
    compared, ParameterError for a dtype or device that this machine does not have.
    """
    device = placement.first_device(config.device, config.device_map)
    dtype = sources.choose_dtype(config.dtype, device)
    name, asked = _asked(config)
    revisions = (config.base_revision, config.aligned_revision)
    code = config.trust_remote_code
    found = [sources.locate(a, r, remote_code=code) for a, r in zip(asked, revisions, strict=False)]
    if len(found) == 2 and found[0].place == found[1].place:
        del found[1]
    own = None if config.preset is None else adapter_folder(preset(config.preset))
    adapter = None if config.adapter is None else locate_adapter(config.adapter, config.preset)
    if adapter is not None:
        name = f"{name} + {config.adapter}"
    elif own is not None:
        adapter = locate_adapter(str(own))
    keys = [sources.tokenizer_key(s) for s in found]
    each_read = {k: sources.read_tokenizer(s, remote_code=code) for k, s in dict(zip(keys, found, strict=True)).items()}
    tokenizers = [each_read[k][0] for k in keys]
    notes = _check_descriptions(config, name, found, tokenizers)
    notes += [note for _, note in each_read.values() if note is not None]

    found = [sources.with_weights(s) for s in found]
    if config.experimental_quantised is not None:
        placement.check_quantised(config.experimental_quantised, device, found)
    if config.offload_base and len(found) == 1:
        raise ParameterError(f"base and aligned of {name} are one set of weights: leave offload_base out")
    bytes_each = placement.BYTES.get(config.experimental_quantised or "", float(dtype.itemsize))
    needs = [int(sources.parameter_count(s) * bytes_each) for s in found]
    gpus = torch.cuda.device_count()
    spread = config.device_map == "auto" or (device.type == "cuda" and not sources.fits(needs, device))
    if config.offload_base:
        placements, fits = sources.place(needs[1:], device)
        placements, fits = ({"device_map": {"": "cpu"}}, *placements), f"{fits}; base stays in memory"
    elif spread and gpus and not code and config.experimental_quantised is None:
        placements, fits = placement.over_all([sources.load_config(s) for s in found], dtype)
    elif config.device_map is not None:
        placements, fits = placement.spread(needs, config.device_map)
    else:
        placements, fits = sources.place(needs, device)
    if config.experimental_quantised is not None:
        placements = tuple({**p, **placement.quantisation(config.experimental_quantised, dtype)} for p in placements)
        fits += f"; weights are quantised to {config.experimental_quantised}"
    notes.append(fits[:1].upper() + fits[1:] + ".")
    each = zip(found, placements, strict=True)
    copies = [Weights(sources.load_weights(s, dtype, remote_code=code, placement=p)) for s, p in each]
    if config.offload_base:
        placement.offload(copies[0].model, device)
    on = () if adapter is None else (copies[-1].add(adapter),)
    sides: dict[Which, _Side] = {"base": _Side(weights=copies[0]), "aligned": _Side(weights=copies[-1], adapters=on)}
    identity = {"base": sources.identity(found[0]), "aligned": sources.identity(found[-1])}
    if config.experimental_quantised is not None:
        identity["quantised"] = config.experimental_quantised
    if adapter is not None:
        identity["adapter"] = weights.adapter_identity(adapter)
    both: dict[Which, PreTrainedTokenizerBase] = {"base": tokenizers[0], "aligned": tokenizers[-1]}
    if chat.writes_date(tokenizers[-1]) and config.template_mode != "plain":
        notes.append(f"The chat template writes a date: it gets {config.template_date} (template_date).")
    made = _assemble(sides, both, identity, name, config.template_mode, config.thinking, notes)
    return dataclasses.replace(made, config=config, compile=config.compile, template_date=config.template_date)


def _asked(config: PairConfig) -> tuple[str, tuple[str, ...]]:
    """Return the pair's name and the places of its one or two models."""
    if config.preset is not None:
        chosen = preset(config.preset)
        if chosen.kind == "hub":
            return chosen.name, tuple(m for m in (chosen.base, chosen.aligned) if m is not None)
        if not chosen.present:
            if chosen.kind != "fetched":
                missing = str(chosen.folders()[0])
                raise NotPresent(f"pair {chosen.name!r} is not on this machine ({missing!r} is missing): {chosen.how}")
            fetch(chosen.base)  # downloaded on first use, with a message, as a hub id is
        return chosen.shown, tuple(map(str, chosen.folders()))
    models = tuple(m for m in (config.base, config.aligned) if m is not None)
    return " | ".join(models), models


def locate_adapter(asked: str, preset_name: str | None = None) -> Source:
    """Find an adapter: one that ships with the preset, by its name, a folder, or a hub id. Raises NotPresent."""
    inside = None if preset_name is None else adapter_folder(preset(preset_name), asked)
    asked = asked if inside is None else str(inside)
    source = sources.with_weights(sources.locate(asked, adapter=True), adapter=True)
    weights.adapter_file(source)
    return source


def _check_descriptions(
    config: PairConfig, name: str, found: Sequence[Source], tokenizers: Sequence[PreTrainedTokenizerBase]
) -> list[str]:
    """Check tokenizers, template and head widths without weights; return notes."""
    configs = [sources.load_config(s, remote_code=config.trust_remote_code) for s in found]
    chat.check_same_tokenizer(tokenizers[0], tokenizers[-1])
    chat.check_template(tokenizers[-1], name, config.template_mode, config.thinking)
    rows = {w: int(c.get_text_config().vocab_size) for w, c in zip(_BOTH, (configs[0], configs[-1]), strict=True)}
    vocab, _ = _shared_rows(rows, tokenizers[-1], name)
    if config.template_mode == "shared":
        chat.check_shared_template(tokenizers[-1], vocab, chat.unlike_tokens(tokenizers[0], tokenizers[-1]))
    put_on = config.adapter or (config.preset and preset(config.preset).adapter)
    on = f" with the adapter {put_on}" if put_on else ""
    return [f"Base: {found[0]}.", f"Aligned: {found[-1]}{on}."]
