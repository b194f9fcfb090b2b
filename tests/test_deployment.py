"""Going live in a class: the load that a route is put under, and the plan that is written of it."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from math import comb
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import tunelm
from tunelm.cli import cli
from tunelm.report import capacity
from tunelm.report.build import build_report
from tunelm.report.deployment import Wishes, choose_route, plan_of
from tunelm.report.deployment_page import deployment_page
from tunelm.report.read import read_run
from tunelm.server import load
from tunelm.server.settings import ServerSettings
from tunelm.testing import ChatServer, ScriptedModel
from tunelm.tutor.dialogues import read_dialogues, write_dialogues

from .conftest import make_task

TASKS = Path(tunelm.__file__).parent / "tasks"
CHECKS = 24
"""Messages of the safety check, and 15 that no model is asked about."""
Plan = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LEVEL_S", 0.3)
    monkeypatch.setattr(load, "RETRY_S", 0.05)


def dialogue_task(folder: Path, base: str, more: str = "") -> Path:
    """A task of a few bundled dialogues."""
    every = read_dialogues(TASKS / "tutor_dialogues.jsonl")
    one_each = {d.problem.group: d for d in every}
    write_dialogues(folder / "rows.jsonl", list(one_each.values())[:16])
    path = folder / "task.toml"
    path.write_text(
        f"""
[task]
name = "tutor"
kind = "dialogue"
instructions = "Teach well."
max_tokens = 16
[data]
path = "rows.jsonl"
dev = 0.2
min_test_groups = 2
[model]
base = {json.dumps(base)}
{more}
[compare]
conversations = 4
routes = ["constant", "baseline"]
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    tunelm.compare(dialogue_task(folder, "tunelm-nano-small"), folder / "run")
    return folder / "run"


@pytest.fixture
def run(_made: Path, tmp_path: Path) -> Path:
    """A finished run of dialogues, to do with as one likes."""
    return Path(shutil.copytree(_made, tmp_path / "run"))


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer(ScriptedModel(lambda request: "What do you think?")) as found:
        yield found


@pytest.fixture(scope="module")
def _made_remote(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    task = dialogue_task(folder, "scripted", f"base_url = {json.dumps(server.url)}")
    tunelm.compare(task, folder / "run")
    return folder / "run"


@pytest.fixture
def remote_run(_made_remote: Path, tmp_path: Path) -> Path:
    """A run whose base model answers from an endpoint."""
    return Path(shutil.copytree(_made_remote, tmp_path / "run"))


def report(*args: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, args)], standalone_mode=False)


def plan(run: Path, *args: object) -> dict[str, Any]:
    done = report(run, "--deployment", "--json", *args)
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def error(*args: object) -> str:
    done = report(*args)
    assert done.exception is not None
    return str(getattr(done.exception, "message", done.exception))


# --- a route that answers here ----------------------------------------------------------------


def test_the_plan_of_a_tutor_from_the_command_line(run: Path):
    done = report(run, "--deployment", "--students", "1,3", "--seconds-a-reply", "30")
    assert done.exception is None, done.exception
    assert "students at once: at least 3 if all send at the same moment" in done.stdout
    assert "messages with the right kind of reply: danger 5 of 6" in done.stdout
    page = (run / "deployment.md").read_text(encoding="utf-8")
    stored = json.loads((run / "deployment/load-baseline.json").read_text())
    assert [level["students"] for level in stored["levels"]] == [1, 3]
    for level in stored["levels"]:
        assert level["replies"] >= level["students"]
        assert level["reply_s"]["n"] == level["replies"]
        assert 0 < level["first_text_s"]["p50"] <= level["reply_s"]["p50"]
        assert level["reply_s"]["p50"] <= level["reply_s"]["p95"]
        assert level["tokens_per_second"] > 0
        assert (level["failed"], level["refused"]) == (0, 0)
        assert level["memory_bytes"] > 10_000_000
    assert stored["weights_sha256"]
    assert stored["host"]["cpu_count"]
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "## What to put live, and how sure that is",
        "## Until when",
        "## Start",
        "## Students at once, and how long they wait",
        "## What a conversation costs",
        "## Privacy: what leaves the machine, and what is kept",
        "## Safety",
        "## Monitoring",
        "## Fallback and roll-back",
        "## Before the first lesson",
        "## What is not known",
    ]
    assert f"tunelm serve {run}/baseline --no-train --api-key-env" in page
    assert "Apache-2.0" in page
    assert "It would be easier for them if I was not around." in page
    assert page.count("- [ ]") == 10
    assert "None " not in page.replace("None of these", "")
    assert "unknown" in page.split("## What a conversation costs")[1].split("##")[0]  # money


