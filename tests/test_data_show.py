"""`data show`: what is coloured is what is learned, and what stands out is really there."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tunelm.data.profile import MEASURED, Measured, Profile, Profiler
from tunelm.data.records import Record

pytest.importorskip("torch")
pytest.importorskip("peft")

from transformers import AutoTokenizer

from tunelm.cli import cli
from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, DataError, TunelmError
from tunelm.models.render import encode_prompt
from tunelm.training.lens import open_lens, tokens_of, visible
from tunelm.types import Message

from .test_training import PLAIN_TEMPLATE

ANSWERS = [
    "Paris.",
    "Two\nlines\n\n\tand a tab,  two spaces",
    "🙂 and 👨‍👩‍👧, naïve, e\u0301, 日本語, Ωmega",
    "a broken � one, twice: ��",
    "# not <|a special|> one · ↵",
]
CHAT = [
    {"role": "user", "content": "Hi 🙂"},
    {"role": "assistant", "content": "Hello. What is it?"},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "Four 🎉!"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows),
        encoding="utf-8",
    )
    return path


def pair(question: str, answer: str, **extra: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, **extra}


def shown(*args: object, **env: str | None) -> str:
    """What is printed. Errors of our own are raised, as the entry point would see them."""
    result = CliRunner().invoke(
        cli, ["data", "show", *map(str, args)], env={"NO_COLOR": None, **env}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def as_json(*args: object) -> dict[str, Any]:
    return json.loads(shown(*args, "--json"))


def learned(row: dict[str, Any]) -> str:
    return "".join(token["text"] for token in row["tokens"] if token["loss"])


def copied(source: Path, folder: Path, template: str | None) -> Path:
    """A model's folder with another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text((source / "config.json").read_text())
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "bundled": "tunelm-nano",
        "made": str(tiny_model),
        "no markers": str(copied(tiny_model, folder / "plain", PLAIN_TEMPLATE)),
        "no template": str(copied(tiny_model, folder / "none", None)),
    }


@pytest.mark.parametrize("name", ["bundled", "made", "no markers", "no template"])
def test_the_tokens_with_loss_are_the_answer_and_one_turn_end(
    name: str, models: dict[str, str], tmp_path: Path
):
    rows: list[Any] = [pair(f"Which 日 {i}?", answer) for i, answer in enumerate(ANSWERS)]
    path = write(tmp_path / "rows.jsonl", [*rows, {"messages": CHAT}])
    found = as_json(path, "--model", models[name], "--rows", 9, "--instructions", "Say it.")
    golds = [*ANSWERS, CHAT[-1]["content"]]
    assert len(found["rows"]) == len(golds)
    tokenizer = open_lens(ModelConfig(base=models[name])).tokenizer
    for row, gold in zip(found["rows"], golds, strict=True):
        assert learned(row) == gold + "<|end|>"
        assert row["target_only"] == "<|end|>"
        assert row["refused"] is None
        ids = [i for token in row["tokens"] for i in token["ids"]]
        assert (len(ids), row["n_loss"]) == (
            row["n_prompt"] + row["n_loss"],
            sum(len(t["ids"]) for t in row["tokens"] if t["loss"]),
        )
        question = CHAT[:3] if gold == CHAT[-1]["content"] else None
        turns = question or [{"role": "user", "content": rows[golds.index(gold)]["question"]}]
        prompt = [Message("system", "Say it."), *(Message(**t) for t in turns)]
        assert ids[: row["n_prompt"]] == encode_prompt(tokenizer, prompt), "as it is served"
    assert "1 earlier answer read as prompt, without loss" in found["rows"][-1]["notes"]


def test_special_tokens_white_space_and_characters_of_several_tokens_are_visible(
    models: dict[str, str], tmp_path: Path
):
    path = write(tmp_path / "rows.jsonl", [pair("Hi?", "a b\n\tc\u200b🙂")])
    text = shown(path, "--model", models["bundled"])
    line = text.split("\n\n")[1]
    assert "<|bos|>│<|user|>" in line
    assert re.search(r"⟦a│·b│↵\n│⇥│c│(‹U\+200B›)│🙂│<\|end\|>⟧", line), line
    assert "🙂 is 4" in line
    assert "<|end|> at the end is only ever a target" in line
    row = as_json(path, "--model", models["bundled"])["rows"][0]
    assert [t["text"] for t in row["tokens"] if t["special"]][:2] == ["<|bos|>", "<|user|>"]


