"""The report as Markdown, for a terminal, a pull request or a wiki."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunelm.cells import inline, table
from tunelm.report import words
from tunelm.report.conversations import TABLES, judge_notes
from tunelm.report.eight_rows import EIGHT, EIGHT_NOTE, table_rows
from tunelm.report.tradeoff import tradeoff_rows
from tunelm.report.words import (
    between,
    count,
    forecast_rows,
    meaning_rows,
    money_rows,
    p_cell,
    points,
    quantity,
    scale_of,
    signed,
    signed_between,
    unit_of,
    usage_rows,
)

Report = Mapping[str, Any]


def markdown_page(report: Report) -> str:
    """The whole page. Its first line is the verdict's first sentence."""
    verdict = report["verdict"]
    blocks = [
        f"**{inline(verdict[0])}**",
        *(inline(text) for text in verdict[1:]),
        f"# Which adaptation to ship: {inline(report['task']['name'])}",
        _about(report),
        *_warnings(report),
        "## Routes",
        table(words.table(report)),
        _unit_note(report),
        *_analysis(report),
        "# Tables",
        *_scores(report),
        "## What it cost",
        "### Quality against cost",
        table(tradeoff_rows(report)),
        "### Money and tokens",
        table(money_rows(report)),
        f"Break-even: unknown here; {report['break_even_reason']}.",
        table(usage_rows(report)),
        table(_quantities(report)),
        table(forecast_rows(report)),
        "## The prompt each route used, for the first test row",
        *_prompts(report),
        "## Settings of each route",
        table(_settings(report)),
        "## Data and split",
        _source(report),
        table(_split(report)),
        _leaks(report),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _analysis(report: Report) -> list[str]:
    """The comparison in words, and the table of eight rows."""
    blocks = ["## The comparison in words"]
    for section in report["analysis"]:
        blocks += [f"### {section['heading']}", *map(inline, section["paragraphs"])]
        blocks.append(table(section.get("rows", ())))
    if report["eight_rows"]:
        blocks += [f"## {EIGHT}", EIGHT_NOTE, table(table_rows(report["eight_rows"]))]
    return blocks


def _scores(report: Report) -> list[str]:
    return [
        "## Every metric, on the test rows",
        table(_metrics(report)),
        table(meaning_rows(report)),
        *judge_notes(report),
        *_special(report),
        *_conversations(report),
        *_forgetting(report),
        "## Pairs",
        table(_pairs(report)),
        *_examples(report),
    ]


def _about(report: Report) -> str:
    base = (report["base"] or {}).get("name", "unknown")
    return f"Base model {inline(base)}, made {report['created']} by tunelm {report['tunelm']}."


def _unit_note(report: Report) -> str:
    metric = report["task"]["primary_metric"]
    what = inline(report["metrics"][metric]["description"])
    return f"In {unit_of(report, metric)}: {what}. The interval is by independent group."


def _warnings(report: Report) -> list[str]:
    new = [text for text in report["warnings"] if text not in report["verdict"]]
    return ["## Warnings", "\n".join(f"- {inline(text)}" for text in new)] if new else []


def _special(report: Report) -> list[str]:
    blocks: list[str] = []
    for found in report["tables"]:
        blocks += [f"### {inline(found['heading'])}", inline(found["note"]), table(found["rows"])]
    return blocks


def _metrics(report: Report) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for route in report["routes"]:
        if route["scores"] is None:
            continue
        values = {
            name: points(score["value"], scale_of(report, name))
            for name, score in route["scores"].items()
        }
        rows.append({"route": route["name"], **values})
    return rows


def _pairs(report: Report) -> list[dict[str, str]]:
    return [
        {
            "pair": f"{pair['a']} - {pair['b']}",
            "metric": pair["metric"],
            "difference": signed(pair["diff"], scale := scale_of(report, pair["metric"])),
            "95% interval": signed_between(pair["ci_low"], pair["ci_high"], scale),
            "p": p_cell(pair["p"]),
            "p, Holm": p_cell(pair["p_holm"]) if pair["family"] else "-",
            "verdict": pair["verdict"],
            "finds from": points(pair["mde"], scale),
            "note": pair["note"] or "",
        }
        for pair in report["pairs"]
    ]


def _examples(report: Report) -> list[str]:
    shown = report["examples"]
    if shown is None:
        return []
    blocks = [
        f"## Wins and losses: {inline(shown['a'])} against {inline(shown['b'])}",
        _tally(shown),
    ]
    scale = scale_of(report, shown["metric"])
    for name, title in (("wins", "Win"), ("losses", "Loss")):
        for row in shown[name]:
            blocks += [
                f"### {title}: {inline(row['id'])}",
                _fenced(
                    f"question: {row['question']}\ngold: {row['gold'][0]}\n"
                    f"{shown['a']} ({points(row['a']['value'], scale)}): {row['a']['output']}\n"
                    f"{shown['b']} ({points(row['b']['value'], scale)}): {row['b']['output']}"
                ),
            ]
    return blocks


def _tally(shown: Mapping[str, Any]) -> str:
    counts = shown["counts"]
    return (
        f"By {shown['metric']} on the test rows: {counts['wins']} wins, {counts['losses']} "
        f"losses, {counts['ties']} ties. The widest, one of a group:"
    )


def _quantities(report: Report) -> list[dict[str, str]]:
    return [
        {
            "route": route["name"],
            "measured": name.replace("_", " "),
            "value": quantity(found["value"], found["unit"]),
            "how": found["method"],
        }
        for route in report["routes"]
        for name, found in route["measured"].items()
    ]


def _prompts(report: Report) -> list[str]:
    blocks: list[str] = []
    for route in report["routes"]:
        if route["prompt"] is None:
            continue
        text = "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in route["prompt"])
        blocks += [f"### {inline(route['name'])}", _fenced(text)]
    return blocks


def _forgetting(report: Report) -> list[str]:
    if not report["forgetting"]:
        return []
    rows = [
        {
            "route": row["route"],
            "bits per byte": points(row["value"], None),
            "95% interval": between(row["ci_low"], row["ci_high"], None),
            "texts": count(row["n"]),
            "change from baseline": signed(row["change"], None) if row["change"] else "-",
            "95% interval of the change": signed_between(
                row["change_low"], row["change_high"], None
            )
            if row["change"]
            else "-",
        }
        for row in report["forgetting"]
    ]
    return ["## Forgetting: the neutral texts", table(rows), "More bits: some was forgotten."]


def _conversations(report: Report) -> list[str]:
    if not report["conversations"]:
        return []
    blocks = ["## Conversations with simulated students", report["conversations"]["note"]]
    for heading, note, rows in TABLES:
        if found := rows(report):
            blocks += [f"### {heading}", note, table(found)]
    return blocks


def _settings(report: Report) -> list[dict[str, str]]:
    return [
        {"route": name, "settings": ", ".join(f"{k} {v}" for k, v in settings.items()) or "none"}
        for name, settings in report["settings"].items()
    ]


def _source(report: Report) -> str:
    source = report["source"]
    counts = ", ".join(f"{n:,} {status}" for status, n in source["ledger"].items())
    lines = f" ({source['lines']:,} lines of text)" if source["lines"] else ""
    return inline(f"From {source['file']}: {source['rows']:,} rows{lines}: {counts}.")


def _split(report: Report) -> list[dict[str, str]]:
    return [
        {
            "part": name,
            "rows": count(report["split"][name]["rows"]),
            "independent groups": count(report["split"][name]["groups"]),
            "hash": report["split"][name]["hash"],
        }
        for name in ("train", "dev", "test")
    ]


def _leaks(report: Report) -> str:
    split = report["split"]
    return (
        f"Split seed {split['seed']}; near-copies found across the split and moved to one side: "
        f"{len(split['leaks'])}."
    )


def _fenced(text: str) -> str:
    """Text as it stands, in a fence longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
