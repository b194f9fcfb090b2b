"""Every format is read, written again without a loss, and refused with one clear line when bad."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tunelm.data.detect import CONTAINERS
from tunelm.data.read import CODES, raw_rows, read_rows, scan
from tunelm.data.records import Fault, Record, to_example
from tunelm.data.shapes import SHAPES, family_of
from tunelm.data.unshape import preferred_only
from tunelm.data.write import write_records
from tunelm.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "sum", "arguments": '{"a": 1, "b": 2}'},
}
TOOL = {"type": "function", "function": {"name": "sum", "parameters": {"type": "object"}}}
ASK = {"role": "user", "content": "1 + 2?"}
SAY = {"role": "assistant", "content": "3"}

CHAT = {
    "messages": [
        {"role": "system", "content": "Add."},
        {**ASK, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
        {**SAY, "weight": 0},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes.", "weight": 1},
    ],
    "tools": [TOOL],
    "parallel_tool_calls": False,
    "score": 0.5,
    "checked": True,
    "page": 12,
}
ROWS: dict[str, dict[str, Any]] = {
    "messages": CHAT,
    "messages with a system field": {"system": "Add.", "messages": [ASK, SAY]},
    "messages with functions": {
        "messages": [
            ASK,
            {"role": "assistant", "function_call": {"name": "sum", "arguments": "{}"}},
        ],
        "functions": [{"name": "sum"}],
        "tools": [],
    },
    "question": {"question": "1 + 2?", "answer": "3", "group": "sums", "context": None},
    "question, many answers": {"question": "?", "answers": ["3", "three"], "key_answer": ["3"]},
    "question, no answer": {"question": "Why?", "answers": [], "is_impossible": True},
    "question, both": {"question": "?", "answers": ["3"], "answer": "three"},
    "prompt": {"prompt": "1 + 2 =", "completion": " 3", "id": 7},
    "prompt of turns": {"prompt": [ASK], "completion": [SAY], "tools": [TOOL]},
    "alpaca": {"instruction": "Add.", "input": "1 2", "output": "3", "text": "all of it"},
    "alpaca, no input": {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
    "alpaca, history": {
        "instruction": "And 3?",
        "input": None,
        "output": "6",
        "system": "Add.",
        "history": [["1 + 2?", "3"], ["Sure?", "Yes."]],
    },
    "sharegpt": {
        "id": "x",
        "system": "Add.",
        "conversations": [
            {"from": "human", "value": "1 + 2?"},
            {"from": "chatgpt", "value": "3", "weight": 1},
            {"from": "observation", "value": "ok"},
        ],
    },
    "sharegpt of turns": {"conversations": [ASK, SAY], "system": ""},
    "openai dpo": {
        "input": {"messages": [ASK], "tools": [TOOL], "parallel_tool_calls": True},
        "preferred_output": [SAY],
        "non_preferred_output": [{"role": "assistant", "content": "4"}],
    },
    "openai dpo, odd": {
        "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True, "n": 1},
        "preferred_output": [SAY],
        "non_preferred_output": [],
        "parallel_tool_calls": False,
    },
    "trl dpo": {"prompt": "1 + 2?", "chosen": "3", "rejected": "4", "rank": 2},
    "trl dpo, no prompt": {"chosen": "Human: 1 + 2? AI: 3", "rejected": "Human: 1 + 2? AI: 4"},
    "trl dpo of turns": {"prompt": [ASK], "chosen": [SAY], "rejected": [{**SAY, "content": "4"}]},
    "trl dpo, prompt inside": {
        "prompt": "1 + 2?",
        "chosen": [ASK, SAY],
        "rejected": [ASK, {**SAY, "content": "4"}],
    },
    "trl dpo, prompt a text": {"prompt": "1 + 2?", "chosen": [SAY], "rejected": [SAY]},
    "text": {"text": "Some words.\nMore.", "label": "prose"},
}


def put(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def records(path: Path, format: str | None = None, **columns: str) -> list[Record]:
    """The rows of a file that has no faults."""
    items = list(scan(path, format, columns))
    assert not [item for item in items if isinstance(item, Fault)]
    return [item for item in items if isinstance(item, Record)]


def faults(path: Path, format: str | None = None, **columns: str) -> list[Fault]:
    found = [item for item in scan(path, format, columns) if isinstance(item, Fault)]
    for fault in found:
        assert fault.code in CODES
        assert "\n" not in str(fault)
        assert str(fault).startswith(str(path))
    return found


def alike(one: Iterable[Record], other: Iterable[Record]) -> bool:
    """Equal but for the place; 1, 1.0 and True differ."""

    def bare(items: Iterable[Record]) -> list[str]:
        bare = [asdict(replace(item, file="", line=0)) for item in items]
        return [json.dumps(item, sort_keys=True) for item in bare]

    return bare(one) == bare(other) != []


def refusal(path: Path, format: str | None = None, **columns: str) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(DataError) as error:
        list(scan(path, format, columns))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))
    return str(error.value)


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("container", ["jsonl", "json", "parquet", "dataset"])
def test_a_round_trip_loses_nothing(tmp_path: Path, name: str, container: str):
    source = put(tmp_path / "in.jsonl", ROWS[name], ROWS[name])
    first = records(source)
    if container in ("parquet", "dataset") and name == "messages with functions":
        # a turn without content, and a tool list without elements: columns hold the second alone
        with pytest.raises(DataError, match=r"in.jsonl:1: cannot be written as .*content"):
            write_records(first, tmp_path / "out", container)
        assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]
        return
    out = tmp_path / f"out.{container}"
    assert write_records(first, out, container) == 2
    assert alike(records(out), first)
    assert write_records(records(out), tmp_path / "again.jsonl", "jsonl") == 2
    back = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert back == [ROWS[name]] * 2
    assert write_records(records(out), tmp_path / f"third.{container}", container) == 2
    assert alike(records(tmp_path / f"third.{container}"), first)


def test_rows_of_all_shapes_stand_in_one_file(tmp_path: Path):
    source = put(tmp_path / "in.jsonl", *ROWS.values())
    first = records(source)
    assert [r.line for r in first] == list(range(1, len(ROWS) + 1))
    assert {r.shape.removesuffix("-messages") for r in first} >= SHAPES.keys()
    write_records(first, tmp_path / "out.jsonl.gz", "jsonl")
    assert alike(records(tmp_path / "out.jsonl.gz"), first)
    with gzip.open(tmp_path / "out.jsonl.gz", "rt") as file:
        assert [json.loads(line) for line in file] == list(ROWS.values())


def test_what_each_shape_says(tmp_path: Path):
    said = {
        name: records(put(tmp_path / "in.jsonl", row))[0]
        for name, row in ROWS.items()
    }  # fmt: skip
    assert said["messages"].tools == (TOOL,)
    assert said["messages"].messages[2]["tool_calls"] == [CALL]
    assert said["messages"].extra["page"] == 12
    assert said["alpaca"].messages == ({"role": "user", "content": "Add.\n\n1 2"}, SAY)
    roles = [turn["role"] for turn in said["alpaca, history"].messages]
    assert roles == ["system", *["user", "assistant"] * 3]
    assert [t["role"] for t in said["sharegpt"].messages][:3] == ["system", "user", "assistant"]
    for name in ("openai dpo", "trl dpo", "trl dpo of turns", "trl dpo, prompt inside"):
        assert said[name].messages == (ASK,)
        assert said[name].preferred == (SAY,)
        assert said[name].rejected[0]["content"] == "4"
    assert said["openai dpo"].extra == {"parallel_tool_calls": True}
    assert said["text"].text == "Some words.\nMore."


def test_rows_become_examples_or_say_why_not(tmp_path: Path):
    def example(row: dict[str, Any]):
        return to_example(records(put(tmp_path / "in.jsonl", row))[0])

    for name in ("question", "prompt of turns", "alpaca, no input", "sharegpt of turns"):
        row = {k: v for k, v in ROWS[name].items() if k != "tools"}
        assert example(row).answers == ("3",)
    assert example(ROWS["question, many answers"]).answers == ("3", "three")
    assert example(ROWS["question, many answers"]).metadata == {"key_answers": ["3"]}
    text = example(ROWS["text"])
    assert (text.messages, text.answers) == ((), ("Some words.\nMore.",))
    assert text.metadata == {"label": "prose"}
    for name, why in {
        "messages": "tool calls cannot be trained on",
        "messages with functions": "tool calls cannot be trained on",
        "messages with a system field": "Put instructions in [task]",
        "alpaca, history": "Put instructions in [task]",
        "question, no answer": "expected a list of texts",
        "trl dpo": "a preference pair",
    }.items():
        with pytest.raises(ValueError, match=re.escape(why)):
            example(ROWS[name])
    with pytest.raises(ValueError, match="weight 0"):
        example({"messages": [ASK, {**SAY, "weight": 0}]})


def test_a_shape_becomes_another_that_holds_it(tmp_path: Path):
    chats = [records(put(tmp_path / "in.jsonl", ROWS[n]))[0] for n in ("question", "alpaca")]
    for shape in ("messages", "prompt-completion", "alpaca", "sharegpt", "question-answer"):
        write_records(chats, tmp_path / "out.jsonl", shape)
        again = records(tmp_path / "out.jsonl")
        assert {r.shape for r in again} == {shape}
        assert [r.messages for r in again] == [r.messages for r in chats]
        assert again[0].extra["group"] == "sums"
    (pair,) = records(put(tmp_path / "in.jsonl", ROWS["openai dpo"]))
    del pair.extra["parallel_tool_calls"]  # type: ignore[attr-defined]
    write_records([pair], tmp_path / "out.jsonl", "trl-dpo-messages")
    again = records(tmp_path / "out.jsonl")[0]
    assert (again.messages, again.preferred, again.rejected, again.tools) == (
        pair.messages, pair.preferred, pair.rejected, pair.tools,
    )  # fmt: skip
    (pair,) = records(put(tmp_path / "in.jsonl", ROWS["trl dpo"]))
    chat = preferred_only(pair)
    assert (chat.shape, chat.messages, chat.rejected) == ("messages", (ASK, SAY), ())


@pytest.mark.parametrize(
    ("name", "format", "lost"),
    [
        ("messages", "csv", "'messages' is"),
        ("messages", "question-answer", "the tools"),
        ("messages with functions", "sharegpt", "function_call"),
        ("messages with a system field", "prompt-completion", "order of 3 turns"),
        ("openai dpo", "messages", "the rejected answer"),
        ("trl dpo", "alpaca", "the rejected answer"),
        ("question", "text", "who says what"),
        ("question", "csv", "'context' is None"),
        ("question", "openai-dpo", "two answers"),
        ("prompt", "tsv", "'id' is 7"),
        ("text", "lines", "the field 'label'"),
        ("text", "messages", "no turns"),
    ],
)
def test_what_cannot_be_held_is_refused_and_nothing_is_written(
    tmp_path: Path, name: str, format: str, lost: str
):
    plain = {"question": "?", "answer": "!"} if "dpo" not in name and name != "text" else ROWS[name]
    items = records(put(tmp_path / "in.jsonl", plain, ROWS[name]))
    (tmp_path / "out").write_text("as it was")
    with pytest.raises(DataError) as error:
        write_records(items[1:], tmp_path / "out", format)
    assert str(error.value).startswith(f"{tmp_path / 'in.jsonl'}:2: cannot be written as ")
    assert lost in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "out").read_text() == "as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "out"]


# --- containers -----------------------------------------------------------------------------------


def test_a_table_of_cells(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfquestion,answer,group\r\n"Two\r\nlines, and ""quotes""",yes,\r\n\r\n'
        b"Plain?,,g1\r\n caf\xc3\xa9 , =1+1 ,g2\r\n"
    )
    first, second, third = records(path)
    assert [r.line for r in (first, second, third)] == [2, 5, 6]
    assert first.messages[0]["content"] == 'Two\r\nlines, and "quotes"'
    assert first.extra == {}, "an empty cell is no group of its own"
    assert second.messages[1]["content"] == ""
    assert third.messages[0]["content"] == " café "
    for name in ("csv", "tsv", "parquet", "jsonl"):
        write_records([first, second, third], tmp_path / f"out.{name}", name)
        assert alike(records(tmp_path / f"out.{name}"), [first, second, third])
    with pytest.raises(DataError, match=rf'{path}:5: "answer" is empty'):
        list(read_rows(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_sign_between_cells_is_found_out(tmp_path: Path, delimiter: str):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["id", "Frage", "Antwort"], ["1", "a, b; c", "d"]])
    (only,) = records(path, question="Frage", answer="Antwort")
    assert [turn["content"] for turn in only.messages] == ["a, b; c", "d"]
    assert only.extra == {"id": "1"}


