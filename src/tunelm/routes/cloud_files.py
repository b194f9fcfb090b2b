"""The files of a hosted fine-tuning job from prepared rows, with what a provider would say of them.

For those who want to send a job by hand; the route `cloud` does all of this by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.data.check import CheckOptions, check
from tunelm.data.read import read_rows
from tunelm.prices import base_of, estimate_training, training_price, usual_epochs
from tunelm.providers import Provider, find
from tunelm.routes.cloud_rows import count_tokens, write_rows
from tunelm.rundir import write_json, write_text
from tunelm.training.job import training_row
from tunelm.types import Estimate

FOLDER = "openai"
TRAINING, VALIDATION, REPORT, PAGE = (
    "training.jsonl",
    "validation.jsonl",
    "report.json",
    "report.md",
)
PROVIDER = "openai"

Report = Mapping[str, Any]


def write_job_files(folder: Path, system: str, today: date) -> dict[str, Any]:
    """Write `openai/` into a folder of prepared parts: training and validation file, and reports.

    Args:
        folder: holds `train.jsonl` and perhaps `dev.jsonl`.
        system: the instructions before every conversation; empty: none.
        today: by which prices are stale and models shut down.

    Returns:
        What REPORT holds. A fault that the provider would refuse the file for is in it, and no
        error here: the page says how to mend it.

    Raises:
        DataError: a row has no answer to learn from.
    """
    target = folder / FOLDER
    target.mkdir()
    provider = find(PROVIDER)
    chats = _chats(folder / "train.jsonl", system)
    write_rows(target / TRAINING, chats, marked=False)
    options = CheckOptions(openai=True)
    if (folder / "dev.jsonl").is_file():
        write_rows(target / VALIDATION, _chats(folder / "dev.jsonl", system), marked=False)
        options = CheckOptions(openai=True, validation=target / VALIDATION)
    checked = check(target / TRAINING, options)
    faults = [
        {
            "code": one.code,
            "level": one.level,
            "where": f"{Path(one.file).name}:{one.line}" if one.line else Path(one.file).name,
            "found": one.found,
            "mend": one.mend,
        }
        for one in checked.faults
    ]
    report: dict[str, Any] = {
        "schema_version": 1,
        "made": today.isoformat(),
        "provider": provider.title,
        "system": system or None,
        "rows": {TRAINING: checked.rows, VALIDATION: checked.validation_rows or 0},
        "fewest_rows": provider.min_examples,
        "errors": checked.errors,
        "warnings": checked.warnings,
        "faults": faults,
        "example": chats[0],
        "jobs_end": None if provider.jobs_end is None else provider.jobs_end.isoformat(),
        "closed": provider.jobs_end is not None and today >= provider.jobs_end,
        "notes": list(provider.notes),
        "models": [_model(provider, name, chats, today) for name in _tunable(provider)],
    }
    write_json(target / REPORT, report)
    write_text(target / PAGE, _page(report))
    return report


def _chats(path: Path, system: str) -> list[list[dict[str, Any]]]:
    """Each row as messages; of a dialogue every answer is learned."""
    return [
        [
            {"role": message.role, "content": message.content}
            for message in training_row(row.example, system).messages
        ]
        for row in read_rows(path)
    ]


def _tunable(provider: Provider) -> list[str]:
    return [t.name for t in provider.models if "supervised" in t.methods]


def _model(
    provider: Provider, name: str, chats: Sequence[Sequence[Mapping[str, Any]]], today: date
) -> dict[str, Any]:
    """What a job with one model takes and costs, and until when its fine-tunes answer."""
    counts, reason, margin = count_tokens(chats, name)
    price = training_price(provider.name, base_of(name))
    cost = estimate_training(counts, None, price, today, margin=margin, reason=reason)
    ends = provider.ends(name)
    return {
        "model": name,
        "tokens": None if counts is None else sum(counts),
        "epochs": usual_epochs(len(chats)),
        "usd": _fields(cost),
        "ends": None if ends is None else ends[0].isoformat(),
        "ended": ends is not None and ends[0] <= today,
    }


def _fields(cost: Estimate) -> dict[str, Any]:
    return {"value": cost.value, "low": cost.low, "high": cost.high, "method": cost.method}


def _page(report: Report) -> str:
    """REPORT for people."""
    from json import dumps

    rows = report["rows"]
    faults = report["faults"]
    head = [
        "# Files for a fine-tuning job",
        (
            f"`{TRAINING}`: {rows[TRAINING]} rows. `{VALIDATION}`: {rows[VALIDATION]} rows. In the "
            f"form that {report['provider']} and whoever takes the same protocol ask for; made "
            f"{report['made']}. Nothing was sent."
        ),
        "The test rows are in none of these files: score every model on them, the fine-tune too.",
        "## Validation",
        _verdict(report),
        "\n".join(
            f"- {one['level']} `{one['code']}`, {one['where']}: {one['found'].rstrip('.')}. "
            f"{one['mend']}"
            for one in faults
        ),
        "A row as it will be learned:",
        "```json\n"
        + dumps({"messages": report["example"]}, ensure_ascii=False, indent=1)
        + "\n```",
        "## What training would cost",
        _table(report),
        _notices(report),
        "## What comes out",
        (
            "That is not known before it is tried, and nothing here pretends to know. An honest "
            "forecast trains a small model on an eighth, a quarter and a half of the rows and says "
            "what all of them would bring, with an 80% interval: `tunelm plan --learn`. It is a "
            "forecast for the model it was tried with."
        ),
    ]
    return "\n\n".join(block for block in head if block) + "\n"


def _verdict(report: Report) -> str:
    least = report["fewest_rows"]
    if report["errors"]:
        return f"{_count(report['errors'], 'error')}: the file would be refused."
    enough = "" if least is None else f" A job takes {least} rows or more."
    warnings = _count(report["warnings"], "warning")
    return f"No error: the file would be taken. {warnings}.{enough}"


def _table(report: Report) -> str:
    lines = [
        "| model | tokens an epoch | epochs | USD | fine-tunes answer until |",
        "|---|---|---|---|---|",
    ]
    open_still = [one for one in report["models"] if not one["ended"]]
    for one in open_still:
        tokens = "unknown" if one["tokens"] is None else f"{one['tokens']:,}"
        usd, ends = _usd(one["usd"]), one["ends"] or "unknown"
        lines.append(f"| {one['model']} | {tokens} | {one['epochs']} | {usd} | {ends} |")
    methods = [f"- {one['model']}: {one['usd']['method']}" for one in open_still]
    over = ", ".join(one["model"] for one in report["models"] if one["ended"])
    methods += [f"- no longer there: {over}"] * bool(over)
    return "\n".join([*(lines if open_still else []), "", *methods])


def _usd(cost: Mapping[str, Any]) -> str:
    if cost["value"] is None:
        return "unknown"
    return f"{cost['value']:.2f} ({cost['low']:.2f} to {cost['high']:.2f})"


def _notices(report: Report) -> str:
    lines = [f"- {note}" for note in report["notes"]]
    if report["jobs_end"]:
        said = "takes" if report["closed"] else "will take"
        lines.append(f"- {report['provider']} {said} no new job from {report['jobs_end']} on")
    lines.append(
        "- other providers of the same protocol: `docs/providers.md`; `tunelm serve` is one"
    )
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
