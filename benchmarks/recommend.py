"""Score forecasts against what was measured, and what following the recommendation loses.

    python benchmarks/recommend.py [--out DIR] [--data FOLDER] [--tasks NAME ...]

For each task, on the bundled model: a learning curve on slices of the train rows (as `tunelm plan
--learn` draws it), then the comparison itself. Counts how often the 80% interval holds the test
score, and the regret of three rules: take the route with the highest forecast, always the prompt,
always LoRA. Regret is the best test score among the routes less that of the one taken, in points of
the task's own metric. With FOLDER, a folder of public data sets, tasks are made of them too. Both
steps go on where they were stopped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from tunelm.config import Config, load_config, parse_config
from tunelm.data.read import read_rows
from tunelm.data.split import Split, split_rows
from tunelm.pipeline import compare
from tunelm.planning.learn import learn, loss_of
from tunelm.report.read import read_run
from tunelm.scoring.metrics import get_metric, metric_to_fit

BUNDLED = ("edu-qa", "edu-biology", "support-email", "faq-decline", "docstrings", "headlines")
QUICK: dict[str, dict[str, Any]] = {
    "prompt": {"strategy": "random-search", "candidates": 3, "demos": 4},
    "local": {"max_steps": 150},
}
MOST_ROWS = 500


def main() -> None:
    """Run the tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/recommend"))
    parser.add_argument("--data", type=Path, help="folder with squad2/, clinc150/ and medquad/")
    parser.add_argument("--tasks", nargs="*", help="only these")
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name, config in tasks(arguments.out, arguments.data):
        if arguments.tasks and name not in arguments.tasks:
            continue
        kept = arguments.out / name / "result.json"
        if not kept.is_file():
            result = one_task(name, config, arguments.out / name)
            kept.write_text(json.dumps(result, indent=1), encoding="utf-8")
        results.append(json.loads(kept.read_text(encoding="utf-8")))
        print(said(results[-1]), flush=True)
    summary(results)


def tasks(out: Path, data: Path | None) -> Iterator[tuple[str, Config]]:
    """(name, config) of each."""
    for name in BUNDLED:
        yield name, quick(load_config(name))
    if data is not None:
        for name, raw in public(out, data):
            yield name, quick(parse_config(raw, out))


def quick(config: Config) -> Config:
    """The task with the routes that are recommended among, at sizes that take minutes."""
    raw = json.loads(config.model_dump_json())
    names = ["baseline", "prompt", "local"]
    if raw["task"]["kind"] == "classification":
        names.append("classifier")
    if raw["task"]["checks"] == "faq":
        names.append("nearest")
    own = {n: raw["routes"].get(n, {"kind": n}) for n in names}
    raw["routes"] = {n: {**own[n], **QUICK.get(n, {})} for n in names}
    raw["compare"]["routes"] = names
    return parse_config(raw, Path())


def one_task(name: str, config: Config, folder: Path) -> dict[str, Any]:
    """Forecast, then measure."""
    folder.mkdir(parents=True, exist_ok=True)
    forecasts = learn(config, split_of(config), folder / "learn")
    run = folder / "run"
    report = compare(config, run, resume=run.exists())
    metric = get_metric(metric_to_fit(config.compare.primary_metric))
    measured = {
        route["name"]: route["scores"][metric.name]["value"]
        for route in report["routes"]
        if route["scores"] is not None
    }
    return {
        "task": name,
        "metric": metric.name,
        "test_rows": len(read_run(run).parts["test"]),
        "routes": {
            route: {
                "forecast": found.forecast.value,
                "low": found.forecast.low,
                "high": found.forecast.high,
                "method": found.forecast.method,
                "measured": measured.get(route),
            }
            for route, found in forecasts.items()
        },
        "losses": {
            route: loss_of(metric, value) for route, value in measured.items() if value is not None
        },
        "forecast_losses": {
            route: loss_of(metric, found.forecast.value)
            for route, found in forecasts.items()
            if found.forecast.value is not None
        },
    }


def split_of(config: Config) -> Split:
    """The split that the comparison makes of the same rows."""
    return split_rows([row.example for row in read_rows(config.data.path)], config.data)