def test_columns_are_named_and_a_wrong_name_is_found(tmp_path: Path):
    path = put(tmp_path / "rows.jsonl", {"q": "?", "reply": "!", "question": "old"})
    (clash,) = faults(path, question="q", answer="reply")
    assert clash.code == "column-clash"
    (only,) = records(path, question="q", answer="reply", before="question")
    assert only.extra == {"before": "old"}
    found = faults(path, question="q", answer="reply", before="question", group="topic")
    assert [(f.code, f.line) for f in found] == [("column-not-found", 0)]
    (unknown,) = faults(put(path, {"problem": "?", "solution": "!", "n": 1}))
    assert unknown.code == "unknown-shape"
    assert 'data.columns = { question = "problem", answer = "solution" }' in unknown.mend
    table = tmp_path / "rows.csv"
    table.write_text("Prompt,Response\na,b\nc,d\n")
    assert "found the columns Prompt, Response" in refusal(table)
    assert 'question = "Prompt", answer = "Response"' in refusal(table)


def test_a_parquet_file_of_others(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("tool_calls", pa.null())])
    table = pa.table(
        {
            "messages": pa.array([[ASK, SAY]], pa.list_(turn)),
            "when": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "price": pa.array(["1.50"]).cast(pa.decimal128(5, 2)),
            "image": pa.array([b"\x89PNG"]),
            "n": pa.array([3], pa.int8()),
            "note": pa.array([None], pa.string()),
        }
    )
    path = tmp_path / "rows.bin"
    parquet.write_table(table, path)
    warning, only = list(scan(path))
    assert isinstance(warning, Fault)
    assert (warning.code, warning.level) == ("column-left-out", "warning")
    assert isinstance(only, Record)
    assert only.messages == (ASK, SAY)
    assert only.extra == {"when": "2023-11-14 22:13:20.123456789", "price": "1.50", "n": 3}
    assert next(iter(read_rows(path))).source == "rows.bin:1"
    damaged = path.read_bytes()
    path.write_bytes(damaged[:-20])
    assert "damaged" in refusal(path)
    path.write_bytes(damaged[:30] + b"\xff" * 60 + damaged[90:])
    assert "damaged" in refusal(path)


