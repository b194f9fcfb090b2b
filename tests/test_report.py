"""The report, made from run directories that the tests write file by file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tunelm.errors import RunDirError
from tunelm.report import evidence
from tunelm.report.build import build_report, write_report
from tunelm.report.markdown import markdown_page
from tunelm.report.tradeoff import tradeoff_rows
from tunelm.report.words import table, usage_rows
from tunelm.scoring.metrics import metrics_for
from tunelm.scoring.statistics import holm

Report = dict[str, Any]
Answer = Callable[[str, int], str | None]

GOLD = "The heart pumps blood around body number {}."
WORDY = "Well, it is known that number {} is about the heart, one could say."
WRONG = "Clouds drift over seas."


def gold(part: str, row: int) -> str:
    return GOLD.format(row)


def wordy(part: str, row: int) -> str:
    return WORDY.format(row)


def wrong(part: str, row: int) -> str:
    return WRONG


def share(right: Answer, other: Answer, of: int, **least: int) -> Answer:
    """`right` on the first rows of each part, as given by name, out of every `of`."""

    def answer(part: str, row: int) -> str | None:
        return (right if row % of < least[part] else other)(part, row)

    return answer


def write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


def write_lines(path: Path, rows: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


class RunMaker:
    """Writes a run directory: `rows` test rows in pairs of one group, half as many dev rows."""

    def __init__(self, path: Path, rows: int = 80, primary: str = "token_f1") -> None:
        self.path = path
        self.sizes = {"train": rows, "dev": rows // 2, "test": rows}
        self.primary = primary
        self.routes: dict[str, dict[str, Any]] = {}
        self.split: dict[str, Any] = {"leaks": [], "min_test_groups": 30, "test_looks": 1}
        self._write_rows()

    def _write_rows(self) -> None:
        rows: list[dict[str, Any]] = []
        for part, size in self.sizes.items():
            for i in range(size):
                example = {
                    "id": f"{part}-{i}",
                    "messages": [{"role": "user", "content": f"What does heart {i} do?"}],
                    "answers": [GOLD.format(i)],
                    "group": f"{part}-g{i // 2}",
                    "context": None,
                    "metadata": {"key_answers": ["pumps blood"]},
                }
                source = f"qa.jsonl:{len(rows) + 1}"
                rows.append(
                    {
                        "source": source,
                        "status": "kept",
                        "reason": None,
                        "part": part,
                        "example": example,
                    }
                )
        write_lines(self.path / "rows.jsonl", rows)

    def route(
        self,
        name: str,
        answer: Answer,
        *,
        kind: str | None = None,
        seed: int = 0,
        tokens: tuple[int, int] | None = (40, 9),
        shuffled: bool = False,
        format_error: str | None = None,
        detail: dict[str, Any] | None = None,
        **fit: Any,
    ) -> None:
        """A finished route; an answer of None is a failed row."""
        settings = {"kind": kind or name, **({"shuffle_answers": True} if shuffled else {})}
        self.routes[name] = settings
        folder = self.path / "routes" / name / f"seed-{seed}"
        usage = dict(
            zip(("prompt_tokens", "completion_tokens"), tokens or (None, None), strict=True)
        )
        usage["cached_tokens"] = 0 if tokens else None
        rows = [
            self._prediction(part, i, answer(part, i), usage)
            for part in ("dev", "test")
            for i in range(self.sizes[part])
        ]
        write_lines(
            folder / "predictions.jsonl", [r | {"format_error": format_error} for r in rows]
        )
        if detail is not None:
            write(folder / "adapted.json", {"kind": settings["kind"], "detail": detail})
        record = {
            "status": "done",
            "kind": settings["kind"],
            "control": shuffled or settings["kind"] == "constant",
            "reason": None,
            "seconds": 12.0,
            "usage": {"train": {"prompt_tokens": 5000, "completion_tokens": 0, "cached_tokens": 0}},
            "evaluate_usage": {"dev": usage, "test": usage},
            "measured": {
                "seconds_fit": quantity(12.0, "s", "measured"),
                "peak_memory": quantity(8.1e8, "bytes", "measured"),
            },
        }
        write(folder / "fit.json", record | fit)
        forecasts = {
            "train_tokens": quantity(4000, "tokens", "exact", 3000, 6000),
            "seconds": quantity(None, "s", "unknown: nothing was timed"),
        }
        plan = {"route": name, "kind": settings["kind"], "forecasts": forecasts, "notes": []}
        write(folder / "plan.json", plan)
        write(folder / "prompt.json", {"messages": [{"role": "user", "content": "What?"}]})

    def failed(self, name: str, reason: str, kind: str = "local", seed: int = 0) -> None:
        self.routes.setdefault(name, {"kind": kind})
        record = {"status": "failed", "kind": kind, "control": False, "reason": reason}
        record |= {"seconds": None, "usage": {}, "evaluate_usage": {}, "measured": {}}
        write(self.path / "routes" / name / f"seed-{seed}" / "fit.json", record)

    def done(self) -> Path:
        parts = {
            part: {
                "rows": size,
                "groups": (size + 1) // 2,
                "hash": f"hash-{part}",
                "ids": [f"{part}-{i}" for i in range(size)],
            }
            for part, size in self.sizes.items()
        }
        write(
            self.path / "split.json", {"schema_version": 1, "seed": 0, "parts": parts, **self.split}
        )
        task = {"name": "edu", "kind": "qa", "instructions": "Answer.", "max_tokens": 32}
        compare = {"routes": list(self.routes), "primary_metric": self.primary, "seeds": [0]}
        data = {"path": "/data/qa.jsonl"}
        config = {"task": task, "data": data, "compare": compare, "routes": self.routes}
        host = {"platform": "Linux", "cpu_count": 2, "memory_bytes": 8_000_000_000, "gpu": None}
        head = {"schema_version": 1, "created": "2026-11-21T10:00:00+00:00", "tunelm": "0.1.0"}
        base = {"name": "tunelm-nano", "weights_sha256": None, "parameters": 2_000_000}
        versions = {"python": "3.11.9", "torch": None}
        extra = {"config": config, "versions": versions, "host": host, "base": base}
        write(self.path / "config.json", head | extra)
        return self.path

    def _prediction(
        self, part: str, row: int, output: str | None, usage: dict[str, int | None]
    ) -> dict[str, Any]:
        return {
            "example_id": f"{part}-{row}",
            "part": part,
            "output": output,
            "finish_reason": "error" if output is None else "stop",
            "usage": usage,
            "latency_s": 0.1,
            "error": "connection reset" if output is None else None,
        }


def quantity(
    value: float | None, unit: str, method: str, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    return {"value": value, "unit": unit, "method": method, "low": low, "high": high}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same statistics from fewer resamples: what is tested here is not their precision."""
    monkeypatch.setattr(evidence, "RESAMPLES", 400)


