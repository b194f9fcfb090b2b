"""What a model is really trained on, token by token, by the very code that training uses."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.config import ModelConfig
from tunelm.data.profile import Profile, Profiler
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record, to_example
from tunelm.errors import ConfigError, DataError, PrerequisiteError
from tunelm.models.render import encode_prompt
from tunelm.training.job import TrainingRow
from tunelm.training.lens import Lens, Token, open_lens, tokens_of, visible
from tunelm.types import Example


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row as the model sees it; the counts are of single tokens.

    `refused` says why training would not take it: nothing then carries loss, unless it is too
    long only. `text` holds what stands in a row that could not be made into tokens. A running
    text of more tokens than fit is trained on in `pieces`.
    """

    row: int
    source: str
    id: str | None
    tokens: tuple[Token, ...] = ()
    n_prompt: int = 0
    n_loss: int = 0
    pieces: int = 1
    target_only: str | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """What to show: where the rows are, and what they would be trained with."""

    title: str
    path: Path
    model: ModelConfig
    system: str = ""
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    over_long: str = "error"
    needs_model: bool = False
    """Whether a missing extra is an error, rather than a profile in words."""
    reader: Callable[[Path, str | None, Mapping[str, str]], Iterator[Record | Fault]] = scan
    """What makes rows of a file of this kind of task."""


@dataclass(frozen=True, slots=True)
class Pick:
    """Which rows: `rows` of them, from row `number` (the first is 1) on, or those of an id."""

    number: int | None = None
    id: str | None = None
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Showing:
    """Rows as the model sees them, and the profile of their file. `note`: what is missing."""

    title: str
    path: str
    model: str | None
    limit: int | None
    context: int | None
    system: str
    rows: tuple[ShownRow, ...]
    profile: Profile
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        return dataclasses.asdict(self)


def show(ask: Ask, pick: Pick, progress: Callable[[str, int, int], None] | None = None) -> Showing:
    """The picked rows as the model sees them, and the profile of the whole file.

    Raises:
        DataError: the file cannot be read, or holds no row.
        ConfigError: there is no such row.
        ModelError, PrerequisiteError: as `open_lens`.
    """
    lens, note = _lens_or_note(ask)
    profiler = Profiler(lens.measure if lens else None, lens.limit if lens else None)
    shown: dict[int, ShownRow] = {}
    rows = 0
    for number, item in _numbered(ask.reader(ask.path, ask.format, ask.columns)):
        rows = max(rows, number)
        if isinstance(item, Fault):
            profiler.fault(item)
        else:
            profiler.add(item)
        wanted = number in shown or len(shown) < pick.rows
        if wanted and _picked(item, number, pick):
            shown[number] = _joined(shown.get(number), _shown(item, number, lens, ask))
        if progress and number and number % 5000 == 0:
            progress("reading rows", number, number)
    if not shown:
        raise _nothing(ask, pick, rows)
    return Showing(
        title=ask.title,
        path=str(ask.path),
        model=ask.model.base if lens else None,
        limit=lens.limit if lens else None,
        context=lens.context if lens else None,
        system=ask.system,
        rows=tuple(shown.values()),
        profile=profiler.finish(progress),
        note=note,
    )


def _lens_or_note(ask: Ask) -> tuple[Lens | None, str | None]:
    try:
        return open_lens(ask.model, ask.system), None
    except PrerequisiteError as error:
        if ask.needs_model:
            raise
        return None, f"tokens cannot be shown, lengths are in words: {error}"


def _numbered(items: Iterator[Record | Fault]) -> Iterator[tuple[int, Record | Fault]]:
    """Items with the number of their row, from 1; several faults of one row share it.

    A fault of the file as a whole has the number 0.
    """
    number, last = 0, ("", 0)
    for item in items:
        place = (item.file, item.line)
        if item.line and place != last:
            number, last = number + 1, place
        yield (number if item.line else 0), item


def _picked(item: Record | Fault, number: int, pick: Pick) -> bool:
    if isinstance(item, Fault) and (item.level == "warning" or pick.id is not None):
        return False
    if isinstance(item, Fault) or pick.id is None:
        return number >= (pick.number or 1)
    names = [item.id]
    with contextlib.suppress(ValueError):
        names.append(to_example(item).id)
    own = item.extra.get("id")
    return any(name.startswith(pick.id) for name in names) or str(own) == pick.id


