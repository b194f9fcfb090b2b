"""`tunelm data check` finds every kind of fault where it stands, and none in clean files."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunelm.cli import cli
from tunelm.data.check_codes import CODES
from tunelm.data.openai_rules import check_file
from tunelm.data.personal import find_personal
from tunelm.data.read import CODES as READ_CODES

ROWS = 60
PLACE = 37
"""The line at which the fault is planted, from 1."""
Row = dict[str, Any]


def run(*args: object) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(cli, ["data", "check", *map(str, args), "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, json.loads(result.stdout)


def places(report: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(f["code"], f["file"], f["line"]) for f in report["faults"]]


# --- clean rows: made-up words, so that no two rows are alike ---------------------------------


def words(count: int, seed: object) -> str:
    rng = random.Random(f"words {seed}")
    syllables = [a + b for a in "bkltmnsvdgpfr" for b in "aeiou"]
    return " ".join("".join(rng.choices(syllables, k=3)) for _ in range(count))


def question(seed: object) -> str:
    return f"What is {words(9, f'q {seed}')}?"


def answer(seed: object) -> str:
    return f"It is {words(8, f'a {seed}')}."


def user(content: Any, **more: Any) -> Row:
    return {"role": "user", "content": content, **more}


def said(content: Any, **more: Any) -> Row:
    return {"role": "assistant", "content": content, **more}


def qa(seed: object) -> Row:
    return {"question": question(seed), "answer": answer(seed), "group": f"g{seed}"}


def chat(seed: object) -> Row:
    return {"messages": [user(question(seed)), said(answer(seed))]}


def dpo(seed: object) -> Row:
    return {
        "input": {"messages": [user(question(seed))]},
        "preferred_output": [said(answer(f"{seed} good"))],
        "non_preferred_output": [said(answer(f"{seed} bad"))],
    }


def text(seed: object) -> Row:
    return {"text": words(30, f"t {seed}")}


TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


def call(key: str = "c1", name: str = "look_up", arguments: Any = '{"word": "x"}') -> Row:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


def tools(seed: object) -> Row:
    turns = [
        {"role": "system", "content": "Answer from the dictionary."},
        user(question(seed)),
        {"role": "assistant", "content": None, "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "c1", "content": words(4, f"found {seed}")},
        said(answer(seed), weight=1),
    ]
    return {"messages": turns, "tools": [TOOL], "parallel_tool_calls": False}


def jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


# --- the corpus of broken files ----------------------------------------------------------------


def turns(*messages: Row, **more: Any) -> Row:
    return {"messages": list(messages), **more}


def put(make: Callable[[object], Row], where: str, value: Any) -> Row:
    """A clean row with one place changed: `messages.1.content`."""
    row = copy.deepcopy(make("planted"))
    *path, last = where.split(".")
    at: Any = row
    for key in path:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[int(last) if isinstance(at, list) else last] = value
    return row


def holding(piece: str, make: Callable[[object], Row] = qa) -> Row:
    return put(make, "answer", f"{words(3, 'before')} {piece} {words(3, 'after')}")


Q, A = user(question("p")), said(answer("p"))
# Keys in pieces, so that no scanner takes this file for a leak.
KEY = "q7Zt2Rk9Xw4Lm8Vb3Nc6Hd1Ys5Pf0Gj" + "4Tr8Wq2Kx6Bn"
UP = "Q7ZT2RK9XW4LM8VB"

BROKEN: dict[str, tuple[str, Callable[[object], Row], Any]] = {
    # name: (the code it must be found by, what the other rows are, the planted row)
    "cut off json": ("not-json", qa, b'{"question": "What is'),
    "two objects on a line": ("not-json", qa, b'{"a": 1} {"b": 2}'),
    "a list": ("not-an-object", qa, b"[1, 2]"),
    "a bare text": ("not-an-object", qa, b'"hello"'),
    "a key twice": ("duplicate-key", qa, b'{"question": "a?", "question": "b?", "answer": "c"}'),
    "not a number": ("bad-number", qa, b'{"question": "a?", "answer": "b", "score": NaN}'),
    "nested deep": ("nested-too-deep", qa, b'{"a": ' + b"[" * 90 + b"]" * 90 + b"}"),
    "half a character": ("lone-surrogate", qa, rb'{"question": "a \ud800?", "answer": "b"}'),
    "latin-1": ("not-utf-8", qa, '{"question": "café?", "answer": "b"}'.encode("latin-1")),
    "a zero byte": ("nul-byte", qa, b'{"question": "a\0?", "answer": "b"}'),
    "unknown fields": ("unknown-shape", qa, {"frage": "Was?", "antwort": "Das."}),
    "answers as text": ("answers-not-a-list", qa, {"question": "Which one?", "answers": "That."}),
    "messages as text": ("turns-not-a-list", chat, {"messages": "hello"}),
    "a turn as text": ("turn-not-object", chat, turns(Q, "hello")),  # type: ignore[arg-type]
    "a turn without role": ("missing-role", chat, turns(Q, {"content": "x"})),
    "a turn without content": ("missing-content", chat, turns(Q, {"role": "assistant"})),
    "an answer of null": ("missing-content", chat, turns(Q, said(None))),
    "text and turns mixed": ("mixed-forms", qa, {"prompt": "Which one?", "completion": [A]}),
    "a text of 3": ("not-text", text, {"text": 3}),
    "no turns": ("no-messages", chat, turns()),
    "a role of its own": ("unknown-role", chat, turns({"role": "teacher", "content": "x"}, A)),
    "content of 3": ("content-type", chat, turns(user(3), A)),
    "a part without type": ("content-type", chat, turns(user([{"text": "x"}]), A)),
    "an empty question": ("empty-question", qa, put(qa, "question", "")),
    "an empty answer": ("empty-answer", qa, put(qa, "answer", "")),
    "an answer of spaces": ("empty-answer", chat, turns(Q, said(" \n\t"))),
    "an answer of empty parts": ("empty-answer", chat, turns(Q, said([{"type": "text"}]))),
    "an empty system turn": ("empty-system", chat, turns({"role": "system", "content": ""}, Q, A)),
    "a late system turn": ("system-not-first", chat, turns(Q, A, {**Q, "role": "system"}, Q, A)),
    "a late developer turn": ("system-not-first", chat, turns(Q, {**Q, "role": "developer"}, A)),
    "two questions": ("two-users", chat, turns(user(question("p0")), Q, A)),
    "two answers": ("two-assistants", chat, turns(Q, said(answer("p0")), A)),
    "a greeting first": ("first-not-user", chat, turns(said("Welcome."), Q, A)),
    "no answer": ("no-assistant", chat, turns(Q)),
    "no gold answers": ("no-assistant", qa, {"question": question("p"), "answers": []}),
    "a question last": ("last-not-assistant", chat, turns(Q, A, user(question("p2")))),
    "weight 2": ("weight-value", chat, turns(Q, said(answer("p"), weight=2))),
    "weight 0.5": ("weight-value", chat, turns(Q, said(answer("p"), weight=0.5))),
    "weight as text": ("weight-value", chat, turns(Q, said(answer("p"), weight="1"))),
    "weight true": ("weight-value", chat, turns(Q, said(answer("p"), weight=True))),
    "weight of a question": ("weight-role", chat, turns(user(question("p"), weight=1), A)),
    "all weights 0": ("weight-all-zero", chat, turns(Q, said(answer("p"), weight=0))),
    "an echo": ("answer-is-question", qa, put(qa, "answer", question("planted").upper())),
    "an empty text": ("empty-text", text, {"text": " \n"}),
    "tools as text": ("tool-definition", tools, put(tools, "tools", "look_up")),
    "a tool without type": ("tool-definition", tools, put(tools, "tools.0", {"name": "look_up"})),
    "a name with a space": (
        "tool-definition",
        tools,
        turns(Q, A, tools=[TOOL, {"type": "function", "function": {"name": "look up"}}]),
    ),
    "a call without id": (
        "tool-call-malformed",
        tools,
        turns(Q, said(None, tool_calls=[{**call(), "id": None}]), tools=[TOOL]),
    ),
    "an id twice": (
        "tool-call-malformed",
        tools,
        turns(Q, said(None, tool_calls=[call(), call()]), tools=[TOOL]),
    ),
    "a question that calls": (
        "tool-call-malformed",
        tools,
        turns(user(question("p"), tool_calls=[call()]), said("x"), tools=[TOOL]),
    ),
    "arguments cut off": (
        "tool-arguments",
        tools,
        turns(Q, said(None, tool_calls=[call(arguments='{"word": ')]), tools=[TOOL]),
    ),
    "arguments as object": (
        "tool-arguments",
        tools,
        turns(Q, said(None, tool_calls=[call(arguments={"word": "x"})]), tools=[TOOL]),
    ),
    "arguments as list": (
        "tool-arguments",
        tools,
        turns(Q, said(None, tool_calls=[call(arguments="[1]")]), tools=[TOOL]),
    ),
    "an undeclared function": (
        "tool-unknown",
        tools,
        turns(Q, said(None, tool_calls=[call(name="search")]), tools=[TOOL]),
    ),
    "a call without tools": ("tool-unknown", chat, turns(Q, said(None, tool_calls=[call()]))),
    "the old form of calls": (
        "tool-unknown",
        chat,
        turns(Q, said(None, function_call={"name": "search", "arguments": "{}"})),
    ),
    "a call unanswered": (
        "tool-call-unanswered",
        tools,
        turns(Q, said(None, tool_calls=[call()]), user(question("p2")), A, tools=[TOOL]),
    ),
    "an answer to nothing": (
        "tool-answer-unasked",
        tools,
        turns(Q, {"role": "tool", "tool_call_id": "c9", "content": "x"}, A, tools=[TOOL]),
    ),
    "no rejected answer": ("preference-missing", dpo, put(dpo, "non_preferred_output", [])),
    "equal answers": (
        "preference-equal",
        dpo,
        {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [A]},
    ),
    "a user preferred": ("preference-role", dpo, put(dpo, "preferred_output", [user("x")])),
    "a prompt that answers": ("preference-prompt", dpo, put(dpo, "input.messages", [Q, A])),
    "chatml": ("special-token", qa, holding("<|im_end|>")),
    "fill in the middle": ("special-token", qa, holding("<|fim_suffix|>")),
    "llama 2": ("special-token", qa, holding("[/INST]")),
    "llama 3": ("special-token", qa, holding("<|eot_id|>")),
    "gemma": ("special-token", qa, holding("<end_of_turn>")),
    "deepseek": ("special-token", qa, holding("<\uff5cAssistant\uff5c>")),
    "sentencepiece": ("special-token", qa, holding("</s>")),
    "wrong encoding": ("mojibake", qa, holding("cafÃ© crÃ¨me")),
    "lost letters": ("replacement-character", qa, holding("caf\ufffd")),
    "an escape code": ("control-character", qa, holding("\x1b[31m")),
    "a C1 byte": ("control-character", qa, holding("it\x92s")),
    "zero width": ("invisible-character", qa, holding("so\u200bme")),
    "turned direction": ("invisible-character", qa, holding("\u202ereversed")),
    "a tag": ("html", qa, holding('<a href="x">here</a>')),
    "an entity": ("html", qa, holding("this&nbsp;that")),
    "a python field": ("placeholder", qa, holding("{question}")),
    "a jinja field": ("placeholder", qa, holding("{{ customer.name }}")),
    "a jinja field cut off": ("placeholder", qa, put(qa, "answer", "Dear {{ name")),
    "a jinja statement": ("placeholder", qa, holding("{% if premium %}")),
    "an address": ("personal-email", qa, holding("jane.doe@acme-corp.com")),
    "a phone abroad": ("personal-phone", qa, holding("+49 30 901820-12")),
    "a phone in america": ("personal-phone", qa, holding("(212) 736-5000")),
    "a phone with a cue": ("personal-phone", qa, holding("Tel.: 030 / 90 18 20")),
    "a card": ("personal-card", qa, holding("4539 1488 0343 6467")),
    "an iban": ("personal-iban", qa, holding("DE89 3704 0044 0532 0130 00")),
    "openai's key": ("secret", qa, holding("sk-proj-" + KEY)),
    "openai's old key": ("secret", qa, holding("sk-" + KEY)),
    "anthropic's key": ("secret", qa, holding("sk-ant-api03-" + KEY)),
    "amazon's key": ("secret", qa, holding("AKIA" + UP)),
    "github's token": ("secret", qa, holding("ghp_" + KEY)),
    "google's key": ("secret", qa, holding("AIza" + KEY[:35])),
    "slack's token": ("secret", qa, holding("xoxb-" + KEY[:24])),
    "stripe's key": ("secret", qa, holding("sk_live_" + KEY[:24])),
    "hugging face's token": ("secret", qa, holding("hf_" + KEY[:34])),
    "a web token": ("secret", qa, holding(f"eyJ{KEY[:16]}.eyJ{KEY[:20]}.{KEY}")),
    "a private key": ("secret", qa, holding("-----BEGIN RSA " + "PRIVATE KEY-----")),
    "a password in a url": ("secret", qa, holding("postgres://app:h4rdT0gu3ss@db.corp/x")),
    "an assigned secret": ("secret", qa, holding(f'db_password = "{KEY[:20]}"')),
    "a row again": ("duplicate", qa, qa(3)),
    "a text again": ("duplicate-text", text, text(3)),
    "a word changed": ("near-duplicate", text, {"text": f"{words(30, 't 3')} again"}),
    "another answer": ("conflict", qa, {"question": question(3).upper(), "answer": "Nothing."}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_planted_fault_is_found_by_its_code_file_and_line(tmp_path: Path, name: str):
    code, make, planted = BROKEN[name]
    rows: list[Any] = [make(i) for i in range(ROWS)]
    rows[PLACE - 1] = planted
    path = jsonl(tmp_path / "rows.jsonl", rows)
    exit_code, report = run(path)
    assert places(report) == [(code, str(path), PLACE)]
    assert exit_code == (1 if CODES[code].level == "error" else 0)
    assert report["rows"] + report["unreadable"] == ROWS


def test_the_corpus_has_at_least_sixty_kinds():
    assert len(BROKEN) >= 60


TABLE = "question,answer\n" + "".join(f'"{question(i)}","{answer(i)}"\n' for i in range(ROWS))
OTHER_FILES: dict[str, tuple[str, str, str, int]] = {
    # name: (code, file name, content, line)
    "a cell too many": ("ragged-row", "t.csv", TABLE + "a?,b,c\n", ROWS + 2),
    "a cell too few": ("ragged-row", "t.csv", TABLE + "a?\n", ROWS + 2),
    "a quote inside": ("bad-quotes", "t.csv", TABLE + 'a?,"b"c\n', ROWS + 2),
    "a quote never closed": ("unclosed-quote", "t.csv", TABLE + 'a?,"b\n', ROWS + 2),
    "an empty cell": ("empty-answer", "t.csv", TABLE + "a?,\n", ROWS + 2),
    "json cut off": ("not-json", "t.json", json.dumps([qa(i) for i in range(ROWS)])[:-1], 1),
    "two lists": (
        "several-lists",
        "t.json",
        json.dumps({"train": [qa(1), qa(2)], "test": [qa(3)]}),
        1,
    ),
    "fields outside": (
        "outside-rows",
        "t.json",
        json.dumps({"version": 3, "data": [qa(1), qa(2)]}),
        1,
    ),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_fault_of_another_format_is_found(tmp_path: Path, name: str):
    code, file, content, line = OTHER_FILES[name]
    path = tmp_path / file
    path.write_text(content, encoding="utf-8")
    _, report = run(path)
    assert (code, str(path)) in {(f["code"], f["file"]) for f in report["faults"]}
    assert {f["code"] for f in report["faults"]} == {code}
    assert report["faults"][0]["line"] in (line, 0)


LONG_LINE = b'{"question": "' + b"x" * (64 * 2**20) + b'", "answer": "y"}\n'
RENAMED = ("--column", "question=frage", "--column", "answer=antwort")


def german(**more: Any) -> Row:
    return {"frage": question("g"), "antwort": answer("g"), **more}


def documents(folder: Path) -> Path:
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.txt").write_text(f"{words(30, f'd {i}')}\n", encoding="utf-8")
    return folder


def parquet_with_pictures(path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**qa(i), "picture": b"\x89PNG"} for i in range(ROWS)]
    parquet.write_table(arrow.Table.from_pylist(rows), path)


MADE: dict[str, tuple[Callable[[Path], object], str, int, tuple[str, ...]]] = {
    # code: (what makes the file or folder, where the fault stands in it, the line, options)
    "line-too-long": (lambda p: jsonl(p, [qa(1), LONG_LINE, qa(2)]), "", 2, ()),
    "column-left-out": (parquet_with_pictures, "", 0, ()),
    "column-not-found": (
        lambda p: jsonl(p, [german()]), "", 0, (*RENAMED, "--column", "group=thema")
    ),
    "column-clash": (
        lambda p: jsonl(p, [german(), german(question="old")]), "", 2, RENAMED
    ),
    "unreadable-document": (
        lambda p: (documents(p) / "broken.txt").write_bytes(b"caf\xe9"), "broken.txt", 0, ()
    ),
    "not-a-document": (
        lambda p: (documents(p) / "picture.png").write_bytes(b"\x89PNG"), "picture.png", 0, ()
    ),
    "link-loop": (lambda p: (documents(p) / "again").symlink_to(p), "again", 0, ()),
}  # fmt: skip


@pytest.mark.parametrize("code", MADE)
def test_a_fault_of_columns_or_of_a_folder_is_found(tmp_path: Path, code: str):
    make, inside, line, options = MADE[code]
    path = tmp_path / "rows"
    make(path)
    exit_code, report = run(path, *options)
    assert places(report) == [(code, str(path / inside), line)]
    assert exit_code == (1 if CODES[code].level == "error" else 0)


def test_every_fault_of_reading_is_planted_somewhere_above():
    planted = {code for code, *_ in (*BROKEN.values(), *OTHER_FILES.values())} | set(MADE)
    assert set(READ_CODES) <= planted


# --- clean files -------------------------------------------------------------------------------


def sharegpt(seed: object) -> Row:
    return {
        "conversations": [
            {"from": "human", "value": question(seed)},
            {"from": "gpt", "value": answer(seed)},
        ]
    }


def alpaca(seed: object) -> Row:
    return {"instruction": question(seed), "input": words(5, seed), "output": answer(seed)}


def trl(seed: object) -> Row:
    return {"prompt": question(seed), "chosen": answer(seed), "rejected": answer(f"{seed} bad")}


def weighted(seed: object) -> Row:
    first = said(answer(f"{seed} first"), weight=0)
    return turns(Q | {"content": question(f"{seed} first")}, first, *chat(seed)["messages"])


@pytest.mark.parametrize("make", [qa, chat, weighted, tools, dpo, trl, sharegpt, alpaca, text])
def test_a_clean_file_has_no_fault_and_gets_one_line(tmp_path: Path, make: Callable[[object], Row]):
    path = jsonl(tmp_path / "rows.jsonl", [make(i) for i in range(ROWS)])
    result = CliRunner().invoke(cli, ["data", "check", str(path), "--strict"])
    assert result.output == f"{path}: {ROWS} rows, no fault found.\n"
    assert result.exit_code == 0


@pytest.mark.parametrize("kind", ["json", "csv", "tsv", "parquet", "txt", "folder"])
def test_a_clean_file_of_another_format_has_no_fault(tmp_path: Path, kind: str):
    rows = [{k: v for k, v in qa(i).items() if k != "group"} for i in range(ROWS)]
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(map(str, r.values())) for r in rows)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "parquet":
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif kind == "txt":
        path.write_text("\n".join(words(20, i) for i in range(ROWS)))
    else:
        path.mkdir()
        for i in range(5):
            (path / f"{i}.md").write_text(f"# {words(2, i)}\n\n{words(60, f'md {i}')}\n")
    code, report = run(path, "--strict")
    assert report["faults"] == []
    assert report["rows"] > 0
    assert code == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["role", "content", "weight", "name", "tool_calls", "tool_call_id", "function_call", "id"]
TURN = st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["user", "assistant"]))
TURNS = st.lists(TURN | st.builds(said, JSON) | st.builds(user, JSON) | JSON, max_size=4)
ANY_ROW = st.fixed_dictionaries(
    {"messages": TURNS}, optional={"tools": JSON, "context": JSON, "label": JSON}
) | st.fixed_dictionaries(
    {"input": st.fixed_dictionaries({"messages": TURNS}), "preferred_output": TURNS},
    optional={"non_preferred_output": TURNS, "tools": JSON},
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(ANY_ROW, min_size=1, max_size=6), method=st.sampled_from(["supervised", "dpo"])
)
def test_no_row_however_odd_ends_the_check(tmp_path: Path, rows: list[Row], method: str):
    path = jsonl(tmp_path / "odd.jsonl", rows)
    code, report = run(path, "--provider", "openai", "--method", method, "--against", path)
    assert report["rows"] + report["unreadable"] == len(rows)
    assert {f["code"] for f in report["faults"]} <= set(CODES)
    assert code == 1


def test_harmless_numbers_names_and_code_are_not_personal():
    harmless = """
        2026-11-21 14:30:00 and 21.11.2026, 11/21/2026 | ISBN 978-3-16-148410-0, 0-306-40615-2
        1234567890123456 is a number, as is 3.14159265358979 and 1,234,567,890
        https://example.com/a/b?id=1234567890&page=2 | http://user@host.example/path
        write to someone@example.org or admin@mail.test | call 555-0123 or (212) 555-0199
        version 10.0.19045.3803, IP 192.168.100.200, order 4539-1488-0343-6468, room 212-736
        token = tokenizer.encode(text) | api_key = os.environ["OPENAI_API_KEY"] | sk-xxxxxxxxxxxxx
        password: at least sixteen characters, with digits | secret = "change-me-please-1234567890"
        the pages 212-215, the years 1914-1918 and 1939-1945, 100 000 000 people, 6.02214076e23
        f3b1c2d4-5e6f-4a8b-9c0d-1e2f3a4b5c6d | 9c56cc51b374c3ba189210d5b6d4bf57790d351c
        The risk-sk-averse task-specific desk-based method is used; eyJust a word.
        GB29 is no account, nor is DE00 3704 0044 0532 0130 00 with its wrong check digits
    """
    assert find_personal(harmless) == []


def test_ordinary_text_that_looks_odd_is_no_fault(tmp_path: Path):
    pieces = [
        r"$\frac{a}{b} = \text{input}$ and \begin{document}",
        "if a < b and c > d: x = {1, 2}",
        "L’été à Zürich, São Paulo, “quoted” — naïve café, 5 × 3 ≤ 20 °C",
        "Привет, мир! 你好，世界。 שלום עולם مرحبا",
        "the set {a, b}, a list [INSTANT], a dict {'question': 1}",
        "line one\n\n\tline two\r\nline three",
        "family \N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN} and می\u200cخواهم",
    ]
    path = jsonl(tmp_path / "rows.jsonl", [{**qa(i), "answer": p} for i, p in enumerate(pieces)])
    assert run(path, "--strict") == (0, run(path)[1])
    assert run(path)[1]["faults"] == []


# --- the file as a whole -----------------------------------------------------------------------


def test_the_same_answer_everywhere_and_unbalanced_labels_are_said_of_the_file(tmp_path: Path):
    same = jsonl(tmp_path / "same.jsonl", [{**qa(i), "answer": "I cannot say."} for i in range(20)])
    assert places(run(same)[1]) == [("identical-answers", str(same), 0)]
    rows = [{**qa(i), "answer": "spam" if i % 12 == 0 else "ham"} for i in range(60)]
    answers = jsonl(tmp_path / "answers.jsonl", rows)
    _, report = run(answers)
    assert places(report) == [("label-imbalance", str(answers), 0)]
    assert "'ham' stands in 55 rows, 'spam' in 5" in report["faults"][0]["found"]
    kinds = [{**qa(i), "kind": "rare" if i < 3 else "common"} for i in range(40)]
    labels = jsonl(tmp_path / "labels.jsonl", kinds)
    assert places(run(labels)[1]) == []
    assert places(run(labels, "--column", "label=kind")[1]) == [("label-imbalance", str(labels), 0)]


def test_a_text_with_two_labels_is_a_conflict_and_not_a_duplicate(tmp_path: Path):
    rows = [{**text(i), "label": "ab"[i % 2]} for i in range(20)] + [{**text(3), "label": "a"}]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert places(run(path)[1]) == [("conflict", str(path), 21)]


def test_of_alike_rows_only_the_plainest_fault_is_reported(tmp_path: Path):
    base = words(40, "base")
    rows: list[Row] = [{"text": base}, {"text": base}, {"text": base + " more"}, text(1)]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert places(run(path)[1]) == [
        ("duplicate-text", str(path), 2),
        ("near-duplicate", str(path), 3),
    ]


def test_a_shared_instruction_makes_no_near_duplicates(tmp_path: Path):
    long = words(80, "the instruction")
    rows = [{"question": f"{long} {question(i)}", "answer": answer(i)} for i in range(80)]
    assert run(jsonl(tmp_path / "rows.jsonl", rows))[1]["faults"] == []


def test_validation_rows_that_stand_in_the_training_file_are_named(tmp_path: Path):
    train = jsonl(tmp_path / "train.jsonl", [qa(i) for i in range(ROWS)])
    long = put(qa, "answer", words(60, "long"))
    train.write_text(train.read_text() + json.dumps(long) + "\n")
    rows = [
        qa("v1"),
        qa(4),
        {"question": question(5).lower(), "answer": "Something else."},
        {**long, "question": long["question"].replace("What", "And what")},
        {"question": question("v2"), "answer": ""},
    ]
    validation = jsonl(tmp_path / "val.jsonl", rows)
    code, report = run(train, "--validation", validation)
    assert code == 1
    assert sorted(places(report)) == [
        ("empty-answer", str(validation), 5),
        ("validation-overlap", str(validation), 2),
        ("validation-overlap", str(validation), 3),
        ("validation-overlap", str(validation), 4),
    ]
    found = [f["found"] for f in report["faults"] if f["code"] == "validation-overlap"]
    assert f"the same row as {train}:5" in found
    assert f"the same question as {train}:6" in found
    assert f"almost the same row as {train}:{ROWS + 1}" in found
    assert report["validation_rows"] == 5


# --- the parts of a split ----------------------------------------------------------------------


def prepared(tmp_path: Path, *options: str) -> Path:
    """What the command makes of clean rows."""
    path, out = jsonl(tmp_path / "rows.jsonl", [qa(i) for i in range(ROWS)]), tmp_path / "out"
    args = ["data", "prepare", str(path), "--out", str(out), *options]
    assert CliRunner().invoke(cli, args).exit_code == 0
    return out


@pytest.mark.parametrize(
    "options",
    [(), ("--to", "csv"), ("--to", "messages"), ("--dev", "0"), ("--dev", "0", "--test", "0")],
)
def test_what_was_prepared_is_checked_part_by_part(tmp_path: Path, options: tuple[str, ...]):
    out = prepared(tmp_path, *options)
    counts = json.loads((out / "split.json").read_text())["parts"]
    code, report = run(out, "--strict")
    assert (code, report["faults"], report["rows"]) == (0, [], ROWS)
    assert report["parts"] == {part: counts[part]["rows"] for part in counts}
    shown = CliRunner().invoke(cli, ["data", "check", str(out)]).output
    parts = ", ".join(f"{part} {n}" for part, n in report["parts"].items())
    assert shown == f"{out}: {ROWS} rows ({parts}), no fault found.\n"


def test_a_row_that_stands_in_two_parts_is_named_with_both_files(tmp_path: Path):
    out = prepared(tmp_path)
    train, dev, test = (out / f"{part}.jsonl" for part in ("train", "dev", "test"))
    long = put(qa, "answer", words(60, "long"))
    rows = {path: path.read_text().splitlines() for path in (train, dev, test)}
    almost = {**long, "question": long["question"].replace("What", "And what")}
    for path, more in (
        (train, [json.dumps(long), "{broken"]),
        (dev, [rows[train][0], json.dumps(qa("only in dev")), rows[dev][0]]),
        (test, [json.dumps(almost), rows[dev][0], json.dumps(put(qa, "answer", ""))]),
    ):
        path.write_text("\n".join([*rows[path], *more]) + "\n")
    n = {path: len(lines) for path, lines in rows.items()}
    code, report = run(out)
    assert code == 1
    assert sorted(places(report)) == sorted(
        [
            ("not-json", str(train), n[train] + 2),
            ("validation-overlap", str(dev), n[dev] + 1),
            ("duplicate", str(dev), n[dev] + 3),
            ("validation-overlap", str(test), n[test] + 1),
            ("validation-overlap", str(test), n[test] + 2),
            ("empty-answer", str(test), n[test] + 3),
        ]
    )
    found = {(f["file"], f["line"]): f["found"] for f in report["faults"]}
    assert found[str(dev), n[dev] + 1] == f"the same row as {train}:1"
    assert found[str(test), n[test] + 1] == f"almost the same row as {train}:{n[train] + 1}"
    assert found[str(test), n[test] + 2] == f"the same row as {dev}:1"
    assert report["unreadable"] == 1


def test_a_split_is_held_against_validation_and_other_files_too(tmp_path: Path):
    out = prepared(tmp_path)
    rows = [json.loads(line) for line in (out / "test.jsonl").read_text().splitlines()]
    shared = put(qa, "answer", words(40, "shared"))
    with (out / "dev.jsonl").open("a") as file:
        file.write(json.dumps(shared) + "\n")
    line = len((out / "dev.jsonl").read_text().splitlines())
    validation = jsonl(tmp_path / "val.jsonl", [rows[0], qa("v")])
    other = jsonl(tmp_path / "other.jsonl", [{"text": f"So, {shared['answer']}"}])
    _, report = run(out, "--validation", validation, "--against", other)
    assert places(report) == [
        ("validation-overlap", str(validation), 1),
        ("overlap", str(out / "dev.jsonl"), line),
    ]
    assert report["validation_rows"] == 2


def test_a_split_without_its_train_part_is_one_line(tmp_path: Path):
    out = prepared(tmp_path)
    (out / "train.jsonl").unlink()
    refused = CliRunner().invoke(cli, ["data", "check", str(out)]).exception
    assert str(refused) == (
        f"{out}: has no train part. Put the file there, or prepare the data anew."
    )


# --- the length --------------------------------------------------------------------------------


def test_rows_too_long_for_the_model_are_found_by_its_own_tokenizer(
    tmp_path: Path, tiny_model: Path
):
    rows = [chat(i) for i in range(20)]
    rows[4] = turns(user(words(100, "long")), said("Yes."))
    rows[9] = turns(user("Which ones?"), said(words(100, "long too")))
    path = jsonl(tmp_path / "rows.jsonl", rows)
    code, report = run(path, "--model", tiny_model)
    assert places(report) == [("over-long", str(path), 5), ("cut-answer", str(path), 10)]
    assert code == 1
    assert "of 512" in report["faults"][0]["found"]
    shorter = places(run(path, "--model", tiny_model, "--max-length", "64")[1])
    assert len(shorter) == 20


def test_a_model_s_own_special_tokens_and_its_template_are_heeded(tmp_path: Path, tiny_model: Path):
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[[turn]]"]})
    refuse = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refuse + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    rows = [chat(i) for i in range(20)]
    rows[2] = turns(Q, said("see [[turn]] there"))
    rows[7] = turns({"role": "system", "content": "Be brief."}, *chat(7)["messages"])
    rows[11] = tools(11)
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert run(path)[1]["faults"] == []
    _, report = run(path, "--model", folder)
    assert places(report) == [("special-token", str(path), 3), ("template", str(path), 8)]
    assert "no system" in report["faults"][1]["found"]
    assert report["notes"] == ["not checked: the length of 1 rows with tool calls"]


# --- OpenAI's rules ----------------------------------------------------------------------------

PART = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
OPENAI: dict[str, tuple[str, Callable[[object], Row], Row]] = {
    "another shape": ("openai-shape", chat, qa("p")),
    "a pair for supervised": ("openai-shape", chat, dpo("p")),
    "a conversation for dpo": ("openai-shape", dpo, chat("p")),
    "a field more": ("openai-key", chat, {**chat("p"), "group": "g1"}),
    "a field more in the input": (
        "openai-key",
        dpo,
        put(dpo, "input", {"messages": [Q], "topic": "x"}),
    ),
    "a message's field": ("openai-message-key", chat, turns(user(question("p"), id="7"), A)),
    "a name with a space": ("openai-name", chat, turns(user(question("p"), name="Ann B"), A)),
    "an image in an answer": (
        "openai-content",
        chat,
        turns(Q, said([PART, {"type": "text", "text": answer("p")}])),
    ),
    "an image for dpo": (
        "openai-content",
        dpo,
        put(dpo, "input.messages", [user([PART, {"type": "text", "text": "this?"}])]),
    ),
    "calls side by side as text": (
        "openai-parallel-tool-calls",
        tools,
        {**tools("p"), "parallel_tool_calls": "yes"},
    ),
    "calls side by side without tools": (
        "openai-parallel-tool-calls",
        chat,
        {**chat("p"), "parallel_tool_calls": True},
    ),
    "two outputs": (
        "openai-dpo-output",
        dpo,
        put(
            dpo,
            "preferred_output",
            [
                said(None, tool_calls=[call()]),
                {"role": "tool", "tool_call_id": "c1", "content": "x"},
            ],
        )
        | {"tools": None},
    ),
    "an example too long": (
        "openai-over-long",
        chat,
        turns(user(words(12_000, "long")), A),
    ),
}


@pytest.mark.parametrize("name", OPENAI)
def test_a_fault_by_openai_s_rules_is_found(tmp_path: Path, name: str):
    code, make, planted = OPENAI[name]
    rows = [make(i) for i in range(ROWS)]
    rows[PLACE - 1] = planted
    path = jsonl(tmp_path / "rows.jsonl", rows)
    method = "dpo" if make is dpo else "supervised"
    options = ("--provider", "openai", "--openai-model", "gpt-3.5-turbo", "--method", method)
    exit_code, report = run(path, *options)
    if code == "openai-over-long" and report["tokens"] is None:
        pytest.skip(f"tokens cannot be counted here: {report['notes']}")
    if code == "openai-dpo-output":  # two turns that end with a tool's are no answer either
        assert (code, str(path), PLACE) in places(report)
    else:
        assert places(report) == [(code, str(path), PLACE)]
    assert exit_code == 1


@pytest.mark.parametrize("make", [chat, weighted, tools, dpo])
def test_clean_files_pass_openai_s_rules(tmp_path: Path, make: Callable[[object], Row]):
    developer = turns({"role": "developer", "content": "Be brief."}, *chat("d")["messages"])
    rows = [make(i) for i in range(ROWS)] + ([developer] if make is chat else [])
    path = jsonl(tmp_path / "rows.jsonl", rows)
    method = "dpo" if make is dpo else "supervised"
    _, report = run(path, "--provider", "openai", "--openai-model", "gpt-4o", "--method", method)
    assert report["faults"] == []


def test_openai_s_rules_for_the_whole_file(tmp_path: Path):
    few = jsonl(tmp_path / "few.jsonl", [chat(i) for i in range(9)])
    code, report = run(few, "--provider", "openai")
    assert (code, places(report)) == (1, [("too-few-examples", str(few), 0)])
    some = jsonl(tmp_path / "some.jsonl", [chat(i) for i in range(10)])
    code, report = run(some, "--provider", "openai")
    assert (code, places(report)) == (0, [("few-examples", str(some), 0)])
    assert any("--openai-model" in note for note in report["notes"])
    whole = tmp_path / "rows.json"
    whole.write_text(json.dumps([chat(i) for i in range(ROWS)]))
    assert places(run(whole, "--provider", "openai")[1]) == [("openai-not-jsonl", str(whole), 0)]
    large = jsonl(tmp_path / "large.jsonl", [chat(1)])
    with large.open("r+b") as file:
        file.truncate(513 * 2**20)  # a hole: nothing is written
    assert [f.code for f in check_file(large, ROWS)] == ["openai-file-size"]


def test_tokens_that_cannot_be_counted_are_unknown_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = jsonl(tmp_path / "rows.jsonl", [chat(i) for i in range(ROWS)])
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    _, report = run(path, "--provider", "openai", "--openai-model", "gpt-4o")
    assert report["tokens"] is None
    assert "o200k_base" in report["notes"][0] or "tiktoken" in report["notes"][0]


def test_tokens_are_counted_as_the_cookbook_counts_them(tmp_path: Path):
    tiktoken = pytest.importorskip("tiktoken")
    path = jsonl(tmp_path / "rows.jsonl", [turns(user("Hello there"), said("General reply"))])
    _, report = run(path, "--provider", "openai", "--openai-model", "gpt-4o")
    if report["tokens"] is None:
        pytest.skip(report["notes"][0])
    # 3 for the conversation; for each message 3, its role and its text (one token a word here)
    assert report["tokens"] == 3 + 2 * (3 + 1 + 2)
    assert tiktoken.__version__


# --- the command -------------------------------------------------------------------------------


def test_faults_are_grouped_and_long_groups_cut_on_the_terminal_only(tmp_path: Path):
    rows = [{**qa(i), "answer": "" if i < 25 else answer(i)} for i in range(ROWS)]
    rows[40] = holding("jane.doe@acme-corp.com")
    path = jsonl(tmp_path / "rows.jsonl", rows)
    shown = CliRunner().invoke(cli, ["data", "check", str(path)])
    lines = shown.output.splitlines()
    assert lines[0] == "error empty-answer: an answer without text (25)"
    assert lines[1] == f"  {path}:1: message 2 (assistant) is empty"
    assert "  ... and 15 more (--json lists all)" in lines
    assert f"  mend: {CODES['empty-answer'].mend}" in lines
    assert lines[-1] == f"{path}: {ROWS} rows; 25 errors, 1 warning."
    _, report = run(path)
    assert len(report["faults"]) == 26
    assert report["codes"]["empty-answer"]["count"] == 25
    assert (report["errors"], report["warnings"]) == (25, 1)


def test_warnings_exit_0_unless_strict(tmp_path: Path):
    rows = [qa(i) for i in range(ROWS)]
    rows[3] = holding("jane.doe@acme-corp.com")
    path = jsonl(tmp_path / "rows.jsonl", rows)
    assert run(path)[0] == 0
    assert run(path, "--strict")[0] == 1


def test_no_secret_is_ever_printed(tmp_path: Path):
    secrets = ["sk-proj-" + KEY, "AKIA" + UP, "jane.doe@acme-corp.com", "4539148803436467"]
    rows: list[Any] = [holding(s) for s in secrets]
    rows += [{"question": s, "answer": s} for s in secrets]  # an echo quotes the row
    rows += [f'{{"question": "{s}'.encode() for s in secrets]  # and so does broken JSON
    rows += [{s: "a field's name"} for s in secrets]
    rows += [turns(Q, {"role": s, "content": "x"}) for s in secrets]
    rows += [turns(Q, said("x", tool_calls=s)) for s in secrets]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    for options in ([], ["--json"]):
        shown = CliRunner().invoke(cli, ["data", "check", str(path), *options]).output
        for secret in secrets:
            assert secret not in shown
            assert secret[4:16] not in shown


def test_what_cannot_be_read_at_all_is_one_line(tmp_path: Path):
    for path, said_so in ((tmp_path / "none.jsonl", "no such file"), (tmp_path, "")):
        done = subprocess.run(
            [sys.executable, "-m", "tunelm", "data", "check", str(path)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert said_so in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "options",
    [["--max-length", "64"], ["--method", "dpo"], ["--column", "question"], ["--provider", "x"]],
)
def test_wrong_options_are_refused(tmp_path: Path, options: list[str]):
    path = jsonl(tmp_path / "rows.jsonl", [qa(1)])
    assert CliRunner().invoke(cli, ["data", "check", str(path), *options]).exit_code == 2


def test_help_loads_nothing_heavy():
    heavy = {"torch", "transformers", "pandas", "pyarrow", "scipy", "datasketch", "numpy", "ftfy"}
    code = (
        "import sys\nfrom tunelm.cli import cli\n"
        "try: cli.main(['data', 'check', '--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', *sorted({heavy!r} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tunelm data check" in out.stdout
    assert out.stdout.splitlines()[-1] == "HEAVY"


def test_the_table_of_codes_says_what_the_code_says():
    page = (Path(__file__).parents[1] / "docs" / "data-check.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [tuple(row) for row in rows if row[0].strip("`") not in CODES] == []
    assert {row[0].strip("`"): tuple(row[1:]) for row in rows} == {
        code: tuple(kind) for code, kind in CODES.items()
    }
    assert len(rows) == len(CODES)
    assert set(READ_CODES) <= set(CODES)