@pytest.fixture
def maker(tmp_path: Path) -> RunMaker:
    """A run with 80 test rows in 40 groups and no routes yet."""
    return RunMaker(tmp_path / "run")


def route(report: Report, name: str) -> dict[str, Any]:
    return next(r for r in report["routes"] if r["name"] == name)


def pair(report: Report, a: str, b: str, metric: str = "token_f1") -> dict[str, Any]:
    return next(p for p in report["pairs"] if p["metric"] == metric and {p["a"], p["b"]} == {a, b})


def three_routes(maker: RunMaker) -> Path:
    """A baseline, a better and a much better route."""
    maker.route("baseline", wordy)
    maker.route("prompt", share(gold, wordy, 10, dev=4, test=4))
    maker.route("local", share(gold, wordy, 10, dev=9, test=9))
    return maker.done()


def test_a_clear_winner_is_said_to_be_shipped_with_its_evidence(maker: RunMaker) -> None:
    report = build_report(three_routes(maker))
    assert report["winner"]["name"] == "local"
    assert report["verdict"][0] == "Ship local."
    found = pair(report, "local", "baseline")
    assert found["verdict"] == "better"
    assert found["ci_low"] > 0
    said = " ".join(report["verdict"])
    score = route(report, "local")["scores"]["token_f1"]
    assert f"{score['value'] * 100:.1f} points of token_f1" in said
    assert f"{found['diff'] * 100:.1f} points more than baseline" in said
    assert "Holm's correction over 3 pairs" in said
    assert f"{report['mde']['value'] * 100:.1f} points four times in five" in said
    assert "it is better than the runner-up on dev, prompt" in said


