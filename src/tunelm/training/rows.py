"""Rows to token ids, with proof that the loss falls on the answer and nothing else.

The failures this module makes impossible are silent ones: loss on the prompt, loss on
nothing, an answer cut off, a turn end that is never learned, a prompt that reads differently
in training and in serving.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunelm.errors import DataError, ModelError
from tunelm.models.render import encode_prompt, prefix_token
from tunelm.training.job import TrainingRow
from tunelm.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RULES = 1
"""Raised whenever a row would be encoded otherwise than before: rows on disk are then made anew."""

MOST_PROBLEMS = 100
"""After so many the other rows are not looked at."""
_MARKERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """A row as the model sees it.

    `ids` are prompt, answer and one turn end. The first `n_prompt` of them are exactly what a
    served model gets as its prompt; the others carry loss. Of a conversation with several
    learned answers, `gaps` are the stretches [start, end) after the first answer that carry
    none: what others say in between.
    """

    id: str
    ids: tuple[int, ...]
    n_prompt: int
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def learned(self) -> Sequence[int]:
        """The positions in `ids` that carry loss."""
        if not self.gaps:
            return range(self.n_prompt, len(self.ids))
        silent = {at for start, end in self.gaps for at in range(start, end)}
        return [at for at in range(self.n_prompt, len(self.ids)) if at not in silent]

    @property
    def supervised(self) -> tuple[int, ...]:
        """The tokens that carry loss: each learned answer and its turn end."""
        return tuple(self.ids[at] for at in self.learned)

    @property
    def length(self) -> int:
        """Tokens fed to the model; the last turn end is only ever a target."""
        return len(self.ids) - 1

    @property
    def inputs(self) -> tuple[int, ...]:
        """Tokens fed to the model."""
        return self.ids[:-1]

    @property
    def places(self) -> Sequence[int]:
        """For each supervised token the position of the input that predicts it."""
        return [at - 1 for at in self.learned]

    @property
    def pieces(self) -> tuple[int, ...]:
        """The lengths of the texts it is made of: itself alone."""
        return (self.length,)


def encode_texts(
    rows: Iterable[TrainingRow], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[EncodedRow]:
    """All rows of `stream_texts`."""
    return list(stream_texts(rows, tokenizer, max_length))


def encode_rows(
    rows: Iterable[TrainingRow],
    tokenizer: PreTrainedTokenizerBase,
    stops: Collection[int],
    max_length: int,
) -> list[EncodedRow]:
    """All rows of `stream_rows`."""
    return list(stream_rows(rows, tokenizer, stops, max_length))


def stream_texts(
    rows: Iterable[TrainingRow], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Iterator[EncodedRow]:
    """Encode running texts: BOS, the text, EOS; every token but the BOS carries loss.

    A text of more tokens than `max_length` becomes several rows; each later one begins with
    the token before it, so that every token is a target exactly once and nothing is cut off.
    """
    bos = prefix_token(tokenizer)
    eos = tokenizer.eos_token_id
    for row in rows:
        ids = [bos, *_ids(tokenizer, row.messages[0].content)]
        if isinstance(eos, int):
            ids.append(eos)
        for number, start in enumerate(range(0, len(ids) - 1, max_length - 1)):
            piece = tuple(ids[start : start + max_length])
            yield EncodedRow(f"{row.id}#{number}" if start else row.id, piece, 1)


def stream_rows(
    rows: Iterable[TrainingRow],
    tokenizer: PreTrainedTokenizerBase,
    stops: Collection[int],
    max_length: int,
) -> Iterator[EncodedRow]:
    """Encode all rows, one after the other; nothing is ever cut.

    Args:
        rows: chats that end with the assistant's answer.
        tokenizer: the model's own, with its own chat template if it has one.
        stops: the tokens that end an answer (`models.decoding.end_tokens`).
        max_length: most tokens of prompt and answer together.

    Raises:
        DataError: after the last row; names every row that is too long or whose mask cannot be
            proven, up to a hundred.
        ModelError: the model names no token that ends an answer, or refuses the messages.
    """
    if not stops:
        raise ModelError(
            "the model names no end-of-text token, so it could never learn to stop. "
            "Set eos_token in its tokenizer_config.json."
        )
    problems: list[str] = []
    for row in rows:
        if len(problems) >= MOST_PROBLEMS:
            break
        try:
            one = encode_row(row, tokenizer, stops)
        except DataError as error:
            problems.extend(error.problems)
            continue
        if len(one.ids) > max_length:
            problems.append(
                f"row {row.id}: {len(one.ids)} tokens, the limit is {max_length}. Shorten it, "
                "raise model.max_length, or let data.over_long drop or cut such rows."
            )
        if not problems:
            yield one
    if problems:
        raise DataError(problems)


def encode_row(
    row: TrainingRow, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]
) -> EncodedRow:
    """Encode one row and prove its mask: see `EncodedRow` for what then holds.

    A template that closes no turn gets the tokenizer's EOS put after the answer. Each learned
    answer of a conversation is encoded as if the conversation ended with it, which must be the
    beginning of the whole.

    Raises:
        DataError: an answer is empty or holds a turn end, or the serving prompt is no prefix.
    """
    turns = [_encode_turn(row, at, tokenizer, stops) for at in row.learned]
    whole = turns[-1]
    for turn in turns[:-1]:
        if whole.ids[: len(turn.ids)] != turn.ids:
            raise DataError(
                f"row {row.id}: the chat template writes an earlier answer otherwise once the "
                "conversation goes on, so that no one row can teach both. Give each answer a "
                "row of its own."
            )
    gaps = tuple((len(a.ids), b.n_prompt) for a, b in itertools.pairwise(turns))
    return dataclasses.replace(whole, n_prompt=turns[0].n_prompt, gaps=gaps)


def _encode_turn(
    row: TrainingRow, at: int, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]
) -> EncodedRow:
    """The row up to the answer that is message `at`, with loss on that answer alone."""
    *before, answer = messages = row.messages[: at + 1]
    if not answer.content.strip():
        raise DataError(f"row {row.id}: the answer is empty, so there is nothing to learn.")
    prompt = _prompt(row.id, tokenizer, before)
    if not prompt:
        raise DataError(f"row {row.id}: the prompt is empty, so nothing can ask for the answer.")
    if tokenizer.chat_template:
        tail = _chat_tail(row.id, messages, tokenizer, prompt)
    else:
        tail = _ids(tokenizer, answer.content)
    end = next((i for i, token in enumerate(tail) if token in stops), None)
    if end is None:
        eos = tokenizer.eos_token_id
        tail, end = [*tail, eos if isinstance(eos, int) else min(stops)], len(tail)
    if end == 0 or any(token in stops for token in tail[end + 1 :]):
        raise DataError(
            f"row {row.id}: the answer itself holds a token that ends a turn, so the model "
            f"would learn to stop in the middle of it. Take it out of the text: {answer.content!r}"
        )
    _prove_answer(row.id, tokenizer, answer.content, tail[:end])
    return EncodedRow(row.id, (*prompt, *tail[: end + 1]), len(prompt))


def _prove_answer(
    row_id: str, tokenizer: PreTrainedTokenizerBase, answer: str, tokens: list[int]
) -> None:
    """The supervised tokens hold the whole answer (white space aside: templates trim it)."""
    want, got = (
        "".join(str(tokenizer.decode(ids)).split()) for ids in (_ids(tokenizer, answer), tokens)
    )
    if want not in got:
        raise DataError(
            f"row {row_id}: the chat template does not write the whole answer. "
            f"Wanted {answer!r}, it wrote {tokenizer.decode(tokens)!r}."
        )


def _prompt(
    row_id: str, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]
) -> list[int]:
    """The prompt as it is served; the template's refusal made readable."""
    from jinja2.exceptions import TemplateError

    try:
        return encode_prompt(tokenizer, messages)
    except TemplateError as error:
        roles = ", ".join(m.role for m in messages)
        raise ModelError(
            f"row {row_id}: the model's chat template refuses messages with the roles {roles}: "
            f"{error}. If it knows no system message, set task.instructions to ''."
        ) from None


