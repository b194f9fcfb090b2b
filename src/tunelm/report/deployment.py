"""The deployment plan of a route: a report and the load it was put under become one dict.

A pure reader. Every figure says where it is from: `measured` with its n, `formula`, or `the run`;
what nobody knows is None, and stands in `unknown`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError, DataError
from tunelm.prices import shutdown_date
from tunelm.report import capacity
from tunelm.report.words import route_of
from tunelm.tutor.safety import Flag, openings

SCHEMA_VERSION = 1
STATE = "STATE"
"""What stands in commands for the folder of the server's state."""
SLOWER = 1.5
"""An alarm rings where answers take so many times as long as they did when measured."""
_LICENCES = {"tunelm-nano": "Apache-2.0", "tunelm-nano-small": "Apache-2.0"}
_JOULES = 3.6e6
"""In a kilowatt-hour."""

Report = Mapping[str, Any]
Plan = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the plan is to hold to.

    Attributes:
        limit_s: how long a whole reply may take, in seconds.
        pause_s: how long a student takes to write again, in seconds.
        watts: what the machine draws while it answers; None: unknown.
        usd_per_kwh: what a kilowatt-hour costs; None: unknown.
    """

    limit_s: float = 5.0
    pause_s: float = 30.0
    watts: float | None = None
    usd_per_kwh: float | None = None


def choose_route(report: Report, name: str | None) -> str:
    """The route to plan for: the one named, else the winner. Raises ConfigError for none."""
    done = [r["name"] for r in report["routes"] if r["status"] == "done" and not r["control"]]
    chosen = name or report["winner"]["name"]
    if chosen is None:
        raise ConfigError("the run has no winner to put live. Name a route: --route NAME")
    if chosen not in done:
        raise ConfigError(
            f"--route {chosen}: no finished route of this run that could be put live. It has: "
            f"{', '.join(done) or 'none'}."
        )
    return chosen


def plan_of(
    report: Report, run: str, name: str, load: Mapping[str, Any] | None, wishes: Wishes
) -> Plan:
    """The plan.

    Args:
        report: of the run (`build_report`).
        run: how commands name the run's folder.
        name: the route (`choose_route`).
        load: what it was put under (`tunelm.server.load`); None where no load was sent.
        wishes: the limit, the pause, and what power costs.
    """
    route = route_of(report, name)
    remote = route["endpoint"] is not None
    plan: Plan = {
        "schema_version": SCHEMA_VERSION,
        "task": report["task"]["name"],
        "kind": report["task"]["kind"],
        "run": run,
        "route": name,
        "winner": report["winner"]["name"],
        "verdict": list(report["verdict"]),
        "test": {key: report["split"]["test"][key] for key in ("rows", "groups")},
        "remote": remote,
        "until": _until(report, route),
        "load": load,
        "wishes": {"limit_s": wishes.limit_s, "pause_s": wishes.pause_s},
        "students": _students(load, wishes),
        "alone": {key: q["value"] for key, q in route["latency"].items()},
        "alone_how": next((q["method"] for q in route["latency"].values()), None),
        "conversation": _conversation(report, name),
        "energy": _energy(report, name, load, wishes),
        "privacy": [_leaves(one) for one in report["routes"] if _could_go_live(one)],
        "commands": _commands(report, run, name, remote),
        "alarms": _alarms(load, wishes),
    }
    plan["unknown"] = _unknown(plan, wishes)
    return plan


def _could_go_live(route: Mapping[str, Any]) -> bool:
    return route["status"] == "done" and not route["control"]


def _until(report: Report, route: Mapping[str, Any]) -> dict[str, Any]:
    """Until when the model is there, and under which licence."""
    endpoint = route["endpoint"]
    base = (report["base"] or {}).get("name")
    if endpoint is None:
        folder = Path(str(base)).name
        return {
            "model": folder if Path(str(base)).is_absolute() else base,
            "ends": None,
            "how": "the weights are on this machine: nobody can switch them off",
            "licence": _LICENCES.get(str(base)),
        }
    model = endpoint.get("fine_tuned_model") or endpoint["model"]
    try:
        day = shutdown_date(str(model))
        how = "the price list" if day else "the price list has no day for it; ask the provider"
    except DataError as error:
        day, how = None, f"the price list cannot be read: {error}"
    return {
        "model": model,
        "ends": day.isoformat() if day else None,
        "how": how,
        "licence": None,
    }


def _students(load: Mapping[str, Any] | None, wishes: Wishes) -> dict[str, Any]:
    """How many at once: `at_once` as measured, `with_pauses` by formula; None: not measured."""
    if load is None or not load["levels"]:
        return {"at_once": None, "with_pauses": None, "more_untried": False, "level": None}
    levels = load["levels"]
    most = capacity.without_pauses(levels, wishes.limit_s)
    level = next((one for one in levels if one["students"] == most), None)
    return {
        "at_once": most,
        "with_pauses": capacity.with_pauses(levels, wishes.limit_s, wishes.pause_s),
        "more_untried": most == levels[-1]["students"] and not load["skipped"],
        "level": level,
    }


def _conversation(report: Report, name: str) -> list[dict[str, Any]]:
    """What a conversation (or where there are none, an answer) takes, a row a route."""
    talks = report["conversations"]
    rows: list[dict[str, Any]] = []
    for route in report["routes"]:
        if not _could_go_live(route):
            continue
        row: dict[str, Any] = {"route": route["name"], "this": route["name"] == name}
        its = talks["routes"].get(route["name"]) if talks else None
        if its is None:
            tokens = (route["tokens_per_answer"] or {}).get("test")
            rows.append({**row, "n": None, "tokens_per_answer": tokens, "usd_per_answer": None})
            continue
        keys = ("teacher_turns", "prompt_tokens", "kept_tokens", "completion_tokens", "usd",
                "usd_reason", "prompt_by_turn")  # fmt: skip
        rows.append({**row, "n": its["n"] - its["failed"], **{key: its[key] for key in keys}})
    return rows


def _energy(
    report: Report, name: str, load: Mapping[str, Any] | None, wishes: Wishes
) -> list[dict[str, Any]]:
    """What a conversation's power costs alone and at the highest good level; [] where unknown.

    watts x seconds of the machine a reply (1 / replies a second, measured) x replies of a
    conversation (the run's).
    """
    talks = report["conversations"]
    turns = talks["routes"][name]["teacher_turns"] if talks and name in talks["routes"] else 1
    remote = route_of(report, name)["endpoint"] is not None
    if load is None or remote or wishes.watts is None or wishes.usd_per_kwh is None or not turns:
        return []
    most = capacity.without_pauses(load["levels"], wishes.limit_s)
    rows: list[dict[str, Any]] = []
    for level in load["levels"]:
        if level["students"] not in (load["levels"][0]["students"], most) or not level["replies"]:
            continue
        seconds = turns / level["replies_per_second"]
        kwh = wishes.watts * seconds / _JOULES
        rows.append(
            {
                "students": level["students"],
                "seconds": seconds,
                "kwh": kwh,
                "usd": kwh * wishes.usd_per_kwh,
            }
        )
    return rows


def _leaves(route: Mapping[str, Any]) -> dict[str, Any]:
    """What leaves the machine when a route answers."""
    endpoint = route["endpoint"]
    if endpoint is None:
        return {"route": route["name"], "to": None, "own": True}
    return {
        "route": route["name"],
        "to": endpoint["base_url"],
        "own": bool(endpoint.get("own")),
        "key": endpoint.get("api_key_env"),
        "trained_there": route["kind"] == "cloud",
    }


def _commands(report: Report, run: str, name: str, remote: bool) -> dict[str, Any]:
    """What to type to start, to try, and to go back."""
    target = shlex.quote(f"{run}/{name}")
    back = report["baseline"] if report["baseline"] != name else None
    serve = "tunelm serve {} --no-train --api-key-env TUNELM_API_KEY --state " + STATE
    found: dict[str, Any] = {
        "target": target,
        "back_to": back,
        "delete_one": f"tunelm chat --db {STATE}/chat.sqlite --delete ID",
        "delete_all": f"tunelm chat --db {STATE}/chat.sqlite --delete all",
        "look": [
            f'tunelm chat --db {STATE}/chat.sqlite --list "{text}"'
            for text in openings(Flag.DANGER)
        ],
    }
    if remote:
        return {**found, "serve": None, "rehearse": None, "back": None}
    home = f"{serve.format(target)} --verify {target}"
    other = shlex.quote(f"{run}/{back}") if back else "OTHER_RUN"
    return {
        **found,
        "serve": home,
        "rehearse": f"tunelm serve {other} --no-train --port 8001 --state {STATE}-rehearsal",
        "back": serve.format(other),
    }


def _alarms(load: Mapping[str, Any] | None, wishes: Wishes) -> dict[str, Any] | None:
    """From which values on somebody should look; None where nothing was measured."""
    level = _students(load, wishes)["level"]
    if load is None or level is None:
        return None
    peak = max(one["memory_bytes"] for one in load["levels"])
    return {
        "under_way": level["students"],
        "reply_s": min(wishes.limit_s, SLOWER * level["reply_s"]["p95"]),
        "first_text_s": SLOWER * (level["first_text_s"]["p95"] or wishes.limit_s),
        "memory_bytes": 1.2 * peak,
    }


def _unknown(plan: Plan, wishes: Wishes) -> list[str]:
    """What the plan cannot say."""
    load, until = plan["load"], plan["until"]
    said = ["How much real pupils learn, and whether they like it: no pupil has used it yet."]
    if load is None:
        said.append(
            "How many students at once, and how long they wait under load: no load was sent to "
            "the endpoint. --spend allows it, up to --max-usd."
        )
    else:
        said.append(
            "The time of the network and of the pupils' own machines: the load was made beside "
            "the model."
        )
    if plan["remote"]:
        said.append("What the provider stores of what it is sent, and for how long: its contract.")
        if until["ends"] is None:
            said.append(f"Until when {until['model']} answers: {until['how']}.")
    elif wishes.watts is None or wishes.usd_per_kwh is None:
        said.append(
            "What a conversation costs on this machine: give its power and the price of it with "
            "--watts and --usd-per-kwh."
        )
    if until["licence"] is None:
        said.append(f"The licence of {until['model']}: read its card or its terms of use.")
    if plan["kind"] != "dialogue":
        said.append("Anything on conversations: this task has single answers.")
    elif load is not None and load["kind"] != "conversations":
        said.append("The load of conversations: no dev problem has a known solution.")
    said.append("Any language but the one that the test problems are in.")
    return said