def _nothing(ask: Ask, pick: Pick, rows: int) -> ConfigError | DataError:
    if pick.id is not None:
        return ConfigError(
            f"--id {pick.id!r}: no row of {ask.path} has this id. Valid: the id of a ledger"
            ' (rows.jsonl of a run) or its beginning, or a row\'s own field "id".'
        )
    if pick.number is not None and rows:
        return ConfigError(f"--row {pick.number}: {ask.path} has {rows:,} rows.")
    return DataError(f"{ask.path}: there is no row in it to show.")


def _joined(before: ShownRow | None, now: ShownRow) -> ShownRow:
    """One row in which several things are wrong."""
    if before is None:
        return now
    reasons = [row.refused for row in (before, now) if row.refused is not None]
    return dataclasses.replace(now, refused="; ".join(reasons) or None)


def _shown(item: Record | Fault, number: int, lens: Lens | None, ask: Ask) -> ShownRow:
    if isinstance(item, Fault):
        where = f"{item.file}:{item.line}"
        return ShownRow(number, where, None, refused=f"{item.found} {item.mend}".strip())
    try:
        example = to_example(item)
    except ValueError as error:
        return ShownRow(number, item.source, item.id, refused=str(error), text=item.plain())
    bare = ShownRow(number, item.source, example.id)
    if lens is None:
        return dataclasses.replace(bare, text=item.plain())
    row = lens.row(example)
    encoded, refused = lens.encode(row)
    if not encoded:
        tokens = _without_loss(lens.tokenizer, row)
        text = None if tokens else item.plain()
        n_prompt = sum(len(token.ids) for token in tokens)
        return dataclasses.replace(
            bare, tokens=tokens, n_prompt=n_prompt, refused=refused, text=text
        )
    ids = [*encoded[0].ids, *(i for piece in encoded[1:] for i in piece.ids[1:])]
    tokens = tokens_of(lens.tokenizer, ids, encoded[0].n_prompt)
    return dataclasses.replace(
        bare,
        tokens=tokens,
        n_prompt=encoded[0].n_prompt,
        n_loss=len(ids) - encoded[0].n_prompt,
        pieces=len(encoded),
        target_only=tokens[-1].text,
        refused=refused,
        notes=tuple(_notes(example, tokens, refused, ask)),
    )


def _without_loss(tokenizer: Any, row: TrainingRow) -> tuple[Token, ...]:
    """A row whose mask cannot be proven, as far as it can be rendered at all."""
    from jinja2.exceptions import TemplateError

    chat = [{"role": m.role, "content": m.content} for m in row.messages]
    try:
        if tokenizer.chat_template:
            whole: Any = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)
            ids = list(whole["input_ids"])
        else:
            ids = encode_prompt(tokenizer, row.messages)
    except (TemplateError, TypeError, ValueError):
        return ()
    return tokens_of(tokenizer, ids, len(ids))


def _notes(
    example: Example, tokens: Sequence[Token], refused: str | None, ask: Ask
) -> Iterator[str]:
    """What is easily taken for something else about a row."""
    earlier = sum(m.role == "assistant" for m in example.messages)
    if earlier:
        yield f"{earlier} earlier answer{'s' * (earlier > 1)} read as prompt, without loss"
    if len(example.answers) > 1:
        yield f"{len(example.answers) - 1} further answers are for scoring only"
    prompt = "".join(token.text for token in tokens if not token.loss)
    if example.context is not None and example.context.strip() not in prompt:
        yield "the field context is not seen by the model"
    spelled = {t.text: len(t.ids) for t in tokens if len(t.ids) > 1}
    if spelled:
        listed = ", ".join(f"{visible(text)} is {n}" for text, n in list(spelled.items())[:8])
        yield f"characters of several tokens, shown as one: {listed}"
    if refused is not None and ask.over_long != "error":
        how = "leaves the row out" if ask.over_long == "drop" else "cuts its longest message"
        yield f"data.over_long = {ask.over_long!r}: a run {how}; here it is shown whole"
