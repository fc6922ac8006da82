"""From a prompt to token ids: the three template modes, the thinking switch, and the comparison of two tokenizers.

    shared   the aligned model's chat template, the same ids for both models
    own      each model's own chat template; a base without one gets plain text
    plain    no template: system prompt, turns and prompt as text, each followed by a blank line, after the
             beginning-of-text token where the tokenizer adds one

Control tokens that a person (or a data file) typed into a prompt or response are encoded as ordinary text.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

from transformers import PreTrainedTokenizerBase

from workbench.core.configs import check_fields
from workbench.core.errors import MissingChatTemplate, PairError, ParameterError, PromptError, TokenizerMismatch
from workbench.models.sources import PROBES
from workbench.prompts.loading import Prompt

TemplateMode = Literal["shared", "own", "plain"]
TEMPLATE_MODES: tuple[TemplateMode, ...] = get_args(TemplateMode)

TEMPLATE_DATE = "2024-07-26"
"""The date that a template which writes one gets: always the same, so that a run can be repeated on another day. It is
the one that Llama's templates fall back to."""
_RESERVED = re.compile("reserved|unused|extra|placeholder|dummy", re.IGNORECASE)


def check_template_mode(mode: str) -> None:
    """Raise ParameterError, naming the nearest mode, for an unknown template mode."""
    check_fields(SimpleNamespace(template_mode=mode), template_mode=TEMPLATE_MODES)


def check_template_date(day: str) -> None:
    """Raise ParameterError for a text that is no date of the form year-month-day."""
    try:
        date.fromisoformat(day)
    except ValueError:
        wanted = f"a date such as {TEMPLATE_DATE!r} (year-month-day)"
        raise ParameterError(f"template_date takes {wanted}, not {day!r}") from None


