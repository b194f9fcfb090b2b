"""`data show`: what a model is really trained on, and what its rows are like as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.data import reading_options

if TYPE_CHECKING:
    from tunelm.training.show import Ask

EXAMPLES = """\b
Examples:
  tunelm data show rows.jsonl --model tunelm-nano
  tunelm data show rows.csv --column question=Frage --column answer=Antwort --row 12
  tunelm data show edu-qa --rows 5 --html rows.html
"""


@click.command("show", epilog=EXAMPLES)
@click.argument("source", metavar="FILE_OR_TASK")
@click.option("--row", "number", type=click.IntRange(1), help="Show from the Nth row on.")
@click.option("--id", "row_id", help="Show the row with this id, or with this beginning of one.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="How many.")
@click.option("--model", help="A bundled model, a folder or a hub id  [default: tunelm-nano]")
@reading_options
@click.option("--instructions", help="The system message  [default: the task's; none for a file]")
@click.option(
    "--html",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with the same, for a browser.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show_command(
    source: str, number: int | None, row_id: str | None, rows: int, **options: Any
) -> None:
    """Show rows as the model is trained on them, token by token, and a profile of all rows.

    FILE_OR_TASK is a file or folder of rows, a task file, or the name of a bundled task, which
    brings its model and instructions with it. Of a folder that `tunelm data prepare` wrote, train
    is shown. Tokens that carry loss are coloured.
    """
    if number is not None and row_id is not None:
        raise click.UsageError("--row and --id both say which row: give one of them.")
    as_json, page = options.pop("as_json"), options.pop("page")
    if page is not None and not page.parent.is_dir():
        raise click.UsageError(f"--html {page}: there is no folder {page.parent}.")
    from tunelm.cli.progress import shown
    from tunelm.training.show import Pick, show

    ask = ask_for(source, **options)
    with shown() as progress:
        showing = show(ask, Pick(number, row_id, rows), progress)
    if page is not None:
        from tunelm.cli.data_show_page import html_page
        from tunelm.rundir import write_text

        write_text(page, html_page(showing))
    if as_json:
        import json

        click.echo(json.dumps(showing.to_json(), ensure_ascii=False))
        return
    from tunelm.cli.data_show_text import print_showing

    print_showing(showing)
    if page is not None:
        click.echo(f"\npage: {page.resolve()}")


def ask_for(
    source: str,
    model: str | None,
    instructions: str | None,
    file_format: str | None,
    columns: dict[str, str],
) -> Ask:
    """What FILE_OR_TASK and the options mean together. Raises ConfigError where they do not."""
    from tunelm.config import TASKS, ModelConfig, load_config
    from tunelm.errors import ConfigError
    from tunelm.training.show import Ask

    path = Path(source)
    if path.suffix != ".toml" and path.exists():
        base = ModelConfig() if model is None else ModelConfig(base=model)
        rows, form = trained_on(path, file_format)
        return Ask(
            title=path.name,
            path=rows,
            model=base,
            system=instructions or "",
            format=form,
            columns=columns,
            needs_model=model is not None,
        )
    if path.suffix != ".toml" and not (TASKS / f"{source}.toml").is_file():
        tasks = ", ".join(sorted(p.stem for p in TASKS.glob("*.toml")))
        raise ConfigError(f"{source}: no such file, and no bundled task. Bundled: {tasks}.")
    from tunelm.data.read import scan
    from tunelm.pipeline import with_built_data
    from tunelm.tutor.teaching import turn_records

    config = with_built_data(load_config(source))
    base = config.model if model is None else config.model.model_copy(update={"base": model})
    rows, form = trained_on(config.data.path, file_format or config.data.format)
    return Ask(
        title=f"task {config.task.name}",
        path=rows,
        model=base,
        system=config.task.instructions if instructions is None else instructions,
        format=form,
        columns={**config.data.columns, **columns},
        over_long=config.data.over_long,
        needs_model=True,
        reader=turn_records if config.task.kind == "dialogue" else scan,
    )


def trained_on(path: Path, file_format: str | None) -> tuple[Path, str | None]:
    """(the rows to show, their format): of a folder with the parts of a split, train."""
    from tunelm.data.given import find_given

    given = find_given(path, all_parts=False)
    if given is None:
        return path, file_format
    return given.files["train"], file_format or given.format
