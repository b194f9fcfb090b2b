"""`data check`: every fault of a file of rows, all at once, with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunelm.cli.data import reading_options

if TYPE_CHECKING:
    from tunelm.data.check import CheckReport, Model
    from tunelm.data.records import Record

MOST_LINES = 10
EXAMPLES = """\b
Examples:
  tunelm data check rows.jsonl --model tunelm-nano
  tunelm data check train.jsonl --validation val.jsonl --provider openai
  tunelm data check train.jsonl --against test.jsonl --json
  tunelm data check data/rows                   what tunelm data prepare wrote

docs/data-check.md explains every code.
"""


@click.command("check", epilog=EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path))
@reading_options
@click.option("--model", help="Measure the rows by this model's tokenizer: a name, folder, hub id.")
@click.option(
    "--max-length",
    type=click.IntRange(16),
    help="Most tokens of a row  [default: 1024, or the model's context if that is less]",
)
@click.option("--provider", type=click.Choice(["openai"]), help="Also check a provider's rules.")
@click.option("--openai-model", metavar="NAME", help="The model to tune there, for its limits.")
@click.option(
    "--method",
    type=click.Choice(["supervised", "dpo"]),
    default="supervised",
    show_default=True,
    help="How the provider is to train.",
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="The validation file: checked too, and must share no row with FILE.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Name the rows of FILE that share text with this file; may be repeated.",
)
@click.option("--strict", is_flag=True, help="Exit 1 on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print every fault as JSON.")
@click.pass_context
def check_command(ctx: click.Context, /, file: Path, strict: bool, as_json: bool, **asked: Any):
    """Find every fault of FILE at once: errors exit 1, warnings 0 unless --strict.

    FILE is a file or folder of rows, in any format that tunelm reads, or a folder that `tunelm
    data prepare` wrote: each of its parts is checked, and that they share no row.
    """
    from tunelm.data.check import check

    report = check(file, _options(**asked))
    if as_json:
        import json

        click.echo(json.dumps(report.to_json(), ensure_ascii=False))
    else:
        _print(report, asked["provider"])
    if report.errors or (strict and report.warnings):
        ctx.exit(1)


def _options(
    model: str | None,
    max_length: int | None,
    file_format: str | None,
    provider: str | None,
    **rest: Any,
) -> Any:
    from tunelm.data.check import CheckOptions

    if max_length is not None and model is None:
        raise click.UsageError("--max-length counts tokens, so it needs --model: whose tokens.")
    if provider is None and (rest["openai_model"] or rest["method"] != "supervised"):
        raise click.UsageError("--openai-model and --method need --provider openai.")
    return CheckOptions(
        format=file_format,
        model=_model(model, max_length) if model else None,
        openai=provider == "openai",
        **rest,
    )


def _model(base: str, max_length: int | None) -> Model:
    """Counts as training does, by the code that training uses."""
    from tunelm.config import ModelConfig
    from tunelm.data.check import Model
    from tunelm.data.records import turn_text
    from tunelm.errors import DataError, ModelError
    from tunelm.training.job import TrainingRow
    from tunelm.training.lens import open_lens
    from tunelm.training.rows import encode_row
    from tunelm.types import Message

    chosen = {} if max_length is None else {"max_length": max_length}
    lens = open_lens(ModelConfig.model_validate({"base": base, **chosen}))

    def measure(record: Record) -> tuple[int, int] | None:
        if record.tools or any(
            set(turn) & {"tool_calls", "tool_call_id", "function_call"} for turn in record.messages
        ):
            return None
        turns = tuple(Message(str(t["role"]), turn_text(t)) for t in record.messages)
        try:
            row = encode_row(TrainingRow(record.source, turns), lens.tokenizer, lens.stops)
        except (DataError, ModelError) as error:
            raise ValueError(str(error).removeprefix(f"row {record.source}: ")) from None
        return row.n_prompt, len(row.ids)

    return Model(measure, lens.limit, _special_tokens(lens.tokenizer))


def _special_tokens(tokenizer: Any) -> list[str]:
    """The model's special tokens, but those that are plain words or punctuation."""
    added = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    every = dict.fromkeys([*map(str, tokenizer.all_special_tokens), *added])
    return [token for token in every if len(token) > 2 and not token.isalnum()]


def _print(report: CheckReport, provider: str | None) -> None:
    from tunelm.data.check_codes import CODES

    rows = f"{report.rows:,} rows"
    if report.parts:
        rows += f" ({', '.join(f'{part} {count:,}' for part, count in report.parts.items())})"
    if report.unreadable:
        rows += f", {report.unreadable:,} that cannot be read"
    if report.validation_rows is not None:
        rows += f", {report.validation_rows:,} rows for validation"
    if not report.faults:
        click.echo(f"{report.path}: {rows}, no fault found.")
    for code, group in report.by_code().items():
        click.echo(f"{group[0].level} {code}: {CODES[code].what} ({len(group):,})")
        for one in group[:MOST_LINES]:
            where = f"{one.file}:{one.line}" if one.line else one.file
            click.echo(f"  {where}: {one.found}")
        if len(group) > MOST_LINES:
            click.echo(f"  ... and {len(group) - MOST_LINES:,} more (--json lists all)")
        click.echo(f"  mend: {group[0].mend or CODES[code].mend}")
        click.echo()
    if report.faults:
        counts = f"{_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}"
        click.echo(f"{report.path}: {rows}; {counts}.")
    if provider and report.tokens is not None:
        click.echo(f"about {report.tokens:,} tokens an epoch, as {provider} counts them")
    for note in report.notes:
        click.echo(note)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
