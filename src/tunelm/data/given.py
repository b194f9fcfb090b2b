"""A split that stands on disk already: a folder with the files train, dev and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.data.split import PARTS
from tunelm.errors import DataError

ABOUT, LEDGER = "split.json", "rows.jsonl"
LEDGER_SHARDS = "rows"
"""The ledger of a split whose parts are shards: a folder of Parquet files, a row for each line."""


@dataclass(frozen=True)
class GivenSplit:
    """The files of the parts, in the order of `PARTS`."""

    folder: Path
    files: Mapping[str, Path]
    format: str | None
    """How `tunelm data prepare` wrote them; None where it did not."""
    untouched: bool
    """Whether they still are as it wrote, and checked, them."""
    groups: Mapping[str, int]
    """How many groups it dealt to each part; empty where it did not."""

    @property
    def on_disk(self) -> bool:
        """Whether the train rows stay where they are: shards that nobody touched."""
        return self.untouched and (self.format or "").partition(":")[0] == "shards"


def find_given(path: Path, all_parts: bool = True) -> GivenSplit | None:
    """The split in a folder, or None where `path` is no such folder.

    Raises DataError where a part stands there twice, or is missing from what the command wrote;
    without `all_parts` only train must be there.
    """
    if not path.is_dir():
        return None
    found = {part: _files_of(path, part) for part in PARTS}
    about = _about(path / ABOUT)
    if not about and not all(found.values()):
        return None  # documents, one of which may be named test.txt
    for part, files in found.items():
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise DataError(f"{path}: the {part} part stands there {len(files)} times: {names}.")
        if not files and (all_parts or part == "train"):
            how = "anew" if part == "train" else f"with --{part} above 0"
            raise DataError(
                f"{path}: has no {part} part. Put the file there, or prepare the data {how}."
            )
    files = {part: paths[0] for part, paths in found.items() if paths}
    parts: Mapping[str, Any] = about.get("parts", {})
    untouched = bool(parts) and all(
        parts.get(part, {}).get("sha256") == file_hash(file) for part, file in files.items()
    )
    groups = {part: int(known["groups"]) for part, known in parts.items()}
    return GivenSplit(path, files, about.get("written_as"), untouched, groups)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder, names and all."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        if file != path:
            digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files_of(folder: Path, part: str) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name == part or p.name.startswith(f"{part}."))


def _about(path: Path) -> dict[str, Any]:
    """What the command wrote about the split; {} where the folder was made in another way."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) and "made_by" in about else {}
