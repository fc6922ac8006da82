"""Token ids as display pieces: texts that join to the decoded text, and a printable label for each token.

A character may be split over several tokens. Decoding ids one by one shows a replacement character for each of them;
here the token that completes a character carries it, and the earlier ones are marked partial, with their bytes as
label. No byte is lost and no lone surrogate arises.
"""

from __future__ import annotations

import codecs
import functools
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from workbench.core import legible
from workbench.core.errors import PairError

Kind = Literal["byte_level", "byte_fallback", "other"]

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANK = re.compile("◌?([\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000\ufe00-\ufe0f\U000e0100-\U000e01ef])")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One token of a sequence for display.

    `text` is what the token adds to the text: empty where a later token completes its bytes. `label` is never empty and
    has a printable sign for everything invisible. `partial`: some of the token's bytes make no whole character here.
    `special`: an added token with its own meaning (end of turn, ...), written out.
    """

    text: str
    label: str
    partial: bool
    special: bool


class Pieces:
    """The display pieces of one fast tokenizer; others raise PairError.

    `kind` is how its vocabulary holds text: "byte_level" (GPT-2, Llama 3, Qwen: each character of a vocabulary element
    is one byte), "byte_fallback" (sentencepiece, Llama 2, Gemma: text, and elements <0xE2> for single bytes), or
    "other" (WordPiece, Metaspace without bytes: text only). It comes from the tokenizer's decoder; a tokenizer without
    one is byte-level where its pre-tokenizer is.
    """

    def __init__(self, tokenizer: Any) -> None:
        try:
            self._backend: Any = tokenizer.backend_tokenizer
            decoder, before = _types(self._backend.decoder), _types(self._backend.pre_tokenizer)
        except AttributeError:
            raise PairError(
                f"{type(tokenizer).__name__} is not a fast tokenizer, so its tokens cannot be split into bytes: load "
                "it with AutoTokenizer, which converts it, or save it with a tokenizer.json"
            ) from None
        if "ByteLevel" in decoder or (not decoder and "ByteLevel" in before):
            self.kind: Kind = "byte_level"
        else:
            self.kind = "byte_fallback" if "ByteFallback" in decoder else "other"
        added = self._backend.get_added_tokens_decoder()
        self._added = frozenset(added)
        self._special = {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
        self._bytes: dict[int, bytes | None] = {}
        self._texts: dict[int, str] = {}
        self._anchor = -1 if self.kind == "byte_level" else self._find_anchor()

    def sequence(self, ids: Sequence[int], context: Sequence[int] = ()) -> tuple[Piece, ...]:
        """Return one piece for each of `ids`, which follow the ids in `context`.

        Joined, their texts are the decoded text (special tokens kept, no clean-up of spaces), less that of the context:

        - A sentencepiece tokenizer that puts a space before a text also drops one from the start of what it decodes:
          the first piece then has no leading space, unless a context or special token precedes it.
        - Bytes that never become a character, such as a cut-off tail, show as U+FFFD in the token where they end; in a
          broken run of byte tokens of a sentencepiece tokenizer each token shows U+FFFD. Their labels have the bytes.
        - A character begun in the context and completed here belongs wholly to the piece that completes it.
        - An id outside the vocabulary (a padded output head) has no text.
        - An added token that could be read as bytes (`é` in a byte-level vocabulary) shows as its text, where the
          tokenizer would decode a broken character.
        """
        cut = self._where_it_matters(context)
        together = (*context[cut:], *ids)
        if self.kind == "byte_level":
            pieces = self._pieces(together, _assemble([self._raw(i) or b"" for i in together]))
        else:
            pieces = self._by_decoder(together, context[:cut])
        return pieces[len(context) - cut :]

    def label(self, token_id: int) -> str:
        """Return the printable form of one vocabulary element by itself, never empty.

        A space is `·`, a line end `↵`, another invisible character `⟨U+200B⟩`, broken bytes `⟨E2 80⟩`, an id without an
        element `⟨id 151900⟩`.
        """
        raw = self._raw(token_id)
        if raw is not None:
            shown = _assemble([raw])[0]
            return shown.label or f"⟨id {token_id}⟩"
        return _printable(self._text(token_id)) or f"⟨id {token_id}⟩"

    # ---------------------------------------------------------------------------------- one vocabulary element

    def _raw(self, token_id: int) -> bytes | None:
        """Return a token's bytes (b"" for an id without element); None where it holds text."""
        if token_id not in self._bytes:
            self._bytes[token_id] = self._read_bytes(token_id)
        return self._bytes[token_id]

    def _read_bytes(self, token_id: int) -> bytes | None:
        element: str = (self._backend.id_to_token(token_id) if token_id >= 0 else None) or ""
        if self.kind == "byte_level":
            literal = token_id in self._added or not all(char in _BYTE_OF for char in element)
            return element.encode() if literal else bytes(_BYTE_OF[char] for char in element)
        if not element:
            return b""
        found = _BYTE_TOKEN.fullmatch(element) if self.kind == "byte_fallback" else None
        return bytes([int(found[1], 16)]) if found else None

    def _text(self, token_id: int) -> str:
        """Return the text that a token adds in mid-text, by the tokenizer's own decoder."""
        if token_id not in self._texts:
            before = self._decode([self._anchor])
            self._texts[token_id] = self._decode([self._anchor, token_id])[len(before) :]
        return self._texts[token_id]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._backend.decode([i for i in ids if i >= 0], skip_special_tokens=False)
        return text

    def _find_anchor(self) -> int:
        """Find an element of plain letters after which any other can be decoded."""
        for token_id in range(self._backend.get_vocab_size()):
            text = self._decode([token_id])
            plain = self._raw(token_id) is None and text.isascii() and text.isalnum()
            if plain and self._decode([token_id] * 2).startswith(text):
                return token_id
        return -1

    # -------------------------------------------------------------------------------------------- a sequence

    def _where_it_matters(self, context: Sequence[int]) -> int:
        """Find the first id of a context whose bytes may still be open at its end: a character has at most four."""
        cut, open_bytes = len(context), 0
        while cut and (self.kind != "byte_level" or open_bytes < 3):
            raw = self._raw(context[cut - 1])
            if raw is None:
                break
            cut, open_bytes = cut - 1, open_bytes + len(raw)
        return cut

    def _pieces(self, ids: Sequence[int], shown: Sequence[_Shown]) -> tuple[Piece, ...]:
        return tuple(
            Piece(text=s.text, label=s.label or self.label(i), partial=s.partial, special=i in self._special)
            for i, s in zip(ids, shown, strict=True)
        )

    def _by_decoder(self, ids: Sequence[int], context: Sequence[int]) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        at = 0
        started = bool(self._decode([*context]))  # the decoder's rules for the start of a text no longer apply
        while at < len(ids):
            end = at + 1
            if self._raw(ids[at]) is not None:
                while end < len(ids) and self._raw(ids[end]) is not None:
                    end += 1
                shown = _byte_run([self._raw(i) or b"" for i in ids[at:end]])
            else:
                shown = [_Shown(text=self._text(ids[at]), label=self.label(ids[at]))]
            if not started:
                whole = self._decode([*context, *ids[:end]])
                shown = _at_the_start(shown, whole)
                started = bool(whole)
            pieces += self._pieces(ids[at:end], shown)
            at = end
        return tuple(pieces)


