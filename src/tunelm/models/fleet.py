"""Several endpoints that have the same model, asked as one: whoever is free takes the next request.

Each endpoint is asked at most so much at once; how much is found out: a little more with every
answer, half as much when it says that it is busy (additive increase, multiplicative decrease, as
in Chiu and Jain 1989). One that is busy or does not answer rests, longer each time or as long as
Retry-After says; its requests go to the others, and it is asked again later, by one request first.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunelm.errors import ModelError
from tunelm.models.address import Address
from tunelm.models.endpoint import Endpoint, Reply
from tunelm.models.protocol import read_answer
from tunelm.models.refusal import final, passing

FIRST, MOST = 8.0, 32.0
"""Requests under way at one endpoint: at first, and at most."""
TRIES = 5
"""Where every endpoint failed so often in a row, the fleet gives up."""
BACKOFF_S, MOST_WAIT_S = 0.5, 60.0
"""The first rest of an endpoint, doubled for each further one; and the longest."""
MOST_REFUSALS = 100
"""Most endpoints that one request is carried to before it counts as tried."""


@dataclass
class Member:
    """One endpoint of a fleet: how it is doing. Changed under the fleet's lock alone."""

    endpoint: Endpoint
    limit: float = FIRST
    under_way: int = 0
    failures: int = 0
    """Rests since the last answer."""
    rests_until: float = 0.0
    rested: float = 0.0
    """When it was last sent to rest: what was under way then says nothing new."""
    reached: bool = False
    out: bool = False
    """Whether it refused its very first request for good: it is not asked again."""
    answered: int = 0
    busy: int = 0
    lost: int = 0
    error: str = ""

    @property
    def url(self) -> str:
        """Its address."""
        return self.endpoint.address.url

    @property
    def gone(self) -> bool:
        """Whether it has failed so often in a row that no answer is expected."""
        return self.out or self.failures >= TRIES

    def free(self, now: float) -> bool:
        """Whether it may be given a request; after a rest one, until that is answered."""
        most = 1 if self.failures else int(self.limit)
        return not self.out and now >= self.rests_until and self.under_way < most