def _chat_tail(
    row_id: str,
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
) -> list[int]:
    """What the template writes after the generation prompt, answer first."""
    # only fast tokenizers know which characters a token covers
    marked = bool(tokenizer.is_fast and _MARKERS.search(str(tokenizer.chat_template)))
    chat = [{"role": m.role, "content": m.content} for m in messages]
    whole: Any = tokenizer.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=marked,
        tokenizer_kwargs={"verbose": False},
    )
    ids, start = list(whole["input_ids"]), len(prompt)
    if ids[:start] != prompt:
        at = next(
            (i for i, pair in enumerate(zip(ids, prompt, strict=False)) if pair[0] != pair[1]),
            len(ids),
        )
        raise DataError(
            f"row {row_id}: the prompt of serving is not the beginning of the training text; "
            f"from token {at} on, serving has {tokenizer.decode(prompt[at:][:8])!r} and training "
            f"{tokenizer.decode(ids[at:][:8])!r}. The chat template must write an earlier "
            "turn and the generation prompt the same way in both."
        )
    if marked and not any(whole["assistant_masks"][start:]):
        raise DataError(
            f"row {row_id}: the template's generation markers cover no token of the answer."
        )
    return ids[start:]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    return list(encoded["input_ids"])  # pyright: ignore[reportArgumentType]
