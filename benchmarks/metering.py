"""Are all tokens of a prompt search counted? What is metered against the server's own count.

    python benchmarks/metering.py

Each of DSPy's optimizers searches a prompt for a small task, 4 threads at a time, for every form
of program. The model and the proposer stand behind HTTP servers on loopback, which answer one
request in seven with 429 first, count the tokens that they report, and know nothing of the
search. Then a program is evaluated by DSPy, and by itself. What the route metered must be the
servers' count to the token, for each of the two; it exits with 1 where it is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy

from tunelm.config import ModelConfig, TaskConfig
from tunelm.models.remote import open_remote
from tunelm.route_settings import PromptSettings
from tunelm.routes.base import FitContext
from tunelm.routes.programs.engine import ChatEngine, Metered
from tunelm.routes.programs.optimizers import Search, Session
from tunelm.routes.programs.start import start_steps
from tunelm.routes.programs.tracker import Tracker
from tunelm.routes.prompt import PromptRoute
from tunelm.scoring.metrics import get_metric
from tunelm.testing import ChatServer, Failure, ScriptedModel
from tunelm.types import ZERO_USAGE, Example, Message, Request, Usage, content_hash

THREADS = 4
STRATEGIES = ("random-search", "mipro", "gepa", "simba", "auto")
FORMS: dict[str, dict[str, Any]] = {
    "answer": {},
    "cot": {"program": "cot"},
    "steps": {"program": "steps", "steps": [{"name": "plan", "instructions": "Plan first."}]},
}
WANTED = "Answer in a full sentence, such as: Town 1 lies on river 1."


def rows(first: int, count: int) -> list[Example]:
    """Questions about numbered towns."""
    found: list[Example] = []
    for n in range(first, first + count):
        question, answer = f"On which river lies town {n}?", f"Town {n} lies on river {n}."
        messages = (Message("user", question),)
        found.append(Example(content_hash(question), messages, (answer,), f"town-{n}"))
    return found


def task(request: Request) -> str:
    """Knows every river, and says it as wanted when told or shown how, or by chance."""
    number = request.messages[-1].content.rstrip("?").split()[-1]
    shown = any(m.role == "assistant" for m in request.messages)
    by_chance = request.temperature > 0 and (request.seed or 0) % 3 == 0
    told = "full sentence" in request.messages[0].content
    said = f"Town {number} lies on river {number}." if told or shown or by_chance else number
    return f"Reasoning: simple.\nAnswer: {said}" if "Reasoning: ..." in str(request) else said


def helper(request: Request) -> str:
    """Proposes what is wanted, in the form of whoever asks."""
    asked = "".join(m.content for m in request.messages)
    if "module_advice" in asked:
        advice = json.dumps({"step_answer": WANTED})
        return f"[[ ## discussion ## ]]\nLate.\n\n[[ ## module_advice ## ]]\n{advice}"
    return WANTED


def busy(body: Any, seen: int) -> Failure | None:
    """One request in seven is told to come again."""
    wait = seen == 0 and int(content_hash(body), 16) % 7 == 0
    return Failure(429, headers={"Retry-After": "0"}) if wait else None


@dataclasses.dataclass
class Line:
    """One search: what was metered and what the servers counted, task and proposer."""

    name: str
    metered: tuple[Usage, Usage]
    counted: tuple[Usage, Usage]
    calls: int
    repeated: int
    seconds: float

    @property
    def same(self) -> bool:
        """Whether every token is accounted for."""
        return [_tokens(u) for u in self.metered] == [_tokens(u) for u in self.counted]


Work = Callable[[str, str], tuple[tuple[Usage, Usage], int]]


def measure(name: str, work: Work) -> Line:
    """Do the work with two servers: `work(task's address, helper's)` says what was metered."""
    models = ScriptedModel(task, "task"), ScriptedModel(helper, "helper")
    began = time.perf_counter()
    with ChatServer(models[0], fail=busy) as one, ChatServer(models[1], fail=busy) as two:
        metered, repeated = work(one.url, two.url)
        seconds = time.perf_counter() - began
    counted = models[0].usage, models[1].usage
    calls = models[0].calls + models[1].calls
    return Line(name, metered, counted, calls, repeated, seconds)


def search(strategy: str, form: str, size: int) -> Work:
    """A whole fit of the route."""

    def work(one: str, two: str) -> tuple[tuple[Usage, Usage], int]:
        sizes = {"trials": 4, "candidates": 4, "demos": 3, "threads": THREADS}
        proposer = {"model": "helper", "base_url": two}
        settings = PromptSettings.model_validate(
            {"strategy": strategy, "proposer": proposer, **FORMS[form], **sizes}
        )
        route = PromptRoute(settings, open_model=lambda config: open_remote("task", one))
        with tempfile.TemporaryDirectory() as folder:
            adapted = route.fit(context(Path(folder), size))
        usage = adapted.usage
        repeated = adapted.detail["calls"]["repeated"]
        return (usage["optimize"], usage.get("propose", ZERO_USAGE)), repeated

    return work


def evaluation(form: str, size: int, by_dspy: bool) -> Work:
    """One program on all rows."""

    def work(one: str, two: str) -> tuple[tuple[Usage, Usage], int]:
        ctx = context(Path(), size)
        metric = get_metric("token_f1")
        tracker = Tracker(ctx.dev, lambda output, row: metric.row_value(output, row) or 0.0)
        engine = ChatEngine(open_remote("task", one))
        steps = start_steps(PromptSettings.model_validate(FORMS[form]), ctx.task)
        if not by_dspy:
            tracker.evaluate(steps, Metered(engine), ctx.task.max_tokens, "start")
            return (engine.usage, ZERO_USAGE), engine.repeated
        session = Session(Search(steps, engine, None, tracker, ctx.task.max_tokens, THREADS))
        devset = session.shape.as_dspy(ctx.dev)
        with session.open():
            dspy.Evaluate(devset=devset, metric=session.metric, num_threads=THREADS)(
                session.program
            )
        return (engine.usage, ZERO_USAGE), engine.repeated

    return work


def context(work: Path, size: int) -> FitContext:
    """The task, with `size` train rows and as many of dev."""
    return FitContext(
        name="prompt",
        task=TaskConfig(name="towns", instructions="Answer the question."),
        model=ModelConfig(base="task"),
        metric="token_f1",
        train=rows(0, size),
        dev=rows(1000, size),
        work=work,
    )


def _tokens(usage: Usage) -> tuple[int | None, int | None]:
    return usage.prompt_tokens, usage.completion_tokens


def _row(line: Line) -> str:
    def said(usages: tuple[Usage, Usage]) -> str:
        return " + ".join(f"{u.prompt_tokens:,}/{u.completion_tokens:,}" for u in usages)

    return (
        f"| {line.name} | {line.calls:,} | {line.repeated:,} | {said(line.metered)} |"
        f" {said(line.counted)} | {'yes' if line.same else '**no**'} |"
        f" {line.seconds:.1f} |"
    )


def main() -> int:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=24, help="train rows, and dev rows")
    size = parser.parse_args().rows
    works = {f"{s}, {form}": search(s, form, size) for form in FORMS for s in STRATEGIES}
    for form in FORMS:
        works[f"evaluation, {form}"] = evaluation(form, size, by_dspy=False)
        works[f"evaluation by DSPy, {form}"] = evaluation(form, size, by_dspy=True)
    print(
        "| search | calls | from memory | metered: task + proposer (in/out) | the servers' count |"
        " same | s |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    lines: list[Line] = []
    for name, work in works.items():
        lines.append(measure(name, work))
        print(_row(lines[-1]), flush=True)
    different = [line.name for line in lines if not line.same]
    print(f"\n{len(lines) - len(different)} of {len(lines)} the same to the token.")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