def check_same_tokenizer(base: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Compare two tokenizers; return notes on differences in control tokens and in their roles (start, end, padding).

    Control tokens (added to the vocabulary, as a reserved name is given a use) may differ, ordinary entries may not.
    Raises TokenizerMismatch, with both observed values, where these, merges or the ids of some probe texts differ.
    """
    if base is aligned:
        return ()
    notes = _compare(base, aligned) if _content(base) != _content(aligned) else []
    roles = [
        f"{role} is {getattr(base, role)!r} in base and {getattr(aligned, role)!r} in aligned"
        for role in ("bos_token", "eos_token", "pad_token")
        if getattr(base, role) != getattr(aligned, role)
    ]
    if roles:
        notes.append(f"The tokenizers share their ordinary entries, but have other roles: {'; '.join(roles)}.")
    return tuple(notes)


def _compare(base: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase) -> list[str]:
    mine, other = base.get_vocab(), aligned.get_vocab()
    control = base.added_tokens_decoder.keys() | aligned.added_tokens_decoder.keys()
    different = sorted(set(mine.items()) ^ set(other.items()), key=lambda item: (item[1], item[0]))
    if ordinary := [token for token, i in different if i not in control]:
        raise TokenizerMismatch(
            f"the two models do not share one tokenizer: base has {len(mine):,} entries (hash {_hash(mine)}), aligned "
            f"{len(other):,} (hash {_hash(other)}), and {ordinary[0]!r} has the id {mine.get(ordinary[0])} in base and "
            f"{other.get(ordinary[0])} in aligned. Compare models of one family"
        )
    for what, a, b in (
        ("merges", _hash(_merges(base)), _hash(_merges(aligned))),
        *((f"encoding of {p!r}", encode_response(base, p), encode_response(aligned, p)) for p in PROBES),
    ):
        if a != b:
            raise TokenizerMismatch(
                f"the two models have the same ordinary vocabulary entries, but not the same {what}: base {a}, "
                f"aligned {b}. Compare models with one tokenizer"
            )
    ids = sorted({i for _, i in different})
    named = "; ".join(f"{i} is {_name(base, i)} in base and {_name(aligned, i)} in aligned" for i in ids[:5])
    more = f"; and {len(ids) - 5} more" if len(ids) > 5 else ""
    return [f"The tokenizers have other control tokens: {named}{more}."] if ids else []


def _name(tokenizer: PreTrainedTokenizerBase, i: int) -> str:
    token = tokenizer.convert_ids_to_tokens(i) if i < len(tokenizer) or i in tokenizer.added_tokens_decoder else None
    return "no token" if token is None else repr(token)


def unlike_tokens(base: PreTrainedTokenizerBase, aligned: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of aligned's control tokens that mean another token in base (not a reserved one)."""
    if base is aligned or base.added_tokens_decoder == aligned.added_tokens_decoder:
        return frozenset()
    names = {i: (_name(base, i), _name(aligned, i)) for i in aligned.added_tokens_decoder}
    return frozenset(i for i, (a, b) in names.items() if a not in (b, "no token") and not _RESERVED.search(a))


def check_shared(
    what: str, ids: Sequence[int], rows: int, unlike: Collection[int], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise PairError where ids have no row in both models, or mean another control token in base."""
    for i in ids:
        if i >= rows or i in unlike:
            why = f"has no row in both models, which share {rows:,}" if i >= rows else "is another token in base"
            raise PairError(
                f"{what} uses the control token {_name(tokenizer, i)}, whose id {i} {why}: take another template_mode "
                "('own' or 'plain'), or remove it from the text"
            )


def check_shared_template(tokenizer: PreTrainedTokenizerBase, rows: int, unlike: Collection[int]) -> None:
    """Raise PairError where the chat template writes tokens that base does not have, before weights are read."""
    ids: Sequence[int] = ()
    with contextlib.suppress(PairError):  # some templates need a system prompt, which comes later
        ids = chat_ids(tokenizer, [{"role": "user", "content": "a"}]) if template_of(tokenizer) else ()
    check_shared("the chat template", ids, rows, unlike, tokenizer)


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash all that decides token ids: the tokenizer's own description, special tokens, probe texts, template."""
    probes = [list(encode_response(tokenizer, p)) for p in PROBES]
    roles = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    return _hash((_content(tokenizer), probes, roles, template_of(tokenizer)))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _content(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash vocabulary, merges, added tokens and all steps; not padding and truncation, which change with use."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _hash((tokenizer.get_vocab(), {str(t): i for i, t in tokenizer.added_tokens_decoder.items()}))
    return hashlib.sha256(backend.to_str().partition('"added_tokens"')[2].encode()).hexdigest()


def _merges(tokenizer: PreTrainedTokenizerBase) -> str | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else backend.to_str().partition('"merges":')[2]


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
        channels = "; its channels are not a thinking block" if "<|channel|>" in (template_of(tokenizer) or "") else ""
        raise ParameterError(f"the chat template of {name} has no thinking switch{channels}: leave thinking False")


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
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    *,
    thinking: bool = False,
    template_date: str = TEMPLATE_DATE,
) -> tuple[int, ...]:
    """Encode messages by the chat template, up to where the answer's own text begins.

    A template that takes content in parts gets it so, one that asks for today's date gets `template_date`. Without
    `thinking`, what the template itself writes before an answer is added where the generation prompt leaves it out (a
    closed thinking block, the final channel, an assistant's header). Raises PairError where the template refuses the
    messages, for example a system prompt, or leaves one out.
    """
    from jinja2 import TemplateError

    how = template_settings(tokenizer, thinking, template_date)
    parts = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    lost: list[list[str]] = []
    try:
        for form in (messages, parts):
            written = cast(str, tokenizer.apply_chat_template(form, tokenize=False, add_generation_prompt=True, **how))
            lost.append([m["role"] for m in messages if not _holds(written, m)])
            if not lost[-1]:
                break
        else:
            raise PairError(
                f"the chat template leaves out the text of these turns: {', '.join(lost[0])}. Remove the system prompt "
                "or earlier turns, or use template_mode='plain'"
            )
        encoded = tokenizer.apply_chat_template(
            form, sanitize_control_tokens=True, return_dict=True, add_generation_prompt=True, **how
        )
    except TemplateError as error:
        roles = ", ".join(m["role"] for m in messages)
        raise PairError(
            f"the chat template refuses these turns ({roles}): {error}. Remove the system prompt, alternate user and "
            "assistant turns, or use template_mode='plain'"
        ) from None
    except _MISTAKES as error:
        raise PairError(
            f"the chat template has a mistake ({error}): correct it in the aligned model's "
            "folder, or use template_mode='plain'"
        ) from None
    ids = tuple(cast(Mapping[str, Any], encoded)["input_ids"])
    if thinking:
        return ids
    left_out = answer_opening(tokenizer, template_date)
    return ids + tuple(tokenizer(left_out, add_special_tokens=False)["input_ids"]) if left_out else ids


_MISTAKES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


def template_settings(tokenizer: PreTrainedTokenizerBase, thinking: bool, template_date: str) -> dict[str, Any]:
    """Return what `apply_chat_template` is given beside the messages: the thinking switch, a date that stands still.

    transformers lets no function into a template, so the one that writes today's date is defined anew in front of it.
    """
    template = template_of(tokenizer) or ""
    day = datetime.combine(date.fromisoformat(template_date), datetime.min.time())
    how: dict[str, Any] = {"enable_thinking": thinking} if knows_thinking(tokenizer) else {}
    how |= {"date_string": day.strftime("%d %b %Y")} if "date_string" in template else {}
    if "strftime_now" in template:
        written = "".join(f" | replace('%{d}', '{day.strftime('%' + d)}')" for d in _DIRECTIVES)
        macro = f"{{%- macro strftime_now(format) -%}}{{{{ format{written} }}}}{{%- endmacro %}}{{{{ '' }}}}"
        how["chat_template"] = macro + template
    return how


_DIRECTIVES = ("Y", "y", "m", "B", "b", "-d", "d", "e", "A", "a", "j", "H", "I", "M", "S", "p")


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template writes a date, today's unless it is given one."""
    return any(word in (template_of(tokenizer) or "") for word in ("strftime_now", "date_string"))


def answer_opening(tokenizer: PreTrainedTokenizerBase, template_date: str = TEMPLATE_DATE) -> str:
    """Return what stands between the generation prompt and an answer in the template's own rendering of both.

    R1's prompts open a thinking block, gpt-oss's leave the channel to the model, some templates ignore
    `add_generation_prompt`: without this an answer that is given, or begun, would stand in the wrong place. Blank space
    is not counted: the answer's tokens hold it.
    """
    return _opening(tokenizer, template_of(tokenizer) or "", template_date)


@functools.lru_cache(maxsize=8)
def _opening(tokenizer: PreTrainedTokenizerBase, template: str, template_date: str) -> str:
    """Return the opening, rendered once for each template (which is only here to be part of the key)."""
    from jinja2 import TemplateError

    how = template_settings(tokenizer, False, template_date)
    asked = [{"role": "user", "content": "a"}]
    try:
        prompt = cast(str, tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, **how))
        answered = [*asked, {"role": "assistant", "content": _MARK}]
        whole = cast(str, tokenizer.apply_chat_template(answered, tokenize=False, **how)).rpartition(_MARK)[0]
    except (TemplateError, *_MISTAKES):  # a template for another kind of turns: what it writes is taken as it is
        return ""
    missing = whole.removeprefix(prompt).rstrip(" ") if whole.startswith(prompt) else ""
    _, opened, inside = prompt.rpartition("<think>")
    if opened and "</think>" not in inside + missing and think_end(tokenizer) is not None:
        missing = "\n</think>\n\n"
    return missing if missing.strip() else ""


_MARK = "WORKBENCH"


def _holds(written: str, message: Mapping[str, str]) -> bool:
    """Tell whether a rendered text holds a message's; templates trim it, and drop an earlier answer's thinking."""
    text = message["content"]
    text = text.rpartition("</think>")[2] if message["role"] == "assistant" else text
    return text.strip() in written


def opens_thinking(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the generation prompt opens a thinking block that no switch closes, as DeepSeek-R1's does."""
    if "<think>" not in (template_of(tokenizer) or "") or knows_thinking(tokenizer) or think_end(tokenizer) is None:
        return False
    from jinja2 import TemplateError

    asked = [{"role": "user", "content": "a"}]
    try:
        written = cast(str, tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError, ValueError):
        return False
    return written.rstrip().endswith("<think>")


def plain_ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, bos: bool | None = None
) -> tuple[int, ...]:
    """Encode messages as plain text, each followed by a blank line, after the beginning-of-text token.

    `bos` says whether there is one; None asks the tokenizer (`takes_bos`).
    """
    text = "".join(f"{m['content']}\n\n" for m in messages)
    first = tokenizer.bos_token_id if (takes_bos(tokenizer) if bos is None else bos) else None
    return (() if first is None else (first,)) + encode_response(tokenizer, text)


def takes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether texts begin with the beginning-of-text token: the tokenizer adds it, or the chat template does.

    DeepSeek's tokenizers say so in a setting that their class does not read; their templates write it.
    """
    if tokenizer.bos_token_id is None:
        return False
    added = tokenizer("a", add_special_tokens=True)["input_ids"][:1] == [tokenizer.bos_token_id]
    return added or "bos_token" in (template_of(tokenizer) or "")


def encode_response(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Encode a response's text: no token is added, and control tokens typed into it stay text."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the control token that the chat template writes after an assistant's turn, or None."""
    if template_of(tokenizer) is None:
        return None
    from jinja2 import TemplateError

    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        text = cast(str, tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, *_MISTAKES):
        return None
    added = tokenizer.added_tokens_decoder
    tail = tokenizer(text.rpartition(_MARK)[2], add_special_tokens=False)["input_ids"]
    return next((i for i in tail if i in added and added[i].special), None)


def think_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the id of the token that ends a thinking block, or None."""
    found = tokenizer.convert_tokens_to_ids("</think>")  # the unknown token's id where there is none
    return found if found is not None and tokenizer.convert_ids_to_tokens(found) == "</think>" else None
