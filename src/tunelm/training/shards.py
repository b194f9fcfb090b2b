"""Encoded rows on disk: tokenized once, read by memory map, bound to what they were made from.

A folder of flat arrays (the tokens of all rows one after the other, where each row ends, what of
it carries loss) and `about.json`, which holds the key and the hash of each file. The key is of all
that the tokens depend on: the tokenizer, the chat template, the rules of the mask, the rows, the
longest row. Another key, or a file that is damaged, and the folder is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelm.errors import TrainingError
from tunelm.rundir import read_json, write_json
from tunelm.training.rows import RULES, EncodedRow
from tunelm.types import Lazy, content_hash

ABOUT = "about.json"
_FILES = {"tokens": None, "ends": "<i8", "prompts": "<i4", "gaps": "<i4", "gap_ends": "<i8",
          "names": "u1", "name_ends": "<i8"}  # fmt: skip
_BLOCK = 4096


class EncodedShards(Lazy[EncodedRow]):
    """The encoded rows in a folder; a row is made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / ABOUT)
        self.folder = folder
        kinds = {**_FILES, "tokens": about["token_type"]}
        self._arrays = {
            name: _mapped(folder / f"{name}.bin", np.dtype(kind)) for name, kind in kinds.items()
        }
        self._starts = _starts(self._arrays["ends"])
        self.lengths: NDArray[np.int64] = np.asarray(self._arrays["ends"]) - self._starts - 1
        """Of each row, the tokens fed to the model: `EncodedRow.length`."""

    def __len__(self) -> int:
        return int(self._arrays["ends"].size)

    def at(self, index: int) -> EncodedRow:
        """One row, out of the mapped files."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self)
        arrays = self._arrays
        ids = arrays["tokens"][int(self._starts[at]) : int(arrays["ends"][at])]
        start = int(arrays["gap_ends"][at - 1]) if at else 0
        gaps = arrays["gaps"][start : int(arrays["gap_ends"][at])].reshape(-1, 2)
        return EncodedRow(
            self.name(at),
            tuple(ids.tolist()),
            int(arrays["prompts"][at]),
            tuple((a, b) for a, b in gaps.tolist()),
        )

    @cached_property
    def supervised(self) -> NDArray[np.int64]:
        """Of each row, the tokens that carry loss."""
        pairs = np.asarray(self._arrays["gaps"], np.int64).reshape(-1, 2)
        silent = np.concatenate([[0], np.cumsum(pairs[:, 1] - pairs[:, 0])])
        ends = np.asarray(self._arrays["gap_ends"]) // 2
        starts = _starts(ends)
        return self.lengths + 1 - self._arrays["prompts"] - (silent[ends] - silent[starts])

    def name(self, at: int) -> str:
        """The id of a row."""
        ends = self._arrays["name_ends"]
        start = int(ends[at - 1]) if at else 0
        return self._arrays["names"][start : int(ends[at])].tobytes().decode()


def encoding_key(
    identity: Mapping[str, Any], stops: Iterable[int], limit: int, text: bool, rows: str
) -> dict[str, Any]:
    """What the tokens of rows depend on.

    Args:
        identity: of the base model (`models.identity.base_identity`); its weights do not matter.
        stops: the tokens that end an answer.
        limit: most tokens of a row.
        text: whether the rows are running text.
        rows: their hash (`job.rows_hash`).
    """
    return {
        "rules": RULES,
        "tokenizer": identity["tokenizer"],
        "chat_template": identity["chat_template"],
        "versions": {name: metadata.version(name) for name in ("tokenizers", "transformers")},
        "stops": sorted(stops),
        "limit": limit,
        "text": text,
        "rows": rows,
    }


def stored(
    root: Path, key: Mapping[str, Any], encode: Callable[[], Iterable[EncodedRow]]
) -> EncodedShards:
    """The encoded rows of this key in a folder of `root`; made by `encode` where there is none.

    The folder appears whole or not at all, and its files are held against their hashes each time.

    Raises:
        TrainingError: the disk is full or cannot be written.
        DataError: as `encode` does.
    """
    folder = root / content_hash(key)
    if is_whole(folder, key):
        return EncodedShards(folder)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part, key, encode())
        if is_whole(folder, key):  # another process was faster
            return EncodedShards(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    except OSError as error:
        if not is_whole(folder, key):
            raise TrainingError(
                f"{folder}: the encoded rows cannot be written: {error.strerror or error}."
                " Nothing was left there."
            ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return EncodedShards(folder)


def is_whole(folder: Path, key: Mapping[str, Any]) -> bool:
    """Whether a folder holds the rows of this key, every file as it was written."""
    try:
        about = read_json(folder / ABOUT)
        return about["key"] == json.loads(json.dumps(key)) and all(
            _sha256(folder / f"{name}.bin") == about["sha256"][name] for name in _FILES
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(folder: Path, key: Mapping[str, Any], rows: Iterable[EncodedRow]) -> None:
    most = 0
    with ExitStack() as stack:
        flats = {
            name: stack.enter_context(_Flat(folder / f"{name}.bin", kind or "<u4"))
            for name, kind in _FILES.items()
        }
        for block in _blocks(rows):
            most = max(most, *(max(row.ids) for row in block))
            flats["tokens"].add([token for row in block for token in row.ids])
            flats["ends"].add_ends([len(row.ids) for row in block])
            flats["prompts"].add([row.n_prompt for row in block])
            flats["gaps"].add([at for row in block for gap in row.gaps for at in gap])
            flats["gap_ends"].add_ends([2 * len(row.gaps) for row in block])
            names = [row.id.encode() for row in block]
            flats["names"].add(list(b"".join(names)))
            flats["name_ends"].add_ends([len(name) for name in names])
        for flat in flats.values():
            flat.sync()
    kind = "<u2" if most < 1 << 16 else "<u4"
    if kind == "<u2":
        _narrow(folder / "tokens.bin")
    about = {
        "key": dict(key),
        "token_type": kind,
        "rows": flats["ends"].count,
        "tokens": flats["ends"].last,
        "sha256": {name: _sha256(folder / f"{name}.bin") for name in _FILES},
    }
    write_json(folder / ABOUT, about)


class _Flat:
    """Numbers one after the other in a file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._file = path.open("wb")
        self._kind = np.dtype(kind)
        self.count = self.last = 0

    def __enter__(self) -> _Flat:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def add(self, numbers: Sequence[int]) -> None:
        self._file.write(np.array(numbers, self._kind).tobytes())
        self.count += len(numbers)

    def add_ends(self, sizes: Sequence[int]) -> None:
        ends = np.cumsum(sizes) + self.last
        self.last = int(ends[-1])
        self.add(ends.tolist())

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _narrow(path: Path) -> None:
    """Tokens that fit into two bytes each take no four."""
    small = path.with_name("tokens.small")
    with path.open("rb") as old, small.open("wb") as new:
        while block := old.read(1 << 22):
            new.write(np.frombuffer(block, "<u4").astype("<u2").tobytes())
        new.flush()
        os.fsync(new.fileno())
    os.replace(small, path)


def _blocks(rows: Iterable[EncodedRow]) -> Iterator[list[EncodedRow]]:
    block: list[EncodedRow] = []
    for row in rows:
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _mapped(path: Path, kind: Any) -> NDArray[Any]:
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.zeros(0, kind)
    return np.memmap(path, kind, "r")


def _starts(ends: NDArray[np.int64]) -> NDArray[np.int64]:
    starts = np.zeros(ends.size, np.int64)
    starts[1:] = ends[:-1]
    return starts


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
