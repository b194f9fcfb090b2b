"""`report --deployment`: put a route under the load of a class, once, and write the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.report.deployment import Wishes

FOLDER = "deployment"
SCHEMA_VERSION = 1
_SAME = ("platform", "cpu_count", "memory_bytes")
"""What of a machine must be the same for a load to be its load; the GPU is seen by torch alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for on the command line.

    Attributes:
        route: its name; None: the winner.
        students: how many at once, for each level of the load.
        wishes: limits, and prices of power.
        again: whether a load is sent although a fitting one is there.
        spend: whether a route behind an API may be sent a load, for at most `max_usd`.
        max_usd: in US dollars.
    """

    route: str | None
    students: tuple[int, ...]
    wishes: Wishes
    again: bool
    spend: bool
    max_usd: float


def write_plan(run: Path, asked: Asked, as_json: bool) -> None:
    """Measure what is not measured yet, write RUN/deployment.md, and print the plan in short."""
    from tunelm.report.build import build_report
    from tunelm.report.deployment import choose_route, plan_of
    from tunelm.report.deployment_page import deployment_page, summary
    from tunelm.report.words import route_of
    from tunelm.rundir import write_text

    report = build_report(run)
    if report["task"]["kind"] == "text":
        raise click.UsageError("a task of running text has nothing that a class could ask.")
    name = choose_route(report, asked.route)
    load = _load(run, name, asked, remote=route_of(report, name)["endpoint"] is not None)
    plan = plan_of(report, str(run), name, load, asked.wishes)
    page = run / "deployment.md"
    write_text(page, deployment_page(plan))
    if as_json:
        click.echo(json.dumps({**plan, "page": str(page)}, ensure_ascii=False))
        return
    click.echo(f"route {name}: {plan['verdict'][0]}")
    for line in summary(plan):
        click.echo(line)
    click.echo(f"\nplan: {page.resolve()}")


def _load(run: Path, name: str, asked: Asked, remote: bool) -> Mapping[str, Any] | None:
    """The load of a route: as it stands in the run, or sent now; None where none may be sent."""
    from tunelm.rundir import host, read_json, write_json

    path = run / FOLDER / f"load-{name}.json"
    made_of = _digest(run, name)
    stored: dict[str, Any] = read_json(path, {})
    if stored and not asked.again:
        same = {key: stored["host"].get(key) for key in _SAME} == {k: host()[k] for k in _SAME}
        if same and stored.get("made_of") == made_of and _covers(stored, asked):
            return stored
    if remote and not asked.spend:
        return None
    found = {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tunelm": metadata.version("tunelm"),
        "route": name,
        "made_of": made_of,
        "weights_sha256": (read_json(run / "config.json").get("base") or {}).get("weights_sha256"),
        **_measured(run, name, asked),
    }
    path.parent.mkdir(exist_ok=True)
    write_json(path, found)
    return found


def _covers(stored: Mapping[str, Any], asked: Asked) -> bool:
    """Whether each level that is asked for was measured, or is beyond one that was too slow."""
    levels = [level["students"] for level in stored["levels"]]
    missing = set(asked.students) - set(levels)
    if not missing:
        return True
    last = stored["levels"][-1]["reply_s"]["p95"]
    too_slow = last is None or last > stored["too_slow"] * asked.wishes.limit_s
    return too_slow and min(missing) > max(levels)


def _measured(run: Path, name: str, asked: Asked) -> dict[str, Any]:
    from tunelm.cli.progress import shown
    from tunelm.config import BudgetConfig
    from tunelm.errors import PrerequisiteError
    from tunelm.models.budget import Wallet

    try:
        from tunelm.server.load import take_load
    except ImportError as error:
        raise PrerequisiteError(
            f"{error.name} is not installed: a load needs the extras 'serve' and 'local': "
            "pip install 'tunelm[serve,local]'"
        ) from None
    wallet = Wallet(BudgetConfig(spend=asked.spend, max_usd=asked.max_usd))
    try:
        with shown() as progress:
            return take_load(run, name, asked.students, asked.wishes.limit_s, wallet, progress)
    finally:
        if wallet.spent:
            click.echo(f"spent: at most ${wallet.spent:.4g}", err=True)


def _digest(run: Path, name: str) -> str:
    """A hash of what a route is made of: its settings, its base's weights, what it adapted."""
    from tunelm.rundir import read_json
    from tunelm.types import content_hash

    config = read_json(run / "config.json")
    folders = sorted((run / "routes" / name).glob("seed-*"), key=lambda p: int(p.name[5:]))
    files = [p for p in sorted((folders[0] / "adapted").rglob("*")) if p.is_file()]
    files.append(folders[0] / "adapted.json")
    return content_hash(
        [
            config["digests"]["shared"],
            config["digests"]["routes"].get(name),
            config.get("base"),
            [[str(path.relative_to(folders[0])), _sha256(path)] for path in files],
        ]
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def students_of(text: str) -> tuple[int, ...]:
    """The numbers in "1,2,4". Raises UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 1000 for part in parts):
        raise click.UsageError(
            f"--students {text}: numbers from 1 to 1000 with commas between are expected, such as "
            "1,2,4,8."
        )
    return tuple(sorted({int(part) for part in parts}))


def options(command: Any) -> Any:
    """The options of the plan, for `report`."""
    positive = click.FloatRange(0, min_open=True)
    for option in (
        click.option("--max-usd", type=click.FloatRange(0), help="The most --spend may spend."),
        click.option("--spend", is_flag=True, help="Send the load to a model behind an API, too."),
        click.option("--usd-per-kwh", type=click.FloatRange(0), help="What power costs."),
        click.option("--watts", type=positive, help="What the machine draws while it answers."),
        click.option("--measure-again", is_flag=True, help="Send the load although one is there."),
        click.option("--pause", type=positive, default=30.0, show_default=True,
                     help="Seconds until a student writes again."),
        click.option("--seconds-a-reply", type=positive, default=5.0, show_default=True,
                     help="How long a reply may take."),
        click.option("--students", default="1,2,4,8,16", show_default=True,
                     help="How many at once."),
        click.option("--route", help="Which route goes live  [default: the winner]"),
        click.option(
            "--deployment",
            is_flag=True,
            help="Write RUN/deployment.md: what going live with a route in a class takes, with a "
            "load of simulated students (two minutes). The options above are for it.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def asked_for(given: Mapping[str, Any]) -> Asked:
    """The options as one; those not given have their defaults."""
    usd = given["max_usd"]
    if usd is not None and not given["spend"]:
        raise click.UsageError("--max-usd: give --spend with it.")
    if (given["watts"] is None) != (given["usd_per_kwh"] is None):
        raise click.UsageError("--watts and --usd-per-kwh: give both, or neither.")
    from tunelm.report.deployment import Wishes

    wishes = Wishes(given["seconds_a_reply"], given["pause"], given["watts"], given["usd_per_kwh"])
    students = students_of(given["students"])
    return Asked(
        given["route"], students, wishes, given["measure_again"], given["spend"], usd or 0.0
    )
