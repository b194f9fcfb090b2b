"""`data show` on a terminal; where there is no colour, brackets do its work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tunelm.cli.tables import print_table
from tunelm.data.profile import Field, Profile, Value
from tunelm.data.shares import Share
from tunelm.training.lens import BREAK, SPACE, TAB, Token, visible
from tunelm.training.show import Showing, ShownRow

if TYPE_CHECKING:
    from rich.text import Text

BAR = 40
LONGEST = 2000
"""Tokens of a row that are printed; of a longer one the first and last half of so many."""
_WHOLE = "--html and --json have them all ..."
_WHITE = f"{SPACE} space, {BREAK} line break, {TAB} tab"
_LOSS = ("bold black on green", "bold black on bright_green")
_PROMPT = ("", "dim")


def print_showing(showing: Showing) -> None:
    """Print the rows, then the profile."""
    from rich.console import Console

    console = Console()
    colour = console.is_terminal and not console.no_color and console.color_system is not None
    for line in header(showing):
        click.echo(line)
    if colour:
        click.echo(f"green: carries loss; shades tell tokens apart; {_WHITE}")
    else:
        click.echo(f"⟦ ⟧ carries loss; │ between tokens; {_WHITE}")
    for row in showing.rows:
        click.echo(f"\nrow {row.row}  {shown(row.source)}" + (f"  id {row.id}" if row.id else ""))
        for part in parts(row.tokens):
            if isinstance(part, str):
                click.echo(part)
            elif colour:
                console.print(coloured(part), overflow="fold", no_wrap=False)
            else:
                click.echo(bracketed(part))
        if row.text is not None:
            click.echo(clipped(visible(row.text)))
        for line in remarks(row):
            click.echo(f"  {line}")
    print_profile(showing.profile)


def header(showing: Showing) -> list[str]:
    """What is shown, and with which model."""
    rows = showing.profile.rows
    what = f"{rows:,} row{'s' * (rows != 1)} of {showing.path}"
    lines = [shown(f"{showing.title}: {what}")]
    if showing.model is not None:
        context = f"{showing.context:,}" if showing.context else "unknown"
        lines.append(f"model {showing.model}, context {context}; a row: up to {showing.limit:,}")
        lines.append(f"instructions: {shown(showing.system) or 'none'}")
    return lines if showing.note is None else [*lines, showing.note]


def remarks(row: ShownRow) -> list[str]:
    """What is to be said of a row, below its tokens."""
    lines: list[str] = []
    if row.refused is not None:
        lines.append(f"REFUSED by training: {shown(row.refused)}")
    if row.tokens:
        lines.append(f"{row.n_prompt} tokens of prompt without loss, {row.n_loss} that carry loss")
    if row.target_only is not None:
        lines.append(f"{visible(row.target_only)} at the end is only ever a target, never read")
    if row.pieces > 1:
        lines.append(
            f"trained on in {row.pieces} pieces; each begins with the last token before it"
        )
    return [*lines, *row.notes]


def parts(tokens: Sequence[Token]) -> Iterator[Sequence[Token] | str]:
    """The tokens, or of very many the first and the last, and between them how many there are."""
    if len(tokens) > LONGEST:
        half = LONGEST // 2
        hidden = tokens[half:-half]
        loss = sum(len(token.ids) for token in hidden if token.loss)
        count = sum(len(token.ids) for token in hidden)
        yield tokens[:half]
        yield f"... {count:,} tokens are not shown here, {loss:,} of them with loss. {_WHOLE}"
        tokens = tokens[-half:]
    if tokens:
        yield tokens


def clipped(text: str) -> str:
    """A text that is no tokens, or the beginning of a long one and how much there is."""
    most = 4 * LONGEST
    if len(text) <= most:
        return text
    return f"{text[:most]}\n... {len(text) - most:,} characters are not shown here. {_WHOLE}"


def coloured(tokens: Sequence[Token]) -> Text:
    """The tokens in colour, in two shades by turns; special tokens underlined."""
    from rich.text import Text

    text = Text()
    for index, token in enumerate(tokens):
        style = (_LOSS if token.loss else _PROMPT)[index % 2]
        if token.special:
            style = f"{style} underline" if token.loss else "magenta underline"
        text.append(visible(token.text), style)
    return text


def bracketed(tokens: Sequence[Token]) -> str:
    """The tokens without colour: bars between them, brackets around those that carry loss."""
    shown: list[str] = []
    open_ = False
    for index, token in enumerate(tokens):
        if token.loss != open_:
            shown.append("⟦" if token.loss else "⟧")
            open_ = token.loss
        elif index:
            shown.append("│")
        shown.append(visible(token.text))
    return "".join(shown) + ("⟧" if open_ else "")


def print_profile(profile: Profile) -> None:
    """Print what the rows are like as a whole."""
    if profile.unreadable:
        click.echo(f"\n{profile.unreadable:,} rows could not be read; the first:")
        for fault in profile.faults:
            click.echo(f"  {shown(fault)}")
    for fault in profile.of_file:
        click.echo(f"\n{shown(fault)}")
    for line in length_lines(profile):
        click.echo(line)
    for field in profile.fields:
        click.echo()
        print_table(*field_table(field))
    for name, reason in profile.left_out.items():
        click.echo(f"\nno table for {shown(name)}: it {shown(reason)}")
    if profile.groups is not None:
        sizes = profile.groups
        click.echo(
            f"\n{sizes.groups:,} groups, {sizes.median_rows:g} rows in the median, at most"
            f" {sizes.most_rows:,} ({shown(sizes.largest)})"
        )
    for line in word_lines(profile):
        click.echo(line)
    print_findings(profile)


def print_findings(profile: Profile) -> None:
    """Print what stands out, what to do about it, and what the profile cannot see."""
    click.echo("\nstands out:" if profile.findings else "\nnothing stands out")
    for finding in profile.findings:
        known = finding.low is not None and finding.high is not None
        between = f", 95%: {between_percent(finding.low, finding.high)}" if known else ""
        click.echo(f"- {shown(finding.found)} (n = {finding.n:,}{between})")
        click.echo(f"  what to do: {shown(finding.do)}")
        if finding.rows:
            click.echo(f"  rows to look at: {shown(', '.join(finding.rows))}")
    click.echo(f"\n{comparisons_line(profile)}")
    for limit in profile.limits:
        click.echo(limit)


def comparisons_line(profile: Profile) -> str:
    """How many comparisons the findings were picked from."""
    return (
        f"{profile.comparisons} comparisons between values were made; their intervals hold for"
        " all of them together (Bonferroni)."
    )


def length_lines(profile: Profile) -> Iterator[str]:
    """The lengths as a histogram."""
    lengths = profile.lengths
    if lengths.median is None:
        return
    sample = ", a random sample" if lengths.sampled else ""
    yield f"\nlength of a row in {lengths.unit} (n = {lengths.of:,}{sample})"
    over = lengths.over
    limit = f"; over the limit of {lengths.limit:,}: {over.count:,} rows" if over else ""
    yield f"median {lengths.median:,}, 95% up to {lengths.p95:,}, longest {lengths.most:,}{limit}"
    most = max(bin.rows for bin in lengths.histogram)
    width = len(f"{lengths.most:,}") + 1
    for bin in lengths.histogram:
        bar = "█" * max(round(BAR * bin.rows / most), bin.rows > 0)
        yield f"  {bin.low:>{width},} to {bin.high:>{width},}  {bar} {bin.rows:,}"


def field_table(field: Field) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(header, rows) of a field's values."""
    grouped = field.values[0].groups is not None
    header = (
        shown(field.name),
        "rows",
        *(["groups"] if grouped else []),
        "share (95%)",
        *VALUE_HEADER,
    )
    rows = [
        (
            shown(value.value) or "(blank)",
            f"{value.rows:,}",
            *([f"{value.groups:,}"] if grouped else []),
            percent(value.share, interval=True),
            *value_cells(value),
        )
        for value in field.values
    ]
    return header, rows


