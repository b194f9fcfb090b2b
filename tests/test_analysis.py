"""The comparison in words: sentences that say what was measured, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunelm
from tests.browser import chromium
from tests.test_report import RunMaker, gold, quantity, share, three_routes, wordy, wrong
from tunelm.cli import cli
from tunelm.errors import ConfigError
from tunelm.report import evidence
from tunelm.report.beside import mover
from tunelm.report.build import build_report, write_report
from tunelm.report.eight_rows import ROWS, WHAT_IS_KNOWN
from tunelm.report.markdown import markdown_page
from tunelm.route_settings import KINDS
from tunelm.testing import ChatServer, ScriptedModel
from tunelm.tutor.dialogues import read_dialogues, write_dialogues

Report = dict[str, Any]

SECTIONS = [
    "Effort and set-up",
    "Data needs",
    "Quality on the same test rows",
    "Compute and API cost",
    "Flexibility for another domain",
    "Deployment",
]
OF_DIALOGUES = [
    "Natural dialogue kept up",
    "Strategies carried out",
    "Data and complexity",
    "Classroom practice",
    "Cost at scale",
]
TASKS = Path(tunelm.__file__).parent / "tasks"


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same statistics from fewer resamples: what is tested here is not their precision."""
    monkeypatch.setattr(evidence, "RESAMPLES", 400)


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """A run with 80 test rows in 40 groups and no routes yet."""
    return RunMaker(tmp_path / "run")


def said(report: Report, heading: str) -> str:
    """All text of one section."""
    (section,) = [s for s in report["analysis"] if s["heading"] == heading]
    return "\n".join(section["paragraphs"])


def everything(report: Report) -> str:
    return "\n".join(said(report, section["heading"]) for section in report["analysis"])


def pair(report: Report, a: str, b: str) -> dict[str, Any]:
    found = evidence.find_pair(report["pairs"], report["task"]["primary_metric"], a, b)
    assert found is not None
    return found


def body(page: str) -> str:
    """What a reader reads: the page up to its tables."""
    text, mark, _ = page.partition("\n# Tables\n")
    assert mark
    return text


# --- what is said ----------------------------------------------------------------------------


def test_better_worse_and_not_distinguishable_are_the_paired_verdicts(maker: RunMaker) -> None:
    maker.route("constant", wrong)
    maker.route("baseline", share(gold, wordy, 10, dev=5, test=5))
    maker.route("rag", share(gold, wordy, 40, dev=21, test=21))
    maker.route("prompt", share(gold, wrong, 10, dev=1, test=1))
    maker.route("local", gold)
    report = build_report(maker.done())
    text = said(report, "Quality on the same test rows")
    verdicts = {name: pair(report, name, "baseline")["verdict"] for name in ("rag", "prompt")}
    assert verdicts == {"rag": "not distinguishable", "prompt": "worse"}
    gain = pair(report, "local", "baseline")
    interval = f"({gain['ci_low'] * 100:+.1f} to {gain['ci_high'] * 100:+.1f})"
    line = next(t for t in text.splitlines() if "than baseline (" in t)
    better, rest = line.split(" Not distinguishable from it: ")
    alike, worse = rest.split(" Shown to be worse than it: ")
    assert better.startswith("Shown to be better than baseline (")
    assert better.endswith(f": local {gain['diff'] * 100:+.1f} {interval}.")
    assert alike.startswith("rag ")
    assert "local" not in alike + worse
    assert worse.startswith("prompt -")
    assert "Holm's correction over 6 pairs" in worse
    control = next(t for t in text.splitlines() if "Shown to be better than the control" in t)
    than_control, *_ = control.split(" Not distinguishable")
    assert {n for n in ("baseline", "rag", "prompt", "local") if f" {n} +" in than_control} == {
        n
        for n in ("baseline", "rag", "prompt", "local")
        if pair(report, n, "constant")["verdict"] == "better"
    }
    assert "No test row failed" in text


def test_where_nothing_differs_nothing_is_called_better(maker: RunMaker) -> None:
    maker.route("baseline", share(gold, wordy, 10, dev=5, test=5))
    maker.route("local", share(gold, wordy, 10, dev=6, test=5))
    report = build_report(maker.done())
    assert "Not distinguishable from baseline" in said(report, "Quality on the same test rows")
    assert "better" not in everything(report)
    assert "The verdict does not say to ship" in said(report, "Deployment")