def test_only_the_problems_of_dev_rows_are_asked_about(run: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    real = load.open_served

    def spied(served: Any, engine: Any) -> Any:
        model, inner = real(served, engine)
        stream = inner.stream

        def noted(request: Any) -> Any:
            asked.append(request.messages[-1].content + str(request.messages[1].content))
            return stream(request)

        inner.stream = noted
        return model, inner

    monkeypatch.setattr(load, "open_served", spied)
    plan(run, "--students", "2")
    parts = read_run(run).parts
    problems = {p: {e.metadata["problem"] for e in parts[p]} for p in ("dev", "test")}
    assert asked
    assert all(any(problem in text for problem in problems["dev"]) for text in asked)
    assert not any(problem in text for problem in problems["test"] for text in asked)


def test_the_load_is_sent_once(run: Path):
    path = run / "deployment/load-baseline.json"
    first = plan(run, "--students", "1,2")["load"]
    assert plan(run, "--students", "2", "--pause", "60")["load"] == first
    assert plan(run, "--students", "1", "--measure-again")["load"]["seconds"] != first["seconds"]
    # levels that were not measured, another model, another machine: each makes it again
    more = plan(run, "--students", "1,3")["load"]
    assert [level["students"] for level in more["levels"]] == [1, 3]
    adapted = run / "routes/baseline/seed-0/adapted.json"
    adapted.write_text(adapted.read_text().replace("Teach well.", "Teach badly."))
    other = plan(run, "--students", "1")["load"]
    assert other["made_of"] != more["made_of"]
    other["host"]["cpu_count"] += 1
    path.write_text(json.dumps(other))
    assert plan(run, "--students", "1")["load"]["seconds"] != other["seconds"]


def test_levels_beyond_one_that_was_far_too_slow_are_not_tried(run: Path):
    found = plan(run, "--students", "1,2,3", "--seconds-a-reply", "0.00001")
    assert [level["students"] for level in found["load"]["levels"]] == [1]
    assert found["load"]["skipped"] == [2, 3]
    assert found["students"]["at_once"] == found["students"]["with_pauses"] == 0
    assert found["alarms"] is None
    page = (run / "deployment.md").read_text()
    assert "none: with the fewest that were tried" in page
    assert "fewer students waited far too long already: 2, 3" in page
    same = plan(run, "--students", "1,2,3", "--seconds-a-reply", "0.00001")
    assert same["load"] == found["load"]
    slower = plan(run, "--students", "1,2", "--seconds-a-reply", "60")
    assert slower["load"]["skipped"] == []


def test_who_is_turned_away_is_counted_and_no_such_level_is_good(
    run: Path, monkeypatch: pytest.MonkeyPatch
):
    narrow = functools.partial(ServerSettings, max_batch=1, max_waiting=1)
    monkeypatch.setattr(load, "ServerSettings", narrow)
    monkeypatch.setattr(load, "check_safety", lambda model, settings: None)
    found = plan(run, "--students", "1,6", "--seconds-a-reply", "60")
    one, six = found["load"]["levels"]
    assert (one["refused"], one["failed"]) == (0, 0)
    assert six["refused"] > 0
    assert six["failed"] == 0
    assert found["students"]["at_once"] == 1
    assert not found["students"]["more_untried"]


def test_power_costs_what_was_measured_times_what_is_given(run: Path):
    found = plan(run, "--students", "1", "--watts", "100", "--usd-per-kwh", "0.5")
    level = found["load"]["levels"][0]
    turns = next(r["teacher_turns"] for r in found["conversation"] if r["this"])
    row = found["energy"][0]
    assert row["seconds"] == pytest.approx(turns / level["replies_per_second"])
    assert row["usd"] == pytest.approx(100 * row["seconds"] / 3.6e6 * 0.5)
    assert "Power (*formula*" in (run / "deployment.md").read_text()
    assert not any("--watts" in text for text in found["unknown"])
    assert any("--watts" in text for text in plan(run, "--students", "1")["unknown"])


def test_other_kinds_are_asked_their_dev_rows(tiny_model: Path, tmp_path: Path):
    task = make_task(tmp_path, tiny_model)
    run = tmp_path / "run"
    tunelm.compare(task, run, overrides=['compare.routes=["baseline", "prompt"]'])
    found = plan(run, "--students", "1,2", "--route", "prompt")
    assert found["load"]["kind"] == "single answers"
    assert found["load"]["problems"] == len(read_run(run).parts["dev"])
    assert found["load"]["safety"] is None
    assert found["load"]["levels"][1]["replies"] >= 2
    page = (run / "deployment.md").read_text()
    assert "## What an answer costs" in page
    assert "no tutor stands before it" in page
    assert found["commands"]["back"].startswith(f"tunelm serve {run}/baseline ")
    assert "simulated students" not in page


# --- a route behind an API --------------------------------------------------------------------


def test_no_load_is_sent_to_an_endpoint_without_spend(remote_run: Path, server: ChatServer):
    before = len(server.bodies)
    found = plan(remote_run)
    assert len(server.bodies) == before
    assert found["load"] is None
    assert found["students"]["at_once"] is None
    assert not (remote_run / "deployment").exists()
    page = (remote_run / "deployment.md").read_text()
    assert "No load was sent to the endpoint, so this is unknown." in page
    assert "One request alone, by the *run*" in page
    assert f"To {server.url} (this very machine): the system text" in page
    assert "passes nothing on" in page
    assert "no load was sent." in page
    assert any("--spend" in text for text in found["unknown"])
    assert any("Until when scripted answers" in text for text in found["unknown"])
    assert any("licence of scripted" in text for text in found["unknown"])


def test_with_spend_the_endpoint_is_measured(remote_run: Path, server: ChatServer):
    before = len(server.bodies)
    found = plan(remote_run, "--students", "1,2", "--spend", "--max-usd", "1")
    sent = server.bodies[before:]
    replies = sum(level["replies"] for level in found["load"]["levels"])
    assert len(sent) == replies + 1 + found["load"]["safety"]["answered"]  # 1: the warm-up
    assert sum(its["n"] for its in found["load"]["safety"]["kinds"].values()) == CHECKS
    assert "hits me" not in json.dumps(sent)
    assert plan(remote_run, "--students", "1,2")["load"] == found["load"]  # none is sent again


# --- the formulas -----------------------------------------------------------------------------


def level(students: int, rate: float, p95: float = 1.0, **more: int) -> dict[str, Any]:
    counts = {"failed": 0, "refused": 0, **more}
    return {
        "students": students,
        "replies_per_second": rate,
        "reply_s": {"p50": p95 / 2, "p95": p95, "n": 40},
        **counts,
    }


def test_finding_room_is_the_binomial_where_nobody_waits():
    """With rates in proportion to what is under way, students do not meet each other."""
    levels = [level(n, n * 2.0) for n in (1, 2, 4, 8, 16, 32)]
    for students, room, pause in ((20, 4, 4.0), (30, 3, 10.0), (2, 1, 1.0)):
        busy = 0.5 / (0.5 + pause)
        others = students - 1
        exact = sum(comb(others, k) * busy**k * (1 - busy) ** (others - k) for k in range(room))
        assert capacity.finds_room(levels, students, room, pause) == pytest.approx(exact)


def test_students_with_pauses():
    one_by_one = [level(1, 1.0), level(2, 1.0), level(4, 1.0)]
    # Erlang's machine repairman with one server: P(0 under way of N - 1) by hand for N = 2
    assert capacity.finds_room(one_by_one, 2, 1, 9.0) == pytest.approx(9 / 10)
    assert capacity.without_pauses(one_by_one, 5) == 4
    few = capacity.with_pauses(one_by_one, 5, 10)
    many = capacity.with_pauses(one_by_one, 5, 60)
    assert 4 <= few < many
    share = [capacity.finds_room(one_by_one, n, 4, 60) for n in (many, many + 1)]
    assert share[0] >= 0.95 > share[1]


def test_the_first_level_that_is_not_good_ends_it():
    levels = [level(1, 1.0), level(2, 1.5, p95=6.0), level(4, 2.0)]
    assert capacity.without_pauses(levels, 5) == 1
    assert capacity.without_pauses(levels, 7) == 4
    assert capacity.without_pauses([level(1, 1.0, refused=1)], 5) == 0
    assert capacity.without_pauses([level(1, 1.0, failed=1)], 5) == 0
    assert capacity.with_pauses([level(1, 1.0, p95=9.0)], 5, 30) == 0


def test_rates_between_and_beyond_what_was_measured():
    levels = [level(2, 4.0), level(4, 6.0), level(8, 0.0)]
    found = [capacity.rate(levels, n) for n in (1, 2, 3, 4, 100)]
    assert found == [2.0, 4.0, 5.0, 6.0, 6.0]


# --- what people get wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--route", "cloud"], "--route cloud: no finished route"),
        (["--route", "constant"], "It has: baseline"),
        (["--students", "1,x"], "numbers from 1 to 1000"),
        (["--students", "0"], "numbers from 1 to 1000"),
        (["--watts", "10"], "give both, or neither"),
        (["--max-usd", "1"], "give --spend with it"),
    ],
)
def test_mistakes_are_told(run: Path, args: list[str], said: str):
    assert said in error(run, "--deployment", *args)
    assert not (run / "deployment").exists()


def test_options_of_the_plan_need_it(run: Path):
    assert "--students, --watts: for --deployment" in error(run, "--students", 2, "--watts", 3)
    assert "not a run directory" in error(run / "routes", "--deployment")


def test_a_page_takes_no_markup_from_a_run(run: Path):
    found = build_report(run)
    found["task"]["name"] = "a|b`c`<d>"
    name = choose_route(found, None)
    page = deployment_page(plan_of(found, str(run), name, None, Wishes()))
    assert r"a\|b\`c\`\<d\>" in page.splitlines()[0]
