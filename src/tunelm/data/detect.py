"""What a file is, by its content first and its name second."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from tunelm.data.opening import GZIP_MAGIC, MIB, head
from tunelm.data.shapes import SHAPES, VALID_ROW, detect, family_of
from tunelm.data.strict_json import JsonError, StrictJson
from tunelm.errors import ConfigError, DataError

CONTAINERS: Mapping[str, str] = {
    "jsonl": "a JSON object a line",
    "json": "a JSON list of objects, or an object that holds one",
    "csv": "a table: comma, semicolon or tab between cells, names in the first row",
    "tsv": "a table with a tab between cells, names in the first row",
    "parquet": "a Parquet file",
    "dataset": "a folder written by save_to_disk of Hugging Face datasets",
    "shards": "a folder of files of rows, read in the order of their names; written as Parquet",
    "txt": "plain text: a file, or a folder of files, is a document each",
    "markdown": "Markdown: likewise",
    "html": "HTML: likewise",
    "pdf": "PDF with a text layer: likewise; only read",
    "folder": "a folder of documents of these four kinds; only read",
    "lines": "plain text, each line a text of its own; never detected, has to be named",
}
SUFFIXES: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "txt",
    ".text": "txt",
    ".rst": "txt",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
}
DOCUMENTS = ("txt", "markdown", "html", "pdf")
ROWS = ("jsonl", "json", "csv", "tsv", "parquet")
TABLES = ("csv", "tsv", "parquet", "dataset")
DELIMITERS = ",\t;|"

_FOREIGN = (  # magic number, what it is, what to do
    (b"PK\x03\x04", "a zip archive", "Unpack it first."),
    (b"BZh", "packed with bzip2", "Unpack it first, or pack it with gzip."),
    (b"\xfd7zXZ\x00", "packed with xz", "Unpack it first, or pack it with gzip."),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "Unpack it first, or pack it with gzip."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
    (b"ARROW1", "an Arrow file", "Save it as Parquet."),
    (b"SQLite format 3\x00", "a SQLite database", "Export the table as CSV."),
    (b"\x80\x04\x95", "a Python pickle, which can run code when read", "Save it as JSONL."),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "Save it as CSV, or as plain text."),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "Convert it: iconv -f UTF-32 -t UTF-8."),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "Convert it: iconv -f UTF-32 -t UTF-8."),
    (b"\xff\xfe", "UTF-16 text", "Save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8."),
    (b"\xfe\xff", "UTF-16 text", "Save it as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8."),
)  # fmt: skip


def parse_format(name: str | None) -> tuple[str | None, str | None]:
    """(container, shape) of a format's name: `csv`, `alpaca` or `jsonl:alpaca`.

    Raises:
        ConfigError: no such container or shape.
    """
    if not name:
        return None, None
    first, colon, second = name.partition(":")
    if not colon and first in CONTAINERS:
        return first, None
    container, shape = (first, second) if colon else (None, first)
    if (container is None or container in CONTAINERS) and family_of(shape) in SHAPES:
        return container, shape
    raise ConfigError(
        f"no format {name!r}. A format is a container ({', '.join(CONTAINERS)}), a shape of row "
        f"({', '.join(SHAPES)}), or both: jsonl:messages."
    )


def detect_container(path: Path, columns: Mapping[str, str]) -> str:
    """The container of what stands at `path`.

    Raises:
        DataError: it cannot be read, or is nothing this reads.
    """
    if path.is_dir():
        saved = ("dataset_info.json", "dataset_dict.json")
        if any((path / name).is_file() for name in saved):
            return "dataset"
        return "shards" if _all_rows(path) else "folder"
    start = head(path)
    if not start:
        raise DataError(f"{path}: the file is empty. Each line should be {VALID_ROW}.")
    suffix = SUFFIXES.get(_plain_suffix(path))
    if start.startswith(b"PAR1"):
        return "parquet"
    if start[:1024].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if suffix in ("parquet", "pdf"):
        raise DataError(f"{path}: is no {CONTAINERS[suffix]} in spite of its name, or is damaged.")
    require_text(path, start, suffix is not None)
    text = start.decode("utf-8-sig", errors="replace").lstrip()
    by_content = _json_kind(text, suffix) or _html(text)
    return by_content or _by_name(text, suffix, columns)


def shards_of(path: Path) -> list[Path]:
    """The files of a folder of shards, in order; marks such as _SUCCESS are passed over."""
    return sorted(file for file in path.iterdir() if file.name[0] not in "._")


def _all_rows(path: Path) -> bool:
    """Whether a folder holds files of rows and nothing else."""
    files = shards_of(path)
    return bool(files) and all(
        file.is_file() and SUFFIXES.get(_plain_suffix(file)) in ROWS for file in files
    )


def require_text(path: Path, start: bytes, some_nul: bool = True) -> None:
    """Refuse what is no text in UTF-8 by its first bytes. `some_nul`: a few NUL bytes may be."""
    for magic, what, mend in _FOREIGN:
        if start.startswith(magic):
            raise DataError(f"{path}: is {what}. {mend}")
    if start.startswith(GZIP_MAGIC):
        raise DataError(f"{path}: is gzip inside gzip. Unpack it once.")
    nuls = start.count(0)
    if nuls > (len(start) // 10 if some_nul else 0):
        raise DataError(
            f"{path}: {nuls} of its first {len(start)} bytes are NUL: it is no text, or UTF-16 "
            "without a byte order mark. Save it as UTF-8."
        )


def delimiter_of(text: str, columns: Mapping[str, str]) -> str | None:
    """What stands between the names of a table's first row, if it begins a table we know."""
    ours = {theirs: name for name, theirs in columns.items()}
    for delimiter in DELIMITERS:
        if detect([ours.get(name, name) for name in first_cells(text, delimiter)]):
            return delimiter
    return None


def first_cells(text: str, delimiter: str) -> list[str]:
    """The cells of a table's first row that has any."""
    try:
        rows = csv.reader(io.StringIO(text[:MIB], newline=""), delimiter=delimiter)
        return [cell.strip() for cell in next((row for row in rows if row), [])]
    except csv.Error:
        return []


def _plain_suffix(path: Path) -> str:
    """The suffix without .gz."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _json_kind(text: str, suffix: str | None) -> str | None:
    """`jsonl` or `json` for what begins as JSON; None where it is named, and is, otherwise."""
    if suffix == "jsonl":
        return "json" if re.match(r"[\[{][ \t]*\r?\n", text) else "jsonl"
    line, _, rest = text.partition("\n")
    try:
        value = StrictJson().parse(line)
    except JsonError:
        value = None
    if isinstance(value, dict):
        more = rest.lstrip().startswith("{")
        return "jsonl" if more or suffix != "json" else "json"
    if suffix is None and re.match(r'\{\s*"|\[\s*\{', text):
        return "json"
    return "json" if suffix == "json" else None


def _html(text: str) -> str | None:
    return "html" if re.match(r"<!doctype html|<html[\s>]", text, re.IGNORECASE) else None


def _by_name(text: str, suffix: str | None, columns: Mapping[str, str]) -> str:
    if suffix in (None, "txt"):
        delimiter = delimiter_of(text, columns)
        cells = first_cells(text, delimiter) if delimiter else []
        if len(cells) > 1 and all(re.fullmatch(r"[\w .()-]{1,40}", cell) for cell in cells):
            return "tsv" if delimiter == "\t" else "csv"
    return suffix or "txt"