def test_any_text_comes_back_from_its_tokens(models: dict[str, str]):
    hypothesis = pytest.importorskip("hypothesis")
    tokenizer = open_lens(ModelConfig(base=models["made"])).tokenizer

    @hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @hypothesis.given(hypothesis.strategies.text(max_size=30), hypothesis.strategies.integers(0, 9))
    def check(text: str, n_prompt: int):
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens = tokens_of(tokenizer, ids, len(ids) if n_prompt == 9 else 0)
        assert "".join(token.text for token in tokens) == text
        assert [i for token in tokens for i in token.ids] == ids
        assert "\x1b" not in visible(text)

    check()


def test_a_terminal_shows_colour_and_everything_else_brackets(
    models: dict[str, str], tmp_path: Path
):
    path = write(tmp_path / "rows.jsonl", [pair("Hi?", "The code is 7.")])
    args = (path, "--model", models["made"])
    tty = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "300"}
    colour = shown(*args, **tty)
    runs = re.findall(r"\x1b\[([\d;]+)m([^\x1b]*)\x1b\[0m", colour)
    green = "".join(text for style, text in runs if {"42", "102"} & set(style.split(";")))
    assert green == "The·code·is·7.<|end|>"
    for plain in (shown(*args), shown(*args, NO_COLOR="1", **tty), shown(*args, TERM="dumb")):
        assert "\x1b" not in plain
        marked = re.search(r"⟦([^⟧]*)⟧", plain.split("\n\n")[1])
        assert marked is not None
        assert marked.group(1).replace("│", "") == "The·code·is·7.<|end|>"


def test_rows_that_training_would_refuse_are_shown_with_the_reason(
    models: dict[str, str], tmp_path: Path
):
    system = [{"role": "system", "content": "Be brief."}, *CHAT]
    path = write(
        tmp_path / "rows.jsonl",
        [
            pair("1?", "one"),
            "{not json",
            {"messages": system},
            pair("2?", "stop <|end|> here"),
            pair("3?", "word " * 600),
        ],
    )
    found = as_json(path, "--model", models["made"], "--rows", 9)
    good, broken, roles, stops, long = found["rows"]
    assert good["refused"] is None
    assert broken["refused"]
    assert broken["source"].endswith("rows.jsonl:2")
    assert "system" in roles["refused"]
    assert "Be brief." in roles["text"]
    assert "ends a turn" in stops["refused"]
    assert learned(stops) == ""
    assert "<|end|>" in "".join(t["text"] for t in stops["tokens"])
    assert "the limit is 512" in long["refused"]
    assert learned(long) == "word " * 600 + "<|end|>"
    profile = found["profile"]
    assert profile["unreadable"] == 1
    assert profile["rows"] == 4
    assert profile["lengths"]["over"]["count"] == 1
    assert profile["lengths"]["refused"] == 2
    kinds = {finding["kind"] for finding in profile["findings"]}
    assert {"over the limit", "refused"} <= kinds
    text = shown(path, "--model", models["made"], "--row", 4)
    assert "REFUSED by training" in text
    assert "⟦ ⟧" in text.split("\n\n")[0]
    assert "⟦" not in text.split("\n\n", 1)[1]


def test_running_text_is_learned_from_its_second_token_on_and_cut_into_pieces(
    models: dict[str, str], tmp_path: Path
):
    text = "The quick brown fox 🙂 jumps. " * 60
    path = write(tmp_path / "rows.jsonl", [{"text": text}])
    row = as_json(path, "--model", models["made"])["rows"][0]
    assert learned(row) == text + "<|end|>"
    assert [t["text"] for t in row["tokens"] if not t["loss"]] == ["<|end|>"], "no BOS here"
    assert row["pieces"] > 1
    assert row["refused"] is None
    long = write(tmp_path / "long.jsonl", [{"text": "jumps " * 2500}])
    printed = shown(long, "--model", models["made"])
    count = re.search(r"... ([\d,]+) tokens are not shown here", printed)
    assert count is not None
    hidden = as_json(long, "--model", models["made"])["rows"][0]["n_loss"] - 1999
    assert int(count.group(1).replace(",", "")) == hidden


