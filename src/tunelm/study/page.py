"""What a study found, as a page in Markdown and in one sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunelm.route_settings import LocalSettings
from tunelm.study.space import RIVAL

Found = Mapping[str, Any]
"""What stands in study.json."""

APART = (
    "All settings were drawn at random before the first trial, so that each trial ran by itself: "
    "none learned from another, and none was pruned. "
)


def sentence(found: Found) -> str:
    """The result in one sentence."""
    rows, chosen = found["methods"], found["chosen"]
    if chosen is None:
        return "No method came through with any of its further seeds."
    beside = {row["method"]: row["beside"] for row in rows if row["beside"]}
    on = _on(found)
    if chosen != RIVAL and beside.get(chosen):
        pair = beside[chosen]
        return (
            f"{chosen} is better than LoRA with its learning rate tuned: {found['metric']} "
            f"{pair['diff']:+.3f} (95% interval {_between(pair)}, p {_p(pair['p_holm'])} after "
            f"Holm) {on}."
        )
    if chosen != RIVAL:
        return f"LoRA did not come through, so nothing is compared with it; {chosen} did."
    worse = [name for name, pair in beside.items() if pair["verdict"] == "worse"]
    unclear = [name for name in beside if name not in worse]
    parts = [f"{_names(worse)} worse than"] if worse else []
    parts += [f"{_names(unclear)} not distinguishable from"] if unclear else []
    return (
        f"Keep LoRA: {', and '.join(parts) or 'nothing else came through beside'} LoRA with its "
        f"learning rate tuned, by {found['metric']} {on}."
    )


def markdown(found: Found) -> str:
    """The page study.md."""
    trials, seeds = found["trials"], found["seeds"]
    each = len(trials) // len(found["methods"])
    caution = (
        "The test rows were not looked at: everything here is on dev, which also chose the "
        "settings. Every score is therefore somewhat too good, for each method by the same "
        "search. Put the section below into the task file and run `tunelm compare` for a score "
        "on test."
    )
    method = (
        f"Each method had {each} trials of at most the same steps, the first with its defaults. "
        f"{APART if found['apart'] else ''}"
        f"The best trial's settings were trained again with the seeds "
        f"{', '.join(map(str, seeds))}, which no search had seen; the table is of these alone. "
        "Differences are paired by group; the interval holds the spread over seeds; p is after "
        "Holm's correction over the methods. `smallest` is the difference that would be found "
        "four times in five."
    )
    lines = [
        f"# LoRA variants on {found['task']}",
        "",
        f"**{sentence(found)}**",
        "",
        caution,
        "",
        method,
        "",
        *_table(found),
        "",
        "## The section to copy",
        "",
        *(_section(found) or ["No method came through."]),
        "",
        "## Trials",
        "",
        "| trial | method | settings | dev score | last dev loss | seconds | what became of it |",
        "|---|---|---|---|---|---|---|",
        *(_trial(trial) for trial in trials),
    ]
    if failures := [f for row in found["methods"] for f in row["failures"]]:
        lines += ["", "## What failed", "", *(f"- {failure}" for failure in failures)]
    return "\n".join(lines) + "\n"


def table(found: Found) -> list[dict[str, str]]:
    """A row a method, for people."""
    return [_cells(row) for row in found["methods"]]


def section(found: Found) -> str:
    """The section of a task file that carries out what was chosen; empty where nothing was."""
    row = next((r for r in found["methods"] if r["method"] == found["chosen"]), None)
    if row is None or row["settings"] is None:
        return ""
    plain = json.loads(LocalSettings().model_dump_json())
    always = ("method", "r", "alpha", "targets", "learning_rate")
    kept = {
        key: value
        for key, value in row["settings"].items()
        if value is not None and (key in always or (key != "kind" and value != plain[key]))
    }
    name = found["route"]
    head = [f"[routes.{name}]", *(['kind = "local"'] if name != "local" else [])]
    return "\n".join([*head, *(f"{key} = {json.dumps(value)}" for key, value in kept.items())])


def _section(found: Found) -> list[str]:
    text = section(found)
    return ["```toml", text, "```"] if text else []


def _table(found: Found) -> list[str]:
    rows = table(found)
    return [
        "| " + " | ".join(rows[0]) + " |",
        "|" + "---|" * len(rows[0]),
        *("| " + " | ".join(row.values()) + " |" for row in rows),
    ]


def _cells(row: Found) -> dict[str, str]:
    dev, pair, trials = row["dev"], row["beside"], row["trials"]
    ran = ", ".join(f"{count} {state}" for state, count in trials.items() if count)
    return {
        "method": row["method"],
        "trials": ran,
        "best settings": _settings(row["settings"]) if row["settings"] else "-",
        "dev": f"{dev['value']:.3f} ({_between(dev)}), n = {dev['n']}" if _known(dev) else "-",
        "beside tuned LoRA": _beside(row["method"], pair),
        "p": _p(pair["p_holm"]) if pair else "-",
        "smallest": f"{pair['mde']:.3f}" if pair and pair["mde"] else "-",
        "parameters": f"{row['parameters']:,}" if row["parameters"] else "-",
        "seconds": f"{row['seconds']:.0f}" if row["seconds"] is not None else "-",
    }


def _beside(method: str, pair: Found | None) -> str:
    if method == RIVAL:
        return "the one to beat"
    if pair is None or pair["diff"] is None:
        return "unknown"
    return f"{pair['diff']:+.3f} ({_between(pair)}): {pair['verdict']}"


def _trial(trial: Found) -> str:
    score = "-" if trial["score"] is None else f"{abs(trial['score']):.3f}"
    losses = trial["losses"]
    loss = f"{list(losses.values())[-1]:.3f}" if losses else "-"
    became = trial["state"] if trial["reason"] is None else f"{trial['state']}: {trial['reason']}"
    cells = (trial["number"], trial["method"], _settings(trial["settings"]), score, loss)
    text = became.replace("|", "/").replace("\n", " ")
    return f"| {' | '.join(map(str, cells))} | {trial['seconds']:.0f} | {text} |"


def _settings(settings: Found) -> str:
    targets = settings["targets"]
    named = targets if isinstance(targets, str) else "+".join(targets)
    parts = [f"r {settings['r']}", f"alpha {settings['alpha']:g}", named]
    parts.append(f"rate {settings['learning_rate']:g}")
    if settings["loraplus_ratio"] is not None:
        parts.append(f"ratio {settings['loraplus_ratio']:g}")
    if settings["neftune_alpha"] is not None:
        parts.append(f"noise {settings['neftune_alpha']:g}")
    return ", ".join(parts)


def _known(dev: Found | None) -> bool:
    return dev is not None and dev["value"] is not None


def _between(found: Found) -> str:
    if found["ci_low"] is None or found["ci_high"] is None:
        return "no interval"
    return f"{found['ci_low']:.3f} to {found['ci_high']:.3f}"


def _on(found: Found) -> str:
    rows, groups = found["dev_rows"], found["dev_groups"]
    return f"on {rows} dev rows in {groups} groups, {len(found['seeds'])} seeds each"


def _p(p: float | None) -> str:
    if p is None:
        return "unknown"
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _names(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"