def test_numbers_that_are_none_and_rows_nested_too_deep_are_faults_in_tables(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(
        pa.table({"text": ["a", "b", "c"], "x": [1.0, float("nan"), float("inf")]}), path
    )
    assert [(f.code, f.line) for f in faults(path)] == [("bad-number", 2), ("bad-number", 3)]


def test_saved_datasets_both_ways(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    rows = [ROWS["messages"], ROWS["messages"]]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "theirs", num_shards=2)
    theirs = records(tmp_path / "theirs")
    assert [r.line for r in theirs] == [1, 2]
    assert theirs[0].messages == tuple(CHAT["messages"])
    write_records(theirs, tmp_path / "ours", "dataset")
    assert alike(records(tmp_path / "ours"), theirs)
    loaded = datasets.load_from_disk(str(tmp_path / "ours"))
    assert loaded.num_rows == 2
    assert loaded[0]["messages"][1]["name"] == "ann"
    with pytest.raises(DataError, match="exists already"):
        write_records(theirs, tmp_path / "ours", "dataset")
    both = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows)}
    datasets.DatasetDict(both).save_to_disk(tmp_path / "parts")
    assert "the parts train, test. Name one" in refusal(tmp_path / "parts")
    assert alike(records(tmp_path / "parts" / "train"), theirs)


