"""`compare` and `adapt`: the main job, and one route of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.config import Config

EXAMPLES = """\b
Examples:
  tunelm compare                          the bundled task, offline
  tunelm compare my_task.toml --out runs/first
  tunelm compare my_task.toml --out runs/first --resume
  tunelm compare --set routes.local.r=64 --set 'compare.seeds=[0, 1, 2]'
"""


def _options(command: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON."),
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--resume", is_flag=True, help="Go on with the run in --out."),
        click.option(
            "--spend",
            is_flag=True,
            help="Allow endpoints that charge, up to budget.max_usd.",
        ),
        click.option(
            "--accept-shutdown",
            type=click.DateTime(["%Y-%m-%d"]),
            metavar="DATE",
            help="Fine-tune a hosted model all the same that ends on that very day.",
        ),
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="The run directory  [default: runs/TASK-TIME]",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="SECTION.KEY=VALUE",
            help="Override a setting of the task file; may be repeated.",
        ),
    ):
        command = option(command)
    return command


@click.command("compare", epilog=EXAMPLES)
@click.argument("task", default="edu-qa")
@_options
@click.option(
    "--all-routes", is_flag=True, help="Every kind of route and every section of the file."
)
@click.option(
    "--shuffled-control",
    is_flag=True,
    help="Also train `local` on answers dealt out to the wrong questions.",
)
def compare_command(
    task: str, all_routes: bool, shuffled_control: bool, overrides: tuple[str, ...], **options: Any
) -> None:
    """Adapt the model by several routes, score all on one sealed test set, say which to ship.

    TASK is a task file or the name of a bundled task.
    """
    from tunelm.config import load_config

    config = load_config(task, overrides)
    names = list(config.compare.routes)
    if all_routes:
        names += every_route(config)
    extra: tuple[str, ...] = ()
    if shuffled_control:
        names.append("local-shuffled")
        extra = (
            "routes.local-shuffled.kind=local",
            "routes.local-shuffled.shuffle_answers=true",
        )
    chosen = f"compare.routes={list(dict.fromkeys(names))}"
    run_task(task, (*overrides, *extra, chosen), **options)


def every_route(config: Config) -> list[str]:
    """The sections of a task file and every kind of route its rows can take, by name."""
    from tunelm.config import TEXT_KINDS
    from tunelm.routes import KINDS

    own = config.task.kind
    kinds = [kind for kind in KINDS if own != "text" or kind in TEXT_KINDS]
    kinds = [kind for kind in kinds if own == "classification" or kind != "classifier"]
    # which rule is to be followed nobody can guess
    return [*config.routes, *(kind for kind in kinds if kind != "rule")]


ADAPT_EXAMPLES = """\b
Examples:
  tunelm adapt local my_task.toml --set routes.local.r=64
  tunelm adapt local my_task.toml --study 30 --out runs/study
"""


@click.command("adapt", epilog=ADAPT_EXAMPLES)
@click.argument("kind")
@click.argument("task", default="edu-qa")
@_options
@click.option(
    "--study",
    type=int,
    is_flag=False,
    flag_value=15,
    metavar="[TRIALS]",
    help="Search LoRA and its variants on dev with as many trials each, and say which "
    "differences are real; 15 trials in all where no number is given.",
)
@click.option(
    "--part",
    metavar="PART",
    help="With --study: one piece of it, for batch systems: prepare, the number of a trial, or "
    "conclude.",
)
def adapt_command(
    kind: str,
    task: str,
    study: int | None,
    part: str | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Adapt the model by one route, with those it builds on, and score it.

    KIND is a route's kind (see `tunelm routes`), or the name of a route in the task file.
    """
    if study is None:
        if part is not None:
            raise click.UsageError("--part is of a study: --study says of how many trials.")
        chosen = f"compare.routes={with_needed(task, kind, overrides)}"
        run_task(task, (*overrides, chosen), **options)
        return
    from tunelm.cli.study import study_task

    overrides = (*overrides, f'compare.routes=["{kind}"]')

    hosted = [options.pop("spend"), options.pop("accept_shutdown")]
    if any(hosted):
        raise click.UsageError("a study asks no endpoint: --spend and the like are not for it.")
    study_task(kind, task, overrides, study, part, options)


def with_needed(task: str, name: str, overrides: tuple[str, ...]) -> list[str]:
    """A route's name after those of the routes whose results it builds on."""
    from tunelm.config import load_config
    from tunelm.pipeline import is_control
    from tunelm.routes import make_route
    from tunelm.routes.base import EVERY

    own = load_config(task, overrides).compare.routes
    config = load_config(task, (*overrides, f"compare.routes={list(dict.fromkeys([name, *own]))}"))
    needed: list[str] = []
    for kind in make_route(config.routes[name]).needs:
        if kind == EVERY:
            needed += [other for other in own if not is_control(config, other)]
        else:
            named = [n for n, settings in config.routes.items() if kind in (n, settings.kind)]
            needed.append(named[0] if named else kind)
    return list(dict.fromkeys([*needed, name]))


def run_task(
    task: str,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: bool,
    spend: bool,
    accept_shutdown: datetime | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a task and print what came of it. Exits 1 when no route came through."""
    from tunelm.cli.no_room import note_way_on
    from tunelm.cli.progress import shown
    from tunelm.config import load_config
    from tunelm.rundir import default_out

    if spend:
        overrides = (*overrides, "budget.spend=true")
    config = load_config(task, overrides)
    if accept_shutdown:
        jobs = [n for n in config.compare.routes if config.routes[n].kind == "cloud"]
        if not jobs:
            raise click.UsageError("--accept-shutdown is for a route of the kind cloud.")
        day = f"accept_shutdown={accept_shutdown:%Y-%m-%d}"
        config = load_config(task, (*overrides, *(f"routes.{name}.{day}" for name in jobs)))
    if resume and out is None:
        raise click.UsageError("--resume needs --out: which run to go on with.")
    folder = out or default_out(config.task.name)
    import tunelm

    try:
        with shown(quiet) as progress:
            report = tunelm.compare(config, folder, resume=resume, progress=progress)
    except KeyboardInterrupt as stopped:
        for note in getattr(stopped, "__notes__", ()):
            click.echo(note, err=True)
        click.echo(
            f"stopped; what was done is kept. Go on with: tunelm compare {task} --out {folder} "
            "--resume (and the same --set options)",
            err=True,
        )
        raise
    except OSError as error:
        note_way_on(error, folder, f"tunelm compare {task} --out {folder} --resume")
        raise
    print_report(report, folder, as_json)
    if all(r["status"] != "done" for r in report["routes"] if not r["control"]):
        raise SystemExit(1)


def print_report(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    """The verdict, the table of routes, and where the report is."""
    if as_json:
        import json

        click.echo(json.dumps(report, ensure_ascii=False))
        return
    from tunelm.cli.tables import print_table
    from tunelm.report.verdict import sentences
    from tunelm.report.words import table

    for sentence in sentences(report):
        click.echo(sentence)
    for warning in report["warnings"]:
        click.echo(f"warning: {warning}")
    click.echo()
    rows = table(report)
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    click.echo(f"\nreport: {(folder / 'report.html').resolve()}")
