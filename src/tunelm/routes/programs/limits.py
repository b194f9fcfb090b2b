"""What a search may use, and how it is ended from inside any optimizer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from tunelm.models.budget import MILLION, Prices
from tunelm.route_settings import LimitSettings
from tunelm.types import Completion, Request

_A_DOLLAR_EACH = Prices(MILLION, MILLION)
"""Turns what a call could cost at most into how many tokens it could have at most."""


class Stopped(BaseException):
    """Ends a search, in whatever thread it is raised.

    Not an Exception: DSPy and its optimizers take every Exception for a row that failed, and go
    on. `reason` says in words what ended it. `error` is what broke the task itself (its model, its
    metric), so that there is no result, whatever was found before; None where there is one.
    `proposer` tells that only the proposer is gone.
    """

    def __init__(self, reason: str, error: Exception | None = None, proposer: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.proposer = proposer


class Limits:
    """Counts what all models of one search use together. Safe for threads.

    The number of calls is kept exactly. Tokens, dollars and minutes are known after a call only,
    so they end at the first call after them: the calls under way by then are beyond. Where a
    model does not report tokens, the most that a call can have had is counted.

    Attributes:
        calls: made so far, those before a kill included.
        tokens: of prompts and completions together.
        usd: by the prices of the models.
    """

    def __init__(
        self, settings: LimitSettings | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings or LimitSettings()
        self.calls = 0
        self.tokens = 0
        self.usd = 0.0
        self._clock = clock
        self._began = clock()
        self._part = 1.0
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return self.settings != LimitSettings()

    @property
    def seconds(self) -> float:
        """How long the search has taken, the time before a kill included."""
        return self._clock() - self._began

    def resume(self, tokens: int, usd: float, seconds: float) -> None:
        """Take up a call of a search that was killed, `seconds` after its beginning."""
        self.calls += 1
        self.tokens += tokens
        self.usd += usd
        self._began = min(self._began, self._clock() - seconds)

    def take(self, wanted: int) -> int:
        """How many of `wanted` calls may be made now, at least one. Raises Stopped at a limit."""
        with self._lock:
            if reason := self._reached():
                raise Stopped(reason)
            if (most := self._most_calls()) is not None:
                wanted = min(wanted, most - self.calls)
            self.calls += wanted
            return wanted

    def add(self, request: Request, got: Completion, prices: Prices | None) -> tuple[int, float]:
        """Count what one call used, its number apart: `take` did. Returns (tokens, dollars)."""
        usage = got.usage
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            tokens = round(_A_DOLLAR_EACH.worst(request))
        else:
            tokens = usage.prompt_tokens + usage.completion_tokens
        usd = None if prices is None else prices.cost(usage)
        if usd is None:
            usd = 0.0 if prices is None else prices.worst(request)
        with self._lock:
            self.tokens += tokens
            self.usd += usd
        return tokens, usd

    def reached(self) -> str | None:
        """The limit that is reached, in words; None while there is room."""
        with self._lock:
            return self._reached()

    @contextmanager
    def part(self, part: float) -> Generator[None]:
        """Only this part of every limit, for a while: the rest is kept for what comes after."""
        self._part = part
        try:
            yield
        finally:
            self._part = 1.0

    def _reached(self) -> str | None:
        most = self.settings
        used = {
            "calls": (self.calls, self._most_calls()),
            "tokens": (self.tokens, most.tokens),
            "usd": (self.usd, most.usd),
            "minutes": (self.seconds / 60, most.minutes),
        }
        for name, (value, limit) in used.items():
            part = 1.0 if name == "calls" else self._part
            if limit is not None and value >= limit * part:
                return f"limit.{name} = {getattr(most, name):g} was reached"
        return None

    def _most_calls(self) -> int | None:
        return None if self.settings.calls is None else int(self.settings.calls * self._part)