def test_json_that_is_no_line_format(tmp_path: Path):
    path = tmp_path / "rows.json"
    rows = [{"question": f"q{i}", "answer": "a" * 5000} for i in range(600)]
    path.write_text(json.dumps({"version": 2, "data": rows}, indent=1), encoding="utf-8")
    *found, last = scan(path)
    assert isinstance(last, Fault)
    assert (last.code, last.level, last.line) == ("outside-rows", "warning", 1)
    assert [r.line for r in found][:3] == [4, 8, 12]
    assert len(found) == 600
    assert path.read_text().splitlines()[found[-1].line - 1].strip() == "{"
    path.write_text(json.dumps(ROWS["messages"], indent=1), encoding="utf-8")
    assert records(path)[0].shape == "messages"
    path.write_text(json.dumps({"train": rows[:2], "test": rows[:2]}), encoding="utf-8")
    assert [f.code for f in faults(path)] == ["several-lists"]
    path.write_text('[{"text": "a"},\n {"text": "b",}, {"text": "c"}]')
    (fault,) = faults(path)
    assert (fault.code, fault.line) == ("not-json", 2)
    path.write_text('[{"text": "a"}, 3, {"text": "b", "text": "c"}, {"text": NaN}]')
    assert [f.code for f in faults(path)] == ["not-an-object", "duplicate-key", "bad-number"]


@pytest.mark.parametrize(
    ("name", "content", "shape"),
    [
        ("rows", '{"text": "a"}\n{"text": "b"}\n', "text"),
        ("rows.txt", '{"text": "a"}\n', "text"),
        ("rows.dat", '[\n {"prompt": "a", "completion": "b"}\n]', "prompt-completion"),
        ("rows.json", '{"text": "a"}\n{"text": "b"}\n', "text"),
        ("rows.jsonl", '[\n {"text": "a"}\n]', "text"),
        ("rows.txt", "prompt\tcompletion\na\tb\n", "prompt-completion"),
        ("rows", "instruction;output\na;b\n", "alpaca"),
        ("notes.txt", "[1] A note.\n\nMore, of it.", "text"),
        ("notes", "text, and so on\nmore, of it\n", "text"),
        ("page.txt", "<!DOCTYPE html><p>Hello</p>", "text"),
        ("old.jsonl", '{"text": "a"}\r{"text": "b"}\r', "text"),
    ],
)
def test_a_format_is_found_by_content(tmp_path: Path, name: str, content: str, shape: str):
    path = tmp_path / name
    path.write_bytes(content.encode())
    found = records(path)
    assert {r.shape for r in found} == {shape}
    assert len(found) == content.count('"text"') or 1
    if "Hello" in content:
        assert found[0].text == "Hello\n"


