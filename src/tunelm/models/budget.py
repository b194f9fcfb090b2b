"""Money: what an endpoint charges, what may be spent, and a ledger of what was.

A wallet is the kill switch. Before each call the dearest that it could become is set aside; if
that does not fit into what is left, BudgetError is raised and nothing is sent. A call whose
cost nobody reports (a dropped connection, an answer without usage) keeps its worst case.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunelm.config import BudgetConfig
from tunelm.errors import BudgetError, ConfigError, RunDirError
from tunelm.types import Request, Usage

MILLION = 1_000_000
MESSAGE_TOKENS = 16
"""More than any chat template writes around one message."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens, in and out; both None: unknown, both 0: free.

    `source` says in words whose prices they are. Raises ConfigError when one is given and the
    other is not.
    """

    usd_in: float | None = None
    usd_out: float | None = None
    source: str = "the prices given"

    def __post_init__(self) -> None:
        if (self.usd_in is None) != (self.usd_out is None):
            missing = "usd_per_million_in" if self.usd_in is None else "usd_per_million_out"
            raise ConfigError(f"{missing} is not set: give both prices, or neither.")

    @property
    def known(self) -> bool:
        """Whether there is a price, be it 0."""
        return self.usd_in is not None

    @property
    def free(self) -> bool:
        """Whether it is known to cost nothing."""
        return self.usd_in == 0 and self.usd_out == 0

    def cost(self, usage: Usage) -> float | None:
        """Dollars for these tokens; None where a price or a count is unknown.

        Tokens read from a provider's cache count in full: it is the most they can cost.

        >>> Prices(1.0, 4.0).cost(Usage(500_000, 250_000))
        1.5
        """
        if self.usd_in is None or self.usd_out is None:
            return None
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return 0.0 if self.free else None
        dollars = usage.prompt_tokens * self.usd_in + usage.completion_tokens * self.usd_out
        return dollars / MILLION

    def worst(self, request: Request) -> float:
        """The most one request can cost, in dollars; 0 where the price is unknown.

        No tokenizer makes more tokens than UTF-8 has bytes; the answer has at most `max_tokens`.
        """
        sizes = (len(m.content.encode("utf-8", "replace")) for m in request.messages)
        prompt = sum(sizes) + MESSAGE_TOKENS * (len(request.messages) + 1)
        return self.cost(Usage(prompt, request.max_tokens)) or 0.0


def check_allowed(own: bool, where: str, prices: Prices, budget: BudgetConfig) -> None:
    """Refuse an endpoint whose use was not allowed.

    One on this machine (`own`) may be used unless it has a price. Any other needs
    `budget.spend`, both prices, and, unless they are 0, a `budget.max_usd` above 0.

    Raises BudgetError: what was got, and what to set.
    """
    if own and (prices.free or not prices.known):
        return
    if not budget.spend:
        raise BudgetError(
            f"{where} may charge for what is sent to it, and nothing may be spent. Allow it with "
            "--spend (budget.spend = true)."
        )
    if not prices.known:
        raise BudgetError(
            f"the price of {where} is unknown, so no cap could be kept. Set usd_per_million_in "
            "and usd_per_million_out of its route (both 0 where it charges nothing). What is known "
            "of prices: tunelm prices."
        )
    if not prices.free and budget.max_usd <= 0:
        raise BudgetError(
            f"{where} charges for tokens, and budget.max_usd is 0. Set the most that may be spent, "
            "in US dollars."
        )


@dataclass
class Hold:
    """The worst case of one call, set aside. `usd` is its cost, once known; None: it stands."""

    worst: float
    usd: float | None = None
    usage: Usage = field(default_factory=Usage)


class Wallet:
    """What may be spent, and what has been; one for all that shares a cap. Safe for threads.

    `ledger` is a file to which each call is written before it is made and after; what stands
    there already counts as spent. A call that a killed process left open counts in full.

    Raises RunDirError for a ledger that is not one.
    """

    def __init__(self, budget: BudgetConfig | None = None, ledger: Path | None = None) -> None:
        self.budget = budget or BudgetConfig()
        self.ledger = ledger
        self._calls = calls_before(ledger)
        self._spent = sum(self._calls.values())
        self._held: dict[str, float] = {}
        self._change = threading.Condition()

    @property
    def spent(self) -> float:
        """Dollars spent, at most; calls under way are not among them."""
        return self._spent

    @contextmanager
    def hold(self, usd: float, name: str | None = None, **what: Any) -> Generator[Hold]:
        """Set `usd` aside for one call; what its cost turns out to be replaces it afterwards.

        Waits where only calls under way stand between it and the cap. `what` goes into the
        ledger. A call that costs nothing passes, and is not written. One with a `name` that
        stands in the ledger already is that call taken up again, and is counted once.

        Raises:
            BudgetError: it does not fit into what is left.
            OSError: the ledger cannot be written; then nothing is set aside.
        """
        hold = Hold(usd)
        if usd <= 0:
            yield hold
            return
        name = name or uuid.uuid4().hex[:16]
        self._take(name, hold, what)
        try:
            yield hold
        finally:
            self._settle(name, hold)

    def _take(self, name: str, hold: Hold, what: dict[str, Any]) -> None:
        with self._change:
            before = self._calls.get(name, 0.0)
            while True:
                self._refuse_beyond_cap(hold, before)
                if self._spent - before + sum(self._held.values()) + hold.worst <= self._cap:
                    break
                self._change.wait()
            self._write({"time": round(time.time(), 3), "id": name, **what, "worst": hold.worst})
            self._held[name] = hold.worst
            self._spent -= self._calls.pop(name, 0.0)

    @property
    def _cap(self) -> float:
        return (self.budget.max_usd if self.budget.spend else 0.0) + _ROUNDING

    def _refuse_beyond_cap(self, hold: Hold, before: float) -> None:
        if self._spent - before + hold.worst > self._cap:
            raise BudgetError(
                f"the next call could cost ${hold.worst:.4g}, and of budget.max_usd = "
                f"${self.budget.max_usd:g} at most ${self._spent:.4g} is spent. Raise it, and go "
                "on with --resume."
            )

    def _settle(self, name: str, hold: Hold) -> None:
        usd = hold.worst if hold.usd is None else hold.usd
        with self._change:
            del self._held[name]
            self._spent += usd
            self._calls[name] = usd
            self._change.notify_all()
            self._write(
                {
                    "time": round(time.time(), 3),
                    "id": name,
                    "usd": hold.usd,
                    "prompt_tokens": hold.usage.prompt_tokens,
                    "completion_tokens": hold.usage.completion_tokens,
                }
            )

    def _write(self, line: dict[str, Any]) -> None:
        if self.ledger is None:
            return
        with self.ledger.open("ab") as file:  # one write a line, so that a kill cuts the last only
            cut = file.tell() > 0 and not _ends_a_line(self.ledger)
            file.write(b"\n" * cut + json.dumps(line).encode("ascii") + b"\n")


def spent_before(ledger: Path | None) -> float:
    """Dollars in a ledger, as `calls_before` reads it."""
    return sum(calls_before(ledger).values())


def calls_before(ledger: Path | None) -> dict[str, float]:
    """Dollars of each call in a ledger, by its id: its cost, or its worst case if that is unknown.

    A last line cut short by a kill is passed over; the call it opens was never made, and of one
    it settles the worst case stands. Raises RunDirError with the line that is something else.
    """
    if ledger is None or not ledger.exists():
        return {}
    calls: dict[str, float] = {}
    lines = ledger.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "worst" in row:
                calls[row["id"]] = float(row["worst"])
            elif row["usd"] is not None:
                calls[row["id"]] = float(row["usd"])
        except (ValueError, KeyError, TypeError):
            if line.startswith(b'{"time": ') and not line.endswith(b"}"):
                continue
            raise RunDirError(
                f"{ledger}:{number}: no line of a ledger of spending, so what was spent is not "
                "known. Put the file back as it was, or start a new run with another --out."
            ) from None
    return calls


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"
