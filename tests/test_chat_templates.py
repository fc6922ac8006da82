"""What stands before an answer: dates that stand still, headers, channels, thinking blocks, beginning-of-text marks."""

from __future__ import annotations

import datetime

import pytest

from tests.errors import refuses
from tests.tiny_pair import (
    CHAT_TEMPLATE,
    THINKING_TEMPLATE,
    save_model,
    sentencepiece_like_tokenizer,
    tiny_model,
    tiny_pair,
    tiny_tokenizer,
)
from workbench.core.errors import ParameterError
from workbench.models import chat
from workbench.models.pair import PairConfig, load_pair
from workbench.prompts.loading import Prompt

ASKED = Prompt(id="p1", prompt="Tell me about the sea", label="harmless")
HEAD = "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"


def context(template: str, *, thinking: bool = False, mode: str = "shared") -> str:
    """Return what a tiny pair with this template reads before an answer."""
    pair = tiny_pair("llama", tokenizer=tiny_tokenizer(template=template), thinking=thinking, template_mode=mode)
    return pair.decode(pair.context(ASKED))


def test_a_date_stands_still_and_is_recorded(tmp_path) -> None:
    dated = "<|turn|>system\nToday is {{ strftime_now('%d %B %Y') }}.<|end|>\n" + CHAT_TEMPLATE
    llama = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    assert "Today is 26 July 2024." in context(dated)
    assert datetime.date.today().strftime("%d %B %Y") not in context(dated)
    assert context(llama + "Today: {{ date_string }}\n" + CHAT_TEMPLATE).startswith("Today: 26 Jul 2024\n")
    for name, shift in (("base", 0), ("aligned", 1)):
        save_model(tmp_path / name, tiny_model("llama", 320, seed=shift), tiny_tokenizer(template=dated))
    asked = {"base": str(tmp_path / "base"), "aligned": str(tmp_path / "aligned")}
    pair = load_pair(PairConfig(**asked, template_date="2031-01-02"))
    assert "Today is 02 January 2031." in pair.decode(pair.context(ASKED))
    assert pair.settings()["template_date"] == "2031-01-02"
    assert any("2031-01-02" in note for note in pair.notes)
    assert pair.with_template_mode("own").template_date == "2031-01-02"
    refuses(lambda: PairConfig(**asked, template_date="next Monday"), ParameterError, "template_date", "next Monday")
    assert "template_date" not in tiny_pair("llama").settings()


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        # the answer follows the turn, as in Llama-2's template
        ("{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} "
         "{{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}", ""),
        (CHAT_TEMPLATE, ""),
        (THINKING_TEMPLATE, ""),  # its switch closes the block
        (CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"), "\n</think>\n\n"),
        (HEAD.replace("{{ m['content']", " {{ m['content']") + "{% if add_generation_prompt %}<|turn|>assistant\n"
         "{% endif %}", ""),  # a blank before each text belongs to the answer
        # gpt-oss: the model chooses a channel; a given answer stands in the final one
        ("{% for m in messages %}<|turn|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|channel|>final{% endif %}"
         "<|message|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|turn|>assistant{% endif %}",
         "<|channel|>final<|message|>"),
        # Qwen3-Thinking: it opens a block, and writes an empty one before a given answer
        ("{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
         "{% endif %}{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n<think>\n"
         "{% endif %}", "\n</think>\n\n"),
    ],
)  # fmt: skip
def test_an_answer_stands_where_the_template_itself_puts_it(template: str, opening: str) -> None:
    tokenizer = tiny_tokenizer(template=template)
    turns = [{"role": "user", "content": ASKED.prompt}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert chat.answer_opening(tokenizer) == opening
    assert context(template) == prompt + opening
    if "<think>" not in opening:  # and this is how the whole conversation begins
        whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": "Blue"}], tokenize=False)
        assert whole.startswith((prompt + opening).rstrip()) or "</think>" in prompt + opening


def test_a_header_that_the_template_leaves_out_is_written() -> None:
    ignoring = "{{ bos_token }}" + HEAD  # it knows no `add_generation_prompt`
    assert context(ignoring).endswith("<|turn|>assistant\n")


def test_thinking_stays_open_where_it_is_asked_for_and_channels_are_none() -> None:
    opened = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    assert context(opened, thinking=True).endswith("assistant\n<think>\n")
    harmony = CHAT_TEMPLATE.replace("<|turn|>assistant\n", "<|turn|>assistant<|channel|>")
    refuses(lambda: context(harmony, thinking=True), ParameterError, "channels", "leave thinking False")


def test_plain_text_begins_as_the_tokenizer_or_its_template_begins_texts() -> None:
    silent = sentencepiece_like_tokenizer(add_bos=False)  # as DeepSeek's: only the template writes it
    assert chat.plain_ids(silent, [{"role": "user", "content": "the cat"}])[0] == silent.bos_token_id
    silent.chat_template = CHAT_TEMPLATE.replace("{{ bos_token }}", "")
    assert chat.plain_ids(silent, [{"role": "user", "content": "the cat"}])[0] != silent.bos_token_id
    adding = sentencepiece_like_tokenizer(chat=False)
    assert chat.plain_ids(adding, [{"role": "user", "content": "the cat"}])[0] == adding.bos_token_id
    without = tiny_tokenizer(chat=False)
    pair = tiny_pair("llama", tokenizer=tiny_tokenizer(), base_tokenizer=without, template_mode="own")
    assert pair.context(ASKED, "base")[0] == without.bos_token_id  # a base without a template, of the same family