def test_a_format_that_is_named_is_taken(tmp_path: Path):
    path = put(tmp_path / "rows.jsonl", {"text": "a", "question": "?", "answer": "!"})
    assert [records(path, f)[0].shape for f in (None, "text", "jsonl:text")] == [
        "question-answer", "text", "text",
    ]  # fmt: skip
    assert len(records(path, "lines")) == 1
    assert [f.code for f in faults(path, "alpaca")] == ["unknown-shape"]
    for wrong in ("excel", "csv:excel", "alpaca:csv"):
        with pytest.raises(ConfigError, match="no format"):
            list(scan(path, wrong))
    for wrong, why in (("pdf", "where letters stand"), ("folder", "write a folder of one")):
        with pytest.raises(ConfigError, match=f"the format {wrong} is only read: .*{why}"):
            write_records(records(path), tmp_path / "out", wrong)


# --- documents -----------------------------------------------------------------------------------


def pdf(*pages: str, damage: bool = False) -> bytes:
    """A PDF of the simplest kind, one line of Helvetica a page."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        font = "/MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        bodies += [
            f"<< /Type /Page /Parent 2 0 R /Contents {5 + 2 * i} 0 R {font} >>",
            f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
        ]
    out, places = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(bodies) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\n"
    whole = out + f"{end}startxref\n{len(out)}\n%%EOF\n".encode()
    return whole[: len(whole) // 3] if damage else whole


HTML = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<h1>Soups &amp; stews</h1><p>Boil <b>water</b>,
  then   wait.<br>Serve.</p><script>var x = "<p>no</p>"</script><!-- no -->
<ul><li>salt<li>pep<i>per</i></ul><table><tr><td>a</td><td>b</td></tr></table>
<pre>  keep
    this</pre></body></html>"""
TEXT = """Soups & stews

Boil water, then wait.
Serve.

salt

pepper

a\tb

  keep
    this
"""


def test_documents_of_every_kind(tmp_path: Path):
    folder = tmp_path / "docs"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")
    (folder / "b.md").write_text("# Head\n\n- point\n", encoding="utf-8")
    (folder / "c.html").write_text(HTML, encoding="utf-8")
    (folder / "inner" / "d.pdf").write_bytes(pdf("Page one", "", "Page two"))
    (folder / "inner" / "e.txt.gz").write_bytes(gzip.compress(b"packed\n"))
    (folder / ".hidden").write_text("no")
    found = records(folder)
    assert [r.text for r in found] == [
        "One.\nTwo.\n", "# Head\n\n- point\n", TEXT, "Page one\n\nPage two\n", "packed\n",
    ]  # fmt: skip
    assert found[3].file == str(folder / "inner" / "d.pdf")
    assert [row.source for row in read_rows(folder)][-1] == "inner/e.txt.gz:1"
    for record in found:
        assert alike(records(Path(record.file)), [record])
    write_records(found, tmp_path / "out", "markdown")
    assert alike(records(tmp_path / "out"), found)
    assert all(p.suffix == ".md" for p in (tmp_path / "out").iterdir())
    write_records(found[:1], tmp_path / "one.txt", "txt")
    assert alike(records(tmp_path / "one.txt"), found[:1])
    labelled = records(put(tmp_path / "in.jsonl", ROWS["text"]))
    with pytest.raises(DataError, match=r"in.jsonl:1: .* the field 'label' would be lost"):
        write_records(labelled, tmp_path / "labelled", "txt")
    assert not (tmp_path / "labelled").exists()
    with pytest.raises(DataError, match="is one file, and there are several texts"):
        write_records(found, tmp_path / "all.txt", "txt")
    assert len(records(folder / "a.txt", "lines")) == 2


PAGES = [
    "plain",
    "two\nlines\n",
    "\n\n\n\n  blanks before, tabs\t and after \t\n\n\n\n",
    "<b>bold</b> &amp; &#233; </pre></body><script>x</script> <!-- y --> ]]> 1 < 2 && 3 > 2",
    "caf\u00e9 \u65e5\u672c\u8a9e \U0001f642 e\u0301 a\u00a0b \u2028 \u200b",
    '{"text": "json"}\n{"text": "lines"}\n',
]