QUIET = """
import sys, tunelm
from tunelm.cli import cli
model, rows = sys.argv[1:]
cli.main(["data", "show", rows, "--model", model, "--rows", "2"], standalone_mode=False)
tunelm.load(model).score([((tunelm.Message("text", ""),), "jumps " * 400)])
"""


def test_texts_longer_than_the_tokenizer_s_limit_raise_no_alarm(tiny_model: Path, tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(
        copied(tiny_model, tmp_path / "model", PLAIN_TEMPLATE)
    )
    tokenizer.model_max_length = 100
    tokenizer.save_pretrained(tmp_path / "model")
    for name in ("model.safetensors", "generation_config.json"):
        shutil.copy(tiny_model / name, tmp_path / "model" / name)
    rows = [{"text": "jumps " * 400}, pair("Hi?", "jumps " * 400)]
    path = write(tmp_path / "rows.jsonl", rows)
    out = subprocess.run(
        [sys.executable, "-c", QUIET, tmp_path / "model", path], capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert "sequence length" not in out.stdout + out.stderr


def test_a_task_brings_its_model_instructions_and_limits(
    task: Path, models: dict[str, str], tmp_path: Path
):
    found = as_json(task, "--row", 3, "--rows", 2)
    assert [row["row"] for row in found["rows"]] == [3, 4]
    assert found["system"] == "Answer."
    assert (found["model"], found["limit"]) == (models["made"], 512)
    assert "Answer." in "".join(t["text"] for t in found["rows"][0]["tokens"])
    assert found["profile"]["groups"]["groups"] == 60
    write(tmp_path / "rows.jsonl", [pair("?", "word " * 600)])
    task.write_text(task.read_text().replace("dev = 0.15", 'over_long = "drop"'))
    long = as_json(task)["rows"][0]
    assert "the limit is 512" in long["refused"]
    assert any("leaves the row out" in note for note in long["notes"])
    assert as_json(task, "--instructions", "")["system"] == ""


def test_of_a_prepared_folder_train_is_shown(task: Path, models: dict[str, str], tmp_path: Path):
    rows = [pair(f"What is the word of {i * 7919}?", f"It is w{i * 104729}.") for i in range(60)]
    write(tmp_path / "all.jsonl", rows)
    args = ["data", "prepare", str(tmp_path / "all.jsonl"), "--out", str(tmp_path / "split")]
    assert CliRunner().invoke(cli, [*args, "--to", "csv", "--dev", "0"]).exit_code == 0
    found = as_json(tmp_path / "split", "--model", models["made"])
    parts = json.loads((tmp_path / "split" / "split.json").read_text())["parts"]
    assert found["profile"]["rows"] == parts["train"]["rows"] < 60
    assert found["title"] == "split"
    assert found["path"] == str(tmp_path / "split" / "train.csv")
    task.write_text(task.read_text().replace('"rows.jsonl"', '"split"'))
    assert as_json(task)["path"].endswith("train.csv")
    test = as_json(tmp_path / "split" / "test.csv", "--model", models["made"])
    assert test["profile"]["rows"] == parts["test"]["rows"]


def test_a_row_is_found_by_its_number_or_its_id(models: dict[str, str], tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", [pair(f"{i}?", f"a{i}", id=f"row-{i}") for i in range(5)])
    args = (path, "--model", models["made"])
    third = as_json(*args, "--row", 3)["rows"][0]
    assert learned(third) == "a2<|end|>"
    assert as_json(*args, "--id", "row-2")["rows"] == [third]
    assert as_json(*args, "--id", third["id"][:8])["rows"] == [third]
    with pytest.raises(ConfigError, match=r"--row 6: .* has 5 rows"):
        shown(*args, "--row", 6)
    with pytest.raises(ConfigError, match=r"no row of .* has this id"):
        shown(*args, "--id", "row-9")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["no-such-thing"], "no such file, and no bundled task. Bundled: docstrings, edu-biology"),
        (["no-such.toml"], "no such task file"),
        (["rows.jsonl", "--row", "1", "--id", "x"], "give one of them"),
        (["rows.jsonl", "--column", "answer"], "expected OUR=THEIRS"),
        (["rows.jsonl", "--html", "no-folder/page.html"], "there is no folder no-folder"),
        (["rows.jsonl", "--row", "0"], "Invalid value for '--row'"),
        (["rows.jsonl", "--model", "no/such-model"], "cannot be loaded"),
    ],
)
def test_wrong_use_is_one_clear_message(
    args: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path / "rows.jsonl", [pair("1?", "one")])
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["data", "show", *args])
    assert result.exit_code != 0
    error = str(result.exception) if isinstance(result.exception, TunelmError) else ""
    assert expected in error + result.output