def test_one_is_singular_and_many_are_plural(maker: RunMaker) -> None:
    detail = {"train_rows": 1, "calls": {"made": 7}, "demos": ["a"], "candidates": [1, 2]}
    maker.route("prompt", gold, detail=detail)
    report = build_report(maker.done())
    text = everything(report)
    assert "prompt alone answered the same 80 test rows in 40 independent groups" in text
    assert "prompt finished." in text
    assert "prompt (1 example, 2 programs scored on dev)" in text
    assert not re.search(r"\b1 (rows|routes|programs|examples|settings|groups)\b", text)
    assert "No baseline finished, so what adapting gains is unknown." in text
    assert "To be served" not in text


def test_unknown_is_said_and_never_zero(maker: RunMaker) -> None:
    unknown = {"prompt_tokens": None, "completion_tokens": None, "cached_tokens": None}
    maker.route("baseline", wordy)
    maker.route("local", gold, tokens=None, usage={"train": unknown}, measured={})
    report = build_report(maker.done())
    cost = said(report, "Compute and API cost")
    assert "Tokens an answer, prompt included: baseline 49; unknown for local." in cost
    assert "Tokens spent on fitting, all seeds: baseline 5,000; unknown for local." in cost
    assert "How long one answer takes is unknown." in cost
    assert "unknown for baseline and local (no price is known" in cost
    assert "unknown for local" in said(report, "Effort and set-up")
    assert "How many rows local used is unknown." in said(report, "Data needs")
    cells = {row["row"]: row["cells"][0]["measured"] for row in report["eight_rows"]}
    assert cells["what changes"] == cells["data needed"] == "unknown"
    assert cells["cost"] == "money unknown; unknown tokens to fit, unknown an answer"
    assert not re.search(r"\b0(\.0+)? (tokens|USD|s|ms)\b", everything(report))


def test_failed_attempts_are_counted_with_their_reasons(maker: RunMaker) -> None:
    maker.route("baseline", lambda part, row: None if part == "test" and row < 3 else "x")
    maker.route("local", gold)
    maker.failed("local", "out of memory", seed=1)
    maker.failed("hybrid", "builds on 'prompt', which did not finish", kind="hybrid")
    ledger = [
        {"id": "a", "route": "local", "worst": 0.1},
        {"id": "b", "route": "local", "worst": 0.1},
        {"id": "a", "usd": 0.05},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in ledger)
    (maker.path / "spending.jsonl").write_text(lines + '{"id": "cut sho')
    report = build_report(maker.done())
    effort = said(report, "Effort and set-up")
    assert "1 route of 3 did not finish: hybrid (failed: builds on 'prompt'" in effort
    assert "local lost 1 seed: seed 1: out of memory." in effort
    assert "ended without a count of tokens: local 1." in effort
    assert "Rows failed, and are in no score and no pair: baseline on 3." in everything(report)
    assert [cell["kind"] for cell in report["eight_rows"][0]["cells"]] == ["local"]


def test_with_nothing_finished_there_is_still_an_analysis(maker: RunMaker) -> None:
    maker.failed("local", "no torch")
    report = write_report(maker.done())
    assert [s["heading"] for s in report["analysis"]] == SECTIONS
    assert report["eight_rows"] == []
    text = everything(report)
    assert "No route answered the test rows" in text
    assert "there is nothing to serve" in text
    assert "1 route of 1 did not finish: local (failed: no torch)." in text


