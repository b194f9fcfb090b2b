"""`judge train` and `judge check`: a judge from people's labels, and its agreement with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.progress import shown
from tunelm.cli.tables import print_table

if TYPE_CHECKING:
    from tunelm.judging.check import Agreement
    from tunelm.scoring.statistics import Interval, Paired

_FIGURES = {
    "pairwise": "pairs of replies to the same words, put in people's order",
    "spearman": "rank correlation (Spearman)",
    "accuracy": "labels that are people's",
    "macro_f1": "macro-F1 of the labels",
    "macro_f1_majority": "  always the most common label",
    "kappa": "Cohen's kappa of the labels",
}


def _reading_options(command: Any) -> Any:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print as JSON."),
        click.option(
            "--from",
            "source",
            default="labels",
            show_default=True,
            help="The form of LABELS: labels, mrbench, uptake, mathdial or turns.",
        ),
        click.option(
            "--target",
            required=True,
            help="Which label: a name, a+b (their mean), or name=label (that one or not).",
        ),
    ):
        command = option(command)
    return command


@click.command(
    "train",
    epilog="Example: tunelm judge train ours.jsonl --target tone --out judges/tone",
)
@click.argument("labels", type=click.Path(path_type=Path))
@_reading_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The judge's folder.")
@click.option("--order", help="The labels from worst to best, with commas. [default: No to Yes]")
@click.option("--encoder", help="A sentence encoder's folder or hub id, for further features.")
@click.option(
    "--tune-encoder",
    is_flag=True,
    help="Fine-tune the encoder on the labels in every fold: long, and told in advance.",
)
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def train_command(
    labels: Path, target: str, source: str, out: Path, order: str | None, as_json: bool, **rest: Any
) -> None:
    """Train a judge from people's labels of replies, and measure how far it agrees with them.

    The figures are those of nested cross-validation by group, and once more with the system left
    out of training, if LABELS names systems.
    """
    from tunelm.judging.labels import read_labels
    from tunelm.judging.train import train_judge
    from tunelm.judging.tuning import Tuning

    tune, encoder = rest.pop("tune_encoder"), rest.pop("encoder")
    if tune and not encoder:
        raise click.UsageError(
            "--tune-encoder needs --encoder FOLDER-OR-HUB-ID: what is to be fine-tuned"
        )
    rows = read_labels(labels, target, source)
    worst_to_best = [label.strip() for label in order.split(",")] if order else []
    with shown() as progress:
        given = Tuning(encoder, progress) if tune else encoder
        trained = train_judge(rows, target, out, order=worst_to_best, encoder=given, **rest)
    about = trained.judge.about
    if as_json:
        figures = {k: v for k, v in about.items() if k not in ("terms", "row_hashes")}
        click.echo(json.dumps({**figures, "out": str(out)}, indent=2, ensure_ascii=False))
        return
    click.echo(f"{target}: {about['rows']} labelled replies in {about['groups']} groups")
    _print_agreement("replies unseen", trained.agreement)
    if trained.unseen:
        _print_agreement("replies and system unseen", trained.unseen)
    elif not about["systems"]:
        click.echo("no systems are named, so agreement on new systems is unknown")
    click.echo(_smallest(trained.error.to_json()))
    click.echo(f"judge written to {out}")


@click.command(
    "check",
    epilog="Example: tunelm judge check judges/tone others.jsonl --target tone",
)
@click.argument("judge")
@click.argument("labels", type=click.Path(path_type=Path))
@_reading_options
def check_command(judge: str, labels: Path, target: str, source: str, as_json: bool) -> None:
    """Set a ready judge beside people's labels that it was not made from.

    Replies that it was trained on would flatter it: they are left out, and counted.
    """
    from tunelm.judging.labels import read_labels
    from tunelm.judging.open import open_judge
    from tunelm.judging.trial import to_json, try_judge

    opened = open_judge(judge)
    trial = try_judge(opened, read_labels(labels, target, source))
    if as_json:
        found = {"judge": judge, "signature": opened.signature(), **to_json(trial)}
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    click.echo(f"{opened.name} ({judge}) on {trial.n} labelled replies")
    for reason, count in trial.lost.items():
        click.echo(f"not judged: {count}, {reason}")
    if not trial.rows_known:
        click.echo("made by an earlier version: whether it was trained on these is unknown")
    _print_agreement("agreement", trial.agreement, trial.over_constant)


def _print_agreement(what: str, found: Agreement, over: Mapping[str, Paired] | None = None) -> None:
    header = [what, "value", "95% interval", "n", "groups"]
    rows: list[list[str]] = []
    for name, words in _FIGURES.items():
        if name not in found.figures:
            continue
        figure = found.figures[name]
        row = [words, _number(figure.value), _limits(figure), str(figure.n), str(figure.n_groups)]
        if over is not None:
            beside = over.get(name)
            row.append("" if beside is None else f"{_number(beside.diff)} {_limits(beside)}")
        rows.append(row)
    print_table([*header, "less a constant"] if over is not None else header, rows)


def _smallest(error: Mapping[str, Any]) -> str:
    any_n, hundred = error["smallest_difference"], error["smallest_difference_100"]
    if any_n is None:
        return "smallest difference of two systems that it can show: unknown without named systems"
    return (
        f"smallest difference of two new systems that it can show: {any_n:.3f} on its scale however"
        f" many replies, {hundred:.3f} with 100 each (from its error on {error['systems']} systems)"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _limits(figure: Interval | Paired) -> str:
    return "-" if figure.low is None else f"[{figure.low:.3f}, {figure.high:.3f}]"
