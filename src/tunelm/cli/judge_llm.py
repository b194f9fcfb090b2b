"""`judge rate` and `judge pairs`: a run's answers before a judge, corrected by people's labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.judge_words import print_pairs, print_rating, without_ratings
from tunelm.cli.use import (
    paying,
    spending_options,
)

if TYPE_CHECKING:
    from tunelm.judging.judge import Judge
    from tunelm.judging.people import People
    from tunelm.models.base import ChatModel
    from tunelm.models.budget import Wallet


def _endpoint_options(command: Any) -> Any:
    """Where an LLM that judges is, if its name alone does not say so."""
    for option in (
        click.option("--usd-out", type=click.FloatRange(0), help="Likewise for a million out."),
        click.option(
            "--usd-in", type=click.FloatRange(0), help="What it charges for a million tokens in."
        ),
        click.option("--api-key-env", help="The environment variable that holds its key."),
        click.option("--base-url", help="The endpoint of the LLM that judges."),
    ):
        command = option(command)
    return command


def _judging_options(command: Any) -> Any:
    for option in (
        click.option("--quiet", is_flag=True, help="No progress."),
        click.option("--json", "as_json", is_flag=True, help="Print as JSON."),
        click.option("--name", help="Of the result: RUN/judged/NAME.json."),
        click.option(
            "--same-family", is_flag=True, help="Judge one's own kind all the same, and say so."
        ),
        click.option(
            "--max-tokens", type=click.IntRange(1), help="Most tokens of an LLM's answer."
        ),
        click.option(
            "--no-reference", is_flag=True, help="Do not show an LLM the problem's solution."
        ),
        click.option(
            "--from", "source", default="labels", show_default=True, help="The form of --labels."
        ),
        click.option("--target", help="Which label of --labels. [default: the dimension]"),
        click.option(
            "--labels", type=click.Path(path_type=Path), help="People's labels to correct by."
        ),
        click.option(
            "--part", type=click.Choice(["test", "dev"]), default="test", show_default=True
        ),
    ):
        command = option(command)
    return command


@click.command(
    "rate",
    epilog="Example: tunelm judge rate judges/actionability runs/first --labels ours.jsonl",
)
@click.argument("judge")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--routes", help="Their names, with commas. [default: all that have finished]")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Answers of an LLM to each reply; their spread is given.",
)
@_judging_options
@_endpoint_options
@spending_options
def rate_command(judge: str, run: Path, **options: Any) -> None:
    """Rate the answers of each route of RUN, and rank the routes if the judge can.

    JUDGE is the folder of a judge that was trained, or llm:TARGET:DIMENSION. With --labels the
    scores are corrected by what people said. Routes whose difference is below what the judge can
    show are not ranked.
    """
    from tunelm.cli.progress import shown

    with (
        paying(options.pop("spend"), options.pop("max_usd")) as wallet,
        shown(options["quiet"]) as progress,
    ):
        result = _rate(judge, run, wallet, progress, options)
    if options["as_json"]:
        click.echo(json.dumps(without_ratings(result), allow_nan=False))
        return
    print_rating(result)


@click.command(
    "pairs",
    epilog="Example: tunelm judge pairs runs/first baseline local --judge ollama/qwen3",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("a")
@click.argument("b")
@click.option("--judge", required=True, help="A model: a name, a folder, a run.")
@click.option("--dimension", default="overall", show_default=True)
@_judging_options
@_endpoint_options
@spending_options
def pairs_command(run: Path, a: str, b: str, judge: str, **options: Any) -> None:
    """Let a model choose between the answers of routes A and B, row by row, in both orders.

    Where the orders disagree it is a tie. --labels says how often people agree.
    """
    from tunelm.cli.progress import shown

    with (
        paying(options.pop("spend"), options.pop("max_usd")) as wallet,
        shown(options["quiet"]) as progress,
    ):
        result = _pairs(run, (a, b), judge, wallet, {**options, "progress": progress})
    if options["as_json"]:
        click.echo(json.dumps(without_ratings(result), allow_nan=False))
        return
    print_pairs(result)


# --- doing it -----------------------------------------------------------------------------------


def _rate(
    target: str, folder: Path, wallet: Wallet, progress: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    from tunelm.cli import judge_rating as work
    from tunelm.judging.llm import PREFIX, parse
    from tunelm.report.read import read_run

    run, part = read_run(folder), options["part"]
    names = [n.strip() for n in (options["routes"] or "").split(",") if n.strip()]
    routes = work.answers_of(run, part, names)
    families: dict[str, str | None] = {}
    if target.startswith(PREFIX):
        its = [r.route for r in routes]
        families = work.family_notes(parse(target)[0], run, its, options["same_family"])
    judge = _open_judge(target, wallet, progress, options)
    people, labels = _read_people(judge, options)
    asked = {"judge": judge.signature(), "part": part, "labels": people and people.digest()}
    signature = work.signature_of(asked, routes)
    name = options["name"] or work.file_name(judge.name, *_named_parts(target, options))
    path = work.result_path(run.path, name, signature)
    found = work.rate_run(run.parts[part], judge, routes, people, families)
    result = {
        "schema_version": 1,
        "signature": signature,
        "run": str(run.path),
        "part": part,
        **found,
        "judge": {"target": target, **found["judge"]},
        "labels": labels,
        "usd_at_most": wallet.spent,
    }
    work.write_result(path, result)
    return {**result, "file": str(path)}


def _pairs(
    folder: Path, names: tuple[str, str], target: str, wallet: Wallet, options: Mapping[str, Any]
) -> dict[str, Any]:
    from tunelm.cli import judge_rating as work
    from tunelm.cli.judge_pairs import judge_pairs, pairs_json
    from tunelm.judging.asking import MAX_TOKENS
    from tunelm.judging.llm import weights_of
    from tunelm.judging.pairwise import PairJudge
    from tunelm.report.read import read_run

    if names[0] == names[1]:
        raise click.UsageError(f"A and B are both {names[0]}: name two routes.")
    run, part = read_run(folder), options["part"]
    routes = sorted(work.answers_of(run, part, names), key=lambda r: names.index(r.name))
    its = [r.route for r in routes]
    families = work.family_notes(target, run, its, options["same_family"])
    people = _pair_people(options)
    judge = PairJudge(
        _open_model(target, wallet, options),
        options["dimension"],
        reference=not options["no_reference"],
        max_tokens=options["max_tokens"] or MAX_TOKENS,
        identity=weights_of(target),
        progress=options["progress"],
    )
    asked = {"judge": judge.describe(), "part": part, "labels": people and people.digest()}
    signature = work.signature_of(asked, routes)
    default = ("pairs", *names, options["dimension"], target, _part(options))
    path = work.result_path(run.path, options["name"] or work.file_name(*default), signature)
    found = judge_pairs(judge, run.parts[part], (routes[0], routes[1]), people)
    about = {
        "signature": signature,
        "judge": {"target": target, "kind": "llm", **judge.describe()},
        "run": str(run.path),
        "part": part,
        "families": families,
        "usd_at_most": wallet.spent,
    }
    result = pairs_json(found, names, len(run.parts[part]), about)
    work.write_result(path, result)
    return {**result, "file": str(path)}


def _pair_people(options: Mapping[str, Any]) -> People | None:
    from tunelm.judging.people import people_on
    from tunelm.judging.rubrics import OVERALL, rubric_of

    rubric_of(options["dimension"], pairs=True)  # before any file is read
    if options["labels"] is None:
        return None
    label = options["target"] or options["dimension"]
    if label == OVERALL:
        raise click.UsageError("--labels with overall: name the label with --target.")
    return people_on(label, _labels(options, label))


def _open_judge(target: str, wallet: Wallet, progress: Any, options: Mapping[str, Any]) -> Judge:
    from tunelm.judging.llm import PREFIX, open_llm_judge
    from tunelm.judging.open import open_judge

    if not target.startswith(PREFIX):
        return open_judge(Path(target))
    settings: dict[str, Any] = {
        "reference": not options["no_reference"],
        "repeats": options["repeats"],
        "progress": progress,
    }
    if options["max_tokens"]:
        settings["max_tokens"] = options["max_tokens"]
    return open_llm_judge(target, lambda name: _open_model(name, wallet, options), **settings)


def _open_model(name: str, wallet: Wallet, options: Mapping[str, Any]) -> ChatModel:
    """A TARGET, or a model at the endpoint of the options; its calls are counted as `judge`."""
    from tunelm.config import ModelConfig
    from tunelm.judging.llm import open_asked
    from tunelm.models import remote_base
    from tunelm.target import load

    config = ModelConfig(
        base=name,
        base_url=options["base_url"],
        api_key_env=options["api_key_env"],
        usd_per_million_in=options["usd_in"],
        usd_per_million_out=options["usd_out"],
    )
    return open_asked(config, wallet) if remote_base(config) else load(name, wallet)


def _labels(options: Mapping[str, Any], target: str) -> list[Any]:
    from tunelm.judging.labels import read_labels

    return read_labels(options["labels"], target, options["source"])


def _read_people(
    judge: Judge, options: Mapping[str, Any]
) -> tuple[People | None, dict[str, Any] | None]:
    """(people's labels of replies that the judge was not trained on, how many were left out)."""
    from tunelm.judging.people import people_of
    from tunelm.judging.trial import unseen

    if options["labels"] is None:
        return None, None
    given = _labels(options, options["target"] or judge.name)
    fresh, known = unseen(judge, given)
    counts = {"given": len(given), "trained_on": len(given) - len(fresh) if known else None}
    return people_of(judge, fresh), counts


def _part(options: Mapping[str, Any]) -> str:
    return "" if options["part"] == "test" else options["part"]


def _named_parts(target: str, options: Mapping[str, Any]) -> tuple[str, str]:
    from tunelm.judging.llm import PREFIX, parse

    return (parse(target)[0] if target.startswith(PREFIX) else "", _part(options))