VALUE_HEADER = (
    "answer words",
    "sounds positive",
    "negative",
    "he/she/they asked",
    "answered",
    "names",
)


def value_cells(value: Value) -> tuple[str, ...]:
    """The cells under VALUE_HEADER."""
    return (
        f"{value.answer_words:,}",
        percent(value.positive),
        percent(value.negative),
        "/".join(str(n) for n in value.pronouns["question"].values()),
        "/".join(str(n) for n in value.pronouns["answer"].values()),
        ", ".join(f"{name} {rows}" for name, rows in value.names) or "-",
    )


def word_lines(profile: Profile) -> Iterator[str]:
    """Pronouns, tone and names in all rows."""
    overall = profile.overall
    yield ""
    for place, counts in overall.pronouns.items():
        listed = ", ".join(f"{name} {rows:,}" for name, rows in counts.items())
        yield f"rows with a pronoun in the {place}: {listed}"
    yield (
        f"answers that sound positive {percent(overall.positive, True)},"
        f" negative {percent(overall.negative, True)}"
    )
    if overall.names:
        listed = ", ".join(f"{name} {rows:,}" for name, rows in overall.names)
        yield f"capitalised names, with their rows: {listed}"


def percent(share: Share, interval: bool = False) -> str:
    """A share in percent, or `-` where there is none."""
    if share.share is None:
        return "-"
    if not interval:
        return f"{share.share:.0%}"
    return f"{share.share:.0%} ({between_percent(share.low, share.high)})"


def between_percent(low: float | None, high: float | None) -> str:
    """The two ends of an interval of shares, in percent."""
    return f"{100 * (low or 0):.0f} to {100 * (high or 0):.0f}%"


def shown(text: str) -> str:
    """A text on one line that cannot do anything to a terminal; spaces stay as they are."""
    return " ".join(visible(word) for word in text.split())
