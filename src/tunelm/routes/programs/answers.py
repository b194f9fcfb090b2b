"""The answers of a search under way, kept so that one that is killed pays for none twice."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelm.errors import RunDirError
from tunelm.types import Completion, FinishReason, Request, Usage, content_hash

FORMAT = "tunelm-search-answers/1"


@dataclass(frozen=True, slots=True)
class Kept:
    """One answered call.

    Attributes:
        phase: of the engine that made it.
        asked: `key_of` its request.
        tokens: what it counted against the limits, as `usd`.
        usd: see `tokens`.
        seconds: since the search began.
        completion: the answer.
    """

    phase: str
    asked: str
    tokens: int
    usd: float
    seconds: float
    completion: Completion


class AnswerFile:
    """A line for each call that was answered. Safe for threads.

    The first line names what the search depends on: an answer is of use to that search alone,
    since which calls an optimizer makes depends on the answers before.

    Raises RunDirError where the file is of a search made from something else.
    """

    def __init__(self, path: Path, made_from: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        head = {"format": FORMAT, "made_from": made_from}
        if path.exists() and (lines := path.read_text(encoding="utf-8").splitlines()):
            if _read(lines[0]) != head:
                raise RunDirError(
                    f"{path} holds the answers of a search with other rows, settings or seed."
                    " Give the route an empty folder."
                )
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def read(self) -> Iterator[Kept]:
        """What is kept so far. A line cut short by a kill is passed over."""
        for line in self.path.read_text(encoding="utf-8").splitlines()[1:]:
            if (row := _read(line)) is None:
                continue
            fields = row["completion"]
            fields["finish_reason"] = FinishReason(fields["finish_reason"])
            fields["usage"] = Usage(**fields["usage"])
            row["completion"] = Completion(**fields)
            yield Kept(**row)

    def write(self, kept: Kept) -> None:
        """Keep one answer."""
        line = json.dumps(dataclasses.asdict(kept)) + "\n"
        with self._lock, self.path.open("ab") as file:
            if file.tell() and not self._whole():
                line = "\n" + line
            file.write(line.encode("ascii"))

    def _whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read() == b"\n"


def key_of(request: Request) -> str:
    """A request by its content, decoding settings and seed included."""
    return content_hash(dataclasses.asdict(request))


def _read(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