# ---------------------------------------------------------------------------------------------- as a record's arrays


def padded(parts: Sequence[Any], fill: float | int | bool, dtype: type, *axes: int) -> np.ndarray:
    """Return sequences (of entries of shape `axes`) as rows of one array, padded on the right with `fill`."""
    out: np.ndarray = np.full((len(parts), max(map(len, parts), default=0), *axes), fill, dtype)
    for row, part in zip(out, parts, strict=True):
        if len(part):
            row[: len(part)] = part
    return out


def token_arrays(display: Pieces, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> dict[str, Any]:
    """Return (ids, context) rows as a record's fields: token_ids, mask, and for display pieces, partial, special."""
    shown = [display.sequence(ids, context=context) for ids, context in rows]
    return {
        "token_ids": padded([ids for ids, _ in rows], -1, np.int32),
        "mask": padded([[True] * len(ids) for ids, _ in rows], False, np.bool_),
        "pieces": tuple(tuple(p.text for p in pieces) for pieces in shown),
        "partial": padded([[p.partial for p in pieces] for pieces in shown], False, np.bool_),
        "special": padded([[p.special for p in pieces] for pieces in shown], False, np.bool_),
    }


def labelled(display: Pieces, *ids: np.ndarray) -> dict[str, Any]:
    """Return a record's `label_ids` and `labels`: every id in the arrays, with its printable form."""
    found = np.unique(np.concatenate([a.ravel() for a in ids]))
    found = found[found >= 0].astype(np.int32)
    return {"label_ids": found, "labels": tuple(display.label(i) for i in found.tolist())}


# ----------------------------------------------------------------------------------------------------- bytes


@dataclass
class _Shown:
    text: str = ""
    label: str = ""
    partial: bool = False


def _assemble(parts: Sequence[bytes]) -> list[_Shown]:
    """Decode byte strings as one UTF-8 text; each gets the characters that it completes and a label for the rest.

    Broken bytes become U+FFFD by the standard: one for each longest beginning of a character.
    """
    texts = [""] * len(parts)
    labels: list[list[str | bytes]] = [[] for _ in parts]  # str: characters, bytes: what is no character here
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pending = b""
    last = 0  # the part that holds the last pending byte
    for index, part in enumerate(parts):
        if not pending and _whole(part):
            texts[index] = part.decode()
            labels[index].append(texts[index])
            continue
        for value in part:
            byte = bytes([value])
            text = decoder.decode(byte)
            waiting = decoder.getstate()[0]
            if text and pending and not _whole(pending + byte):
                texts[last] += text[0]  # the pending bytes are broken: their sign belongs where they end
                text = text[1:]
            if waiting:
                labels[index].append(byte)
            elif _whole(pending + byte):
                _take_back(labels[index], len(pending))
                labels[index].append(text)
            elif text == _REPLACEMENT:
                labels[index].append(byte)
            else:
                labels[index].append(text)
            texts[index] += text
            pending, last = waiting, index
    if pending:
        texts[last] += decoder.decode(b"", True)
    return [
        _Shown(text=text, label=_label(label), partial=any(isinstance(part, bytes) for part in label))
        for text, label in zip(texts, labels, strict=True)
    ]


def _whole(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _take_back(label: list[str | bytes], count: int) -> None:
    """Remove up to `count` single bytes from a label's end: they have become part of a character."""
    while count and label and isinstance(label[-1], bytes):
        label.pop()
        count -= 1


def _label(parts: Sequence[str | bytes]) -> str:
    """Join characters and bytes to one printable form, neighbours of one kind together."""
    out = []
    for kind, group in itertools.groupby(parts, type):
        if kind is bytes:
            out.append(f"⟨{b''.join(cast(Iterable[bytes], group)).hex(' ').upper()}⟩")
        else:
            out.append(_printable("".join(cast(Iterable[str], group))))
    return "".join(out)


@functools.lru_cache(maxsize=1 << 16)
def _printable(text: str) -> str:
    return _BLANK.sub(lambda found: f"⟨U+{ord(found[1]):04X}⟩", legible.label(text))


def _byte_run(parts: Sequence[bytes]) -> list[_Shown]:
    """Decode a run of byte tokens as sentencepiece does: whole, or every byte as U+FFFD."""
    if _whole(b"".join(parts)):
        return _assemble(parts)
    return [_Shown(text=_REPLACEMENT, label=_label([part]), partial=True) if part else _Shown() for part in parts]


def _at_the_start(shown: list[_Shown], whole: str) -> list[_Shown]:
    """Give pieces at the start of a text the decoder's text; their labels stay."""
    if len(shown) == 1:
        shown[0].text = whole
        return shown
    left_out = len("".join(piece.text for piece in shown)) - len(whole)
    for piece in shown:
        cut = min(left_out, len(piece.text))
        piece.text, left_out = piece.text[cut:], left_out - cut
    return shown


def _types(part: Any) -> set[str]:
    """List the kinds of step in a tokenizer's decoder or pre-tokenizer."""
    if part is None:
        return set()
    steps, found = [json.loads(part.__getstate__())], set()  # its state is the JSON of tokenizer.json
    while steps:
        step = steps.pop()
        found.add(step["type"])
        steps += step.get("decoders") or step.get("pretokenizers") or []
    return found


def _byte_alphabet() -> dict[str, int]:
    """Map each character of GPT-2's byte alphabet to its byte; printable ones map to themselves."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(0x100) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + n): b for n, b in enumerate(moved)}


_BYTE_OF = _byte_alphabet()
