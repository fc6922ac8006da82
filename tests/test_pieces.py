"""Display pieces join to what the tokenizer decodes, show every byte, and hold no lone surrogate."""

from __future__ import annotations

import functools
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.errors import refuses
from workbench.core.errors import PairError
from workbench.models.pieces import Pieces

SPECIALS = ("<s>", "</s>", "<|end of turn|>")
ADDED = ("naïve word", "<think>")
MERGED = ("he", "ll", "hell", "hello", "Ġhello", "ĠĠ", "ðŁ", "ĺĢ")  # the last two: halves of an emoji


def fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIALS])
    backend.add_tokens([AddedToken(s, normalized=False) for s in ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


@functools.cache
def byte_level() -> PreTrainedTokenizerFast:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("Ġ", "Ġ"), ("ð", "Ł"), ("ĺ", "Ģ")]
    for piece in MERGED:
        vocabulary[piece] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return fast(backend)


@functools.cache
def byte_fallback(strip: bool = True) -> PreTrainedTokenizerFast:
    """Like Llama 2 with `strip` (a space before each text, dropped in decoding), else like Gemma."""
    pieces = [
        "<unk>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁▁", *"abcdefghijklmnopqrstuvwxyz.,", "ll", "▁h",
        "é",
    ]  # fmt: skip
    merges = [("l", "l"), ("▁", "h"), ("▁", "▁")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    replace = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if strip else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    return fast(backend)


@functools.cache
def wordpiece() -> PreTrainedTokenizerFast:
    words = ["[UNK]", "hello", "wor", "##ld", ".", "a", "b", "##a"]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return fast(backend)


@functools.cache
def metaspace() -> PreTrainedTokenizerFast:
    words = ["<unk>", "▁hello", "▁wor", "ld", "▁", "a", "▁▁"]
    backend = Tokenizer(models.Unigram([(w, -1.0) for w in words], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return fast(backend)


MAKERS = {
    "byte_level": byte_level,
    "llama": byte_fallback,
    "gemma": lambda: byte_fallback(False),
    "wordpiece": wordpiece,
    "metaspace": metaspace,
}


@functools.cache
def pieces_of(name: str) -> Pieces:
    return Pieces(MAKERS[name]())


def decoded(name: str, ids: list[int]) -> str:
    return MAKERS[name]().decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def encoded(name: str, text: str) -> list[int]:
    return MAKERS[name]()(text, add_special_tokens=False)["input_ids"]


def check_printable(label: str) -> None:
    assert label
    for char in re.sub("⟨[0-9A-Zid +]*⟩", "", label):
        assert unicodedata.category(char) not in ("Cc", "Cs", "Cn", "Co", "Zl", "Zp"), f"{label!r}"
        assert char not in " \u00a0\u3000\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\ufeff"


TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(" \n\t▁hello😀👨\u200d👩\u200d👧🏽é️שלום\u202e\u2066مرحبا\x00\x07\x1b\u200b\u00a0"),
    ),
    max_size=30,
)


@pytest.mark.parametrize("name", MAKERS)
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_joined_pieces_are_what_the_tokenizer_decodes(name: str, data: st.DataObject) -> None:
    size = len(MAKERS[name]())
    ids = data.draw(st.lists(st.integers(0, size + 2), max_size=25))  # any ids, and some beyond the vocabulary
    shown = pieces_of(name).sequence(ids)
    assert ("".join(p.text for p in shown), len(shown)) == (decoded(name, ids), len(ids))
    for piece in shown:
        piece.text.encode()
        check_printable(piece.label)


@pytest.mark.parametrize("name", MAKERS)
@given(text=TEXTS, data=st.data())
@settings(deadline=None, max_examples=100)
def test_text_survives_and_a_context_only_shifts_the_start(name: str, text: str, data: st.DataObject) -> None:
    ids = encoded(name, text)
    display = pieces_of(name)
    shown = display.sequence(ids)
    assert "".join(p.text for p in shown) == decoded(name, ids)
    if name == "byte_level" or (name in ("llama", "gemma") and "▁" not in text):
        assert "".join(p.text for p in shown) == text
    cut = data.draw(st.integers(0, len(ids)))
    rest = display.sequence(ids[cut:], context=ids[:cut])
    assert rest == shown[cut:]


@given(ids=st.lists(st.integers(0, 263), max_size=30), cut=st.integers(0, 30))
@settings(deadline=None)
def test_what_is_whole_stays_when_more_follows(ids: list[int], cut: int) -> None:
    display = pieces_of("byte_level")
    start, whole = display.sequence(ids[:cut]), display.sequence(ids)
    settled = [i for i, p in enumerate(start) if not p.partial]
    assert [start[i] for i in settled] == [whole[i] for i in settled]


@pytest.mark.parametrize(("name", "hexes"), [("byte_level", ["⟨F0 9F⟩"]), ("llama", ["⟨F0⟩", "⟨9F⟩", "⟨98⟩"])])
def test_a_cut_off_tail_shows_its_bytes(name: str, hexes: list[str]) -> None:
    ids = encoded(name, "a😀")[:-1]
    shown = pieces_of(name).sequence(ids)
    tail = shown[-len(hexes) :]
    assert [p.label for p in tail] == hexes
    assert all(p.partial for p in tail)
    assert "".join(p.text for p in tail) == "\ufffd" * len(hexes)


def test_characters_are_carried_by_the_token_that_completes_them() -> None:
    display = pieces_of("byte_level")
    shown = display.sequence(encoded("byte_level", "a😀b"))
    assert [(p.text, p.label, p.partial) for p in shown] == [
        ("a", "a", False),
        ("", "⟨F0 9F⟩", True),
        ("😀", "😀", False),
        ("b", "b", False),
    ]
    display = pieces_of("llama")
    shown = display.sequence(encoded("llama", "a😀"))
    assert [p.text for p in shown] == ["", "a", "", "", "", "😀"]
    assert [p.label for p in shown] == ["·", "a", "⟨F0⟩", "⟨9F⟩", "⟨98⟩", "😀"]
    assert [p.partial for p in shown] == [False, False, True, True, True, False]
    display, vocabulary = pieces_of("byte_level"), byte_level().get_vocab()
    ids = [
        vocabulary["ðŁ"], vocabulary["hello"], vocabulary["ĺĢ"], vocabulary["<s>"], vocabulary["ðŁ"],
        vocabulary["<s>"],
    ]  # fmt: skip
    shown = display.sequence(ids)
    assert [p.text for p in shown] == ["\ufffd", "hello", "\ufffd\ufffd", "<s>", "\ufffd", "<s>"]
    assert [p.label for p in shown] == ["⟨F0 9F⟩", "hello", "⟨98 80⟩", "<s>", "⟨F0 9F⟩", "<s>"]
    assert [p.partial for p in shown] == [True, False, True, False, True, False]
    assert [p.special for p in shown] == [False, False, False, True, False, True]
    first, second = encoded("byte_level", "😀")
    (piece,) = pieces_of("byte_level").sequence([second], context=[first])
    assert (piece.text, piece.partial) == ("😀", False)
    (alone,) = pieces_of("byte_level").sequence([second])
    assert (alone.text, alone.label, alone.partial) == ("\ufffd\ufffd", "⟨98 80⟩", True)


@pytest.mark.parametrize("name", MAKERS)
def test_special_tokens_are_written_out_and_typed_text_is_not_special(name: str) -> None:
    ids = [MAKERS[name]().get_vocab()[s] for s in (*SPECIALS, *ADDED)]
    assert [p.special for p in pieces_of(name).sequence(ids)] == [True, True, True, False, False]
    assert [p.text.strip() for p in pieces_of(name).sequence(ids)] == [*SPECIALS, *ADDED]
    typed = encoded(name, "<s")
    assert not any(p.special for p in pieces_of(name).sequence(typed))


def test_spaces_and_special_tokens_are_what_they_are() -> None:
    display, ids = pieces_of("llama"), encoded("llama", "hello hello")
    vocabulary = byte_fallback().get_vocab()
    assert (display.sequence(ids)[0].text, display.sequence(ids)[0].label) == ("h", "·h")
    assert display.sequence(ids, context=[vocabulary["<s>"]])[0].text == " h"
    assert display.sequence(ids, context=ids)[0].text == " h"
    assert "".join(p.text for p in display.sequence([vocabulary["▁▁"], *ids])) == "  hello hello"
    vocabulary = byte_level().get_vocab()
    shown = pieces_of("byte_level").sequence([vocabulary[c] for c in "<s>"])
    assert "".join(p.text for p in shown) == "<s>"
    assert not any(p.special for p in shown)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" ", "·"), ("\n", "↵"), ("\t", "⇥"), ("\u202e", "⟨U+202E⟩"), ("\u200b", "⟨U+200B⟩"), ("\x1b", "⟨U+001B⟩"),
        ("\u00a0", "⟨U+00A0⟩"), ("\ufe0f", "⟨U+FE0F⟩"), ("\u0301", "◌\u0301"), ("ש", "ש"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["byte_level", "gemma"])
def test_invisible_characters_have_printable_labels(name: str, text: str, label: str) -> None:
    shown = pieces_of(name).sequence(encoded(name, text))
    assert (shown[-1].text, shown[-1].label) == (text, label)


@pytest.mark.parametrize("name", MAKERS)
def test_every_vocabulary_element_has_a_label(name: str) -> None:
    display = pieces_of(name)
    for token_id in range(len(MAKERS[name]())):
        check_printable(display.label(token_id))


def test_kinds_and_labels_of_every_tokenizer() -> None:
    vocabulary, display = byte_level().get_vocab(), pieces_of("byte_level")
    assert (display.label(vocabulary["Ġhello"]), display.label(vocabulary["ĠĠ"])) == ("·hello", "··")
    assert display.label(vocabulary["ðŁ"]) == "⟨F0 9F⟩"
    assert display.label(vocabulary["<|end of turn|>"]) == "<|end·of·turn|>"
    assert display.label(vocabulary["naïve word"]) == "naïve·word"
    assert (display.label(len(byte_level()) + 5), display.label(-1)) == (f"⟨id {len(byte_level()) + 5}⟩", "⟨id -1⟩")
    vocabulary, display = byte_fallback().get_vocab(), pieces_of("llama")
    assert (display.label(vocabulary["▁h"]), display.label(vocabulary["<0xE2>"])) == ("·h", "⟨E2⟩")
    assert (display.label(vocabulary["<0x0A>"]), display.label(-1)) == ("↵", "⟨id -1⟩")
    vocabulary, display = wordpiece().get_vocab(), pieces_of("wordpiece")
    assert (display.label(vocabulary["hello"]), display.label(vocabulary["##ld"])) == ("·hello", "ld")
    assert {name: pieces_of(name).kind for name in MAKERS} == {
        "byte_level": "byte_level",
        "llama": "byte_fallback",
        "gemma": "byte_fallback",
        "wordpiece": "other",
        "metaspace": "other",
    }
    backend = Tokenizer.from_str(byte_level().backend_tokenizer.to_str())
    backend.decoder = None
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    display = Pieces(tokenizer)
    assert display.kind == "byte_level"
    assert "".join(p.text for p in display.sequence(encoded("byte_level", "hello 😀"))) == "hello 😀"
    backend = Tokenizer.from_str(byte_level().backend_tokenizer.to_str())
    backend.add_tokens(["éÃ"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert "".join(p.text for p in Pieces(tokenizer).sequence([len(tokenizer) - 1])) == "éÃ"
    refuses(lambda: Pieces(object()), PairError, "tokenizer")
