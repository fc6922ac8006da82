"""From a prompt to token ids: the three template modes, the thinking switch, and whether two tokenizers are one.

    shared   the aligned model's chat template, the same ids for both models
    own      each model its own chat template; a base without one gets plain text
    plain    no template: system prompt, turns and prompt as text, parted by blank lines, a blank line at the end,
             after the beginning-of-text token where the tokenizer adds one

Control tokens that a person (or a data file) typed into a prompt or response are encoded as ordinary text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from workbench.core.errors import (
    MissingChatTemplate,
    PairError,
    ParameterError,
    PromptError,
    TokenizerMismatch,
    nearest,
)
from workbench.prompts.loading import Prompt

TemplateMode = Literal["shared", "own", "plain"]
TEMPLATE_MODES: tuple[TemplateMode, ...] = get_args(TemplateMode)

_PROBES = (
    "The quick brown fox, 12345 times: isn't it?",
    "  two spaces\n\n\ttab and line\r\n",
    "def f(x):\n    return x ** 2  # naïve café",
    "日本語 русский العربية 😀",
)


def check_template_mode(mode: str) -> None:
    """Raise ParameterError, naming the nearest, when there is no such template mode."""
    if mode not in TEMPLATE_MODES:
        raise ParameterError(f"there is no template_mode {mode!r}: {nearest(mode, TEMPLATE_MODES)}")


# --------------------------------------------------------------------------------------------- one tokenizer


def check_same_tokenizer(base: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Compare two tokenizers; return, in sentences, differences that do not matter to the comparison.

    Vocabulary, merges, the ids of all added tokens and the encoding of some probe texts have to be the same: otherwise
    TokenizerMismatch, with both observed values. Which token *serves* as end or padding may differ, and is a note.
    """
    if base is aligned:
        return ()
    mine, other = base.get_vocab(), aligned.get_vocab()
    if mine != other:
        different = sorted(set(mine.items()) ^ set(other.items()), key=lambda item: (item[1], item[0]))
        token = different[0][0]
        raise TokenizerMismatch(
            f"the two models do not share one tokenizer: base has {len(mine):,} entries (hash {_hash(mine)}), aligned "
            f"{len(other):,} (hash {_hash(other)}); the first difference is {token!r}, id {mine.get(token)} in base "
            f"and {other.get(token)} in aligned. Token-level comparison needs models of one family"
        )
    for what, a, b in (
        ("merges", _hash(_merges(base)), _hash(_merges(aligned))),
        ("special token ids", _special_ids(base), _special_ids(aligned)),
        *((f"encoding of {p!r}", _plain_ids(base, p), _plain_ids(aligned, p)) for p in _PROBES),
    ):
        if a != b:
            raise TokenizerMismatch(
                f"the two models have the same {len(mine):,} vocabulary entries, but not the same {what}: base {a}, "
                f"aligned {b}. Token-level comparison needs one tokenizer for both"
            )
    roles = [
        f"{role} is {getattr(base, role)!r} in base and {getattr(aligned, role)!r} in aligned"
        for role in ("bos_token", "eos_token", "pad_token")
        if getattr(base, role) != getattr(aligned, role)
    ]
    return (f"The tokenizers are one, but for what tokens serve as: {'; '.join(roles)}.",) if roles else ()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash all of a tokenizer that bears on token ids: vocabulary, merges, special tokens, probe texts, template."""
    probes = [list(_plain_ids(tokenizer, p)) for p in _PROBES]
    roles = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    parts = (tokenizer.get_vocab(), _merges(tokenizer), _special_ids(tokenizer), probes, roles, template_of(tokenizer))
    return _hash(parts)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _merges(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return json.loads(backend.to_str())["model"].get("merges") if backend is not None else None


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {str(token): i for i, token in sorted(tokenizer.added_tokens_decoder.items())}


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


# ------------------------------------------------------------------------------------------------- template


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a tokenizer's chat template, its default one where it has several, None where it has none."""
    if not tokenizer.chat_template:
        return None
    try:
        return tokenizer.get_chat_template()
    except ValueError:  # several named templates, none of them the default
        return None


def knows_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template has a thinking switch (`enable_thinking`)."""
    return "enable_thinking" in (template_of(tokenizer) or "")


def check_template(tokenizer: PreTrainedTokenizerBase, name: str, mode: TemplateMode, thinking: bool) -> None:
    """Check that the aligned tokenizer can serve the mode.

    Raises MissingChatTemplate where the mode needs a template and there is none, ParameterError where thinking is
    asked of a template without that switch.
    """
    if mode != "plain" and template_of(tokenizer) is None:
        raise MissingChatTemplate(
            f"the tokenizer of {name} has no chat template, and template_mode={mode!r} needs one: "
            "use template_mode='plain', or a tokenizer with a template"
        )
    if thinking and mode == "plain":
        raise ParameterError("thinking=True needs a chat template, and template_mode='plain' uses none")
    if thinking and not knows_thinking(tokenizer):
        raise ParameterError(f"thinking=True, but the chat template of {name} has no thinking switch: leave it False")


def conversation(prompt: Prompt, system_prompt: str | None) -> list[dict[str, str]]:
    """Return system prompt, earlier turns and the prompt as chat messages. Raises PromptError for an empty prompt."""
    if not prompt.prompt.strip():
        raise PromptError(f"prompt {prompt.id!r} is empty ({prompt.prompt!r}): there is nothing to ask")
    turns = list(prompt.messages or ())
    if system_prompt is not None:
        if turns and turns[0][0] == "system":
            raise PromptError(
                f"prompt {prompt.id!r} brings its own system turn, and a system_prompt was given too: keep one of them"
            )
        turns.insert(0, ("system", system_prompt))
    return [{"role": role, "content": text} for role, text in (*turns, ("user", prompt.prompt))]


def chat_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, thinking: bool = False
) -> tuple[int, ...]:
    """Encode messages by the chat template, up to and including the generation prompt.

    The thinking switch is passed where the template has it. Raises PairError when the template refuses the messages,
    for example a system prompt that it has no place for.
    """
    from jinja2 import TemplateError

    switch = {"enable_thinking": thinking} if knows_thinking(tokenizer) else {}
    try:
        encoded = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=True, **switch
        )
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise PairError(
            f"the chat template refuses these turns ({roles}): {error}. Leave the system prompt out, let user and "
            "assistant turns alternate, or use template_mode='plain'"
        ) from None
    return tuple(cast(Mapping[str, Any], encoded)["input_ids"])


def plain_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """Encode messages as plain text: each followed by a blank line, after the token a text starts with."""
    text = "".join(f"{m['content']}\n\n" for m in messages)
    return _text_start(tokenizer) + _plain_ids(tokenizer, text)


def _text_start(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    with_start = tuple(tokenizer("a", add_special_tokens=True)["input_ids"])
    bos = tokenizer.bos_token_id
    return (bos,) if bos is not None and with_start[:1] == (bos,) else ()


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Encode a response's text: no token is added, and control tokens typed into it stay text."""
    return _plain_ids(tokenizer, text)


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token that the chat template writes after an assistant's turn, None where it writes none."""
    if template_of(tokenizer) is None:
        return None
    from jinja2 import TemplateError

    mark = "WORKBENCH"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = cast(str, tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, ValueError):
        return None
    added = tokenizer.added_tokens_decoder
    tail = tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
    return next((i for i in tail if i in added and added[i].special), None)


def think_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that ends a thinking block, None where the vocabulary has none."""
    return tokenizer.get_vocab().get("</think>")
