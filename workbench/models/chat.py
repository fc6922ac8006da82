"""From a prompt to token ids: the three template modes, the thinking switch, and the comparison of two tokenizers.

    shared   the aligned model's chat template, the same ids for both models
    own      each model's own chat template; a base without one gets plain text
    plain    no template: system prompt, turns and prompt as text, each followed by a blank line, after the
             beginning-of-text token where the tokenizer adds one

Control tokens that a person (or a data file) typed into a prompt or response are encoded as ordinary text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from workbench.core.configs import check_fields
from workbench.core.errors import MissingChatTemplate, PairError, ParameterError, PromptError, TokenizerMismatch
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
    """Raise ParameterError, naming the nearest mode, for an unknown template mode."""
    check_fields(SimpleNamespace(template_mode=mode), template_mode=TEMPLATE_MODES)


def check_same_tokenizer(base: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Compare two tokenizers; return notes on differences in the roles of tokens (start, end, padding).

    Raises TokenizerMismatch, with both observed values, where vocabulary, merges, ids of added tokens or the encoding
    of some probe texts differ.
    """
    if base is aligned:
        return ()
    mine, other = base.get_vocab(), aligned.get_vocab()
    if mine != other:
        different = sorted(set(mine.items()) ^ set(other.items()), key=lambda item: (item[1], item[0]))
        token = different[0][0]
        raise TokenizerMismatch(
            f"the two models do not share one tokenizer: base has {len(mine):,} entries (hash {_hash(mine)}), aligned "
            f"{len(other):,} (hash {_hash(other)}), and {token!r} has the id {mine.get(token)} in base and "
            f"{other.get(token)} in aligned. Compare models of one family"
        )
    for what, a, b in (
        ("merges", _hash(_merges(base)), _hash(_merges(aligned))),
        ("special token ids", _special_ids(base), _special_ids(aligned)),
        *((f"encoding of {p!r}", encode_response(base, p), encode_response(aligned, p)) for p in _PROBES),
    ):
        if a != b:
            raise TokenizerMismatch(
                f"the two models have the same {len(mine):,} vocabulary entries, but not the same {what}: base {a}, "
                f"aligned {b}. Compare models with one tokenizer"
            )
    roles = [
        f"{role} is {getattr(base, role)!r} in base and {getattr(aligned, role)!r} in aligned"
        for role in ("bos_token", "eos_token", "pad_token")
        if getattr(base, role) != getattr(aligned, role)
    ]
    return (f"The tokenizers are the same, but their tokens have other roles: {'; '.join(roles)}.",) if roles else ()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash all that decides token ids: vocabulary, merges, special tokens, probe texts, template."""
    probes = [list(encode_response(tokenizer, p)) for p in _PROBES]
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


def template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return a tokenizer's chat template (of several the default one), or None."""
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
    """Check that the aligned tokenizer supports the mode.

    Raises MissingChatTemplate where the mode needs a missing template, ParameterError where thinking is on and the
    template has no such switch.
    """
    if mode != "plain" and template_of(tokenizer) is None:
        raise MissingChatTemplate(
            f"the tokenizer of {name} has no chat template, and template_mode={mode!r} needs one: "
            "use template_mode='plain', or a tokenizer with a template"
        )
    if thinking and mode == "plain":
        raise ParameterError("thinking=True needs a chat template, and template_mode='plain' uses none: change one")
    if thinking and not knows_thinking(tokenizer) and not opens_thinking(tokenizer):
        raise ParameterError(f"the chat template of {name} has no thinking switch: leave thinking False")


def conversation(prompt: Prompt, system_prompt: str | None) -> list[dict[str, str]]:
    """Return system prompt, earlier turns and the prompt as chat messages. Raises PromptError for an empty prompt."""
    if not prompt.prompt.strip():
        raise PromptError(f"prompt {prompt.id!r} is empty ({prompt.prompt!r}): give it a text, or remove it")
    turns = list(prompt.messages or ())
    if system_prompt is not None:
        if turns and turns[0][0] == "system":
            raise PromptError(
                f"prompt {prompt.id!r} has its own system turn, and a system_prompt was given too: keep one of them"
            )
        turns.insert(0, ("system", system_prompt))
    return [{"role": role, "content": text} for role, text in (*turns, ("user", prompt.prompt))]


def chat_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, thinking: bool = False
) -> tuple[int, ...]:
    """Encode messages by the chat template, up to and including the generation prompt.

    A template that takes content in parts gets it so. Without `thinking`, a thinking block that the generation prompt
    opens is closed, empty. Raises PairError where the template refuses the messages, for example a system prompt, or
    leaves one out.
    """
    from jinja2 import TemplateError

    how: dict[str, Any] = {"add_generation_prompt": True}
    how |= {"enable_thinking": thinking} if knows_thinking(tokenizer) else {}
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    lost: list[list[str]] = []
    try:
        for form in (messages, parts):
            written = cast(str, tokenizer.apply_chat_template(form, tokenize=False, **how))
            lost.append([m["role"] for m in messages if not _holds(written, m)])
            if not lost[-1]:
                break
        else:
            raise PairError(
                f"the chat template leaves out the text of these turns: {', '.join(lost[0])}. Remove the system prompt "
                "or earlier turns, or use template_mode='plain'"
            )
        encoded = tokenizer.apply_chat_template(form, sanitize_control_tokens=True, return_dict=True, **how)
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise PairError(
            f"the chat template refuses these turns ({roles}): {error}. Remove the system prompt, alternate user and "
            "assistant turns, or use template_mode='plain'"
        ) from None
    ids = tuple(cast(Mapping[str, Any], encoded)["input_ids"])
    if not thinking and opens_thinking(tokenizer):
        ids += tuple(tokenizer("\n</think>\n\n", add_special_tokens=False)["input_ids"])
    return ids


def _holds(written: str, message: Mapping[str, str]) -> bool:
    """Tell whether a rendered text holds a message's; templates trim it, and drop an earlier answer's thinking."""
    text = message["content"]
    text = text.rpartition("</think>")[2] if message["role"] == "assistant" else text
    return text.strip() in written


def opens_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the generation prompt opens a thinking block that no switch closes, as DeepSeek-R1's does."""
    if think_end(tokenizer) is None or "<think>" not in (template_of(tokenizer) or "") or knows_thinking(tokenizer):
        return False
    from jinja2 import TemplateError

    asked = [{"role": "user", "content": "a"}]
    try:
        written = cast(str, tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError):
        return False
    return written.rstrip().endswith("<think>")


def plain_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> tuple[int, ...]:
    """Encode messages as plain text: each followed by a blank line, after the tokenizer's beginning-of-text token."""
    text = "".join(f"{m['content']}\n\n" for m in messages)
    start = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
    bos = tokenizer.bos_token_id
    return ((bos,) if bos is not None and start == [bos] else ()) + encode_response(tokenizer, text)


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Encode a response's text: no token is added, and control tokens typed into it stay text."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token that the chat template writes after an assistant's turn, or None."""
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
    """Return the id of the token that ends a thinking block, or None."""
    return tokenizer.get_vocab().get("</think>")
