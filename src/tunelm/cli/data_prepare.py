"""`data prepare`: clean, dedupe and split a file of rows, with a ledger of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tunelm.cli.data import reading_options

EXAMPLES = """\b
Examples:
  tunelm data prepare rows.jsonl --out data/rows
  tunelm data prepare chats.csv --out data/chats --column question=prompt --column answer=reply
  tunelm data prepare texts/ --out data/texts --test 0.1 --dev 0
  tunelm data prepare crawl/ --out data/big --to shards --processes 4
  tunelm data prepare pairs.csv --out data/job --to openai --system "You are a kind tutor."

docs/data-prepare.md says what is changed and why.
"""


@click.command("prepare", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The folder to make; must be new."
)
@reading_options
@click.option(
    "--to",
    default="jsonl",
    show_default=True,
    help="How to write the parts: a container (csv, parquet, ...), a shape of rows (messages, "
    "alpaca, ...) or both (jsonl:messages); openai adds the files of a fine-tuning job.",
)
@click.option("--system", default="", help="With --to openai: the instructions of every row.")
@click.option("--dev", default=0.1, show_default=True, help="Share of the groups for dev.")
@click.option("--test", default=0.1, show_default=True, help="Share of the groups for test.")
@click.option("--seed", default=0, show_default=True, help="Another seed, another split.")
@click.option(
    "--label",
    metavar="FIELD",
    help="Give every part its share of each value of this field  [default: label]",
)
@click.option(
    "--group",
    metavar="FIELD",
    help="Keep rows with the same value of this field together  [default: group]",
)
@click.option(
    "--near",
    type=click.FloatRange(0.5, 1.0),
    default=0.8,
    show_default=True,
    help="Similarity from which on rows are near-duplicates.",
)
@click.option("--keep-near", is_flag=True, help="Keep near-duplicates, all on one side.")
@click.option("--keep-boilerplate", is_flag=True, help="Keep lines that many documents share.")
@click.option("--skip-broken", is_flag=True, help="Go on without broken rows; the ledger has them.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many work at it; what comes out is the same.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def prepare_command(
    file: Path,
    file_format: str | None,
    columns: dict[str, str],
    system: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Clean FILE, drop duplicates and near-duplicates, split it into train, dev and test.

    Writes the parts, rows.jsonl (what became of every input row) and split.json into --out. Give
    that folder as data.path of a task, and its split is taken as it is.
    """
    from tunelm.cli.progress import shown
    from tunelm.data.prepare_files import prepare_files
    from tunelm.data.prepare_job import Preparation

    hosted = settings["to"] == "openai"
    if system and not hosted:
        raise click.UsageError("--system is for --to openai, whose files hold the instructions.")
    if hosted:
        settings["to"] = "jsonl"
    job = Preparation(file, format=file_format, columns=columns, **settings)
    reports: list[dict[str, Any]] = []

    def add_job_files(folder: Path) -> None:
        from datetime import date

        from tunelm.routes.cloud_files import write_job_files

        reports.append(write_job_files(folder, system, date.today()))

    with shown() as progress:
        about = prepare_files(job, progress, add_job_files if hosted else None)
    if hosted:
        about["openai"] = reports[0]
    if as_json:
        import json

        click.echo(json.dumps(about, ensure_ascii=False))
    else:
        _print(about, job.out)


def _print(about: dict[str, Any], out: Path) -> None:
    from tunelm.cli.tables import print_table

    counts = ", ".join(f"{n:,} {what}" for what, n in about["counts"].items() if n)
    click.echo(f"{about['rows']:,} rows: {counts}\n")
    header = ["part", "rows", "groups", "words", "median", "90%", "vocabulary", "labels"]
    rows = [
        [
            name,
            f"{part['rows']:,}",
            f"{part['groups']:,}",
            f"{part['words']:,}",
            str(part["words_a_row"]["median"]),
            str(part["words_a_row"]["p90"]),
            f"{part['vocabulary']:,}",
            _labels(part["labels"]),
        ]
        for name, part in about["parts"].items()
    ]
    print_table(header, rows)
    click.echo()
    for sentence in about["sentences"]:
        click.echo(sentence)
    for note in _notes(about):
        click.echo(note)
    files = ", ".join(part["file"] for part in about["parts"].values())
    ledger = "rows" if about["written_as"].startswith("shards") else "rows.jsonl"
    click.echo(f"\n{out}: {files}, {ledger} (a line for every input row), split.json")
    if "openai" in about:
        _print_job(about["openai"], out)


def _print_job(report: dict[str, Any], out: Path) -> None:
    """What a provider would say of the job's files."""
    from tunelm.routes.cloud_files import FOLDER, PAGE

    rows = ", ".join(f"{name} {count:,} rows" for name, count in report["rows"].items())
    click.echo(
        f"{out / FOLDER}: {rows}; by {report['provider']}'s rules errors: {report['errors']}, "
        f"warnings: {report['warnings']}."
    )
    for fault in [f for f in report["faults"] if f["level"] == "error"][:5]:
        click.echo(f"  {fault['where']}: {fault['found'].rstrip('.')}. {fault['mend']}")
    click.echo(f"Cost, dates and what to know before sending them: {out / FOLDER / PAGE}")


def _labels(labels: dict[str, int], most: int = 4) -> str:
    shown = [f"{label[:20]} {count:,}" for label, count in list(labels.items())[:most]]
    return ", ".join(shown + ["..."] * (len(labels) > most))


def _notes(about: dict[str, Any]) -> list[str]:
    """What somebody should know before using the parts."""
    notes = [f"warning: {warning}" for warning in about["warnings"]]
    rows = sum(part["rows"] for part in about["parts"].values())
    mended, largest = about["leaks_mended"]["count"], about["largest_group_rows"]
    if mended:
        notes.append(f"{mended:,} pairs of alike rows would have stood in two parts; now in one.")
    if about["boilerplate"]:
        line, count = next(iter(about["boilerplate"].items()))
        notes.append(
            f"{len(about['boilerplate'])} boilerplate lines taken out of documents, most often"
            f" {line[:60]!r} ({count:,} times). split.json lists them, and --keep-boilerplate"
            " leaves them in."
        )
    if largest > rows / 10 and rows > 10:
        notes.append(
            f"warning: {largest:,} rows ({largest / rows:.0%}) are one group, by their group or"
            " because their questions are alike; they stand in one part together."
        )
    if about["counts"]["near-duplicate"] > about["rows"] / 4:
        notes.append(
            "warning: more than a quarter of the rows are near-duplicates and were dropped. Look"
            " at some in rows.jsonl; --keep-near keeps them, a higher --near takes fewer for one."
        )
    return notes
