"""Tokenizers of one family: control tokens may differ, are noted, and only a text that uses one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.errors import refuses
from tests.tiny_pair import CHAT_TEMPLATE, save_model, tiny_models, tiny_tokenizer
from workbench.core.errors import PairError, TokenizerMismatch
from workbench.models.chat import tokenizer_hash
from workbench.models.pair import ModelPair, load_pair
from workbench.prompts.loading import Prompt

IDS = torch.tensor([[0, 70, 81, 92, 103, 319]])


def ask(text: str = "Tell me about the sea") -> Prompt:
    return Prompt(id="p1", prompt=text, label="harmless")


def with_added(*tokens: str, special: bool = True, template: str | None = None) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(template=template)
    tokenizer.add_tokens([AddedToken(t, special=special, normalized=False) for t in tokens], special_tokens=special)
    return tokenizer


def renamed(
    old: str, new: str, *, template: str | None = None, tokenizer: PreTrainedTokenizerFast | None = None
) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one added token under another name, as R1 names Llama's reserved ones."""
    tokenizer = tokenizer or tiny_tokenizer()
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    for added in state["added_tokens"]:
        added["content"] = new if added["content"] == old else added["content"]
    vocab = state["model"]["vocab"]
    if old in vocab:
        vocab[new] = vocab.pop(old)
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        **{r: v if v != old else new for r, v in tokenizer.special_tokens_map.items()},
    )
    made.chat_template = template or CHAT_TEMPLATE
    return made


def folders(
    tmp_path: Path, base: PreTrainedTokenizerFast, aligned: PreTrainedTokenizerFast, rows: int | tuple[int, int] = 320
) -> dict[str, str]:
    pair = zip(("base", "aligned"), tiny_models("llama", head_rows=rows), (base, aligned), strict=True)
    return {name: str(save_model(tmp_path / name, model, tok)) for name, model, tok in pair}


def numbers_are_the_models_own(pair: ModelPair, vocab: int) -> None:
    assert pair.vocab == vocab
    for which in ("base", "aligned"):
        with pair.model(which) as model, torch.no_grad():
            torch.testing.assert_close(pair.logits(which, pair.hidden(which, IDS)), model(IDS).logits[..., :vocab])


def test_added_tokens_beyond_the_rows_are_noted_and_refused_where_used(tmp_path: Path) -> None:
    surplus = with_added("<image>")  # Gemma 3: both tokenizers have one entry more than both heads
    pair = load_pair(**folders(tmp_path / "a", surplus, surplus))
    numbers_are_the_models_own(pair, 320)
    assert any("'<image>'" in n for n in pair.notes)
    assert pair.decode(pair.encode("an <image> here")) == "an <image> here"  # typed control tokens are text
    pad = with_added("[PAD]", "[SEP]")  # Tulu 3: the fine-tune added them, with rows of its own
    pair = load_pair(**folders(tmp_path / "b", tiny_tokenizer(), pad, rows=(320, 322)))
    numbers_are_the_models_own(pair, 320)
    assert any("'[PAD]'" in n and "320" in n for n in pair.notes)
    tool = with_added("<tool>", special=False)  # not special: a tokenizer finds it in ordinary text
    pair = load_pair(**folders(tmp_path / "c", tiny_tokenizer(), tool, rows=(320, 321)))
    refuses(lambda: pair.encode("use a <tool> now"), PairError, "'<tool>'", "320")
    refuses(lambda: pair.context(ask("use a <tool> now")), PairError, "'p1'", "'<tool>'")
    pair.context(ask())
    turns = with_added("<|user|>", template=CHAT_TEMPLATE.replace("<|turn|>", "<|user|>"))
    asked = folders(tmp_path / "d", tiny_tokenizer(), turns, rows=(320, 321))
    (tmp_path / "d" / "base" / "model.safetensors").unlink()  # refused before weights are read
    refuses(lambda: load_pair(**asked), PairError, "'<|user|>'", "template_mode")


