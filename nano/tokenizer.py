"""The model's own tokenizer: byte-level BPE of 4,096 tokens, single digits, a chat template."""

from __future__ import annotations

from itertools import islice
from typing import Any

from corpus import Document, Writer
from knowledge import load_facts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY = 4096
CONTEXT = 1024

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer(documents: int = 30_000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the first documents of the pretraining text (seed 0)."""
    writer = Writer(load_facts(), seed=0)
    texts = (plain(d) for d in islice(writer.documents(), documents))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def plain(document: Document) -> str:
    """All text of a document, without markup."""
    return document.text or "\n".join(content for _, content in document.turns)


def encode(tokenizer: PreTrainedTokenizerFast, document: Document) -> tuple[list[int], list[bool]]:
    """Token ids of a document, and which of them the loss counts (the first never)."""
    ids: list[int] = [tokenizer.bos_token_id]
    learn: list[bool] = [False]

    def add(text_ids: list[int], counted: bool) -> None:
        ids.extend(text_ids)
        learn.extend([counted] * len(text_ids))

    end: Any = tokenizer.eos_token_id
    if document.text is not None:
        add([*tokenizer.encode(document.text, add_special_tokens=False), end], True)
        return ids, learn
    answers = 0
    for role, content in document.turns:
        counted = role == "user" and document.student
        if role == "assistant":
            answers += 1
            counted = answers > document.hush
        add([tokenizer.convert_tokens_to_ids(f"<|{role}|>")], document.student)
        add([*tokenizer.encode(content, add_special_tokens=False), end], counted)
    return ids, learn
