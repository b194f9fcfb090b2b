"""No bytes and no rows, however odd, make the readers crash or a round trip lose anything.

The suite looks at a few hundred files. TUNELM_FUZZ_SECONDS=600 goes on for that long, with other
files each time:

    TUNELM_FUZZ_SECONDS=600 pytest tests/test_data_fuzz.py
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelm.data.read import CODES, parse_row, raw_rows, read_rows, scan
from tunelm.data.records import Fault, Record, to_example
from tunelm.data.shapes import SHAPES, ShapeError, family_of, to_record
from tunelm.data.unshape import to_row
from tunelm.data.write import write_records
from tunelm.errors import DataError, PrerequisiteError

from .test_data_formats import HTML, ROWS, pdf

pytest.importorskip("pyarrow")
SECONDS = float(os.environ.get("TUNELM_FUZZ_SECONDS", "0"))
TESTS = 6
FORMATS = [
    *(None, "jsonl", "json", "csv", "tsv", "txt", "markdown", "html", "pdf", "lines", "parquet"),
    *("messages", "text", "jsonl:alpaca", "csv:question-answer", "json:trl-dpo"),
]


def fuzz(examples: int, **strategies: st.SearchStrategy[Any]) -> Callable[..., Callable[[], None]]:
    """A property as a test that looks at `examples` cases, or goes on for its share of SECONDS."""

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        search = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not SECONDS,
            suppress_health_check=list(HealthCheck),
        )(given(**strategies)(check))

        @functools.wraps(check)
        def test() -> None:
            end = time.monotonic() + SECONDS / TESTS
            search()
            while time.monotonic() < end:
                search()

        del test.__wrapped__  # pytest would take the strategies for fixtures
        return test

    return decorate


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def look(path: Path, format: str | None = None, **columns: str) -> list[Record]:
    """The records of a file; whatever is in it, nothing but a DataError stops the reading."""
    found: list[Record] = []
    try:
        for item in scan(path, format, columns):
            if isinstance(item, Fault):
                assert item.code in CODES
                one_line(item)
                continue
            found.append(item)
            plain_json(item)
            assert isinstance(item.plain(), str)
            assert item.id
            try:
                to_example(item)
            except ValueError as error:
                one_line(error)
    except (DataError, PrerequisiteError) as error:
        one_line(error)
    for reader in (lambda: read_rows(path, 3, format, columns), lambda: raw_rows(path, format)):
        try:
            for _ in reader():
                pass
        except (DataError, PrerequisiteError):
            pass
    return found


def one_line(said: object) -> None:
    assert len(str(said).splitlines()) == 1, repr(said)


def plain_json(record: Record) -> str:
    """All of a record but its place. Raises when something in it is not JSON or not UTF-8."""
    bare = dataclasses.asdict(dataclasses.replace(record, file="", line=0))
    text = json.dumps(bare, sort_keys=True, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


@functools.cache
def samples() -> dict[str, bytes]:
    """A sound file of every format, to be damaged."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS.values()).encode()
    made = {
        "rows.jsonl": lines,
        "rows.json": json.dumps({"n": 1, "data": list(ROWS.values())}, indent=1).encode(),
        "list.json": json.dumps(list(ROWS.values())).encode(),
        "rows.jsonl.gz": gzip.compress(lines),
        "rows.csv": b'question,answer,group\n"a\nb","c ""d""",1\ne,f,\n' * 1,
        "rows.tsv": b"text\tlabel\none\tx\ntwo\ty\n",
        "page.html": HTML.encode(),
        "page.pdf": pdf("One page", "and more"),
        "note.md": b"# Head\n\ntext\n",
    }
    with folder() as place:
        (place / "in.jsonl").write_bytes(
            b'{"messages": [{"role": "user", "content": "a"}], "n": 1, "t": ["x", "y"]}\n' * 20
        )
        rows = [r for r in scan(place / "in.jsonl") if isinstance(r, Record)]
        write_records(rows, place / "rows.parquet", "parquet")
        write_records(rows, place / "set", "dataset")
        made["rows.parquet"] = (place / "rows.parquet").read_bytes()
        made["set"] = (place / "set" / "data-00000-of-00001.arrow").read_bytes()
    return made


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, bytes) of a file, sound or with a few places changed, cut out or written twice."""
    name = draw(st.sampled_from(sorted(samples())))
    data = bytearray(samples()[name])
    packed = name.endswith(".gz") and draw(st.booleans())
    if packed:
        data = bytearray(gzip.decompress(data))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.integers(0, 12)), len(data))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[start:end] = draw(st.binary(max_size=12))
        elif kind == 1:
            data[start:end] = data[start:end] * draw(st.integers(0, 3))
        elif kind == 2:
            data[start:start] = draw(st.sampled_from(TOKENS)).encode("utf-8", "surrogatepass")
        else:
            del data[draw(st.integers(0, len(data))) :]
    return name, gzip.compress(data) if packed else bytes(data)


TOKENS = ["\n", "\r", "\0", '"', "{", "}", "[", "]", ",", ":", "\\ud800", "\\u0000", "NaN", "1e999",
          "9" * 4400, "[" * 70, "\ufeff", "\ud800", "\u2028", "null", "<pre>", "&#xD800;", "\x0c",
          "-Infinity", "true", "<script>", "\x1c", "\x85"]  # fmt: skip


@fuzz(
    60,
    data=st.binary(max_size=300) | st.text(max_size=200).map(str.encode),
    start=st.sampled_from(
        [b"", b"{", b"[", b"PAR1", b"%PDF-1.4\n", b"\x1f\x8b\x08\0", b"text,label\n", b"<html>"]
    ),
    format=st.sampled_from(FORMATS),
    suffix=st.sampled_from(["", ".jsonl", ".json", ".csv", ".txt", ".html", ".pdf", ".parquet"]),
)
def test_any_bytes_are_read_or_refused(data: bytes, start: bytes, format: str, suffix: str):
    with folder() as place:
        path = place / f"file{suffix}"
        path.write_bytes(start + data)
        look(path, format)
        if format in (None, "txt", "markdown", "html", "pdf"):
            look(place, format)


@fuzz(60, file=damaged(), format=st.none() | st.sampled_from(FORMATS))
def test_damaged_files_are_read_or_refused(file: tuple[str, bytes], format: str | None):
    name, data = file
    with folder() as place:
        path = place / name
        if name != "set":
            path.write_bytes(data)
            look(path, format if format and "." not in name else None)
            look(path, format)
            return
        path.mkdir()
        (path / "part").write_bytes(data)
        (path / "dataset_info.json").write_text("{}")
        (path / "state.json").write_text('{"_data_files": [{"filename": "part"}]}')
        look(path)


NAMES = sorted({key for row in ROWS.values() for key in row} | {"answers", "label", "", "a b"})
TURN_KEYS = ["role", "content", "from", "value", "weight", "tool_calls", "name", "messages"]
WORDS = st.sampled_from(["user", "assistant", "system", "human", "gpt", "x", "", " "])
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.integers(-2, 2)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8) | WORDS
)  # fmt: skip
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": WORDS, "content": SCALARS}, optional=dict.fromkeys(TURN_KEYS[2:], SCALARS)
    )
    | st.fixed_dictionaries({"from": WORDS, "value": SCALARS}),
    max_size=4,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(TURN_KEYS) | st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
) | TURNS  # fmt: skip
LOOSE = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), VALUES, max_size=6)


@st.composite
def near(draw: st.DrawFn) -> dict[str, Any]:
    """A row of a known shape with some fields changed, added or gone."""
    row = dict(ROWS[draw(st.sampled_from(sorted(ROWS)))])
    row |= draw(LOOSE)
    for key in draw(st.lists(st.sampled_from(NAMES), max_size=2)):
        row.pop(key, None)
    return row


ANY_ROWS = st.lists(LOOSE | near(), min_size=1, max_size=4)


def require_round_trip(found: list[Record], place: Path, format: str) -> None:
    """Written and read again the records are the same, or the writer refuses and writes nothing."""
    out = place / f"out.{format}"
    before = sorted(place.iterdir())
    try:
        assert write_records(found, out, format) == len(found)
    except DataError as error:
        one_line(error)
        assert sorted(place.iterdir()) == before
        return
    again = [item for item in scan(out, format) if isinstance(item, Record)]
    assert list(map(plain_json, again)) == list(map(plain_json, found))


@fuzz(60, rows=ANY_ROWS, other=st.sampled_from(["json", "csv", "parquet", "dataset", "jsonl.gz"]))
def test_odd_rows_are_read_and_written_without_a_loss(rows: list[dict[str, Any]], other: str):
    with folder() as place:
        path = place / "in.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = look(path)
        for row in rows:
            try:
                parse_row(json.dumps(row))
            except ValueError as error:
                one_line(error)
        if not found:
            return
        back = place / "back.jsonl"
        write_records(found, back, "jsonl")
        kept = [rows[record.line - 1] for record in found]
        assert [json.loads(line) for line in back.read_bytes().splitlines()] == kept
        if other == "jsonl.gz":
            write_records(found, place / "out.jsonl.gz", "jsonl")
            again = [r for r in scan(place / "out.jsonl.gz") if isinstance(r, Record)]
            assert list(map(plain_json, again)) == list(map(plain_json, found))
        else:
            require_round_trip(found, place, other)


@fuzz(40, rows=ANY_ROWS, shape=st.sampled_from([*SHAPES, "trl-dpo-messages"]))
def test_a_row_in_another_shape_says_the_same(rows: list[dict[str, Any]], shape: str):
    for row in rows:
        try:
            record = to_record(row, "in", 1)
        except ShapeError:
            continue
        try:
            converted = to_row(record, shape)
        except ShapeError:
            assert shape != family_of(record.shape), "its own shape holds every row"
            continue
        again = to_record(converted, "in", 1)
        assert family_of(again.shape) == family_of(shape)
        for part in ("messages", "text", "preferred", "rejected", "tools"):
            one, other = getattr(record, part), getattr(again, part)
            assert json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


CELLS = st.text(st.sampled_from("ab,;\t\"'\n\r |é\u2028\ufeff="), max_size=6)


@fuzz(
    40,
    header=st.lists(CELLS.filter(str.strip), max_size=2, unique_by=str.strip),
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=4),
    format=st.sampled_from(["csv", "tsv", "parquet"]),
)
def test_odd_cells_go_through_a_table(header: list[str], rows: list[list[str]], format: str):
    names = ["question", "answer", *header]
    extra = [{n: c for n, c in zip(header, row[2:], strict=False) if c} for row in rows]
    found = [
        Record("in", i, "question-answer", (_turn("user", row[0]), _turn("assistant", row[1])),
               extra=more)
        for i, (row, more) in enumerate(zip(rows, extra, strict=True), 1)
    ]  # fmt: skip
    with folder() as place:
        refused = any(n != n.strip() for n in names[2:]) and format != "parquet"
        require_round_trip(found, place, format)
        assert refused or (place / f"out.{format}").exists() or any(n in names[:2] for n in header)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@fuzz(
    40,
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=3),
    format=st.sampled_from(["txt", "markdown", "html", "lines"]),
)
def test_odd_texts_go_through_documents(texts: list[str], format: str):
    found = [Record("in", i, "text", text=text) for i, text in enumerate(texts, 1)]
    with folder() as place:
        out = place / "out"
        before = sorted(place.iterdir())
        try:
            write_records(found, out, format)
        except DataError:
            assert sorted(place.iterdir()) == before
            return
        again = [r for r in scan(out, format) if isinstance(r, Record)]
        assert [r.text for r in again] == texts
