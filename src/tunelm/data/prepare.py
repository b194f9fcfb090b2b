"""From a data file to train, dev and test, with a line in the ledger for every input row."""

from __future__ import annotations

import dataclasses
import json
import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from tunelm.config import DataConfig
from tunelm.data.contamination import contamination
from tunelm.data.given import GivenSplit, find_given
from tunelm.data.on_disk import ShardExamples
from tunelm.data.read import Row, read_rows
from tunelm.data.split import (
    NEAR,
    PARTS,
    Split,
    join_alike,
    part_hash,
    require_enough,
    split_rows,
    take_split,
)
from tunelm.errors import DataError
from tunelm.rundir import count_test_look, read_json, write_json, write_text
from tunelm.types import Example, Message

MOST_PROBLEMS = 100

Length = Callable[[Example], int]
"""Tokens of a row's prompt and gold answer together, by the model's own tokenizer."""


class Reader(Protocol):
    """What makes rows of a file of some kind of task."""

    def __call__(
        self, path: Path, *, format: str | None, columns: Mapping[str, str]
    ) -> Iterator[Row]:
        """The rows; `format` and `columns` as in `[data]`."""
        ...


def prepare(
    config: DataConfig,
    run: Path,
    length: Length,
    limit: int,
    look: bool = True,
    reader: Reader = read_rows,
) -> Split:
    """Read, dedupe, fit to the context, split; write `rows.jsonl` and `split.json` into `run`.

    `limit` is the model's context in tokens. Where `config.path` is a folder with the files train,
    dev and test, as `tunelm data prepare` writes it, its split is taken as it is and looked at for
    leaks. A prepared run is read back, not made again, and its data file must still say the same.
    `look`: whether the test rows will be answered, which is counted. `reader`: what makes rows of
    a file of this kind of task.
    Raises DataError; nothing is written then.
    """
    given = find_given(config.path)
    if given is not None and given.on_disk and reader is read_rows:
        return _prepare_on_disk(config, given, run, (length, limit), look)
    ledger, kept = _sort_out(config, given, length, limit, reader)
    if given is None:
        split = split_rows(kept[None], config)
    else:
        split = take_split({n: kept[n] for n in PARTS}, config, None if given.untouched else NEAR)
        _require_no_leak(given, split, ledger)
    if (run / "split.json").exists():
        _require_same(run, split, config)
        return split
    where = {e.id: (name, e) for name in PARTS for e in split.part(name)}
    lines: list[str] = []
    for line in ledger:
        part, example = where[line["kept"]] if line["kept"] else (None, None)
        lines.append(_line(line, part, example))
    write_text(run / "rows.jsonl", "\n".join(lines) + "\n")
    looks = count_test_look(part_hash(split.test)) if look else 0
    write_json(run / "split.json", _describe(split, config, given) | {"test_looks": looks})
    return split


def _prepare_on_disk(
    config: DataConfig, given: GivenSplit, run: Path, fits: tuple[Length, int], look: bool
) -> Split:
    """`prepare` for shards: the train rows stay on disk, the others are held.

    That no row stands in two parts was seen to when the shards were made, and they are untouched.
    """
    part = run / f".rows.jsonl.{os.getpid()}.tmp"
    try:
        with part.open("w", encoding="utf-8") as file:
            train = _train_on_disk(config, given, fits, file)
            few = dataclasses.replace(given, files={n: given.files[n] for n in PARTS[1:]})
            ledger, kept = _sort_out(config, few, *fits, read_rows)
            held = [example for name in PARTS[1:] for example in kept[name]]
            owner, _ = join_alike(held, lambda _: "", None)
            parts = {
                n: tuple(dataclasses.replace(e, group=owner[e.group]) for e in kept[n])
                for n in PARTS[1:]
            }
            split = Split(train, parts["dev"], parts["test"])
            where = {e.id: (name, e) for name in parts for e in parts[name]}
            file.writelines(
                _line(line, *(where[line["kept"]] if line["kept"] else (None, None))) + "\n"
                for line in ledger
            )
            file.flush()
            os.fsync(file.fileno())
        groups = {name: len({e.group for e in parts[name]}) for name in parts}
        groups["train"] = given.groups["train"] if len(train) else 0
        require_enough(groups, config, given=True)
        if (run / "split.json").exists():
            _require_same(run, split, config)
            return split
        os.replace(part, run / "rows.jsonl")
    finally:
        part.unlink(missing_ok=True)
    looks = count_test_look(part_hash(split.test)) if look else 0
    write_json(run / "split.json", _describe(split, config, given) | {"test_looks": looks})
    return split


def _train_on_disk(
    config: DataConfig, given: GivenSplit, fits: tuple[Length, int], file: TextIO
) -> ShardExamples:
    """The train rows, each looked at once, with its line in the ledger."""
    folder, form = given.files["train"], config.format or given.format
    rows, ids = array("q"), array("Q")
    seen: set[int] = set()
    changed: dict[int, Example] = {}
    too_long: list[str] = []
    for number, row in enumerate(read_rows(folder, format=form, columns=config.columns)):
        example, status, reason = row.example, "kept", None
        identity = int(example.id, 16)
        if identity in seen:
            status, reason = "duplicate", "of an earlier train row"
        else:
            seen.add(identity)
            tokens = fits[0](example)
            if tokens > fits[1]:
                example, status, reason = _over_long(row, tokens, config, *fits)
                if status == "cut":
                    changed[number] = example
                elif status == "error" and len(too_long) < MOST_PROBLEMS:
                    too_long.append(f"{folder}/{row.source}: {reason}")
        usable = status in ("kept", "cut")
        if usable:
            rows.append(number)
            ids.append(int(example.id, 16))
        line = {"source": row.source, "status": status, "reason": reason, "kept": None}
        found = ("train", example) if usable else (None, None)
        file.write(_line(line, *found) + "\n")
    if too_long:
        raise DataError(too_long)
    train = ShardExamples(
        folder, form, config.columns, np.frombuffer(rows, np.int64), np.frombuffer(ids, np.uint64)
    )
    train.changed |= changed
    return train