def test_texts_are_written_as_pages_and_read_as_the_same_texts(tmp_path: Path):
    pytest.importorskip("lxml")
    texts = [Record("in", i, "text", text=text) for i, text in enumerate(PAGES, 1)]
    assert write_records(texts, tmp_path / "pages", "html") == len(PAGES)
    names = [path.name for path in sorted((tmp_path / "pages").iterdir())]
    assert names[0] == "00000001.html"
    for format in (None, "html"):
        assert [record.text for record in records(tmp_path / "pages", format)] == PAGES
    for text in texts:
        for name in ("one.html", "one.htm.gz"):
            write_records([text], tmp_path / name, "html")
            assert alike(records(tmp_path / name), [text])
    page = (tmp_path / "pages" / "00000004.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    with pytest.raises(DataError, match=r"one.html: is one file, and there are several texts"):
        write_records(texts, tmp_path / "one.html", "html")
    for wrong in ("a\rb", "a\0b", " \n"):
        with pytest.raises(DataError, match="in:1: cannot be written as html"):
            write_records([Record("in", 1, "text", text=wrong)], tmp_path / "wrong", "html")
    labelled = records(put(tmp_path / "in.jsonl", ROWS["text"]))
    with pytest.raises(DataError, match=r"in.jsonl:1: .* the field 'label' would be lost"):
        write_records(labelled, tmp_path / "wrong", "html")
    assert not (tmp_path / "wrong").exists()


def test_a_page_that_is_more_than_one_pre_is_read_block_by_block(tmp_path: Path):
    path = tmp_path / "page.html"
    for page, text in {
        "<pre>\r\n  a\r\n\r\n\r\n\r\nb </pre>": "  a\n\n\n\nb ",
        "<pre>  a  <b>b</b>  \n</pre>": "  a  b\n",
        "<pre>  a  \n</pre><p>b": "  a\n\nb\n",
    }.items():
        path.write_bytes(f"<html><body>{page}</body></html>".encode())
        assert records(path)[0].text == text


def test_pages_in_another_encoding_that_they_name(tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_bytes('<meta charset="cp1252"><p>caf\u00e9 \u2013</p>'.encode("cp1252"))
    assert records(path)[0].text == "café –\n"
    path.write_bytes(path.read_bytes().replace(b"cp1252", b"rot_13"))
    assert "not UTF-8" in refusal(path)
    path.write_text("<div>" * 3000 + "deep" + "</div>" * 3000)
    assert "nested" in refusal(path)


def test_bad_documents_are_faults_in_a_folder_and_refused_alone(tmp_path: Path):
    folder = tmp_path / "docs"
    folder.mkdir()
    bad = {
        "damaged.pdf": (pdf("x", damage=True), "damaged"),
        "empty.txt": (b" \n", "empty"),
        "latin.txt": (b"one\ncaf\xe9\n", ":2: not UTF-8"),
        "nul.md": (b"text\n" * 30 + b"\0", ":31: a NUL byte"),
        "scan.pdf": (pdf("", ""), "no text layer"),
        "script.html": (b"<html><script>x</script>", "no text outside"),
        "wide.txt": ("wide".encode("utf-16"), "iconv -f UTF-16"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    (folder / "self.txt").symlink_to(folder / "self.txt")
    assert "is a folder without any text" in refusal(folder)
    assert "picture.png" in refusal(folder)
    (folder / "good.txt").write_text("good")
    found = list(scan(folder))
    assert [r.text for r in found if isinstance(r, Record)] == ["good"]
    codes = {Path(f.file).name: f.code for f in found if isinstance(f, Fault)}
    assert codes.pop("picture.png") == "not-a-document"
    assert codes.pop("round") == "link-loop"
    assert codes.pop("self.txt") == "unreadable-document"
    assert codes == dict.fromkeys(bad, "unreadable-document")
    for name, (_, said) in bad.items():
        assert said in refusal(folder / name)


def test_an_encrypted_pdf_says_so(tmp_path: Path):
    pypdf = pytest.importorskip("pypdf")
    plain, locked = tmp_path / "plain.pdf", tmp_path / "locked.pdf"
    plain.write_bytes(pdf("Secret"))
    for password, readable in (("", True), ("word", False)):
        writer = pypdf.PdfWriter(clone_from=plain)
        writer.encrypt(user_password=password, owner_password="own", algorithm="RC4-128")
        writer.write(locked)
        if readable:
            assert records(locked)[0].text == "Secret\n"
        else:
            assert "is encrypted" in refusal(locked)


# --- bad input -----------------------------------------------------------------------------------

GOOD = b'{"question": "?", "answer": "!"}\n'


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b"{broken", "not-json", "not valid JSON"),
        (b'{"question": "?", "question": "!", "answer": "x"}', "duplicate-key", "'question'"),
        (b'{"text": "a", "x": NaN}', "bad-number", "NaN"),
        (b'{"text": "a", "x": -Infinity}', "bad-number", "-Infinity"),
        (b'{"text": "a", "x": 1e999}', "bad-number", "1e999"),
        (b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "bad-number", "4,300"),
        (b'{"text": ' + b"[" * 200_000, "nested-too-deep", "too deeply"),
        (b'{"text": "a", "x": ' + b"[" * 70 + b"]" * 70 + b"}", "nested-too-deep", "64 levels"),
        (b'{"text": "\\ud800"}', "lone-surrogate", "surrogate"),
        (b'{"text": "caf\xe9"}', "not-utf-8", "byte 14 of the line is 0xe9"),
        (b'{"text": "a\0b"}', "nul-byte", "byte 12 of the line"),
        (b'{"text": "a"} {"text": "b"}', "not-json", "Extra data"),
        (b'"text"', "not-an-object", "found str"),
        (b"{}", "unknown-shape", "found the fields nothing"),
        (b'{"text": ["a"]}', "not-text", '"text" is'),
        (b'{"question": "?", "answers": "!"}', "answers-not-a-list", "a list of texts"),
        (b'{"messages": "hi"}', "turns-not-a-list", "must be a list"),
        (b'{"messages": ["hi"]}', "turn-not-object", "message 1 is 'hi'"),
        (b'{"messages": [{"content": "x"}]}', "missing-role", 'expected "role" and "content"'),
        (b'{"messages": [{"role": "user"}]}', "missing-content", 'expected "role" and "content"'),
        (b'{"prompt": "x", "completion": []}', "mixed-forms", '"prompt" and "completion"'),
        (b'{"question": "?", "chosen": "a", "rejected": "b"}', "unknown-shape", "without"),
        (b'{"conversations": [{"from": "human"}]}', "missing-content", '"from" and "value"'),
    ],
)
def test_every_broken_row_is_a_fault_and_the_next_is_read(
    tmp_path: Path, line: bytes, code: str, said: str
):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    (fault,) = faults(path)
    assert (fault.code, fault.level, fault.line) == (code, "error", 2)
    assert said in fault.found
    assert [r.line for r in scan(path) if isinstance(r, Record)] == [1, 3]
    with pytest.raises(DataError) as error:
        list(read_rows(path))
    assert error.value.problems == (str(fault),)


def test_ragged_and_badly_quoted_rows_are_named_by_the_line_they_begin_at(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'question,answer,group\n"a\nb",c,d\none,two\n1,2,3,4\n"x"y,2,3\ncaf\xe9,2,3\n'
        b'a\0,2,3\nok,2,3\n"never,closed\n'
    )
    found = faults(path)
    assert [(f.code, f.line) for f in found] == [
        ("ragged-row", 4), ("ragged-row", 5), ("bad-quotes", 6), ("not-utf-8", 7),
        ("nul-byte", 8), ("unclosed-quote", 10),
    ]  # fmt: skip
    assert "nothing for group" in found[0].found
    assert "beyond the last, '4'" in found[1].found
    assert [r.line for r in scan(path) if isinstance(r, Record)] == [2, 9]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b"", "the file is empty"),
        ("rows.csv", b"question,answer\n", "holds no rows"),
        ("rows.csv", b"question,answer,answer\na,b,c\n", "two columns are named 'answer'"),
        ("rows.csv", b"question,,answer\na,b,c\n", "column 2 of 3 has no name"),
        ("rows.json", b"[]", "holds no rows"),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        ("rows.jsonl", '{"text": "a"}'.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        ("rows.csv", b"PK\x03\x04 and so on", "a zip archive"),
        ("rows.jsonl", gzip.compress(gzip.compress(GOOD, mtime=0), mtime=0), "gzip inside gzip"),
        ("rows.jsonl.gz", gzip.compress(GOOD * 999, mtime=0)[:-9], "damaged or cut off"),
        ("bomb.jsonl.gz", b" " * (1 << 20), "times its size"),
        ("rows.parquet", b"PAR1 no", "damaged"),
        ("rows.parquet", b"no", "in spite of its name"),
        ("rows.json", b'{"text": "caf\xe9"}', "not UTF-8"),
        ("rows.bin", b"\x7fELF\0\0\0", "NUL"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, said: str):
    path = tmp_path / name
    path.write_bytes(content)
    if name.startswith("bomb"):
        with gzip.open(path, "wb", compresslevel=6) as file:
            for _ in range(70):
                file.write(content)
    assert said in refusal(path)
    with pytest.raises(DataError, match=said):
        list(read_rows(path))


def test_what_is_no_file_is_refused(tmp_path: Path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jsonl")
        assert "pipe" in refusal(tmp_path / "pipe.jsonl")
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)
    assert "cannot be read" in refusal(loop)
    assert "is a folder" in refusal(tmp_path, "jsonl")
    assert "is no folder" in refusal(put(tmp_path / "rows.jsonl", ROWS["text"]), "dataset")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset_info.json").write_text("{}")
    assert "state.json: no such file" in refusal(tmp_path / "broken")
    (tmp_path / "broken" / "state.json").write_text('{"_data_files": [{"filename": "../x"}]}')
    assert "names no data file" in refusal(tmp_path / "broken")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    rows = [{"question": f"q{i}", "answer": "a" * 1000} for i in range(3000)]
    write_records(records(put(tmp_path / "in.jsonl", *rows)), path, name.split(".")[1])
    items = scan(path)
    next(items)
    with path.open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match="changed while it was read"):
        list(items)


