"""What comes up while a remote model is asked, for whoever reads its results."""

from __future__ import annotations

import threading

from tunelm.models.endpoint import Endpoint, Reply, printable
from tunelm.models.fleet import Fleet
from tunelm.models.protocol import Answer, Dialect


class Seen:
    """What came up in the calls of one model, for its notes. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost = 0
        self._uncounted = 0
        self._empty = 0
        self._served: dict[str, None] = {}

    def count(self, reply: Reply) -> None:
        """A try without an answer."""
        with self._lock:
            self._lost += reply.sent and reply.status in (None, 200)

    def answer(self, answer: Answer) -> None:
        """An answer."""
        unknown = answer.usage.prompt_tokens is None or answer.usage.completion_tokens is None
        with self._lock:
            self._uncounted += unknown
            self._empty += answer.reason == "length" and not answer.text
            if answer.served:
                self._served[printable(answer.served)] = None

    def notes(self, name: str, endpoint: Endpoint | Fleet, dialect: Dialect) -> tuple[str, ...]:
        """One sentence for each thing worth knowing."""
        found: list[str] = []
        if not dialect.temperature:
            found.append("it takes no temperature: that its answers are greedy is not assured")
        if others := [served for served in self._served if served != name]:
            found.append(endpoint.clean(f"the endpoint says that {', '.join(others)} answered"))
        if self._lost:
            found.append(
                f"{self._lost} requests were sent and not answered: tokens unknown, perhaps charged"
            )
        if self._uncounted:
            found.append(f"{self._uncounted} answers came without a count of tokens")
        if self._empty:
            found.append(
                f"{self._empty} answers ended at the limit before any text (a reasoning model's "
                "thoughts count too): raise task.max_tokens"
            )
        if endpoint.address.open_wire:
            found.append("rows and key travel unencrypted: the address begins with http:")
        return tuple(f"{name}: {text}" for text in found)