def test_the_winner_is_chosen_on_dev_even_where_test_says_otherwise(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("prompt", share(gold, wordy, 10, dev=9, test=2))
    maker.route("local", share(gold, wordy, 10, dev=5, test=10))
    report = build_report(maker.done())
    assert report["winner"]["name"] == "prompt"
    assert pair(report, "local", "prompt")["verdict"] == "better"
    said = " ".join(report["verdict"])
    assert "it is worse than the runner-up on dev, local" in said


def test_equal_dev_scores_go_to_the_route_with_fewer_tokens_an_answer(maker: RunMaker) -> None:
    maker.route("prompt", gold, tokens=(200, 9))
    maker.route("local", gold, tokens=(40, 9))
    maker.route("local-b", gold, kind="local", tokens=None)
    report = build_report(maker.done())
    assert (report["winner"]["name"], report["runner_up"]) == ("local", "prompt")


def test_a_control_is_never_the_winner_and_is_warned_of_when_not_beaten(maker: RunMaker) -> None:
    maker.route("baseline", wrong)
    maker.route("local", share(gold, wordy, 10, dev=4, test=4))
    maker.route("constant", share(gold, wordy, 10, dev=8, test=4))
    maker.route("shuffled", share(gold, wordy, 10, dev=8, test=5), kind="local", shuffled=True)
    report = build_report(maker.done())
    assert report["winner"]["name"] == "local"
    assert [r["name"] for r in report["routes"] if r["control"]] == ["constant", "shuffled"]
    text = " ".join(report["warnings"])
    assert "local is not shown to be better than the control constant" in text
    assert "one fixed answer to every question does as well" in text
    assert "training on shuffled answers does better" in text
    assert report["verdict"][0].startswith("Do not ship on this evidence")


def test_the_holm_family_is_the_primary_metric_without_controls(maker: RunMaker) -> None:
    maker.route("constant", wrong)
    path = three_routes(maker)
    report = build_report(path)
    family = [p for p in report["pairs"] if p["family"]]
    assert {frozenset((p["a"], p["b"])) for p in family} == {
        frozenset(names)
        for names in (("baseline", "prompt"), ("baseline", "local"), ("prompt", "local"))
    }
    assert {p["metric"] for p in family} == {"token_f1"}
    assert [p["p_holm"] for p in family] == holm([p["p"] for p in family])
    others = [p for p in report["pairs"] if not p["family"]]
    assert len(others) == 6 * len(metrics_for("qa")) - 3
    assert all(p["p_holm"] is None for p in others)
    control = pair(report, "local", "constant")
    assert (control["b"], control["verdict"]) == ("constant", "better")
    assert "outside Holm's correction" in control["note"]
    assert "exploratory" in pair(report, "local", "prompt", "bleu")["note"]


def test_a_failed_route_is_listed_with_its_reason_and_the_rest_goes_on(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.failed("local", "the loss became NaN at step 12")
    report = write_report(maker.done())
    failed = route(report, "local")
    assert (failed["status"], failed["scores"], failed["cost"]) == ("failed", None, None)
    assert any("the loss became NaN at step 12" in text for text in report["warnings"])
    assert "the loss became NaN at step 12" in table(report)[1]["note"]
    for name in ("report.md", "report.html"):
        assert "the loss became NaN at step 12" in (maker.path / name).read_text(encoding="utf-8")
    assert {row["prompt tokens"] for row in usage_rows(report) if row["route"] == "local"} == {
        "unknown"
    }
    assert report["pairs"] == []
    assert report["mde"]["value"] is None
    assert report["mde"]["reason"]


def test_a_run_in_which_nothing_finished_has_a_report_too(maker: RunMaker) -> None:
    maker.failed("local", "no torch")
    maker.routes["prompt"] = {"kind": "prompt"}
    report = write_report(maker.done())
    assert report["winner"]["name"] is None
    assert report["verdict"][0].startswith("Nothing to ship")
    assert route(report, "prompt")["status"] == "not run"
    assert report["examples"] is None


def test_failed_rows_leave_their_pairs_and_are_counted(maker: RunMaker) -> None:
    def failing(part: str, row: int) -> str | None:
        return None if part == "test" and row in (3, 4, 5) else gold(part, row)

    maker.route("baseline", wordy)
    maker.route("local", failing)
    report = build_report(maker.done())
    score = route(report, "local")["scores"]["token_f1"]
    assert (score["n"], score["value"]) == (77, 1.0)
    assert score["value_failed_as_wrong"] == pytest.approx(77 / 80)
    assert route(report, "local")["outcomes"] == {
        "scored": 77,
        "unparsed": 0,
        "declined": 0,
        "failed": 3,
    }
    assert route(report, "baseline")["scores"]["token_f1"]["n"] == 80
    found = pair(report, "local", "baseline")
    assert (found["n"], found["left_out"]) == (77, 3)
    warned = next(text for text in report["warnings"] if "test rows failed" in text)
    assert "3 of 80" in warned
    assert "connection reset" in warned
    assert "96.2 with them as wrong" in table(report)[1]["note"]


def test_a_route_cannot_win_by_failing_the_rows_it_would_get_wrong(maker: RunMaker) -> None:
    def picky(part: str, row: int) -> str | None:
        return gold(part, row) if row % 4 == 0 else None

    maker.route("local", share(gold, wordy, 10, dev=8, test=8))
    maker.route("picky", picky, kind="prompt")
    report = build_report(maker.done())
    assert route(report, "picky")["scores_dev"]["token_f1"]["value"] == 1.0
    assert report["winner"]["name"] == "local"
    assert any("dev rows failed; they counted as wrong" in text for text in report["warnings"])


def test_nothing_shown_to_beat_the_baseline_is_said_plainly(maker: RunMaker) -> None:
    maker.route("baseline", share(gold, wordy, 10, dev=5, test=5))
    maker.route("local", share(gold, wordy, 10, dev=6, test=5))
    report = build_report(maker.done())
    assert report["winner"]["name"] == "local"
    assert report["verdict"][0].startswith("Nothing here is shown to beat the baseline.")
    maker.route("local", wrong)
    report = build_report(maker.done())
    assert report["winner"]["name"] == "baseline"
    assert "nothing here is shown to beat the baseline" in report["verdict"][0]


def test_a_winner_on_dev_that_is_worse_on_test_is_not_to_be_shipped(maker: RunMaker) -> None:
    maker.route("baseline", share(gold, wrong, 10, dev=5, test=9))
    maker.route("local", share(gold, wrong, 10, dev=6, test=1))
    report = build_report(maker.done())
    assert report["verdict"][0].startswith("Do not ship local")


def test_form_that_improved_without_content_is_warned_of(maker: RunMaker) -> None:
    def form_only(part: str, row: int) -> str:
        return GOLD.format(row).replace("pumps blood", "moves fluid")

    def content_only(part: str, row: int) -> str:
        return f"pumps blood {WRONG * 3}"

    maker.route("baseline", content_only)
    maker.route("local", form_only)
    report = build_report(maker.done())
    assert report["winner"]["name"] == "local"
    assert any("form improved, content did not" in text for text in report["warnings"])


def test_it_is_said_whether_the_form_or_the_knowledge_was_missing(tmp_path: Path) -> None:
    said: dict[tuple[bool, bool], str] = {}
    for prompt in (True, False):
        for rag in (True, False):
            run = RunMaker(tmp_path / f"{prompt}-{rag}")
            run.route("baseline", wordy)
            run.route("prompt", gold if prompt else wordy)
            run.route("rag", gold if rag else wordy)
            text = "\n".join(build_report(run.done())["verdict"])
            lines = [line for line in text.splitlines() if "passages of the corpus" in line]
            assert len(lines) == 1
            said[prompt, rag] = lines[0]
    assert "lacks here is the form" in said[True, False]
    assert "lacks here is knowledge" in said[False, True]
    assert "lacks both" in said[True, True]
    assert said[False, False].startswith("Neither")
    assert "(prompt 0.0, rag +" in said[False, True]


def test_without_retrieval_nothing_is_said_of_what_was_missing(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("prompt", gold)
    assert not any("lack" in text for text in build_report(maker.done())["verdict"])


def test_answers_that_break_their_form_are_a_count_of_their_own(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("prompt", gold, format_error="no line begins with 'Answer'")
    report = build_report(maker.done())
    found = route(report, "prompt")
    assert found["outcomes"] == {"scored": 0, "unparsed": 80, "declined": 0, "failed": 0}
    assert found["scores"]["token_f1"]["value"] == 1.0
    assert any("80 of 80 test answers broke the form" in text for text in report["warnings"])


def test_what_a_paid_helper_cost_is_shown_for_a_local_route(maker: RunMaker) -> None:
    prices = {"usd_in": 2.0, "usd_out": 8.0}
    spent = {"propose": {"prompt_tokens": 1_000_000, "completion_tokens": 500_000}}
    spent["propose"]["cached_tokens"] = 0
    paid = {"propose": {"model": "strong", "prices": prices}}
    maker.route("baseline", wordy)
    maker.route("prompt", gold, detail={"paid": paid}, usage=spent)
    maker.route("distill", gold, detail={"paid": {"teach": paid["propose"]}}, usage=spent)
    report = build_report(maker.done())
    assert route(report, "prompt")["cost"]["value"] == pytest.approx(6.0)
    assert "strong" in route(report, "prompt")["cost"]["method"]
    assert route(report, "distill")["cost"] is None, "no count of its tokens"
    assert "strong" in route(report, "distill")["cost_reason"]


def test_quality_stands_against_what_an_answer_takes(maker: RunMaker) -> None:
    maker.route("constant", wrong)
    maker.route("baseline", wordy, tokens=(40, 30))
    small = {"student_parameters": quantity(500_000, "parameters", "exact")}
    maker.route("distill", gold, measured=small)
    report = build_report(maker.done())
    rows = tradeoff_rows(report)
    assert [row["route"] for row in rows] == ["distill", "baseline"]
    assert [row["parameters"] for row in rows] == ["500,000", "2,000,000"]
    assert [row["tokens an answer"] for row in rows] == ["49", "70"]
    assert rows[0]["an answer takes"] == rows[0]["fitting took"] == "unknown"
    assert "parameters" in markdown_page(report)


def test_a_small_test_set_says_first_that_it_proves_nothing(tmp_path: Path) -> None:
    path = three_routes(RunMaker(tmp_path / "run", rows=10))
    report = write_report(path)
    said = "With only 5 independent test groups this comparison proves nothing"
    assert report["verdict"][0].startswith(said)
    first = (path / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"**{said}")
    page = (path / "report.html").read_text(encoding="utf-8")
    assert f'<p class="headline">{said}' in page
    assert 'class="verdict ship"' not in page


def test_an_interval_that_disagrees_with_p_gets_a_sentence(maker: RunMaker) -> None:
    """The first planted difference at which they disagree is taken; there must be one."""
    maker.route("baseline", wordy)
    for wins in range(3, 9):
        maker.route("local", lambda part, row, w=wins: (gold if row // 2 < w else wordy)(part, row))
        report = build_report(maker.done())
        found = pair(report, "local", "baseline")
        if not found["agrees"]:
            break
    else:
        pytest.fail("interval and p agreed everywhere")
    assert "the interval and p point different ways" in found["note"]
    assert any("point different ways" in text for text in report["warnings"])


def test_what_is_unknown_stays_null_and_reads_unknown(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    unknown = {"prompt_tokens": None, "completion_tokens": None, "cached_tokens": None}
    maker.route("local", gold, tokens=None, usage={"train": unknown}, measured={})
    report = write_report(maker.done())
    local = route(report, "local")
    assert local["tokens_per_answer"] == {"dev": None, "test": None}
    assert local["usage"]["train"]["prompt_tokens"] is None
    assert (local["cost"], report["break_even"]) == (None, None)
    assert "no price" in local["cost_reason"]
    assert report["break_even_reason"]
    row = table(report)[1]
    assert (row["tokens an answer"], row["time to fit"]) == ("unknown", "unknown")
    errors = {e["name"]: e for e in local["forecast_errors"]}
    assert (errors["train_tokens"]["measured"], errors["train_tokens"]["error"]) == (None, None)


def test_forecasts_stand_beside_what_was_measured(maker: RunMaker) -> None:
    maker.route("local", gold)
    errors = {e["name"]: e for e in route(build_report(maker.done()), "local")["forecast_errors"]}
    assert errors["train_tokens"]["error"] == pytest.approx(0.25)
    assert errors["train_tokens"]["inside"] is True
    assert (errors["seconds"]["forecast"], errors["seconds"]["measured"]) == (None, 12.0)
    assert errors["seconds"]["error"] is None


def test_several_seeds_are_pooled_and_widen_the_interval(maker: RunMaker) -> None:
    maker.route("baseline", wordy)
    maker.route("local", share(gold, wordy, 10, dev=9, test=8))
    one = build_report(maker.done())
    maker.route("local", share(gold, wordy, 10, dev=9, test=4), seed=1)
    report = build_report(maker.done())
    scores = [route(r, "local")["scores"]["token_f1"] for r in (one, report)]
    widths = [score["ci_high"] - score["ci_low"] for score in scores]
    assert scores[1]["value"] < scores[0]["value"]
    assert widths[1] > widths[0]
    assert route(report, "local")["seeds"] == [0, 1]
    assert route(report, "local")["usage"]["train"]["prompt_tokens"] == 10_000
    assert any("over 2 seeds" in text for text in report["verdict"])


def test_a_row_that_failed_under_one_seed_counts_under_none(maker: RunMaker) -> None:
    maker.route("local", gold)
    maker.route("local", lambda part, row: None if row < 2 else gold(part, row), seed=1)
    local = route(build_report(maker.done()), "local")
    assert local["scores"]["token_f1"]["n"] == 78
    assert local["scores"]["token_f1"]["value_failed_as_wrong"] == pytest.approx(158 / 160)
    assert local["failed_rows"] == {"dev": 2, "test": 2}
    assert local["outcomes"]["failed"] == 2


def test_a_route_with_a_failed_seed_says_which_seeds_count(maker: RunMaker) -> None:
    maker.route("local", gold)
    maker.failed("local", "out of memory", seed=1)
    report = build_report(maker.done())
    assert route(report, "local")["status"] == "done"
    assert any("only seeds 0 count; seed 1: out of memory" in text for text in report["warnings"])


def test_examples_are_the_widest_wins_and_losses_one_of_a_group(maker: RunMaker) -> None:
    maker.route("baseline", share(wordy, gold, 20, dev=18, test=18))
    maker.route("local", share(gold, wrong, 20, dev=18, test=18))
    shown = build_report(maker.done())["examples"]
    assert shown["counts"] == {"wins": 72, "losses": 8, "ties": 0}
    assert (len(shown["wins"]), len(shown["losses"])) == (6, 4)
    assert len({row["group"] for row in shown["wins"]}) == 6
    assert all(row["a"]["value"] > row["b"]["value"] for row in shown["wins"])
    first = shown["losses"][0]
    assert (first["a"]["output"], first["b"]["output"]) == (WRONG, first["gold"][0])


def test_corpus_metrics_can_be_primary_and_use_their_own_scale(tmp_path: Path) -> None:
    maker = RunMaker(tmp_path / "run", primary="chrf")
    report = build_report(three_routes(maker))
    score = route(report, "local")["scores"]["chrf"]
    assert 80 < score["value"] <= 100
    assert score["signature"].startswith("nrefs:1")
    assert f"{score['value']:.1f} points of chrf" in report["verdict"][1]
    assert report["examples"]["metric"] == "token_f1"


class Page(HTMLParser):
    """Tags, and what they refer to; fails on tags closed out of order."""

    VOID = frozenset({"meta", "br", "line", "circle"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_html_is_well_formed_refers_to_nothing_and_escapes_outputs(maker: RunMaker) -> None:
    attack = '<script>alert(1)</script><img src=x onerror="y">'
    maker.route("baseline", lambda part, row: f"{attack} & {WRONG}")
    maker.route("a<b>", gold, kind="local")
    maker.failed("bad", attack)
    write_report(maker.done())
    text = (maker.path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.tags & {"script", "img", "link", "iframe", "b"}
    assert page.references == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not re.search(r"url\(|@import|https?://", text.split("</style>")[0])


def test_markdown_tables_hold_whatever_text_comes(maker: RunMaker) -> None:
    maker.route("baseline", lambda part, row: f"```\n| {WRONG}")
    maker.route("local", gold)
    maker.failed("bad", "first | second\nthird")
    text = markdown_page(build_report(maker.done()))
    assert "first \\| second third" in text
    assert "````text\n" in text
    lines = re.sub(r"(?s)(`{3,})text\n.*?\n\1", "", text).splitlines()
    widths: dict[int, int] = {}
    for number, line in enumerate(lines):
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            assert widths.get(number - 1, cells) == cells
            widths[number] = cells


def test_the_same_files_give_the_same_bytes(maker: RunMaker) -> None:
    path = three_routes(maker)
    names = ("report.json", "report.md", "report.html")
    write_report(path)
    first = [(path / name).read_bytes() for name in names]
    write_report(path)
    assert [(path / name).read_bytes() for name in names] == first
    assert not list(path.glob(".*.tmp"))


def test_report_json_is_strict_json_and_equals_what_is_returned(maker: RunMaker) -> None:
    maker.route("baseline", lambda part, row: None)
    maker.route("local", lambda part, row: f"one line\u2028another {row}")
    report = write_report(maker.done())

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (maker.path / "report.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == report
    assert route(report, "baseline")["scores"]["token_f1"]["value"] is None
    assert pair(report, "local", "baseline")["verdict"] == "not distinguishable"


def test_words_shared_with_train_rows_are_told_apart_by_where_they_stand(maker: RunMaker) -> None:
    found = [{"test_id": "test-1", "train_id": "train-4", "piece": "a long piece of thirteen"}]
    maker.route("baseline", wordy)
    maker.split["contamination"] = {"rows": 5, "asked": 2, "of": 80, "found": found}
    (told,) = [t for t in build_report(maker.done())["warnings"] if "13 words" in t]
    assert told.startswith("2 of 80 test rows share 13 words in a row, or a whole short question")
    assert "scores are too good" in told
    assert told.endswith("3 more do so in the answer alone, as set phrases do.")
    maker.split["contamination"] = {"rows": 5, "asked": 0, "of": 80, "found": found}
    (told,) = [t for t in build_report(maker.done())["warnings"] if "13 words" in t]
    assert "in the answer alone, and none in what is asked" in told
    assert "too good" not in told
    maker.split["contamination"] = {"rows": 0, "asked": 0, "of": 80, "found": []}
    assert not any("13 words" in t for t in build_report(maker.done())["warnings"])


def test_the_baseline_as_runner_up_is_named_once(maker: RunMaker) -> None:
    maker.route("baseline", wrong)
    maker.route("local", gold)
    assert "The runner-up on dev is the baseline itself." in build_report(maker.done())["verdict"]
    maker.routes.pop("baseline")
    maker.route("plain", wrong, kind="baseline")
    said = " ".join(build_report(maker.done())["verdict"])
    assert "The runner-up on dev is the baseline, plain, itself." in said


def test_a_route_without_a_language_model_has_none_of_its_parameters(maker: RunMaker) -> None:
    maker.route("baseline", wrong)
    maker.route("rule", gold, detail={"notes": []})
    report = build_report(maker.done())
    rows = {row["route"]: row["parameters"] for row in tradeoff_rows(report)}
    assert rows["rule"] == "no language model"
    assert rows["baseline"] != rows["rule"]


def test_a_look_at_the_test_set_again_and_rows_left_out_are_warned_of(maker: RunMaker) -> None:
    maker.split["test_looks"] = 4
    row = {"source": "qa.jsonl:999", "status": "dropped", "reason": "too long", "part": None}
    with (maker.path / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**row, "example": None}) + "\n")
    maker.route("baseline", wordy)
    report = build_report(maker.done())
    assert any("looked at this test set 4 times" in text for text in report["warnings"])
    assert any("1 input rows were left out" in text for text in report["warnings"])
    assert report["split"]["ledger"] == {"kept": 200, "dropped": 1}


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"no config\.json"):
        build_report(tmp_path)


def test_a_run_that_stopped_before_its_split_is_refused(maker: RunMaker) -> None:
    path = three_routes(maker)
    (path / "split.json").unlink()
    with pytest.raises(RunDirError, match="--resume"):
        build_report(path)


def test_every_row_of_the_table_has_the_same_columns(maker: RunMaker) -> None:
    maker.failed("bad", "no")
    rows = table(build_report(three_routes(maker)))
    assert len({tuple(row) for row in rows}) == 1
    assert [row["route"] for row in rows] == ["bad", "baseline", "prompt", "local (winner)"]


def test_reporting_loads_no_model_code() -> None:
    code = (
        "import sys, tunelm.report.build;"
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'transformers', 'peft', 'dspy'}"
        " | {m for m in sys.modules if m.startswith(('tunelm.models', 'tunelm.routes'))}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
