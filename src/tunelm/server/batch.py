"""The running batch of one model: rows join it, get a token each at every step, and leave."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch

from tunelm.server.asking import Scored
from tunelm.server.rows import Event, Row
from tunelm.server.runner import Runner
from tunelm.server.sampling import choose, score

SCORED_AT_ONCE = 128
"""Places of a prompt whose log-probabilities are computed together."""


@dataclass
class Batch:
    """Rows on one runner; row i of the one is row i of the other."""

    runner: Runner
    rows: list[Row] = field(default_factory=list[Row])

    def step(self, new: Sequence[Row]) -> list[Event]:
        """Take in rows; one more token in every row, the new ones included."""
        looked_at = [row for row in new if row.ask.score_prompt or row.finish is not None]
        groups = _alike([row for row in new if row not in looked_at])
        if self.rows or groups:
            prompts = [[row.ask.prompt for row in group] for group in groups]
            logits = self.runner.step([row.last for row in self.rows], prompts)
            self.rows += [row for group in groups for row in group]
            _advance(self.rows, logits)
        for row in looked_at:
            logits = self.runner.enter_whole(row.ask.prompt)
            self.rows.append(row)
            if row.ask.score_prompt:
                row.take_prompt(_score_prompt(row, logits))
            if row.finish is None:  # else only the prompt was to be looked at
                _advance([row], logits[-1:])
        events = [event for row in self.rows if (event := row.event()) is not None]
        self.drop({i for i, row in enumerate(self.rows) if row.finish is not None})
        return events

    def drop(self, gone: Set[int]) -> None:
        """Let rows go by their numbers."""
        for i in sorted(gone, reverse=True):  # the last row takes a number that is free
            self.runner.leave(i)
            self.rows[i] = self.rows[-1]
            self.rows.pop()


def _advance(rows: Sequence[Row], logits: torch.Tensor) -> None:
    wanted = [i for i, row in enumerate(rows) if row.ask.top is not None]
    raw: Any = logits[wanted].clone() if wanted else None  # choosing may change them
    tokens = choose(logits, [row.chooser for row in rows])
    found: dict[int, Scored] = {}
    if wanted:
        asked = [rows[i] for i in wanted]
        scored = score(
            raw,
            [tokens[i] for i in wanted],
            [row.ask.top or 0 for row in asked],
            [len(row.text) for row in asked],
        )
        found = dict(zip(wanted, scored, strict=True))
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        row.take(token, found.get(i))


def _score_prompt(row: Row, logits: torch.Tensor) -> list[Scored]:
    targets = row.ask.prompt[1:]
    found: list[Scored] = []
    for at in range(0, len(targets), SCORED_AT_ONCE):
        part = targets[at : at + SCORED_AT_ONCE]
        top = [row.ask.top or 0] * len(part)
        found += score(logits[at : at + len(part)], part, top, [0] * len(part))
    return found


def _alike(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups of prompts alike in length, so that little is computed for padding."""
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ask.prompt)):
        shortest = len(groups[-1][0].ask.prompt) if groups else 0
        if groups and len(row.ask.prompt) <= 1.5 * shortest + 16:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
