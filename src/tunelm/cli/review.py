"""`review`: a blind sheet for people's ratings out, their ratings in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tunelm.report.read import Run
    from tunelm.report.review.items import Sheet

FOLDER = "review"
_OF_SHEETS = ("items", "routes", "criteria", "seed")

EPILOG = """\b
Example:
  tunelm review runs/first
  tunelm review runs/first --ratings ann.csv ben.csv
"""


@click.command("review", epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The sheet's folder. [RUN/review]")
@click.option("--items", type=click.IntRange(1), default=30, show_default=True, help="Rows drawn.")
@click.option("--routes", default="", help="With commas. [default: all but controls]")
@click.option(
    "--criteria", multiple=True, help="`name` or `name: what it asks`; once for each. [by task]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the drawing.")
@click.option(
    "--ratings", multiple=True, type=click.Path(path_type=Path), help="Files to read, one a rater."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def review_command(
    context: click.Context,
    run: Path,
    files: tuple[Path, ...],
    out: Path | None,
    ratings: tuple[Path, ...],
    as_json: bool,
    **drawing: Any,
) -> None:
    """Have people judge the answers of RUN: write a blind sheet, or read --ratings FILE... back.

    Give raters sheet.html or sheet.csv, and keep key.json to yourself. Scores with intervals,
    preferences, the raters' agreement, and how far the run's own metric agrees with them are
    printed and written beside the sheet.
    """
    from tunelm.report.read import read_run

    if files and not ratings:
        raise click.UsageError(f"{files[0]}: files of ratings stand behind --ratings", context)
    if ratings:
        given = click.core.ParameterSource.DEFAULT
        set_too = [o for o in _OF_SHEETS if context.get_parameter_source(o) is not given]
        if set_too:
            raise click.UsageError(f"--{set_too[0]} is for a new sheet, not for reading", context)
    found = read_run(run)
    folder = out or run / FOLDER
    if ratings:
        _read(found, folder, [*ratings, *files], as_json)
    else:
        _write(found, folder, as_json, **drawing)


def _write(
    run: Run, folder: Path, as_json: bool, items: int, routes: str, criteria: tuple[str, ...],
    seed: int,
) -> None:  # fmt: skip
    from tunelm.report.review.criteria import criteria_for
    from tunelm.report.review.items import draw
    from tunelm.report.review.sheet import FILES, write_sheet

    names = [name.strip() for name in routes.split(",") if name.strip()]
    sheet = draw(
        run, names, criteria_for(run.task["kind"], run.task.get("checks"), criteria), items, seed
    )
    write_sheet(sheet, folder)
    if as_json:
        about = {
            "sheet": sheet.hash,
            "items": len(sheet.items),
            "routes": list(sheet.routes),
            "criteria": [c.name for c in sheet.criteria],
            "unanswered": dict(sheet.unanswered),
            "files": [str(folder / name) for name in FILES],
        }
        click.echo(json.dumps(about, ensure_ascii=False))
        return
    for line in _about(sheet, items):
        click.echo(line)
    click.echo(f"\nTo raters: {folder / FILES[1]} (fill in or print) or {folder / FILES[0]}")
    click.echo(f"For nobody: {folder / FILES[2]} says whose answers they are")
    click.echo(f"Then: tunelm review {run.path} --ratings FILE...")


def _about(sheet: Sheet, wanted: int) -> list[str]:
    from tunelm.report.review.sheet import LONGEST_CELL

    what = "conversations" if sheet.of_conversations else "rows"
    answers = [answer for item in sheet.items for answer in item.answers]
    groups = len({item.group for item in sheet.items})
    found = [
        (
            f"{len(sheet.items)} of {sheet.rows} test {what} in {groups} independent groups,"
            f" {len(answers)} different answers of {', '.join(sheet.routes)}"
        ),
        f"rated by: {', '.join(c.name for c in sheet.criteria)}, and which is best",
    ]
    if len(sheet.items) < wanted:
        found.append(f"note: {wanted} were asked for, and there are no more")
    found += [
        f"note: {count} {what} were not drawn from because {route} failed on them"
        for route, count in sheet.unanswered.items()
        if count
    ]
    if long := sum(len(answer.text) > LONGEST_CELL for answer in answers):
        found.append(f"note: {long} answers are longer than a cell of Excel: rate in sheet.html")
    return found


def _read(run: Run, folder: Path, files: list[Path], as_json: bool) -> None:
    from tunelm.cli.tables import print_table
    from tunelm.cli.terminal import harmless
    from tunelm.report.review.ratings import read_all
    from tunelm.report.review.scores import review
    from tunelm.report.review.sheet import read_key
    from tunelm.report.review.words import as_table, review_page, sentences, tables
    from tunelm.rundir import write_json, write_text

    sheet = read_key(folder)
    result = review(run, sheet, read_all(files, sheet))
    write_json(folder / "scores.json", result)
    write_text(folder / "review.md", review_page(result))
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    for text in sentences(result):
        click.echo(harmless(text))
    for heading, _, rows in tables(result):
        click.echo(f"\n{heading}")
        print_table(*as_table(rows))
    click.echo(f"\n{folder / 'review.md'}, {folder / 'scores.json'}")
