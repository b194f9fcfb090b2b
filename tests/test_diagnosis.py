"""Two planted tasks through the whole program: the form is missing, or the knowledge is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tunelm
from tunelm.testing import ChatServer, ScriptedModel
from tunelm.types import Request

from .conftest import make_task

BOXES = 60


def code(box: int) -> int:
    return box * 7 % 10


def box_of(text: str) -> int:
    return int(re.findall(r"the code of box (\d+)", text)[-1])


def formless(request: Request) -> str:
    """Knows every code, and says it in the wanted form only where it was shown the form."""
    answer = code(box_of(request.messages[-1].content))
    shown = any(m.role == "assistant" for m in request.messages)
    return f"The code is {answer}." if shown else f"Well, one might say it could be {answer} then"


def ignorant(request: Request) -> str:
    """Has the form, and knows no code but those that stand in the question's passages."""
    *told, asked = re.split(r"Question: ", request.messages[-1].content)
    box = box_of(asked)
    found = re.findall(rf"Box {box} opens with (\d+)\.", " ".join(told))
    return f"The code is {found[0] if found else 11}."


def compared(folder: Path, model: Path, answer: Callable[[Request], str]) -> dict:
    """The report of baseline, prompt and rag on the boxes, answered by `answer`."""
    task = make_task(folder, model)
    told = "\n".join(f"Box {box} opens with {code(box)}." for box in range(BOXES))
    (folder / "boxes.md").write_text(told, encoding="utf-8")
    with ChatServer(ScriptedModel(answer)) as server:
        chosen = [
            'compare.routes=["baseline","prompt","rag"]',
            'routes.prompt={strategy="random-search", demos=2, candidates=1}',
            'data.corpus="boxes.md"',
            "model.base=scripted",
            f"model.base_url={server.url}",
        ]
        return tunelm.compare(task, folder / "run", overrides=chosen)


def low(report: dict, name: str) -> float:
    """The lower end of a route's difference to the baseline."""
    for pair in report["pairs"]:
        if pair["metric"] == "token_f1" and {pair["a"], pair["b"]} == {name, "baseline"}:
            return pair["ci_low"] if pair["a"] == name else -pair["ci_high"]
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("answer", "helps", "not_helping", "said"),
    [
        (formless, "prompt", "rag", "lacks here is the form of the answers"),
        (ignorant, "rag", "prompt", "lacks here is knowledge"),
    ],
)
def test_what_is_missing_decides_what_helps(
    tmp_path: Path, tiny_model: Path, answer, helps: str, not_helping: str, said: str
):
    report = compared(tmp_path, tiny_model, answer)
    assert {r["status"] for r in report["routes"]} == {"done"}
    assert low(report, helps) > 0.2
    assert low(report, not_helping) <= 0.01
    assert sum(said in text for text in report["verdict"]) == 1
    assert said in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