def _line(line: Mapping[str, Any], part: str | None, example: Example | None) -> str:
    known = {name: value for name, value in line.items() if name != "kept"}
    known |= {"part": part, "example": example.to_json() if example else None}
    return json.dumps(known, ensure_ascii=False)


def _sort_out(
    config: DataConfig, given: GivenSplit | None, length: Length, limit: int, reader: Reader
) -> tuple[list[dict[str, Any]], dict[str | None, list[Example]]]:
    """The ledger, and the examples to keep; by their part where the split is given."""
    ledger: list[dict[str, Any]] = []
    kept: dict[str | None, list[Example]] = defaultdict(list)
    seen: dict[tuple[str | None, str], str] = {}
    too_long: list[str] = []
    for path, part, row in _rows(config, given, reader):
        example, status, reason = row.example, "kept", None
        if (part, example.id) in seen:
            status, reason = "duplicate", f"of {seen[part, example.id]}"
        else:
            seen[part, example.id] = row.source
            tokens = length(example)
            if tokens > limit:
                example, status, reason = _over_long(row, tokens, config, length, limit)
                if status == "error":
                    too_long.append(f"{path}:{row.source.split(':')[-1]}: {reason}")
        usable = status in ("kept", "cut")
        if usable:
            kept[part].append(example)
        ledger.append(
            {
                "source": row.source,
                "status": status,
                "reason": reason,
                "kept": example.id if usable else None,
            }
        )
    if too_long:
        raise DataError(too_long)
    return ledger, kept


def _rows(
    config: DataConfig, given: GivenSplit | None, reader: Reader
) -> Iterator[tuple[Path, str | None, Row]]:
    """(file, part if the split is given, row)."""
    if given is None:
        for row in reader(config.path, format=config.format, columns=config.columns):
            yield config.path, None, row
        return
    for part, path in given.files.items():
        form = config.format or given.format
        for row in reader(path, format=form, columns=config.columns):
            yield path, part, row


def _require_no_leak(given: GivenSplit, split: Split, ledger: list[dict[str, Any]]) -> None:
    """Refuse a given split with alike rows in two parts: which is to move is not ours to say."""
    if not split.leaks:
        return
    sources = {line["kept"]: line["source"] for line in ledger if line["kept"]}
    problems = [
        f"{given.folder}: {sources[leak.test_id]} and {sources[leak.other_id]}: {leak.kind}"
        for leak in split.leaks
    ]
    mend = (
        "the parts of a given split must not overlap: take one of each two rows out, or make the"
        " split anew with tunelm data prepare."
    )
    raise DataError([*problems[:19], f"{given.folder}: {mend}"])


def _over_long(
    row: Row, tokens: int, config: DataConfig, length: Length, limit: int
) -> tuple[Example, str, str]:
    found = f"{tokens} tokens with its answer, the model's context is {limit}"
    if config.over_long == "drop":
        return row.example, "dropped", found
    if config.over_long == "cut":
        shorter = _cut(row.example, length, limit)
        if shorter is not None:
            return shorter, "cut", f"{found}; cut from the start of its longest message"
        return row.example, "dropped", f"{found}; the answer alone is too long to cut the prompt"
    return (
        row.example,
        "error",
        f'{found}. Shorten it, or set data.over_long = "drop" or "cut" (both are recorded).',
    )


def _cut(example: Example, length: Length, limit: int) -> Example | None:
    """The example with the least taken from the start of its longest message, or None."""
    sizes = [len(m.content) for m in example.messages]
    longest = sizes.index(max(sizes))

    def without(count: int) -> Example:
        messages = list(example.messages)
        old = messages[longest]
        messages[longest] = Message(old.role, old.content[count:])
        return dataclasses.replace(example, messages=tuple(messages))

    low, high = 0, sizes[longest] - 1
    if length(without(high)) > limit:
        return None
    while low < high:  # the smallest cut that fits
        middle = (low + high) // 2
        if length(without(middle)) > limit:
            low = middle + 1
        else:
            high = middle
    return without(low)


def _describe(split: Split, config: DataConfig, given: GivenSplit | None) -> dict[str, Any]:
    parts = {
        name: {
            "rows": len(split.part(name)),
            "groups": len({e.group for e in split.part(name)}),
            "hash": part_hash(split.part(name)),
            "ids": [e.id for e in split.part(name)],
        }
        for name in PARTS
        if name != "train" or not isinstance(split.train, ShardExamples)
    }
    if given and "train" not in parts:  # millions of ids: rows.jsonl has them
        known = {"rows": len(split.train), "groups": given.groups["train"]}
        parts = {"train": {**known, "hash": part_hash(split.train), "ids": None}} | parts
    return {
        "schema_version": 1,
        "seed": config.seed if given is None else None,
        "given": str(given.folder) if given else None,
        "parts": parts,
        "leaks": [dataclasses.asdict(leak) for leak in split.leaks],
        "contamination": contamination(split),
        "min_test_groups": config.min_test_groups,
    }


def _require_same(run: Path, split: Split, config: DataConfig) -> None:
    stored = read_json(run / "split.json")
    changed = [n for n in PARTS if stored["parts"][n]["hash"] != part_hash(split.part(n))]
    if changed:
        raise DataError(
            f"{config.path}: the rows changed since {run} was made ({', '.join(changed)} differ). "
            "Restore the file, or start a new run with another --out."
        )
