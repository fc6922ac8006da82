"""Conversations in a prompt source: lists of turns, also as text in a cell of a CSV file."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping
from typing import Any, Literal

Turn = tuple[str, str]
_Speaker = Literal["system", "user", "assistant"]
_ROLES: Mapping[str, _Speaker] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot"), "assistant"),
}
_WRITTEN = re.compile(r"\s*\[\s*\{\s*(['\"])(role|content|from|value)\1\s*:")


class Unusable(Exception):
    """A row with an unusable value; the message says which."""


def is_turn(value: Any) -> bool:
    """Tell whether a value is a turn {role, content} or {from, value}."""
    return isinstance(value, Mapping) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def unwritten(value: Any, *, listed: bool = False) -> Any:
    """Return the list that a text spells, as JSON or as Python prints it; any other value unchanged.

    A text is read where it begins as a list of turns does, or where `listed` says that its column holds lists. Raises
    Unusable where it cannot be read.
    """
    if not isinstance(value, str) or not (_WRITTEN.match(value) or (listed and value.lstrip().startswith("["))):
        return value
    for read in (json.loads, _printed):
        try:
            found = read(value)
        except (ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
            continue
        if isinstance(found, list):
            return found
    raise Unusable(f"the text {value.strip()[:40]!r} begins as a list of turns, and cannot be read as one")


def _printed(text: str) -> Any:
    """Read a list as Python prints it, or an array as NumPy does: without commas between its elements."""
    words: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
        begins = token.type == tokenize.STRING or token.string == "{"
        if begins and words and words[-1][-1] in "}'\"":
            words.append(",")
        words += [token.string] if token.string.strip() else []
    return ast.literal_eval("".join(words))


def split_turns(turns: list[Any]) -> tuple[tuple[Turn, ...] | None, str, str | None]:
    """Split turns into those before the last user turn, that turn, and the answer after it.

    Of a list of texts, which are the user's turns, the first is asked: the others depend on its answer.
    """
    if turns and all(isinstance(turn, str) for turn in turns):
        return None, turns[0], None
    flat = [_turn(turn) for turn in turns]
    closing = flat.pop()[1] if flat and flat[-1][0] == "assistant" else None
    if not flat or flat[-1][0] != "user":
        raise Unusable("the turns do not end with a user's (and at most one answer after it)")
    return tuple(flat[:-1]) or None, flat[-1][1], closing


def answer_of(value: Any) -> Any:
    """Return the answer that closes a list of turns; any other value unchanged."""
    value = unwritten(value)
    if not isinstance(value, list) or not value:
        return None if value == [] else value
    role, text = _turn(value[-1])
    if role != "assistant":
        raise Unusable(f"the response's last turn is the {role}'s, not the assistant's")
    return text


def _turn(turn: Any) -> Turn:
    role, text = None, None
    if is_turn(turn):
        role = _ROLES.get(str(turn.get("role", turn.get("from"))).casefold())
        text = turn.get("content", turn.get("value"))
        if isinstance(text, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in text):
            text = "".join(str(part.get("text", "")) for part in text)
    if role is None or not isinstance(text, str):
        known = ", ".join(sorted(set(_ROLES.values())))
        raise Unusable(f"a turn needs a role ({known}) and its content as text, not {str(turn)[:60]}")
    return role, text


_MARKS = (
    "</s>", "<eos>", "<|end|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>",
    "<end_of_turn>", "<|return|>", "<|end_of_turn|>", "<|eot|>", "<｜end▁of▁sentence｜>",
    "<|END_OF_TURN_TOKEN|>", "<|END_RESPONSE|>", "[/INST]",
)  # fmt: skip
_AT_END = re.compile(rf"(?:\s*(?:{'|'.join(map(re.escape, _MARKS))}))+\s*$")


def without_end_marks(response: str) -> tuple[str, str]:
    """Return a response without the end marks of a chat format at its end, and what was cut off.

    Written into a text they would be scored as several tokens of the answer. Inside a text they stay: there they may be
    what the text is about.
    """
    found = _AT_END.search(response)
    return (response, "") if found is None else (response[: found.start()], found[0].strip())