READ_GIANT = """
import sys
from pathlib import Path
from tunelm.data.read import scan
from tunelm.errors import DataError
from tunelm.rundir import peak_memory
before = peak_memory()
try:
    for item in scan(Path(sys.argv[1])):
        print(item)
except DataError as error:
    print(error)
print((peak_memory() - before) >> 20)
"""


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "page.txt"])
def test_a_giant_line_is_refused_in_bounded_memory(tmp_path: Path, name: str):
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b'{"text": "' if "json" in name else b'text\n"')
        for _ in range(140 if name == "rows.json" else 1):
            file.write(b"x" * (1 << 20))
        if name != "rows.json":  # a hole takes no time to write
            file.seek(260 << 20)
        file.write(b'"}\n' + GOOD)
    out = subprocess.run(
        [sys.executable, "-c", READ_GIANT, path], capture_output=True, text=True, check=True
    )
    *said, grown = out.stdout.splitlines()
    assert int(grown) < 330
    assert "longer than 64 MiB" in said[0] or "256 MiB" in said[0]
    assert len(said) == (2 if name == "rows.jsonl" else 1)


FILL_DISK = """
import resource, signal, sys
from pathlib import Path
from tunelm.data.records import Record
from tunelm.data.write import write_records
from tunelm.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
rows = (Record("in", i, "text", text="word " * 1000, extra={"n": str(i)}) for i in range(100))
try:
    write_records(rows, Path(sys.argv[1]), sys.argv[2])
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("format", ["jsonl", "json", "csv", "parquet", "dataset"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, format: str):
    pytest.importorskip("resource")
    if format != "dataset":
        (tmp_path / "out").write_text("as it was")
    out = subprocess.run(
        [sys.executable, "-c", FILL_DISK, tmp_path / "out", format],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "cannot be written: File too large. Nothing was written." in out.stdout
    left = [p.name for p in tmp_path.iterdir()]
    assert left == ([] if format == "dataset" else ["out"])
    assert format == "dataset" or (tmp_path / "out").read_text() == "as it was"


def test_columns_hold_one_type_and_rows_of_one_shape(tmp_path: Path):
    def write(*rows: dict[str, Any]) -> str:
        items = records(put(tmp_path / "in.jsonl", *rows))
        with pytest.raises(DataError) as error:
            write_records(items, tmp_path / "out.parquet", "parquet")
        assert not (tmp_path / "out.parquet").exists()
        return str(error.value)

    a = {"text": "a"}
    assert "in.jsonl:2: " in write({**a, "n": 1}, {**a, "n": "one"})
    assert "in.jsonl:1: cannot be written as parquet: 'n' is 1 and would come back as 1.0" in write(
        {**a, "n": 1}, {**a, "n": 1.5}
    )
    assert "in.jsonl:1: " in write({**a, "n": 1 << 70})
    assert "in.jsonl:2: " in write(a, {**a, "n": {}})
    assert "in.jsonl:2: cannot be written as parquet: 'n' is null" in write(a, {**a, "n": None})
    assert "in.jsonl:1: cannot be written as a table: it is" in write(
        ROWS["question"], ROWS["text"]
    ).replace(":2:", ":1:")
    full = [{**a, "n": None}, {**a, "n": 5}]
    items = records(put(tmp_path / "in.jsonl", *full))
    write_records(items, tmp_path / "out.parquet", "parquet")
    assert alike(records(tmp_path / "out.parquet"), items), "where all have it, null is a value"


# --- real files --------------------------------------------------------------------------------

NAMES = {
    "bridge": {"text": "lesson_topic"},
    "cima": {"text": "obj"},
    "mathdial": {"answer": "ground_truth"},
    "mrbench": {"question": "conversation_history", "answer": "response"},
    "uptake": {"question": "student_text", "answer": "teacher_text"},
    "verify_then_generate": {"question": "problem", "answer": "reference_solution"},
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of shared data is not here")
def test_public_data_is_read_without_faults_and_written_again(tmp_path: Path):
    for path in sorted(SHARED.glob("*/*")):
        found = records(path, **NAMES.get(path.parent.name, {}))
        raw = list(raw_rows(path))
        assert len(found) == len(raw) > 0
        if path.suffix == ".jsonl" and path.parent.name not in NAMES:
            out = tmp_path / path.name
            write_records(found, out, "jsonl")
            lines = zip(*(p.read_text("utf-8").split("\n") for p in (path, out)), strict=True)
            assert all(a == b or json.loads(a) == json.loads(b) for a, b in lines)


def test_the_rows_shown_in_the_documentation_are_of_the_shapes_they_stand_under(tmp_path: Path):
    page = (Path(__file__).parents[1] / "docs" / "formats.md").read_text(encoding="utf-8")
    shown = re.findall(r"^### (\S+)\n.*?^```jsonl\n(.*?)^```", page, flags=re.M | re.S)
    assert [name for name, _ in shown] == list(SHAPES)
    for name, rows in shown:
        path = tmp_path / "rows.jsonl"
        path.write_text(rows, encoding="utf-8")
        assert {family_of(record.shape) for record in records(path)} == {name}
    for name in CONTAINERS:
        assert f"`{name}`" in page
