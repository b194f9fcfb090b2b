"""The task docstrings: its data, its metrics, and what of an answer is run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import tunelm
from tunelm.cli import cli
from tunelm.config import TASKS, load_config
from tunelm.data.read import parse_row, read_rows
from tunelm.data.split import split_rows
from tunelm.errors import DataError, PrerequisiteError
from tunelm.scoring.checks import with_facts
from tunelm.scoring.docstring_metrics import OF_DOCSTRINGS
from tunelm.scoring.metrics import corpus_value, get_metric, score
from tunelm.testing import ScriptedModel
from tunelm.types import Example, FinishReason, Message, Outcome, Prediction

ROOT = Path(__file__).parents[1]
CODE = """\
def share(part: int, whole: int) -> float:
    if whole <= 0:
        raise ValueError("nothing to share")
    return 100 * part / whole
"""
GOLD = """\
Express a part of something in percent.

Args:
    part: The part.
    whole: What it is a part of.

Returns:
    The percentage.

Raises:
    ValueError: If there is no whole.

Examples:
    >>> share(1, 4)
    25.0
    >>> share(3, 1)
    300.0
    >>> share(1, 0)
    Traceback (most recent call last):
        ...
    ValueError: nothing to share
"""
CALLS = ("share(2, 4)", "share(4, 0)", "share(0, 3)")


def row(code: str = CODE, gold: str = GOLD, calls: tuple[str, ...] = CALLS) -> Example:
    return Example("r", (Message("user", code),), (gold,), "g", metadata={"calls": list(calls)})


def values(output: str, example: Example | None = None) -> dict[str, float | None]:
    return {n: m.row_value(output, example or row()) for n, m in OF_DOCSTRINGS.items()}


def predicted(example: Example, output: str | None) -> Prediction:
    error = None if output is not None else "timeout"
    return Prediction(example.id, "test", output, FinishReason.STOP, error=error)


def found_facts(examples: list[Example], outputs: list[str | None]) -> list[Prediction]:
    predictions = [predicted(e, o) for e, o in zip(examples, outputs, strict=True)]
    return with_facts("docstring", ScriptedModel(lambda r: ""), examples, predictions)


# --- the data ---------------------------------------------------------------------------------


def test_the_rows_are_those_that_the_sources_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tasks"))
    monkeypatch.delitem(sys.modules, "docstrings", raising=False)
    importlib.import_module("docstrings").build(tmp_path)
    made = (tmp_path / "docstrings.jsonl").read_bytes()
    assert made == (TASKS / "docstrings.jsonl").read_bytes()
    assert len(made) < 400_000


def test_there_are_enough_functions_and_no_two_alike():
    config = load_config("docstrings")
    split = split_rows([r.example for r in read_rows(config.data.path)], config.data)
    assert split.leaks == ()
    assert len({e.group for e in split.test}) == len(split.test) >= 120
    result = CliRunner().invoke(cli, ["data", "check", str(config.data.path), "--strict"])
    assert result.exit_code == 0, result.output


def test_every_gold_docstring_passes_and_tells_at_least_half_of_the_mutants():
    rows = [r.example for r in read_rows(load_config("docstrings").data.path)]
    found = found_facts(rows, [r.answers[0] for r in rows])
    wrong = {r.group: p.facts["faults"] for r, p in zip(rows, found, strict=True)
             if p.facts["docstring_passes"] != 1 or p.facts["tells_mutants"] is None}  # fmt: skip
    assert wrong == {}
    shares = [p.facts["tells_mutants"] for p in found]
    assert sum(shares) / len(shares) > 0.75
    assert {p.facts["tells_purpose"] for p in found} <= {1.0, None}


# --- the metrics ------------------------------------------------------------------------------


def test_a_good_docstring_passes_in_every_form_of_answer():
    indented = "\n".join(f"    {line}" if line else "" for line in GOLD.split("\n"))
    first, *rest = CODE.split("\n")
    whole = "\n".join([first, f'    """{indented.strip()}\n    """', *rest])
    for output in (
        GOLD,
        f'"""{GOLD}"""',
        f"Here it is:\n\n```\n{GOLD}```\nAnything else?",
        f"```python\n{whole}```",
        whole,
    ):
        assert values(output)["docstring_passes"] == 1, output


def test_a_fluent_lie_has_style_and_is_caught_by_its_examples():
    lie = GOLD.replace("25.0", "5.0")
    found = values(lie)
    assert found["doc_style"] == found["doc_agrees"] == found["code_unchanged"] == 1
    assert found["examples_pass"] == found["tells_mutants"] == found["docstring_passes"] == 0


def test_examples_that_would_fit_other_code_as_well_do_not_pass():
    vague = GOLD.split("Examples:")[0] + "Examples:\n    >>> share(0, 5)\n    0.0\n"
    found = values(vague)
    assert found["examples_pass"] == 1
    assert 0 < found["tells_mutants"] < 0.5
    assert found["docstring_passes"] == 0


@pytest.mark.parametrize(
    ("old", "new", "agreeing"),
    [
        ("    whole: What it is a part of.\n", "", 3 / 4),
        ("    part: The part.\n", "    part: The part.\n    digits: How exact.\n", 5 / 6),
        ("Returns:\n    The percentage.\n\n", "", 4 / 5),
        ("Returns:", "Yields:", 4 / 5),
        ("    ValueError: If", "    KeyError: If", 4 / 6),
        (
            "    part: The part.\n    whole: What it is a part of.\n",
            "    whole: What it is a part of.\n    part: The part.\n",
            4 / 5,
        ),
        ("    part: The part.\n", "    part (int): The part:\n        a number: it.\n", 1.0),
        ("    ValueError: If", "    builtins.ValueError: If", 1.0),
    ],
)
def test_arguments_result_and_exceptions_must_agree_with_the_code(
    old: str, new: str, agreeing: float
):
    assert old in GOLD
    assert values(GOLD.replace(old, new))["doc_agrees"] == pytest.approx(agreeing)


def test_style_is_what_ruff_says_of_it():
    assert values("Express a part in percent")["doc_style"] == 0
    numpy = "Express a part.\n\nParameters\n----------\npart : int\n    The part.\n"
    assert values(numpy)["doc_style"] == 0
    assert values("")["doc_style"] == 0


def test_changed_code_is_seen_whatever_the_docstring():
    whole = f'{CODE.splitlines()[0]}\n    """{GOLD}    """\n' + "\n".join(CODE.splitlines()[1:])
    assert values(whole)["code_unchanged"] == 1
    for changed in (
        whole.replace("100 *", "10 *"),
        whole.replace("def share", "def part_of"),
        whole.replace("    return", "    return return"),
    ):
        found = values(changed)
        assert found["code_unchanged"] == found["docstring_passes"] == 0


def test_purpose_is_what_the_code_does_not_say():
    told = values(GOLD.split("\n")[0])["tells_purpose"]
    assert 0 < told < 1
    assert values("Share the part of the whole, as float.")["tells_purpose"] == 0


def test_where_there_is_nothing_to_check_nothing_is_known():
    code = "def stop() -> None:\n    pass\n"
    gold = "Stop.\n\nExamples:\n    >>> stop()\n"
    found = values(gold, row(code, gold, ()))
    assert found["doc_agrees"] is None
    assert found["tells_mutants"] is None
    assert found["tells_purpose"] is None
    assert found["docstring_passes"] == 1
    metric = get_metric("doc_agrees")
    assert corpus_value(metric, [row(code, gold, ())], [predicted(row(), gold)]) is None


def test_facts_found_once_are_what_the_metrics_say_one_by_one():
    outputs = [GOLD, GOLD.replace("25.0", "26.0"), "Share.", "", None]
    examples = [
        Example(f"r{i}", (Message("user", CODE),), (GOLD,), f"g{i}", metadata={"calls": CALLS})
        for i in range(len(outputs))
    ]
    found = found_facts(examples, outputs)
    for example, prediction in zip(examples[:-1], found[:-1], strict=True):
        alone = values(prediction.output, example)
        assert alone == {name: prediction.facts[name] for name in alone}
        json.dumps(prediction.to_json())
    assert any("26.0" in fault for fault in found[1].facts["faults"])
    (*_, failed) = score(["docstring_passes"], examples, found)
    assert failed.outcome is Outcome.FAILED


def test_the_row_of_the_docs_is_one_that_passes():
    text = (ROOT / "docs" / "docstrings.md").read_text(encoding="utf-8")
    example = parse_row(text.split("```json\n")[1].split("```")[0].strip())
    found = values(example.answers[0], example)
    assert found["docstring_passes"] == 1
    assert found["tells_mutants"] > 0.5


# --- what is run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "example",
    [
        "__import__('os').system('touch {file}')",
        "open('{file}', 'w')",
        "share(len(open('{file}', 'w').name), 4)",
        "share.__globals__",
        "(lambda: share(1, 4))()",
        "[share(1, 4) for _ in range(3)]",
        "share(*(1, 4))",
        "eval('share(1, 4)')",
        "share(1, 4).__class__",
        "x = share(1, 4)",
        "import os",
        "1 + 1",
    ],
)
def test_examples_that_are_no_call_on_literals_are_not_run_and_fail(example: str, tmp_path: Path):
    file = tmp_path / "made"
    said = example.replace("{file}", str(file))
    (found,) = found_facts([row()], [GOLD + f"    >>> {said}\n    25.0\n"])
    assert found.facts["examples_pass"] == 0
    assert "is not run" in " ".join(found.facts["faults"])
    assert not file.exists()


def test_what_an_answer_makes_of_the_function_is_never_run(tmp_path: Path):
    file = tmp_path / "made"
    evil = CODE.replace("    return", f"    open({str(file)!r}, 'w')\n    return")
    first, *rest = evil.split("\n")
    (found,) = found_facts([row()], ["\n".join([first, f'    """{GOLD}    """', *rest])])
    assert found.facts["code_unchanged"] == 0
    assert found.facts["examples_pass"] == 1, "the row's own function is what its examples call"
    assert not file.exists()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("    import os\n    return os.getcwd()", "imports 'os'"),
        ("    return part.__class__", "attribute '__class__'"),
        ("    return __import__('os')", "'__import__'"),
        ("    return (y for y in [1]).gi_frame", "attribute 'gi_frame'"),
        ("    class A: pass\n    return 1", "ClassDef"),
    ],
)
def test_functions_that_reach_outside_are_refused_with_a_reason(body: str, why: str):
    code = f"def share(part, whole):\n{body}\n"
    with pytest.raises(DataError, match=r"row r: .*share is not run.*" + why):
        values(GOLD, row(code))


@pytest.mark.parametrize(
    "body",
    [
        "    return open('made', 'w')",
        "    return eval('1')",
        "    return re.enum.sys.modules",
        "    return globals()",
    ],
)
def test_what_a_function_may_not_use_is_not_there(body: str, tmp_path: Path):
    code = f"import re\n\ndef share(part, whole):\n{body}\n"
    said = GOLD.split("Examples:")[0] + "Examples:\n    >>> share(1, 4)\n    25.0\n"
    (found,) = found_facts([row(code)], [said])
    (fault,) = [f for f in found.facts["faults"] if "gives" in f]
    assert "NameError" in fault or "AttributeError" in fault


@pytest.mark.parametrize(
    "body",
    [
        "    while True:\n        part += 1",
        "    return 10 ** 10 ** 10 ** whole",
        "    return len([0] * 10 ** 10)",
        "    return share(part, whole)",
    ],
)
def test_a_function_without_end_ends(body: str):
    code = f"def share(part, whole):\n{body}\n"
    found = values("Share.\n\nExamples:\n    >>> share(1, 4)\n    25.0\n", row(code))
    assert found["examples_pass"] == 0


def test_a_mutant_without_end_counts_as_another_function():
    code = "def steps(n: int) -> int:\n    while n > 7:\n        n -= 3\n    return n\n"
    gold = "Go down.\n\nArgs:\n    n: From.\n\nReturns:\n    Rest.\n\nExamples:\n"
    gold += "    >>> steps(10)\n    7\n"
    found = values(gold, row(code, gold, ("steps(11)",)))
    assert found["examples_pass"] == 1
    assert found["tells_mutants"] > 0.8, "n += 3 never ends, and is told"


def test_rows_that_cannot_be_checked_are_named_with_what_is_missing():
    with pytest.raises(DataError, match="row r: no Python function was found in 'Hello'"):
        values(GOLD, row("Hello"))
    with pytest.raises(DataError, match=r"row r: calls: 'print\(1\)' is no call of share"):
        values(GOLD, row(calls=("print(1)",)))
    example = Example("r", (Message("user", CODE),), (GOLD,), "g", metadata={"calls": "share(1)"})
    with pytest.raises(DataError, match='"calls" is \'share'):
        values(GOLD, example)


def test_without_ruff_the_style_is_not_guessed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tunelm.scoring.docstring_style.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'tunelm\[code\]'"):
        found_facts([row()], [GOLD])


def test_that_ruff_is_missing_is_said_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("tunelm.scoring.docstring_style.find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'tunelm\[code\]'"):
        tunelm.compare("docstrings", tmp_path / "run")
    assert not (tmp_path / "run").exists()
