"""The part of test_remote.py that needs the wallet in the pipeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tunelm
from tunelm.cli import cli
from tunelm.errors import BudgetError, ConfigError
from tunelm.models.budget import spent_before
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import Request

from .conftest import write_rows

API = ["routes.api.kind=baseline", "routes.api.model=scripted"]
PRICES = ["routes.api.usd_per_million_in=0", "routes.api.usd_per_million_out=1000"]


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def refusal(*args: object) -> str:
    """What the command refuses to do, in the words of its BudgetError."""
    found = invoke(*args).exception
    assert isinstance(found, BudgetError)
    return str(found)


def test_a_run_pays_by_its_cap_and_says_what_it_cost(task: Path, tmp_path: Path):
    """Nothing without --spend; a cap that is too low ends the route; a higher one resumes it."""
    with ChatServer(ScriptedModel(lambda r: "The code is 4.")) as server:
        paid = [*API, *PRICES, f"routes.api.base_url={server.url}"]
        paid.append('compare.routes=["constant","api"]')

        def run(*more: str, resume: bool = True):
            report = tunelm.compare(task, tmp_path / "run", overrides=[*paid, *more], resume=resume)
            return next(r for r in report["routes"] if r["name"] == "api")

        refused = run(resume=False)
        assert "--spend" in refused["reason"]
        assert server.bodies == []
        low = run("budget.spend=true", "budget.max_usd=0.1")
        assert "of budget.max_usd = $0.1" in low["reason"]
        ledger = tmp_path / "run" / "spending.jsonl"
        first = spent_before(ledger)
        assert 0.09 < first <= 0.1
        done = run("budget.spend=true", "budget.max_usd=1")
    assert done["status"] == "done"
    used = sum(u["completion_tokens"] for u in done["usage"].values())
    assert done["cost"]["value"] == pytest.approx(used * 0.001)
    assert spent_before(ledger) == pytest.approx(len(server.bodies) * 0.004)
    assert spent_before(ledger) >= done["cost"]["value"]
    dev = next(r for r in done["forecast_errors"] if r["name"] == "completion_tokens_dev")
    assert dev["measured"] == done["usage"]["evaluate_dev"]["completion_tokens"]


def test_answers_of_a_model_with_a_price_are_paid_within_a_cap_of_their_own(
    task: Path, tmp_path: Path
):
    with ChatServer(ScriptedModel(lambda r: "The code is 4.")) as server:
        chosen = [*API, *PRICES, f"routes.api.base_url={server.url}", 'compare.routes=["api"]']
        chosen += ["budget.spend=true", "budget.max_usd=1"]
        tunelm.compare(task, tmp_path / "run", overrides=chosen)
        asked, ledger = len(server.bodies), (tmp_path / "run" / "spending.jsonl").read_bytes()
        question = ("generate", tmp_path / "run" / "api", "Which code?", "--max-tokens", 8)
        assert "--spend" in refusal(*question)
        assert "max_usd is 0" in refusal(*question, "--spend")
        assert "of budget.max_usd = $0.007" in refusal(*question, "--spend", "--max-usd", 0.007)
        assert invoke(*question, "--max-usd", 1).exit_code == 2
        assert invoke(*question, "--spend", "--max-usd", "nan").exit_code == 2
        assert len(server.bodies) == asked
        answered = invoke(*question, "--spend", "--max-usd", 0.009)
        assert (answered.exit_code, answered.stdout) == (0, "The code is 4.\n")
        assert answered.stderr == "spent: at most $0.004\n"
        assert len(server.bodies) == asked + 1
        rows = write_rows(tmp_path / "more.jsonl", 10)
        scoring = ("eval", tmp_path / "run" / "api", rows, "--max-tokens", 8, "--json", "--quiet")
        assert "--spend" in refusal(*scoring)
        assert "max_usd is 0" in refusal(*scoring, "--spend")
        assert "of budget.max_usd = $0.007" in refusal(*scoring, "--spend", "--max-usd", 0.007)
        assert len(server.bodies) == asked + 1
        scored = invoke(*scoring, "--spend", "--max-usd", 0.1)
        assert (json.loads(scored.stdout)["rows"], scored.exit_code) == (10, 0)
        assert scored.stderr == "spent: at most $0.04\n"
        assert len(server.bodies) == asked + 11
    assert (tmp_path / "run" / "spending.jsonl").read_bytes() == ledger


def test_the_base_model_stays_what_the_others_are_measured_against(task: Path, tmp_path: Path):
    def fail(body, seen):
        return Failure(400) if "box 1" in str(body["messages"]) else None

    def answer(request: Request) -> str:
        return "The code is 4."

    with ChatServer(ScriptedModel(answer), fail=fail) as server:
        chosen = [*API, f"routes.api.base_url={server.url}", 'compare.routes=["api","baseline"]']
        report = tunelm.compare(task, tmp_path / "run", overrides=chosen)
    assert report["baseline"] == "baseline"
    assert report["routes"][0]["endpoint"]["base_url"] == server.url
    assert report["routes"][0]["cost_reason"].startswith("no price of its endpoint")


def test_a_key_in_the_wrong_place_is_refused_before_a_run_begins(task: Path, tmp_path: Path):
    for wrong in ("api_key_env=sk-planted-4711", "base_url=https://me:sk-planted-4711@host/v1"):
        with pytest.raises(ConfigError) as refused:
            tunelm.compare(task, tmp_path / "run", overrides=[*API, f"routes.api.{wrong}"])
        assert "planted" not in str(refused.value)
    assert not (tmp_path / "run").exists()
