"""The part of test_remote.py that needs the wallet in the pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunelm
from tunelm.errors import ConfigError
from tunelm.models.budget import spent_before
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import Request

API = ["routes.api.kind=baseline", "routes.api.model=scripted"]


def test_a_run_pays_by_its_cap_and_says_what_it_cost(task: Path, tmp_path: Path):
    """Nothing without --spend; a cap that is too low ends the route; a higher one resumes it."""
    with ChatServer(ScriptedModel(lambda r: "The code is 4.")) as server:
        paid = [*API, f"routes.api.base_url={server.url}", 'compare.routes=["constant","api"]']
        paid += ["routes.api.usd_per_million_in=0", "routes.api.usd_per_million_out=1000"]

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
