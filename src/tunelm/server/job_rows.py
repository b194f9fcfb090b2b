"""From a client's file to rows to train on, or every reason why it cannot be trained on.

The checks are those of `tunelm data check --provider openai`. Faults of form, of length, and rows
that stand in both files end the job; what OpenAI takes too, such as a row that stands there twice,
becomes a warning among the job's events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunelm.data.check_codes import CODES, fault
from tunelm.data.check_rows import RowChecker
from tunelm.data.check_whole import WholeFile
from tunelm.data.openai_rules import LEARNED_AS_IT_IS, check_file, check_openai
from tunelm.data.personal import redact_excerpt
from tunelm.data.read import scan
from tunelm.data.records import Fault, Record, turn_text
from tunelm.errors import DataError, ModelError, StoppedError
from tunelm.prices import usual_epochs
from tunelm.training.job import TrainingRow
from tunelm.training.lens import Lens
from tunelm.training.rows import encode_row
from tunelm.types import Message

MOST_ERRORS, SHOWN_ERRORS = 1_000, 5
"""Errors after which a file is not read on; errors quoted in the job's own error."""

TAKEN = LEARNED_AS_IT_IS | {"duplicate"}
"""Errors of `tunelm data check` that are no reason to refuse a job."""

_FEW = ("too-few-examples", "few-examples")
_FORM = 'Each line is one JSON object: {"messages": [{"role": ..., "content": ...}, ...]}.'
_ASK_EVERY = 100

Stop = Callable[[], bool]


class BadFileError(Exception):
    """A file that cannot be trained on. `lines` holds every fault, one text each."""

    def __init__(self, param: str, file_id: str, lines: list[str]) -> None:
        shown = " ".join(lines[:SHOWN_ERRORS])
        more = len(lines) - SHOWN_ERRORS
        rest = f" And {more:,} more." if more > 0 else ""
        super().__init__(f"The {param.replace('_', ' ')} {file_id} cannot be used: {shown}{rest}")
        self.param, self.code, self.lines = param, f"invalid_{param}", lines


@dataclass
class Checked:
    """The rows of a job's files, and what is not right with them though they can be used."""

    train: list[TrainingRow]
    dev: list[TrainingRow]
    warnings: list[str]


def check_files(training: Path, validation: Path | None, lens: Lens, stop: Stop) -> Checked:
    """Check a training file and, with it, its validation file. Files are named by their ids.

    Raises:
        BadFileError: with every reason, each with its line.
        StoppedError: `stop`, asked now and then, said so.
        OSError: a file is not there any more.
    """
    whole = WholeFile(str(training))
    first = _File("training_file", training, lens, whole, stop)
    train = first.read()
    if validation is None:
        return Checked(train, [], first.warnings())
    second = _File("validation_file", validation, lens, whole, stop)
    dev = second.read()
    return Checked(train, dev, [*first.warnings(), *second.warnings()])


def resolved(hyperparameters: dict[str, int | float | str], rows: int) -> dict[str, int | float]:
    """Hyperparameters with numbers in the place of `auto`.

    Epochs as a forecast of the job counts them (`prices.usual_epochs`).

    >>> resolved({"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": 2.0}, 10)
    {'n_epochs': 10, 'batch_size': 8, 'learning_rate_multiplier': 2.0}
    """
    found: dict[str, int | float] = {
        "n_epochs": usual_epochs(rows),
        "batch_size": 8,
        "learning_rate_multiplier": 1.0,
    }
    return found | {k: v for k, v in hyperparameters.items() if not isinstance(v, str)}


