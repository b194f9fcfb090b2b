"""Parquet files and folders written by `save_to_disk`, by pyarrow: rows in batches.

A folder of Hugging Face datasets is Arrow stream files and two JSON files, so pyarrow reads and
writes it alone; `datasets` itself would bring pandas and fsspec for the same bytes.

A column holds the same fields in every row, so a table cannot tell a field that is null from one
that is not there. Null is read as not there, but for the content of a turn, which OpenAI writes
as null beside tool calls, for the columns that make the row what it is, and for columns that
`write_arrow` marked: each of its rows had the field.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunelm.data.files import Item, RawRow
from tunelm.data.opening import opened
from tunelm.data.records import Fault
from tunelm.data.strict_json import shorten, too_deep
from tunelm.errors import DataError, PrerequisiteError, TunelmError

BATCH = 1000
NULL_IS_A_VALUE = {b"tunelm": b"null is a value"}
"""Metadata of a column in which null does not stand for a field that is not there."""


def arrow() -> Any:
    """The pyarrow module. Raises PrerequisiteError when it is not installed."""
    try:
        for part in ("pyarrow.ipc", "pyarrow.parquet"):
            importlib.import_module(part)
        return importlib.import_module("pyarrow")
    except ImportError:
        raise PrerequisiteError(
            "Parquet files and saved datasets are read by pyarrow, which is not installed: "
            "pip install 'tunelm[data]'"
        ) from None


def parquet_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """The rows of a Parquet file, numbered from 1."""
    pa = arrow()
    with opened(path, unpack=False) as file:
        try:
            parquet = pa.parquet.ParquetFile(file)
            yield from _Table(path, parquet.schema_arrow).rows(
                parquet.iter_batches(batch_size=BATCH, use_threads=False)
            )
        except Exception as error:  # a damaged file makes the library fail in many ways
            raise _damaged(path, "Parquet file", error) from None


def group_rows(path: Path, group: int) -> Iterator[Item]:
    """The rows of one row group of a Parquet file, numbered from 1."""
    pa = arrow()
    with opened(path, unpack=False) as file:
        try:
            parquet = pa.parquet.ParquetFile(file)
            batches = parquet.read_row_group(group, use_threads=False).to_batches()
            yield from _Table(path, parquet.schema_arrow).rows(iter(batches))
        except Exception as error:
            raise _damaged(path, "Parquet file", error) from None


def group_sizes(path: Path) -> list[int]:
    """How many rows each row group of a Parquet file has."""
    pa = arrow()
    with opened(path, unpack=False) as file:
        try:
            known = pa.parquet.ParquetFile(file).metadata
            return [known.row_group(n).num_rows for n in range(known.num_row_groups)]
        except Exception as error:
            raise _damaged(path, "Parquet file", error) from None


def dataset_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Item]:
    """The rows of a saved dataset, its files in order, numbered from 1."""
    pa = arrow()
    if (path / "dataset_dict.json").is_file():
        splits = _json(path / "dataset_dict.json").get("splits")
        names = [str(name) for name in splits] if isinstance(splits, list) else []
        if len(names) != 1:
            raise DataError(
                f"{path}: a dataset with the parts {', '.join(names) or '?'}. Name one of them: "
                f"{path / (names[0] if names else 'train')}."
            )
        path = path / names[0]
    state = _json(path / "state.json")
    if state.get("_indices_data_files"):
        raise DataError(f"{path}: was saved with an order of its own. Save it again, flattened.")
    files = state.get("_data_files")
    parts = files if isinstance(files, list) else []
    start = 1
    for part in parts:
        name = part.get("filename") if isinstance(part, dict) else None
        if not isinstance(name, str) or Path(name).name != name:
            raise DataError(f"{path / 'state.json'}: names no data file, but {shorten(part)}.")
        with opened(path / name, unpack=False) as file:
            try:
                reader = pa.ipc.open_stream(file)
                table = _Table(path, reader.schema, start)
                yield from table.rows(map(_sound, reader))
            except Exception as error:
                raise _damaged(path / name, "Arrow file", error) from None
        start = table.next


def _sound(batch: Any) -> Any:
    """The batch, its offsets checked: Arrow trusts a file, and would read beyond its memory."""
    batch.validate(full=True)
    return batch


class _Table:
    """Batches of one schema as rows of JSON values."""

    def __init__(self, path: Path, schema: Any, first: int = 1) -> None:
        self._pa = arrow()
        self._file = str(path)
        self.next = first
        self._names: list[str] = list(schema.names)
        twice = next((n for n in self._names if self._names.count(n) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: two columns are named {shorten(twice)}. Rename one.")
        self._binary = [f.name for f in schema if holds(f.type, self._is_binary)]
        self._optional = [f.name for f in schema if not marked(f)]
        self._timed = [f.name for f in schema if self._is_timed(f.type)]

    def rows(self, batches: Iterator[Any]) -> Iterator[Item]:
        """The rows of the batches, and a warning for each column that cannot be read."""
        if self.next == 1:
            for name in self._binary:
                found = f"the column {shorten(name)} holds bytes (images or sound?)."
                yield Fault("column-left-out", "warning", self._file, 0, found, "It is left out.")
        for batch in batches:
            columns = {
                name: self._values(name, batch.column(position))
                for position, name in enumerate(self._names)
                if name not in self._binary
            }
            for number in range(batch.num_rows):
                fields = {name: values[number] for name, values in columns.items()}
                yield self._row(fields, self.next)
                self.next += 1

    def _values(self, name: str, column: Any) -> list[Any]:
        if name in self._timed:  # as text: nanoseconds have no Python type, and JSON has no time
            with suppress(self._pa.ArrowException):  # a duration has no text of its own
                column = column.cast(self._pa.string())
        return [plain(value) for value in column.to_pylist()]

    def _row(self, fields: dict[str, Any], number: int) -> Item:
        bad = next((name for name, value in fields.items() if _not_finite(value)), None)
        if bad is not None:
            found = f"{shorten(bad)} holds NaN or an infinite number."
            mend = "Write null where there is no number."
            return Fault("bad-number", "error", self._file, number, found, mend)
        if too_deep(fields):
            found = "nested too deeply"
            return Fault("nested-too-deep", "error", self._file, number, found)
        blank = tuple(n for n in self._optional if fields.get(n, "") is None)
        return RawRow(self._file, number, fields, blank)

    def _is_binary(self, kind: Any) -> bool:
        types = self._pa.types
        return (
            types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        )

    def _is_timed(self, kind: Any) -> bool:
        types = self._pa.types
        return types.is_temporal(kind) or types.is_decimal(kind)


def marked(field: Any) -> bool:
    """Whether null is a value in this column."""
    return NULL_IS_A_VALUE.items() <= (field.metadata or {}).items()


def plain(value: Any) -> Any:
    """A value from a table as JSON has it; fields of an object that are null are left out."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        turn = "role" in value
        return {
            key: plain(inner)
            for key, inner in value.items()
            if inner is not None or (turn and key == "content")
        }
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def holds(kind: Any, test: Any) -> bool:
    """Whether a type or any type inside it passes a test."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    value = getattr(kind, "value_type", None)
    return test(kind) or any(holds(t, test) for t in [*inner, *([value] if value else [])])


def _not_finite(value: Any) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_not_finite, value.values()))
    return isinstance(value, list) and any(map(_not_finite, value))


def _json(path: Path) -> dict[str, Any]:
    with opened(path, unpack=False) as file:
        data = file.read(1 << 20)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{path}: is damaged: it should hold a JSON object.")
    return value


def _damaged(path: Path, what: str, error: Exception) -> Exception:
    """The error to raise: what the system or this package says itself is left as it is."""
    if isinstance(error, TunelmError) or (isinstance(error, OSError) and error.errno):
        return error
    said = (str(error) or type(error).__name__).splitlines()[0][:150]
    return DataError(f"{path}: the {what} is damaged or cannot be read ({said}).")