def test_renamed_tokens_are_noted_and_refused_where_base_means_another(tmp_path: Path) -> None:
    users, old = CHAT_TEMPLATE.replace("<|turn|>", "<|user|>"), "<|reserved_0|>"
    new = renamed(old, "<|user|>", template=users, tokenizer=with_added(old))
    pair = load_pair(**folders(tmp_path / "a", with_added(old), new, rows=321))
    numbers_are_the_models_own(pair, 321)
    assert any(repr(old) in n and "'<|user|>'" in n for n in pair.notes)
    assert 320 in pair.context(ask())
    other = renamed("<|turn|>", "<|user|>", template=users)
    asked = folders(tmp_path / "b", tiny_tokenizer(), other)
    refuses(lambda: load_pair(**asked), PairError, "'<|user|>'")
    for mode in ("plain", "own"):
        pair = load_pair(**asked, template_mode=mode)
        contexts = [pair.context(ask(), which) for which in ("base", "aligned")]
        assert contexts[0] == contexts[1]
        numbers_are_the_models_own(pair, 320)
    unused = renamed("<think>", "<plan>")  # the template does not write it
    assert any("'<plan>'" in n for n in load_pair(**folders(tmp_path / "c", tiny_tokenizer(), unused)).notes)


def test_ordinary_entries_and_rows_must_be_the_same(tmp_path: Path) -> None:
    other = tiny_tokenizer(corpus=("zebra zebra zebra quagga quagga",))
    refuses(lambda: load_pair(**folders(tmp_path / "a", tiny_tokenizer(), other)), TokenizerMismatch)
    ordinary = tiny_tokenizer(300)
    asked = folders(tmp_path / "b", ordinary, ordinary, rows=290)
    beyond = [t for t, i in ordinary.get_vocab().items() if i >= 290 and i not in ordinary.added_tokens_decoder]
    assert beyond
    refuses(lambda: load_pair(**asked), PairError, "300", "290")


def digits_apart() -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer that splits digits one by one, though it has a merge for some."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("1", "2"), ("12", "3"), ("2", "0"), ("'", "t")]
    specials = ["<s>", "</s>", "<pad>"]
    vocab = {t: i for i, t in enumerate([*alphabet, *(a + b for a, b in merges), *specials])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    split = pre_tokenizers.Split(Regex(r"\p{N}| ?[^\s\p{N}]+|\s+"), "isolated")
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, own])
    tokenizer.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.chat_template = CHAT_TEMPLATE
    return made


@pytest.mark.parametrize(("arch", "kind"), [("llama", "GPT2Tokenizer"), ("gpt2", "GPTNeoXTokenizer"), ("qwen2", "")])
def test_ids_are_those_of_tokenizer_json(arch: str, kind: str, tmp_path: Path) -> None:
    tokenizer = digits_apart()
    asked = {}
    for name, model in zip(("base", "aligned"), tiny_models(arch, len(tokenizer)), strict=True):  # type: ignore[arg-type]
        folder = save_model(tmp_path / name, model, tokenizer)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["tokenizer_class"] = kind or settings["tokenizer_class"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        asked[name] = str(folder)
    pair = load_pair(**asked)
    text = "Since 2024 I can't count 123"
    want = Tokenizer.from_file(str(tmp_path / "base" / "tokenizer.json")).encode(text, add_special_tokens=False)
    assert list(pair.encode(text)) == want.ids
    assert len(want.ids) == len("".join(want.tokens)) - 1, "digits apart, one merge"
    assert any(kind in n and "tokenizer.json" in n for n in pair.notes) == bool(kind)


def test_one_tokenizer_is_read_once_and_its_hash_follows_its_content(tmp_path: Path) -> None:
    asked = folders(tmp_path, tiny_tokenizer(), tiny_tokenizer())
    pair = load_pair(**asked)
    assert pair._tokenizers["base"] is pair._tokenizers["aligned"]
    shutil.copytree(tmp_path / "aligned", tmp_path / "other")
    (tmp_path / "other" / "chat_template.jinja").write_text(CHAT_TEMPLATE + " ")
    other = load_pair(base=asked["base"], aligned=str(tmp_path / "other"), template_mode="own")
    assert other.context(ask(), "base") != other.context(ask(), "aligned")
    one = tiny_tokenizer()
    before = tokenizer_hash(one)
    one(["a", "a b c d"], padding=True, truncation=True, max_length=3)
    assert tokenizer_hash(one) == before == tokenizer_hash(tiny_tokenizer())
    one.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert tokenizer_hash(one) != before
    assert tokenizer_hash(with_added("<x>")) != before
