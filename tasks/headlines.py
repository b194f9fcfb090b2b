"""The rows of the task `headlines`: invented news, a few papers' wordings of each story.

`headlines/SECTION.txt` holds the stories of a section: blank lines between stories, a line for
each headline. A story that is easily taken for another section's begins with `~ SECTION`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent / "headlines"
FILE = "headlines.jsonl"


class Story(NamedTuple):
    """One event. `looks_like` is the section it is easily taken for, None where there is none."""

    section: str
    number: int
    looks_like: str | None
    headlines: tuple[str, ...]

    def rows(self) -> Iterator[dict[str, str]]:
        """One row a headline; all of them in one group."""
        hint = {"looks_like": self.looks_like} if self.looks_like else {}
        for headline in self.headlines:
            group = f"{self.section}/{self.number:02}"
            yield {"question": headline, "answer": self.section, "group": group, **hint}


def stories(source: Path) -> list[Story]:
    """The stories of one section's file."""
    found: list[Story] = []
    for number, block in enumerate(source.read_text(encoding="utf-8").split("\n\n"), 1):
        lines = block.strip().splitlines()
        looks_like = lines.pop(0).removeprefix("~ ") if lines[0].startswith("~ ") else None
        found.append(Story(source.stem, number, looks_like, tuple(lines)))
    return found


def build(target: Path) -> None:
    """Write FILE into the folder `target`: the sections by turns, story after story."""
    sections = [stories(path) for path in sorted(SOURCES.glob("*.txt"))]
    by_turns = [story for turn in zip_longest(*sections) for story in turn if story]
    rows = [row for story in by_turns for row in story.rows()]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (target / FILE).write_text(text, encoding="utf-8", newline="\n")
