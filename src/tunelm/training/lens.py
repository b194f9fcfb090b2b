"""A model's tokenizer as training uses it, and its tokens as people can read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from tunelm.config import ModelConfig
from tunelm.data.profile import Measured
from tunelm.data.records import Record, to_example
from tunelm.errors import DataError, ModelError
from tunelm.models.loading import load_tokenizer, resolve_base
from tunelm.models.render import is_text
from tunelm.training.job import TrainingRow, training_row
from tunelm.training.rows import EncodedRow, encode_row, encode_rows, encode_texts
from tunelm.types import Example

SPACE, BREAK, TAB = "·", "↵", "⇥"
"""How a space, a line break and a tab are made visible."""
_MARKS = {" ": SPACE, "\n": BREAK + "\n", "\t": TAB}
_HIDDEN = frozenset(("Cc", "Cf", "Zl", "Zp", "Zs"))


@dataclass(frozen=True, slots=True)
class Token:
    """One token; or those that spell one character together, which cannot be shown apart.

    `text` is exactly what stands there, `loss` whether the model learns to say it.
    """

    text: str
    ids: tuple[int, ...]
    loss: bool
    special: bool


@dataclass(frozen=True, slots=True)
class Lens:
    """A model's own tokenizer, with what training takes from the model beside it.

    `stops` are the tokens that end an answer, `limit` the most tokens of a row, `context` the
    most that the model itself can see (None: its config does not say).
    """

    tokenizer: Any
    stops: frozenset[int]
    limit: int
    context: int | None
    system: str

    def row(self, example: Example) -> TrainingRow:
        """The row as the local route writes it for training."""
        return training_row(example, self.system)

    def encode(self, row: TrainingRow) -> tuple[list[EncodedRow], str | None]:
        """(the row as training encodes it, why training refuses it).

        A row that is only too long has both; a running text may come in several pieces.
        """
        try:
            if is_text(row.messages):
                return encode_texts([row], self.tokenizer, self.limit), None
            return encode_rows([row], self.tokenizer, self.stops, self.limit), None
        except (DataError, ModelError) as error:
            reason = str(error)
        if is_text(row.messages) or not self.stops:
            return [], reason
        try:
            return [encode_row(row, self.tokenizer, self.stops)], reason
        except (DataError, ModelError):
            return [], reason

    def measure(self, record: Record) -> Measured:
        """The row's tokens, or why it cannot be trained on; for the profile."""
        try:
            row = self.row(to_example(record))
        except ValueError as error:
            return Measured(None, str(error))
        encoded, reason = self.encode(row)
        if not encoded:
            return Measured(None, reason)
        # later pieces begin with the token before them
        tokens = sum(len(piece.ids) for piece in encoded) - (len(encoded) - 1)
        return Measured(tokens, reason, over=reason is not None)


def open_lens(config: ModelConfig, system: str = "") -> Lens:
    """The lens of a base model. Reads its tokenizer and configs, loads no weights.

    Raises:
        ModelError: nothing loadable is there.
        PrerequisiteError: the extra `local` is missing.
    """
    tokenizer = load_tokenizer(config)
    from transformers import AutoConfig, GenerationConfig

    from tunelm.models.decoding import end_tokens

    base = resolve_base(config)
    try:
        shape: Any = AutoConfig.from_pretrained(base, revision=config.revision)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"model {config.base!r} has no config that can be read: {error}") from None
    try:  # as Transformers does when it loads the model: its file, or else the model's config
        generation = GenerationConfig.from_pretrained(base, revision=config.revision or "main")
    except OSError:
        generation = GenerationConfig.from_model_config(shape)
    stops = end_tokens(SimpleNamespace(generation_config=generation), tokenizer)
    context = getattr(shape, "max_position_embeddings", None)
    tokenizer.model_max_length = 10**30  # it would warn of long rows, which are shown anyway
    limit = min(config.max_length, context or config.max_length)
    return Lens(tokenizer, frozenset(stops), limit, context, system)


def tokens_of(tokenizer: Any, ids: Sequence[int], n_prompt: int) -> tuple[Token, ...]:
    """Token ids as texts that joined give the whole text; from `n_prompt` on they carry loss.

    A token's text is what it adds to the text before it, since decoders drop a space where a
    text begins; tokens that end in the middle of a character are shown with those that end it.
    """
    special = _special_ids(tokenizer)
    replacement = list(tokenizer.encode("\ufffd", add_special_tokens=False))
    tokens: list[Token] = []
    window = begin = 0
    while begin < len(ids):
        end, loss = begin + 1, begin >= n_prompt
        text = _added(tokenizer, ids, window, begin, end)
        if ids[begin] in special:
            text = str(tokenizer.convert_ids_to_tokens(ids[begin]))
        else:
            while (
                text.endswith("\ufffd")
                and list(ids[begin:end]) != replacement
                and end < len(ids)
                and end != n_prompt
                and ids[end] not in special
            ):
                end += 1
                text = _added(tokenizer, ids, window, begin, end)
        tokens.append(Token(text, tuple(ids[begin:end]), loss, ids[begin] in special))
        window, begin = begin, end
    return tuple(tokens)


def visible(text: str) -> str:
    """A text in which white space, and what is otherwise not seen, can be seen.

    >>> visible("a b") == "a·b", visible("x" + chr(0x200B) + "·")
    (True, 'x‹U+200B›‹U+00B7›')
    """
    return "".join(_MARKS.get(c) or (_named(c) if _is_hidden(c) else c) for c in text)


def _is_hidden(char: str) -> bool:
    return char in (SPACE, BREAK, TAB) or unicodedata.category(char) in _HIDDEN


def _named(char: str) -> str:
    return f"‹U+{ord(char):04X}›"


def _special_ids(tokenizer: Any) -> set[int]:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _added(tokenizer: Any, ids: Sequence[int], window: int, begin: int, end: int) -> str:
    """What the tokens from `begin` to `end` add to the text of those from `window` on."""
    before, whole = (
        str(tokenizer.decode(list(ids[window:stop]), clean_up_tokenization_spaces=False))
        for stop in (begin, end)
    )
    if whole.startswith(before):
        return whole[len(before) :]
    alone = tokenizer.decode(list(ids[begin:end]), clean_up_tokenization_spaces=False)
    return str(alone)