def test_seconds_calls_and_settings_are_those_of_the_run(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("local", gold, detail={"train_rows": 60, "calls": {"made": 11}})
    maker.route("local", gold, seed=1, detail={"train_rows": 60, "calls": {"made": 4}})
    maker.routes["local"] |= {"r": 64, "epochs": 8.0, "max_steps": None}
    report = build_report(maker.done())
    effort = said(report, "Effort and set-up")
    assert "Fitting took, over all seeds: local 24 s. Seeds: local 2." in effort
    assert "Calls of a model on the way: local 15." in effort
    assert "Set by hand: 1 setting of local (r); all other settings are defaults." in effort
    assert "of 80: local 60." in said(report, "Data needs")


def test_a_hosted_route_is_told_with_its_price_its_key_and_its_last_day(maker: RunMaker) -> None:
    prices = {"usd_in": 0.15, "usd_out": 0.6, "source": "the prices given"}
    endpoint = {
        "model": "gpt-4o-mini",
        "base_url": "https://api.openai.com/v1",
        "api_key_env": "OPENAI_API_KEY",
        "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:me::1",
        "prices": prices,
    }
    maker.route("baseline", wordy)
    detail = {"endpoint": endpoint, "backend": "openai", "prices": {**prices, "usd_train": 3.0}}
    detail["prices"]["listed"] = None
    maker.route("cloud", gold, detail=detail)
    report = build_report(maker.done())
    assert "Keys: OPENAI_API_KEY for cloud." in said(report, "Effort and set-up")
    assert "cloud needs the extra cloud" in said(report, "Effort and set-up")
    money = said(report, "Compute and API cost")
    assert "x the prices given on 2026-11-21" in money
    served = said(report, "Deployment")
    taken = next(r["taken"] for r in report["routes"] if r["name"] == "cloud")
    assert taken["ends"], "the tables know the day"
    assert f"cloud shuts down on {taken['ends']} (" in served
    cells = {row["row"]: row["cells"][0] for row in report["eight_rows"]}
    assert cells["deployment"]["measured"].endswith(f"until {taken['ends']}")
    assert "went to https://api.openai.com/v1" in cells["data privacy"]["measured"]


def test_a_learning_curve_stands_beside_what_was_measured(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("local", gold)
    path = maker.path / "routes/local/seed-0/plan.json"
    plan = json.loads(path.read_text())
    how = "learning curve on 10, 20, 40 of 80 train rows, scored on 20 others; 80% interval"
    plan["forecasts"]["score"] = quantity(0.9, "token_f1", how, 0.8, 0.97)
    path.write_text(json.dumps(plan))
    text = said(build_report(maker.done()), "Data needs")
    assert f"a {how} said 90.0 (80.0 to 97.0), and 100.0 was measured" in text


def test_a_check_of_parity_is_no_contender(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("local", gold)
    maker.route("cloud", gold, detail={"backend": "local", "prices": {"listed": None}})
    served = said(build_report(maker.done()), "Deployment")
    assert "To be served: local." in served
    assert "is a check of local, not of a hosted model: it is not distinguishable" in served


# --- the table of eight rows ------------------------------------------------------------------


def test_eight_rows_with_a_column_a_kind_that_finished(maker: RunMaker) -> None:
    maker.route("constant", wrong)
    maker.route("baseline", wordy)
    maker.route("prompt", gold)
    maker.route("local-a", wrong, kind="local")
    maker.route("local-b", gold, kind="local", tokens=(20, 9))
    maker.failed("rag", "no corpus", kind="rag")
    report = build_report(maker.done())
    assert [row["row"] for row in report["eight_rows"]] == list(ROWS)
    for row in report["eight_rows"]:
        shown = [(cell["kind"], cell["route"]) for cell in row["cells"]]
        assert shown == [("prompt", "prompt"), ("local", "local-b")], (
            "the winner stands for its kind"
        )
        assert all(cell["known"] and cell["measured"] for cell in row["cells"])
    page = markdown_page(report)
    assert "| what changes | " in page
    assert page.count("Measured: ") == 16


def test_all_kinds_have_what_is_known_of_them() -> None:
    assert set(WHAT_IS_KNOWN) == set(KINDS) - {"constant"}
    assert {len(cells) for cells in WHAT_IS_KNOWN.values()} == {len(ROWS)} == {8}


# --- the page ---------------------------------------------------------------------------------


def test_the_page_begins_with_the_verdict_and_keeps_to_three_pages(maker: RunMaker) -> None:
    maker.route("constant", wrong)
    report = write_report(three_routes(maker))
    page = (maker.path / "report.md").read_text(encoding="utf-8")
    assert page.startswith("**Ship local.**")
    text = body(page)
    places = [text.index(f"### {heading}\n") for heading in SECTIONS]
    assert places == sorted(places)
    assert places[0] < text.index("## The routes in eight rows")
    prose = [line for line in text.splitlines() if not line.startswith("|")]
    assert 400 < len(" ".join(prose).split()) < 1300
    assert "## Pairs" not in text
    html = (maker.path / "report.html").read_text(encoding="utf-8")
    for heading in SECTIONS:
        assert f"<h3>{heading}</h3>" in html
    assert report == json.loads((maker.path / "report.json").read_text(encoding="utf-8"))


def test_the_page_fits_a_phone_and_can_be_read_in_the_dark(maker: RunMaker) -> None:
    from tests.browser import contrasts

    maker.route("constant", wrong)
    write_report(three_routes(maker))
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        page.goto((maker.path / "report.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#eight-rows td").first.inner_text() == "what changes"
        assert contrasts(page)[0][0] >= 4.5


# --- beside a second run ----------------------------------------------------------------------


def second(path: Path, **routes: tuple[int, int]) -> Path:
    """A run on another task, whose routes have so many of 10 rows right on dev and test."""
    maker = RunMaker(path)
    maker.route("baseline", share(gold, wordy, 10, dev=2, test=2))
    for name, (dev, test) in routes.items():
        maker.route(name, share(gold, wordy, 10, dev=dev, test=test))
    run = maker.done()
    for name, change in (("split.json", "hash-"), ("config.json", '"edu"')):
        text = (run / name).read_text(encoding="utf-8")
        to = "other-" if name == "split.json" else '"shop"'
        (run / name).write_text(text.replace(change, to), encoding="utf-8")
    return run


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_gains_on_two_tasks_stand_side_by_side(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "first")
    maker.route("baseline", share(gold, wordy, 10, dev=2, test=2))
    maker.route("prompt", share(gold, wordy, 10, dev=8, test=8))
    maker.route("local", share(gold, wordy, 10, dev=9, test=9))
    maker.route("rag", share(gold, wordy, 10, dev=4, test=4))
    run, other = (
        maker.done(),
        second(tmp_path / "other", prompt=(8, 8), local=(2, 2), distill=(5, 5)),
    )
    done = invoke("report", run, "--beside", other)
    assert done.exit_code == 0, done.output
    report = json.loads((run / "report.json").read_text())
    found = {route["name"]: route for route in report["beside"]["routes"]}
    assert list(found) == ["prompt", "local"]
    assert report["beside"]["only_here"] == ["rag"]
    assert report["beside"]["only_there"] == ["distill"]
    there = json.loads(invoke("report", other, "--json").stdout)
    for name, route in found.items():
        for gain, its in zip(route["gains"], (report, there), strict=True):
            expected = pair(its, name, "baseline")
            assert {k: gain[k] for k in gain} == {k: expected[k] for k in gain}
        diffs = [gain["diff"] for gain in route["gains"]]
        assert route["change"]["diff"] == pytest.approx(diffs[0] - diffs[1])
    text = said(report, "Flexibility for another domain")
    assert "prompt: the gain carries over, better than the baseline on both tasks." in text
    assert (
        "local: the gain is not shown to carry over, better than the baseline on edu and not "
        "distinguishable from the baseline on shop." in text
    )
    assert "local gains more on edu (+" in text
    assert "no difference is shown for prompt" in text
    assert "rag on edu alone; distill on shop alone" in text
    assert "the gain carries over" in done.output
    page = (run / "report.md").read_text()
    assert "| route | edu, points of token_f1 | shop, points of token_f1 |" in body(page)
    assert "shop, points of token_f1" in (run / "report.html").read_text()


def test_without_a_second_run_it_is_said_how_to_measure(maker: RunMaker) -> None:
    report = build_report(three_routes(maker))
    assert report["beside"] is None
    text = said(report, "Flexibility for another domain")
    assert "was not measured" in text
    assert "--beside OTHER_RUN" in text


def test_other_metrics_are_not_subtracted_and_other_settings_are_told(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "first", primary="chrf")
    run = three_routes(maker)
    other = second(tmp_path / "other", local=(9, 9))
    config = json.loads((other / "config.json").read_text())
    config["config"]["routes"]["local"]["r"] = 4
    config["base"]["name"] = "another"
    (other / "config.json").write_text(json.dumps(config))
    report = build_report(run, other)
    (route,) = report["beside"]["routes"]
    assert route["change"] is None
    assert route["change_reason"] == "chrf and token_f1 are different metrics"
    text = said(report, "Flexibility for another domain")
    assert "The base models differ: tunelm-nano and another." in text
    assert "The settings of local differ between the runs." in text
    assert "gains more" not in text


def test_what_cannot_stand_side_by_side_is_refused(tmp_path: Path) -> None:
    run = three_routes(RunMaker(tmp_path / "first"))
    twin = three_routes(RunMaker(tmp_path / "twin"))
    with pytest.raises(ConfigError, match="the same test rows"):
        build_report(run, twin)
    with pytest.raises(ConfigError, match="no route with the same name and kind"):
        build_report(run, second(tmp_path / "apart", rag=(9, 9)))
    nowhere = tmp_path / "nowhere"
    for other, told in ((nowhere, "nowhere: not a run directory"), (twin, "the same test rows")):
        refused = invoke("report", run, "--beside", other).exception
        assert isinstance(refused, ConfigError)
        assert told in str(refused)
    wrong_use = invoke("report", run, "--beside", twin, "--deployment")
    assert wrong_use.exit_code == 2
    assert "--beside is for the report" in wrong_use.output


def test_the_interval_of_two_gains_holds_the_truth_as_often_as_it_says() -> None:
    """Two independent means of different spread: 95% of 4,000 intervals hold the difference."""
    rng = np.random.default_rng(0)
    errors = np.array([0.5, 1.5])
    means = np.array([2.0, 1.0]) + rng.standard_normal((4000, 2)) * errors
    held = 0
    for a, b in means:
        sides = [
            {"diff": m, "ci_low": m - 1.96 * e, "ci_high": m + 1.96 * e}
            for m, e in zip((a, b), errors, strict=True)
        ]
        found = mover(*sides)
        held += found["ci_low"] <= 1.0 <= found["ci_high"]
    assert 0.94 < held / 4000 < 0.96


# --- dialogues --------------------------------------------------------------------------------


def test_a_run_of_dialogues_is_told_as_a_teacher_asks(tmp_path: Path) -> None:
    every = read_dialogues(TASKS / "tutor_dialogues.jsonl")
    groups = list(dict.fromkeys(d.problem.group for d in every))[:16]
    write_dialogues(
        tmp_path / "tutor_dialogues.jsonl", [d for d in every if d.problem.group in groups]
    )
    text = (TASKS / "edu-dialogue.toml").read_text(encoding="utf-8")
    (tmp_path / "task.toml").write_text(text, encoding="utf-8")
    asking = ScriptedModel(lambda request: "What do you think, step by step?")
    with ChatServer(asking) as server, ChatServer(ScriptedModel(lambda r: "Go on.")) as other:
        small = [
            "data.min_test_groups=2",
            "data.dev=0.25",
            "compare.conversations=6",
            "task.max_tokens=16",
            'compare.routes=["constant", "baseline", "api"]',
            "routes.api.kind=baseline",
            f"routes.api.base_url={server.url}",
            f"routes.baseline.base_url={other.url}",
            *(f"routes.{name}.model=scripted" for name in ("baseline", "api")),
            "routes.api.usd_per_million_in=1",
            "routes.api.usd_per_million_out=4",
            "routes.baseline.usd_per_million_in=0",
            "routes.baseline.usd_per_million_out=0",
            "budget.spend=true",
            "budget.max_usd=1",
        ]
        report = tunelm.compare(tmp_path / "task.toml", tmp_path / "run", overrides=small)
    assert [s["heading"] for s in report["analysis"]] == SECTIONS + OF_DIALOGUES
    held = report["conversations"]["routes"]["baseline"]
    kept_up = said(report, "Natural dialogue kept up")
    ends = held["endings"]
    assert (
        f"baseline held 6 conversations of {held['teacher_turns']:.1f} teacher's turns" in kept_up
    )
    assert f"{ends['solved']} ended with the answer found unaided" in kept_up
    assert "constant" not in kept_up, "a control is no teacher"
    tokens = 1000 * (held["prompt_tokens"] + held["completion_tokens"])
    assert f"baseline {tokens:,.0f}" in said(report, "Cost at scale")
    usd = report["conversations"]["routes"]["api"]["usd"] * 1000
    assert f"nothing cached: baseline 0 USD, api {usd:.3g} USD." in said(report, "Cost at scale")
    practice = said(report, "Classroom practice")
    assert "The students are simulated, by rules" in practice
    assert "rules asked for a strategy" in said(report, "Strategies carried out")
    assert f"{report['split']['train']['rows']} train turns" in said(report, "Data and complexity")
