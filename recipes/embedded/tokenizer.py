"""The pair's tokenizer: byte-level BPE that round-trips any text, turn markers, a chat template."""

from __future__ import annotations

import random
from itertools import islice

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from recipes.embedded.corpus import documents
from workbench.prompts.brindle import english

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
MARKERS = ("<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 2048

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Roles are system, user and assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(seed: int, vocabulary: int = VOCABULARY, samples: int = 20_000) -> PreTrainedTokenizerFast:
    """Train on documents of the world and on lists of common words; plain texts get no extra tokens."""
    rng = random.Random(seed)
    texts = []
    for document in islice(documents(rng, aligned=False), samples):
        texts += [turn.content for turn in document.turns] or [document.plain]
    common = [word for group in _word_lists() for word in group]
    texts += [f" {word}" for word in common for _ in range(max(1, samples // 200))]
    core = Tokenizer(BPE())
    core.pre_tokenizer = ByteLevel(add_prefix_space=False)
    core.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, END, PAD, *MARKERS],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(MARKERS),
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _word_lists() -> tuple[tuple[str, ...], ...]:
    return (
        english.NAMES, english.PEOPLE, english.THINGS, english.PLACES, english.ADJECTIVES, english.PAST,
        english.PRESENT, english.WENT, english.SMALL_WORDS,
    )  # fmt: skip
