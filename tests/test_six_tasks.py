"""From the plan over the comparison to the costs, for a few rows of each of the six tasks."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.config import TASKS, load_config
from tunelm.errors import TrainingError

SIX = {
    "edu-qa": ("constant", "baseline"),
    "edu-dialogue": ("constant", "baseline"),
    "support-email": ("constant", "rule", "baseline"),
    "docstrings": ("constant", "rule", "baseline"),
    "faq-decline": ("constant", "nearest", "baseline"),
    "headlines": ("constant", "classifier", "baseline"),
}
"""The routes that are run here: training has tests of its own."""
ROWS = {"faq-decline": 120, "headlines": 120}
FEW = 40


def a_few_rows(name: str, folder: Path) -> Path:
    """The bundled task on some of its rows, its corpus beside it, with short answers."""
    text = (TASKS / f"{name}.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)["data"]
    lines = (TASKS / data["path"]).read_text(encoding="utf-8").splitlines(keepends=True)
    rows = ROWS.get(name, FEW)
    kept = lines[:: len(lines) // rows][:rows]
    (folder / data["path"]).write_text("".join(kept), encoding="utf-8")
    if "corpus" in data:
        corpus = (TASKS / data["corpus"]).read_text(encoding="utf-8")
        (folder / data["corpus"]).write_text(corpus, encoding="utf-8")
    if name not in ROWS:
        text = text.replace("[data]\n", "[data]\nmin_test_groups = 3\n")
    text = re.sub(r"^max_tokens = .*$", "max_tokens = 8", text, flags=re.M)
    (folder / "task.toml").write_text(text, encoding="utf-8")
    return folder / "task.toml"


def run(*args: object) -> str:
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def tables_of(page: str) -> list[list[int]]:
    """The number of cells in each line of each table."""
    found = re.findall(r"(?:^\|.*\n)+", page, flags=re.M)
    return [[len(re.findall(r"(?<!\\)\|", line)) for line in t.splitlines()] for t in found]


@pytest.mark.parametrize("name", SIX)
def test_a_task_is_planned_compared_and_its_costs_are_reckoned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def none_here(work: Path) -> None:
        raise TrainingError("no dry run in this test")

    monkeypatch.setattr("tunelm.training.memory.dry_run", none_here)
    monkeypatch.setattr("tunelm.report.evidence.RESAMPLES", 200)
    task = a_few_rows(name, tmp_path)
    plan, out = tmp_path / "plan", tmp_path / "run"
    run("plan", task, "--out", plan)
    config = load_config(plan / "task.toml")
    assert set(SIX[name]) <= set(config.compare.routes)
    routes = f"compare.routes={json.dumps(SIX[name])}"
    few = ("compare.conversations=4",) if name == "edu-dialogue" else ()
    chosen = [part for each in (routes, *few) for part in ("--set", each)]
    run("compare", plan / "task.toml", "--out", out, "--quiet", *chosen)
    said = run("cost", out, "--watts", 60, "--usd-per-kwh", 0.3)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert {r["name"] for r in report["routes"] if r["status"] == "done"} == set(SIX[name])
    assert report["task"]["primary_metric"] == config.compare.primary_metric
    baseline = next(r["measured"] for r in report["routes"] if r["name"] == "baseline")
    streamed = name != "headlines"  # whose labels are scored, so that the answer is one piece
    assert (baseline["tokens_per_second"]["value"] is not None) == streamed
    assert "costs least" in said
    costs = json.loads((out / "cost.json").read_text(encoding="utf-8"))
    for route in costs["routes"]:
        assert route["control"] or route["month_usd"] >= 0
    for page in (plan / "proposal.md", plan / "appendix.md", out / "report.md", out / "cost.md"):
        text = page.read_text(encoding="utf-8")
        assert all(len(set(lines)) == 1 for lines in tables_of(text)), page
        assert not re.search(r"\bNone\b|\bnan\b|\{\{", re.sub(r"```.*?```", "", text, flags=re.S))
