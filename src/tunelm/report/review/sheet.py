"""The sheet as files: `sheet.csv` and `sheet.html` for raters, `key.json` for nobody but us."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

from tunelm.errors import RunDirError
from tunelm.report.review.criteria import LEVELS
from tunelm.report.review.items import Item, Sheet
from tunelm.report.review.page import html_page
from tunelm.rundir import write_text

FILES = ("sheet.csv", "sheet.html", "key.json")
LONGEST_CELL = 32_767
"""Characters of a cell that Excel keeps ("Excel specifications and limits", Microsoft)."""

_RISKY = re.compile(r"'*[=+\-@\t\r＝＋－＠]")
_DEFUSED = re.compile(r"'+[=+\-@\t\r＝＋－＠]")


def write_sheet(sheet: Sheet, folder: Path) -> None:
    """Write all three files. Raises RunDirError where one of them is there already."""
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise RunDirError(
            f"{folder}: holds a sheet already ({', '.join(there)}), which is never written over: "
            "people may be filling it in. Give another --out, or remove those files."
        )
    folder.mkdir(parents=True, exist_ok=True)
    # The key first: a sheet without its key is worth nothing.
    write_text(folder / "key.json", json.dumps(sheet.to_json(), indent=1, ensure_ascii=False))
    write_text(folder / "sheet.html", html_page(sheet, heads(sheet)))
    write_text(folder / "sheet.csv", "\ufeff" + as_csv(sheet))


def read_key(folder: Path) -> Sheet:
    """The sheet that was written there. Raises RunDirError where there is none, or a broken one."""
    path = folder / "key.json"
    if not path.is_file():
        raise RunDirError(
            f"{folder}: no sheet was written there (no key.json). Write one with tunelm review RUN;"
            " where it was written with --out, give the same --out."
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        sheet = Sheet.from_json(data)
        kept = data["sheet"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirError(f"{path}: is not the key of a sheet ({error!r}).") from None
    if kept != sheet.hash:
        raise RunDirError(f"{path}: was changed after it was written; take the one that was not.")
    return sheet


def heads(sheet: Sheet) -> list[str]:
    """The first row: what stands in brackets says what to write, and is not read back."""
    marks = " / ".join(reversed(LEVELS))
    rated = [f"{c.name} ({marks})" for c in sheet.criteria]
    return [
        *("sheet", "rater (your name)", "item", "letter", "asked", "reference", "answer"),
        *rated,
        "best (a letter; A=B for a tie)",
        "comment",
    ]


def as_csv(sheet: Sheet) -> str:
    """The sheet as cells, a row an answer; none of them can be run as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(map(defused, heads(sheet)))
    empty = [""] * (len(sheet.criteria) + 2)
    for item in sheet.items:
        for answer in item.answers:
            known = [sheet.hash, "", str(item.number), answer.letter]
            shown = [asked_text(item), item.reference, answer.text]
            writer.writerow([*known, *map(defused, shown), *empty])
    return text.getvalue()


def asked_text(item: Item) -> str:
    """What was asked as one text; who said it stands before each part where there are several."""
    if len(item.asked) == 1:
        return item.asked[0][1]
    return "\n\n".join(f"{who}: {text}" for who, text in item.asked)


def defused(cell: str) -> str:
    """A cell that no spreadsheet runs as a formula, by an apostrophe before it.

    The signs are those of OWASP's page "CSV Injection". `restored` is the inverse, for all texts.

    >>> defused("=1+1"), defused("'=1"), defused("a=b"), restored(defused("'=1"))
    ("'=1+1", "''=1", 'a=b', "'=1")
    """
    return f"'{cell}" if _RISKY.match(cell) else cell


def restored(cell: str) -> str:
    """The text of a cell that `defused` wrote."""
    return cell[1:] if _DEFUSED.match(cell) else cell