def public(out: Path, data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tasks of public data sets: question answering on short passages, intents, medicine."""
    makers = {"squad2": squad, "clinc150": clinc, "medquad": medquad}
    for name, make in makers.items():
        file = data / name / f"{name}.jsonl"
        if not file.is_file():
            print(f"{name}: not there, left out")
            continue
        with file.open(encoding="utf-8") as lines:
            rows, task = make([json.loads(line) for line in lines])
        path = (out / f"{name}.jsonl").resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[:MOST_ROWS])
        path.write_text(text, encoding="utf-8")
        yield (
            name,
            {
                "task": {"name": name, "max_tokens": 48, **task},
                "data": {"path": str(path), "dev": 0.15, "test": 0.35},
            },
        )


def squad(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Answerable questions on passages of at most 110 words."""
    found = [
        {
            "question": f"{row['context']}\n\n{row['question']}",
            "answer": row["answers"][0],
            "group": row["context"][:80],
        }
        for row in rows
        if not row["is_impossible"] and len(row["context"].split()) <= 110
    ]
    return found, {"kind": "qa", "instructions": "Answer from the passage, in a few words."}


def clinc(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Twenty intents."""
    intents = sorted({row["intent"] for row in rows} - {"oos"})[::8][:20]
    found = [{"question": r["text"], "answer": r["intent"]} for r in rows if r["intent"] in intents]
    found = found[:: max(1, len(found) // MOST_ROWS)]
    return found, {"kind": "classification", "instructions": "Which intent does the user have?"}


def medquad(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Questions with the first sentence of their answer, where it is short."""
    found: list[dict[str, Any]] = []
    for row in rows:
        first = (row["answer"] or "").split(". ")[0].strip()
        if 5 <= len(first.split()) <= 30:
            found.append({"question": row["question"], "answer": first, "group": row["focus"]})
    found = list({row["question"]: row for row in found}.values())
    found = found[:: max(1, len(found) // MOST_ROWS)]
    return found, {"kind": "qa", "instructions": "Answer the medical question in one sentence."}


def regrets(result: dict[str, Any]) -> dict[str, float]:
    """Points lost by each rule, against the best route on test."""
    losses, forecast = result["losses"], result["forecast_losses"]
    best = min(losses.values())
    taken = {"recommended": min(forecast, key=lambda n: forecast[n])} if forecast else {}
    taken |= {f"always {n}": n for n in ("prompt", "local") if n in losses}
    return {rule: 100 * (losses[route] - best) for rule, route in taken.items()}


def inside(route: dict[str, Any]) -> bool | None:
    """Whether the interval held what was measured; None where either is unknown."""
    if route["low"] is None or route["measured"] is None:
        return None
    return route["low"] <= route["measured"] <= route["high"]


def said(result: dict[str, Any]) -> str:
    """A task's lines."""
    lines = [f"{result['task']} ({result['metric']}, {result['test_rows']} test rows)"]
    for name, route in result["routes"].items():
        if route["forecast"] is None:
            lines.append(f"  {name}: {route['method']}")
            continue
        lines.append(
            f"  {name}: forecast {route['forecast']:.3f} [{route['low']:.3f}, {route['high']:.3f}]"
            f", measured {route['measured']:.3f}, {'inside' if inside(route) else 'OUTSIDE'}"
        )
    lost = ", ".join(f"{rule} {points:.1f}" for rule, points in regrets(result).items())
    return "\n".join([*lines, f"  regret in points: {lost}"])


def summary(results: list[dict[str, Any]]) -> None:
    """Coverage and mean regret."""
    held = [
        found for r in results for one in r["routes"].values() if (found := inside(one)) is not None
    ]
    print(f"\n80% intervals that hold the measured score: {sum(held)} of {len(held)}")
    rules = dict.fromkeys(rule for r in results for rule in regrets(r))
    for rule in rules:
        points = [regrets(r)[rule] for r in results if rule in regrets(r)]
        print(f"mean regret, {rule}: {fmean(points):.2f} points over {len(points)} tasks")


if __name__ == "__main__":
    main()
