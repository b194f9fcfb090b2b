"""Rows into a Parquet file or a folder that `load_from_disk` of Hugging Face datasets reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tunelm.data.strict_json import shorten
from tunelm.data.tables import BATCH, NULL_IS_A_VALUE, arrow, holds, plain
from tunelm.data.unshape import Fields
from tunelm.data.write import Spool, cannot_hold, new_folder, replacing
from tunelm.errors import DataError

Batch = list[tuple[str, Fields]]


def write_arrow(spool: Spool, path: Path, container: str) -> int:
    """Write the rows; each batch is read back first and compared with what it was made from.

    Raises:
        DataError: there are no rows, or one that the columns cannot hold. Nothing is written.
    """
    pa = arrow()
    if not spool.count:
        raise DataError(f"{path}: there are no rows to write, and a table needs one.")
    writer = _Writer(spool, container)
    schema = writer.schema()
    if container == "parquet":
        with replacing(path) as file, pa.parquet.ParquetWriter(file, schema) as out:
            for batch in writer.batches(schema):
                out.write_batch(batch)
        return spool.count
    with new_folder(path) as folder:
        name = "data-00000-of-00001.arrow"
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
            for batch in writer.batches(schema):
                out.write_batch(batch)
        state = {
            "_data_files": [{"filename": name}],
            "_fingerprint": "0000000000000000",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (folder / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        info = {"citation": "", "description": "", "homepage": "", "license": ""}
        (folder / "dataset_info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    return spool.count


class _Writer:
    def __init__(self, spool: Spool, container: str) -> None:
        self._pa = arrow()
        self._spool = spool
        self._container = container
        self._errors = (self._pa.ArrowException, OverflowError, TypeError, ValueError)

    def schema(self) -> Any:
        """The types of all columns, over all rows."""
        schema: Any = None
        for batch in self._rows():
            try:
                schema = self._joined(schema, batch)
            except self._errors:
                for row in batch:  # which of them was it?
                    try:
                        schema = self._joined(schema, [row])
                    except self._errors as error:
                        raise self._refused(row[0], error) from None
        for field in schema:
            if holds(field.type, lambda t: self._pa.types.is_struct(t) and t.num_fields == 0):
                source = next(s for s, row in self._spool if field.name in row)
                why = f"{shorten(field.name)} holds an object without fields; write jsonl"
                raise cannot_hold(source, self._container, why)
        fields = [
            f.with_metadata(NULL_IS_A_VALUE) if f.name in self._spool.nulls else f for f in schema
        ]
        return self._pa.schema(fields)

    def batches(self, schema: Any) -> Iterator[Any]:
        """The rows as record batches, each checked to read as the same rows."""
        for rows in self._rows():
            try:
                batch = self._batch(rows, schema)
                self._require_same(rows, batch)
            except self._errors as error:
                if isinstance(error, DataError):
                    raise
                raise self._refused(rows[0][0], error) from None
            yield batch

    def _rows(self) -> Iterator[Batch]:
        rows = iter(self._spool)
        while batch := list(islice(rows, BATCH)):
            yield batch

    def _joined(self, schema: Any, rows: Batch) -> Any:
        names = [name for name in self._spool.names if any(name in row for _, row in rows)]
        arrays = [self._pa.array([row.get(name) for _, row in rows]) for name in names]
        new = self._pa.schema([(n, a.type) for n, a in zip(names, arrays, strict=True)])
        known = [schema] if schema is not None else []
        return self._pa.unify_schemas([*known, new], promote_options="permissive")

    def _batch(self, rows: Batch, schema: Any) -> Any:
        arrays = [
            self._pa.array([row.get(field.name) for _, row in rows], type=field.type)
            for field in schema
        ]
        return self._pa.record_batch(arrays, schema=schema)

    def _require_same(self, rows: Batch, batch: Any) -> None:
        needed = self._spool.needed | self._spool.nulls
        for (source, row), back in zip(rows, batch.to_pylist(), strict=True):
            if all(type(v) is str for v in row.values()) and row == {
                k: v for k, v in back.items() if v is not None
            }:
                continue
            again = {k: plain(v) for k, v in back.items() if v is not None or k in needed}
            for name in sorted(row.keys() | again.keys()):
                here, there = _canonical(row, name), _canonical(again, name)
                if here != there:
                    why = f"{shorten(name)} is {here[:100]} and would come back as {there[:100]}"
                    raise cannot_hold(source, self._container, f"{why}; write jsonl")

    def _refused(self, source: str, error: BaseException) -> DataError:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        why = f"a column holds values of one type ({said[:150]}); write jsonl"
        return cannot_hold(source, self._container, why)


def _canonical(row: Fields, name: str) -> str:
    return json.dumps(row[name], sort_keys=True, ensure_ascii=False) if name in row else "nothing"
