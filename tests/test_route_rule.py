"""The route rule: answers without a model, scored, reported and served like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tunelm.cli import cli
from tunelm.config import TASKS, TaskConfig, load_config
from tunelm.errors import ConfigError, ModelError
from tunelm.route_settings import RuleSettings
from tunelm.routes import make_route
from tunelm.routes.base import FitContext
from tunelm.routes.docstring_rule import reply
from tunelm.scoring.docstring_metrics import OF_DOCSTRINGS
from tunelm.types import Example, FinishReason, Message, Request


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """(run, report) of a constant and the rule on every eighth row of docstrings."""
    folder = tmp_path_factory.mktemp("rule")
    lines = (TASKS / "docstrings.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "rows.jsonl").write_text("\n".join(lines[::8]), encoding="utf-8")
    (folder / "task.toml").write_text(
        """
[task]
name = "few-docstrings"
kind = "generation"
checks = "docstring"
[data]
path = "rows.jsonl"
dev = 0.2
test = 0.4
min_test_groups = 10
[compare]
routes = ["constant", "rule"]
primary_metric = "docstring_passes"
[routes.rule]
rule = "docstring"
""",
        encoding="utf-8",
    )
    run("compare", str(folder / "task.toml"), "--out", str(folder / "run"))
    return folder / "run", json.loads((folder / "run/report.json").read_text(encoding="utf-8"))


def model(rule: str, tmp_path: Path):
    route = make_route(RuleSettings.model_validate({"rule": rule}))
    ctx = FitContext("rule", TaskConfig(name="x"), load_config("edu-qa").model, "token_f1", (), (),
                     tmp_path)  # fmt: skip
    return route.open(route.fit(ctx))


def ask(text: str) -> Request:
    return Request((Message("user", text),))


def test_the_rule_is_a_route_of_the_report_and_beats_a_constant_on_form(finished):
    _, report = finished
    routes = {r["name"]: r for r in report["routes"]}
    assert {r["status"] for r in routes.values()} == {"done"}
    rule, constant = routes["rule"]["scores"], routes["constant"]["scores"]
    for name in ("doc_style", "doc_agrees", "code_unchanged"):
        assert rule[name]["value"] > 0.95, name
    assert rule["docstring_passes"]["value"] > 0.5
    assert constant["docstring_passes"]["value"] == 0
    assert rule["tells_purpose"]["value"] < 0.15, "it knows no word that the code does not hold"
    assert report["winner"]["name"] == "rule"
    assert routes["rule"]["usage"]["evaluate_test"]["completion_tokens"] == 0


def test_what_was_found_out_stands_beside_each_answer(finished):
    run_folder, _ = finished
    path = run_folder / "routes/rule/seed-0/predictions.jsonl"
    facts = [json.loads(line)["facts"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(OF_DOCSTRINGS.keys() <= f.keys() for f in facts)
    assert all(f["faults"] for f in facts if f["docstring_passes"] == 0)


def test_a_finished_rule_answers_on_the_command_line(finished, tmp_path):
    run_folder, _ = finished
    code = "def area(width: int, height: int) -> int:\n    return width * height\n"
    said = run("generate", f"{run_folder}/rule", code)
    assert "width: The width, as int." in said
    assert ">>> area(3, 10)\n    30" in said


def test_it_streams_what_it_completes_and_scores_nothing(tmp_path):
    its = model("docstring", tmp_path)
    request = ask("def twice(n: int) -> int:\n    return 2 * n\n")
    (done,) = its.complete([request])
    assert "".join(d.text for d in its.stream(request)) == done.text
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (0, 0)
    with pytest.raises(ModelError, match="no log-probabilities"):
        its.score([])


def test_a_message_without_a_function_fails_alone_and_says_what_is_expected(tmp_path):
    its = model("docstring", tmp_path)
    good = ask("Please:\n```python\ndef half(n: float) -> float:\n    return n / 2\n```")
    failed, done = its.complete([ask("Hello!"), good])
    assert failed.finish_reason is FinishReason.ERROR
    assert "no Python function was found in 'Hello!'" in failed.error
    assert done.text.startswith("Compute the half.")
    with pytest.raises(ModelError, match="no Python function"):
        list(its.stream(ask("Hello!")))


def test_examples_show_results_and_refusals_and_generators():
    said = reply(
        "def low(values: list[int], n) -> int:\n"
        "    if not values:\n        raise ValueError('no values')\n"
        "    return min(values) + n\n"
    )
    assert ">>> low([3, 10, 7], 10)\n    13" in said
    assert "ValueError: If not values." in said
    assert "Traceback (most recent call last):\n        ...\n    ValueError: no values" in said
    yields = reply("def up(n: int):\n    for i in range(n):\n        yield i\n")
    assert "Yields:" in yields
    assert ">>> list(up(3))\n    [0, 1, 2]" in yields


def test_what_may_not_be_run_gets_no_example(tmp_path):
    file = tmp_path / "made"
    for body in (f"import os\n    os.mkdir({str(file)!r})", f"open({str(file)!r}, 'w')"):
        said = reply(f"def make(n: int) -> int:\n    {body}\n    return n\n")
        assert "Examples:" not in said
        assert "n: The n, as int." in said
    assert not file.exists()


def test_the_rule_for_emails_answers_a_message(tmp_path):
    message = "Hello, my parcel has not come yet and I am worried. When will it be here?\n\nKim"
    (done,) = model("email", tmp_path).complete([ask(message)])
    assert done.error is None
    assert len(done.text.split()) > 10


def test_an_unknown_rule_is_refused_by_name(tmp_path):
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "t.toml").write_text(
        '[task]\nname = "x"\n[data]\npath = "rows.jsonl"\n[routes.rule]\nrule = "poem"\n',
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match=r"routes\.rule\.rule = 'poem'"):
        load_config(tmp_path / "t.toml")


def test_nothing_of_the_rows_is_needed(tmp_path):
    route = make_route(RuleSettings(rule="docstring"))
    example = Example("e", (Message("user", "x"),), ("y",), "g")
    ctx = FitContext("rule", TaskConfig(name="x"), load_config("edu-qa").model, "token_f1",
                     (example,), (example,), tmp_path)  # fmt: skip
    plan = route.plan(ctx)
    assert plan.forecasts["seconds_fit"].value == 0
    again = route.fit(ctx)
    assert route.fit(ctx) == again
    assert again.usage == {}
