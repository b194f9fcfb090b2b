"""`submit`: the main job on a Slurm cluster, or as a script for elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

EXAMPLES = """\b
Examples:
  tunelm submit my_task.toml --partition gpu --gpus 1 --time 04:00:00 --out runs/first
  tunelm submit my_task.toml --study local --trials 30 --at-once 8 --out runs/study
  tunelm submit my_task.toml --dry-run                     print the script, submit nothing
  tunelm submit my_task.toml --setup "module load cuda" --setup "source venv/bin/activate"
  tunelm submit my_task.toml --gpus 1 --card L4 --to skypilot > job.yaml

docs/cluster.md has the rest.
"""

MANY_NODES = (
    "--nodes: training runs on all of them, in a run directory that all must see; answers and the "
    "rest on the first alone. A --study uses many nodes with --nodes 1, each trial one."
)


@click.command("submit", epilog=EXAMPLES)
@click.argument("task")
@click.option("--partition", help="Where it goes  [default: the cluster's]")
@click.option("--gpus", type=click.IntRange(0), default=0, show_default=True, help="A node.")
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True)
@click.option("--cpus", type=click.IntRange(1), help="Cores a node.")
@click.option("--mem", metavar="16G", help="Memory a node.")
@click.option("--time", "limit", metavar="HH:MM:SS", help="Time limit; it goes on after it.")
@click.option("--account", help="Whom it is charged to.")
@click.option("--qos", help="Quality of service.")
@click.option("--setup", multiple=True, metavar="LINE", help="Shell line before; may be repeated.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run directory  [default: runs/TASK-TIME]"
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="As for compare."
)
@click.option(
    "--study",
    metavar="ROUTE",
    help="Search the settings of this route of kind local, an array with a trial a task.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=15, show_default=True, help="With --study: in all."
)
@click.option("--at-once", type=click.IntRange(1), help="With --study: most trials at a time.")
@click.option("--to", type=click.Choice(["slurm", "skypilot"]), default="slurm", show_default=True)
@click.option("--card", help="With --to skypilot: which GPU, such as A100 or L4.")
@click.option("--dry-run", is_flag=True, help="Print the script and submit nothing.")
def submit_command(task: str, to: str, card: str | None, dry_run: bool, **asked: Any) -> None:
    """Run `tunelm compare TASK` as a batch job; the run directory is the same as locally.

    A job that is preempted or reaches its time limit is put back into the queue and goes on. With
    --study the trials of `tunelm adapt ROUTE TASK --study` run side by side.
    """
    from tunelm.cluster import arrays, jobs
    from tunelm.cluster.script import batch_script

    request = _request(asked)
    if to == "skypilot":
        _print_rented(task, asked, request, card)
        return
    if card:
        raise click.UsageError("--card is for --to skypilot: the partition says which GPU it is.")
    work = _work(task, asked)
    if asked["nodes"] > 1:
        click.echo(MANY_NODES, err=True)
    study = _study(task, work, asked)
    why = _not_checked(request)
    if dry_run or why:
        text = arrays.by_hand(study, request) if study else batch_script(work, request)
        click.echo(text, nl=False)
        if not dry_run:
            click.echo(f"{why}, so nothing was submitted; this is the script.", err=True)
            sys.exit(1)
        if why:
            click.echo(f"{why}, so what it asks for was not checked.", err=True)
        return
    found = arrays.hand_in_study(study, request) if study else [jobs.hand_in(work, request)]
    for job in found:
        click.echo(f"job {job.id}{f', {job.part}' if job.part else ''}: {job.said}")
    click.echo(f"run: {work.run}   tunelm logs {work.run} --follow   tunelm cancel {work.run}")


def _not_checked(request: Any) -> str | None:
    """Why no cluster can be asked from here. Raises ConfigError for what it cannot give."""
    from tunelm.cluster import slurm

    if not slurm.installed():
        return "There is no Slurm on this machine"
    try:
        known = slurm.partitions()
    except slurm.SlurmError as error:
        return f"Slurm does not answer here ({str(error).rstrip('.')})"
    slurm.check_request(request, known)
    return None


def _print_rented(task: str, asked: dict[str, Any], request: Any, card: str | None) -> None:
    """The SkyPilot file, on standard output."""
    from tunelm.cluster.rented import skypilot_yaml
    from tunelm.cluster.script import Work
    from tunelm.config import BUILTIN, load_config
    from tunelm.errors import ConfigError
    from tunelm.rundir import default_out

    theirs = {f"--{name}": asked[name] for name in ("partition", "account", "qos", "study")}
    theirs |= {"--time": asked["limit"], "--nodes": asked["nodes"] > 1}
    if given := [option for option, value in theirs.items() if value]:
        raise click.UsageError(f"{', '.join(given)}: for Slurm, not for --to skypilot.")
    if bool(card) != bool(request.gpus):
        raise click.UsageError(
            "--gpus says how many and --card which, such as --gpus 1 --card L4: give both or none."
        )
    config, here, named = load_config(task, asked["overrides"]), Path.cwd().resolve(), task
    if task.endswith(".toml"):
        base = config.model.base if Path(config.model.base).is_dir() else None
        files = (task, config.data.path, config.data.corpus, config.data.neutral, base)
        for file in (str(file) for file in files if file):
            if not file.startswith(BUILTIN) and not Path(file).resolve().is_relative_to(here):
                raise ConfigError(
                    f"{file} does not lie in {here}, the folder that is uploaded. Go to a folder "
                    "that holds the task and all files it names, and say it again."
                )
        named = Path(task).resolve().relative_to(here).as_posix()
    command = ("tunelm", "compare", named, *_sets(asked["overrides"]))
    run = (asked["out"] or default_out(config.task.name)).resolve()
    work = Work(f"tunelm-{config.task.name}", command, here, run, asked["setup"])
    click.echo(skypilot_yaml(work, request, card), nl=False)


def _sets(overrides: tuple[str, ...]) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def _request(asked: dict[str, Any]) -> Any:
    from tunelm.cluster.request import JobRequest, check_memory, parse_time

    return JobRequest(
        partition=asked["partition"],
        gpus=asked["gpus"],
        nodes=asked["nodes"],
        cpus=asked["cpus"],
        memory=check_memory(asked["mem"]),
        minutes=parse_time(asked["limit"]) if asked["limit"] else None,
        account=asked["account"],
        qos=asked["qos"],
    )


def _work(task: str, asked: dict[str, Any]) -> Any:
    """What is to be run, checked before it waits in a queue for hours."""
    from tunelm.cluster.script import Work
    from tunelm.config import load_config
    from tunelm.rundir import default_out

    overrides, study = asked["overrides"], asked["study"]
    config = load_config(task, overrides)
    name = f"{config.task.name}-study" if study else config.task.name
    run = (asked["out"] or default_out(name)).resolve()
    named = str(Path(task).resolve()) if task.endswith(".toml") else task
    command = ("compare", named)
    if study:
        command = ("adapt", study, named, "--study", str(asked["trials"]))
    whole = (sys.executable, "-m", "tunelm", *command, *_sets(overrides))
    return Work(f"tunelm-{name}", whole, Path.cwd(), run, asked["setup"])


def _study(task: str, work: Any, asked: dict[str, Any]) -> Any:
    """The study, checked likewise; None where it is a comparison."""
    route = asked["study"]
    if route is None:
        return None
    from tunelm.cluster.arrays import StudyWork
    from tunelm.config import load_config
    from tunelm.study.run import check_study
    from tunelm.study.search import require_optuna
    from tunelm.study.space import VARIANTS

    require_optuna()
    config = load_config(task, (*asked["overrides"], f'compare.routes=["{route}"]'))
    _, each = check_study(config, route, asked["trials"])
    return StudyWork(work, each * len(VARIANTS), asked["at_once"])