class Fleet:
    """Endpoints with the same model, to be used like a single `Endpoint`; safe for threads.

    `ask` carries a request on to the next endpoint as long as nobody has worked on it (no
    connection, 429, 503); what may have been worked on is returned as an Endpoint returns it.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], address: Address, backoff_s: float | None = None
    ) -> None:
        self.address = address
        self.backoff_s = BACKOFF_S if backoff_s is None else backoff_s
        self.variable = endpoints[0].variable
        self.members = [Member(endpoint) for endpoint in endpoints]
        self._change = threading.Condition()

    def __repr__(self) -> str:
        return f"Fleet({self.address.url!r})"

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return self.members[0].endpoint.has_key

    @property
    def most(self) -> int:
        """Most requests under way, at all endpoints together."""
        return int(MOST) * len(self.members)

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """One try at whichever endpoint is free; waits for one.

        Raises ModelError where none answers any more.
        """
        for turn in range(MOST_REFUSALS):
            with self._taken() as (member, settle):
                reply = settle(member.endpoint.ask(path, body))
            if turn == MOST_REFUSALS - 1 or not _untouched(member, reply):
                return reply
        raise AssertionError("unreachable")

    @contextmanager
    def events(
        self, path: str, body: Mapping[str, Any]
    ) -> Generator[tuple[Reply, Iterator[dict[str, Any]]]]:
        """One try at a stream, as `Endpoint.events`, at whichever endpoint is free."""
        for turn in range(MOST_REFUSALS):
            with (
                self._taken() as (member, settle),
                member.endpoint.events(path, body) as (reply, events),
            ):
                if reply.error:
                    settle(reply)
                    if turn < MOST_REFUSALS - 1 and _untouched(member, reply):
                        continue
                yield reply, _followed(events, settle)
                return

    def models(self) -> Reply:
        """What GET /models says at the first endpoint that answers it."""
        reply = Reply(None, error="no endpoint", sent=False)
        for member in self.members:
            reply = member.endpoint.models()
            if reply.data is not None:
                break
        return reply

    def clean(self, text: object) -> str:
        """A server's or a library's words as one short line without the key."""
        return self.members[0].endpoint.clean(text)

    def counts(self) -> list[dict[str, Any]]:
        """What became of the requests by endpoint, JSON-ready.

        `answered`; `busy`: 429 or 503; `lost`: other failures, no connection among them; `error`:
        the last of them.
        """
        with self._change:
            return [
                {
                    "base_url": member.url,
                    "answered": member.answered,
                    "busy": member.busy,
                    "lost": member.lost,
                    "error": member.error or None,
                }
                for member in self.members
            ]

    def note(self) -> str:
        """The counts in words."""
        parts: list[str] = []
        for one in self.counts():
            said = [f"{one[what]} {word}" for what, word in _WORDS if one[what]]
            last = f"; last: {one['error']}" if one["error"] else ""
            parts.append(f"{one['base_url']} ({', '.join(said) or 'nothing'}{last})")
        return f"answers by endpoint: {', '.join(parts)}"

    @contextmanager
    def _taken(self) -> Generator[tuple[Member, _Settle]]:
        """An endpoint for one request, and what to call with the reply."""
        member, began = self._take()
        settle = _Settle(self, member, began)
        try:
            yield member, settle
        finally:
            with self._change:
                member.under_way -= 1
                self._change.notify(2)  # its place, and one more that an answer may have won

    def _take(self) -> tuple[Member, float]:
        with self._change:
            while True:
                now = time.monotonic()
                free = [member for member in self.members if member.free(now)]
                if free:
                    break
                if all(m.gone and (m.out or now < m.rests_until) for m in self.members):
                    raise ModelError(self._farewell())
                ready = [m.rests_until - now for m in self.members if m.rests_until > now]
                self._change.wait(max(0.01, min([0.5, *ready])))
            member = min(free, key=lambda m: (m.under_way / m.limit, m.answered))
            member.under_way += 1
            return member, now

    def settle(self, member: Member, began: float, reply: Reply, streamed: bool) -> None:
        """Draw the lessons of a reply: more, less, or a rest."""
        good = streamed or (reply.data is not None and read_answer(reply.data) is not None)
        with self._change:
            if good or not (passing(reply) or (not member.reached and final(reply))):
                # a request that is refused for its own sake shows as well that somebody is there
                member.answered += good
                member.reached = True
                member.failures = 0
                member.limit = min(MOST, member.limit + 1 / member.limit)
                return
            member.error = reply.error or "the answer has no text"
            member.busy += reply.status in _BUSY
            member.lost += reply.status not in _BUSY
            if not member.reached and final(reply) and reply.status is not None:
                member.out = True
            elif began >= member.rested:
                self._rest(member, reply)
            if all(m.gone for m in self.members):
                self._change.notify_all()

    def _rest(self, member: Member, reply: Reply) -> None:
        member.limit = max(1.0, member.limit / 2)
        wait = self.backoff_s * 2**member.failures * random.uniform(0.75, 1.25)
        if reply.wait_s is not None:
            wait = reply.wait_s
        member.failures += 1
        member.rested = time.monotonic()
        member.rests_until = member.rested + min(wait, MOST_WAIT_S)

    def _farewell(self) -> str:
        said = "; ".join(f"{member.url}: {member.error}" for member in self.members)
        return (
            f"none of the {len(self.members)} endpoints answers: {said}. What was answered is "
            "kept: start them again, and go on with --resume."
        )


@dataclass
class _Settle:
    """What is called with the reply to one request; returns it."""

    fleet: Fleet
    member: Member
    began: float

    def __call__(self, reply: Reply, streamed: bool = False) -> Reply:
        self.fleet.settle(self.member, self.began, reply, streamed)
        return reply


_BUSY = (429, 503)
_WORDS = (("answered", "answered"), ("busy", "times busy"), ("lost", "lost"))


def _followed(events: Iterator[dict[str, Any]], settle: _Settle) -> Iterator[dict[str, Any]]:
    """The events of a stream; how it ends is told."""
    try:
        yield from events
    except ModelError as error:
        settle(Reply(None, error=str(error)))
        raise
    settle(Reply(200), streamed=True)


def _untouched(member: Member, reply: Reply) -> bool:
    """Whether nobody worked on the request, so that another endpoint may have it as it is."""
    return member.out or reply.status in _BUSY or not reply.sent