@dataclass
class _File:
    """One file on its way."""

    param: str
    path: Path
    lens: Lens
    whole: WholeFile
    stop: Stop
    errors: list[str] = field(default_factory=list[str])
    noted: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))

    def read(self) -> list[TrainingRow]:
        """Its rows. Raises BadFileError, StoppedError or OSError."""
        if not self.path.is_file():
            raise BadFileError(self.param, self.path.name, ["the file was deleted."])
        rows: list[TrainingRow] = []
        seen = 0
        try:
            for row in self._rows():
                seen += 1
                if row is not None:
                    rows.append(row)
                if len(self.errors) >= MOST_ERRORS:
                    break
        except DataError as error:  # the file as a whole cannot be read
            text = str(error).removeprefix(f"{self.path}: ")
            self.errors.append(text.replace(str(self.path), self.path.name))
        self._whole_file(seen)
        if self.errors:
            raise BadFileError(self.param, self.path.name, self.errors)
        return rows

    def warnings(self) -> list[str]:
        """One line for each kind of fault that is no reason to refuse the file."""
        name = self.param.replace("_", " ").capitalize()
        said: list[str] = []
        for code, found in self.noted.items():
            where = f" ({len(found):,} rows), such as " if found[0].line else ": "
            shown = f"{self._where(found[0])}{self._shown(found[0])}"
            said.append(f"{name}: {CODES[code].what}{where}{shown}")
        return said

    def _rows(self) -> Iterator[TrainingRow | None]:
        tokenizer = self.lens.tokenizer
        special = [t for t in map(str, tokenizer.all_special_tokens) if len(t) > 2]
        checker = RowChecker.make([t for t in special if not t.isalnum()])
        for number, item in enumerate(scan(self.path, "jsonl:messages")):
            if number % _ASK_EVERY == 0 and self.stop():
                raise StoppedError("the check was stopped.")
            if isinstance(item, Fault):
                self._error(item, _FORM)
                yield None
                continue
            faults = [*checker.check(item), *check_openai(item, "supervised"), *self._beside(item)]
            yield None if self._note(faults) else self._row(item)

    def _beside(self, record: Record) -> Iterator[Fault]:
        """Its fault beside the other rows."""
        if self.param == "training_file":
            found = self.whole.add(record)
            if found:
                yield found
        elif where := self.whole.shared(record):
            line = where.rpartition(":")[2]
            said = where.rpartition(" as ")[0]
            yield fault("validation-overlap", record, f"{said} as line {line} of the training file")

    def _whole_file(self, seen: int) -> None:
        if self.errors or self.param == "training_file":
            few = () if self.param == "training_file" else _FEW
            self._note([one for one in check_file(self.path, seen) if one.code not in few])
        if self.param == "training_file":
            self._note(list(self.whole.finish()))

    def _row(self, record: Record) -> TrainingRow | None:
        try:
            row = training_row(record)
            tokens = len(encode_row(row, self.lens.tokenizer, self.lens.stops).ids)
            if tokens > self.lens.limit:
                raise ValueError(
                    f"the example has {tokens:,} tokens, and the model takes {self.lens.limit:,}. "
                    "Shorten it, or split it."
                )
        except (DataError, ModelError, ValueError) as error:
            text = str(error).removeprefix(f"row {record.line}: ")
            self.errors.append(f"line {record.line}: {redact_excerpt(text)}")
            return None
        if any(turn.get("name") for turn in record.messages):
            self.noted["openai-name"].append(
                fault("openai-name", record, "names of participants are not learned")
            )
        return row

    def _note(self, faults: list[Fault]) -> bool:
        """Sort faults into errors and warnings; whether one was an error."""
        errors = [one for one in faults if one.level == "error" and one.code not in TAKEN]
        for one in faults:
            if one in errors:
                self._error(one, one.mend)
            else:
                self.noted[one.code].append(one)
        return bool(errors)

    def _error(self, one: Fault, mend: str) -> None:
        found = self._shown(one).rstrip(".")
        self.errors.append(f"{self._where(one)}{found}. {mend}".rstrip())

    def _where(self, one: Fault) -> str:
        return f"line {one.line}: " if one.line else ""

    def _shown(self, one: Fault) -> str:
        """What was found, without secrets and without a path of this machine."""
        return redact_excerpt(one.found).replace(str(self.path), self.path.name)


def training_row(record: Record) -> TrainingRow:
    """A row with loss on every answer whose weight is not 0; what follows the last one is left out.

    Raises:
        ValueError: it holds what cannot be learned here.
    """
    if record.tools or record.extra.get("functions"):
        raise ValueError("tools: this model's chat template does not write tools. Leave them out.")
    messages: list[Message] = []
    learn: list[int] = []
    for place, turn in enumerate(record.messages):
        role = str(turn["role"])
        if role in ("tool", "function") or turn.get("tool_calls") or turn.get("function_call"):
            raise ValueError(
                f"message {place + 1}: this model's chat template does not write tool calls. "
                "Leave the row out."
            )
        content = turn.get("content")
        if isinstance(content, list) and any(part.get("type") != "text" for part in content):
            raise ValueError(f"message {place + 1}: only text can be learned here.")
        if role == "assistant" and turn.get("weight") != 0:
            learn.append(place)
        messages.append(Message("system" if role == "developer" else role, turn_text(turn)))
    kept = tuple(messages[: learn[-1] + 1])
    alone = learn == [len(kept) - 1]
    return TrainingRow(str(record.line), kept, learn=None if alone else tuple(learn))