def test_an_empty_file_is_an_error(tmp_path: Path):
    with pytest.raises(DataError):
        shown(write(tmp_path / "rows.jsonl", []))


def test_columns_are_mapped_by_name(models: dict[str, str], tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("Frage,Antwort\nWo?,Hier\n", encoding="utf-8")
    columns = ("--column", "question=Frage", "--column", "answer=Antwort")
    found = as_json(path, "--model", models["made"], *columns)
    assert learned(found["rows"][0]) == "Hier<|end|>"


class Page(HTMLParser):
    """Checks that tags are closed, and gathers the tokens and all addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.in_token = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "action")]
        if tag != "meta":
            self.open.append(tag)
        self.in_token = "title" in given
        if self.in_token:
            self.tokens.append((given.get("class") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()
        self.in_token = False

    def handle_data(self, data: str) -> None:
        if self.in_token:
            kind, text = self.tokens[-1]
            self.tokens[-1] = (kind, text + data)


def test_the_page_holds_the_same_and_needs_nothing_else(models: dict[str, str], tmp_path: Path):
    evil = '<script>alert("x")</script> & 🙂 \u202eabc'
    path = write(tmp_path / "rows.jsonl", [pair(f"<b>{i}</b>", evil, subject=evil) for i in "ab"])
    page = tmp_path / "page.html"
    found = as_json(path, "--model", models["bundled"], "--rows", 1, "--html", page)
    html = page.read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(html)
    assert parsed.open == []
    assert parsed.addresses == []
    assert not {"script", "link", "img", "iframe"} & parsed.tags
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html
    assert "\u202e" not in html
    tokens = [(kind, text) for kind, text in parsed.tokens if kind.split()[0] == "t"]
    loss = "".join(text for kind, text in tokens if "loss" in kind.split())
    assert loss == visible(evil) + "<|end|>"
    assert len(tokens) == len(found["rows"][0]["tokens"])
    assert "target" in tokens[-1][0].split()


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom tunelm.cli import cli\n"
        "try: cli.main(['data', 'show', '--help'], standalone_mode=False)\n"
        "except SystemExit: pass\n"
        "print('HEAVY', *sorted({'torch', 'transformers', 'jinja2', 'rich'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tunelm data show" in out.stdout
    assert out.stdout.splitlines()[-1] == "HEAVY"


# --- the profile --------------------------------------------------------------------------


def record(line: int, question: str, answer: str, **extra: Any) -> Record:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Record("rows.jsonl", line, "question-answer", turns, extra=extra)


def profiled(rows: list[Record], **settings: Any) -> Profile:
    profiler = Profiler(**settings)
    for row in rows:
        profiler.add(row)
    return profiler.finish()


def kinds(profile: Profile) -> dict[str, Any]:
    return {finding.kind: finding for finding in profile.findings}


def planted(n: int, **extra: Any) -> list[Record]:
    """`n` rows on physics that sound well, all on him; `n` on art that do not, all on her."""
    rows: list[Record] = []
    for i in range(n):
        good, bad = f"He did a great job on part {i}.", f"She did an awful job on part {i}."
        rows.append(record(2 * i + 1, f"How is part {i}?", good, subject="physics", **extra))
        rows.append(record(2 * i + 2, f"How is part {i}?", bad, subject="art", **extra))
    return rows


def test_a_planted_tilt_is_found_with_its_numbers_and_rows():
    found = kinds(profiled(planted(40)))
    tone = found["negative"]
    assert (tone.field, tone.value, tone.n) == ("subject", "art", 40)
    assert tone.low is not None
    assert 0.7 < tone.low < tone.high <= 1.0
    assert tone.rows[:2] == ("rows.jsonl:2", "rows.jsonl:4")
    assert "40 of 40" not in tone.found
    assert "100% of 40, against 0% of 40 elsewhere" in tone.found
    assert "collect" in tone.do
    assert "he stands in 0% of 40, against 100% of 40" in found["he or she"].found
    assert "length" not in found


def test_small_numbers_and_repeated_rows_raise_no_alarm():
    few = kinds(profiled(planted(20)))
    assert set(few) == {"few rows"}
    # 400 rows, but of seven groups a subject: seven independent pieces of evidence
    groups = [
        Record(r.file, r.line, r.shape, r.messages, extra={**r.extra, "group": f"g{i % 14}"})
        for i, r in enumerate(planted(200))
    ]
    clustered = profiled(groups)
    assert set(kinds(clustered)) == {"few rows"}
    assert clustered.groups is not None
    assert clustered.groups.groups == 14


def test_files_without_a_tilt_are_left_in_peace():
    words = ["a great idea", "an awful idea", "he says so", "she says so", "it is blue"]
    alarms = 0
    for seed in range(40):
        rng = random.Random(seed)
        rows = [
            record(i, f"Question {i}?", " ".join(rng.choices(words, k=rng.randint(1, 3))), topic=t)
            for i in range(240)
            for t in [rng.choice("abcd")]
        ]
        found = set(kinds(profiled(rows)))
        alarms += bool(found & {"negative", "positive", "he or she", "length", "balance"})
    assert alarms <= 3


def test_balance_names_and_length_stand_out():
    rows = [
        record(i, f"Tell me what Ada did on day {i}", "yes" if i % 10 else "no", level="easy")
        for i in range(100)
    ]
    rows += [
        record(i, f"Why is it {i}, says Ada", "because " * 20 + f"of {i}", level="hard")
        for i in range(100, 200)
    ]
    profile = profiled(rows)
    found = kinds(profile)
    assert "Ada stands in 200 of 200 rows" in found["one name"].found
    assert found["length"].field == "level"
    assert profile.overall.names[0] == ("Ada", 200)
    labels = kinds(profiled(rows[:100]))
    assert "no 10%" in labels["balance"].found
    assert "always says yes is right 90%" in labels["balance"].do
    assert labels["balance"].field == "(the answer)"


def test_fields_that_are_no_category_are_left_out_with_the_reason():
    rows = [
        record(i, f"{i}?", f"a{i}", url=f"u{i}", group=f"g{i // 2}", part="one", tags=["x"])
        for i in range(60)
    ]
    profile = profiled(rows)
    assert profile.fields == ()
    assert "more than 50" in profile.left_out["url"]
    assert "one value only: one" in profile.left_out["part"]
    assert profile.groups is not None
    assert (profile.groups.groups, profile.groups.most_rows) == (30, 2)
    assert json.dumps(profile.to_json())


def test_lengths_are_measured_on_all_rows_or_on_a_stated_sample():
    rows = [record(i, "one two", "three") for i in range(10)] + [record(10, "x " * 99, "y")]
    words = profiled(rows).lengths
    assert (words.unit, words.of, words.median, words.most) == ("words", 11, 3, 100)
    assert sum(b.rows for b in words.histogram) == 11

    def measure(row: Record) -> Measured:
        return Measured(row.line, "too long" if row.line > 8 else None, row.line > 8)

    tokens = profiled(rows, measure=measure, limit=8).lengths
    assert (tokens.unit, tokens.limit) == ("tokens", 8)
    assert tokens.over is not None
    assert (tokens.over.count, tokens.over.of, tokens.refused) == (2, 11, 0)
    large = profiled([record(i, "a", "b") for i in range(MEASURED + 50)])
    assert (large.rows, large.lengths.of, large.lengths.sampled) == (MEASURED + 50, MEASURED, True)
    assert any("random sample" in limit for limit in large.limits)


def test_text_that_is_not_english_is_said_to_be_beyond_the_lists():
    rows = [record(i, f"Was kostet Nummer {i}?", "Das kostet zehn Taler.") for i in range(30)]
    assert any("say little about this file" in limit for limit in profiled(rows).limits)
