"""What one answer costs, and a route a month: the formulas, on plain figures.

A unit is one answer, or one conversation where the task is of conversations. All money is in US
dollars. Unknown is None and makes whatever it is part of unknown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date

HOURS_A_MONTH = 730.0
"""8,760 hours a year over 12."""
DAYS_A_MONTH = 365.25 / 12
MILLION = 1_000_000
JOULES_A_KWH = 3.6e6

FORMULA = """\
an answer  = (prompt - hit x prefix) x price in + hit x prefix x price in from a cache
             + output x price out                                    (a model behind an API)
           = seconds x (watts x price of power + rent an hour / utilization)  (a machine, shared)
           = seconds x watts x price of power                        (a machine, all for this)
rent       = 730 hours x price an hour x max(1, answers / what one machine can answer)
             where a machine is all for this: idle hours are paid, and more machines are counted
             in fractions; no rent where --utilization says that it is shared
retraining = (ceil(months / cadence) - 1) x what fitting it again costs
a month    = (one-off + retraining) / months + rent + answers x an answer
months     = those asked for, and never past the day on which the model shuts down
break-even = (fixed of B - fixed of A) / (an answer of A - an answer of B), both a month
"""
"""How everything is reckoned, as it stands on the page."""


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """US dollars for a million tokens, with where they are from.

    `usd_cached_in` None: no price from a cache is known, so cached tokens cost in full. A prefix
    of fewer than `least_prefix` tokens is not cached; None: no such rule is known. `as_of` None:
    the task file gives the prices.
    """

    usd_in: float
    usd_out: float
    source: str
    as_of: date | None = None
    usd_cached_in: float | None = None
    usd_batch_in: float | None = None
    usd_batch_out: float | None = None
    least_prefix: int | None = None

    def in_batches(self) -> TokenPrices | None:
        """The prices of batches, nothing cached; None where none are known."""
        if self.usd_batch_in is None or self.usd_batch_out is None:
            return None
        return replace(
            self, usd_in=self.usd_batch_in, usd_out=self.usd_batch_out, usd_cached_in=None
        )

    def times(self, factor: float) -> TokenPrices:
        """All prices so many times as high."""
        cached = None if self.usd_cached_in is None else self.usd_cached_in * factor
        return replace(
            self, usd_in=self.usd_in * factor, usd_out=self.usd_out * factor, usd_cached_in=cached
        )

    def cost(self, prompt: float, completion: float, cached: float = 0.0) -> float:
        """Dollars for so many tokens, of the prompt `cached` read from a cache.

        >>> TokenPrices(1.0, 4.0, "", usd_cached_in=0.25).cost(1_000_000, 500_000, 400_000)
        2.7
        """
        usd_cached = self.usd_in if self.usd_cached_in is None else self.usd_cached_in
        fresh = (prompt - cached) * self.usd_in
        return (fresh + cached * usd_cached + completion * self.usd_out) / MILLION


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that answers, rented or owned.

    Attributes:
        usd_per_hour: rent, or the price of one's own spread over the hours of its life; paid for
            every hour that it is kept for this, idle or not.
        usd_per_busy_hour: power while it computes; what it draws when idle is not counted.
        utilization: the share of paid hours in which it answers, where it is shared or switched
            off when idle; None: it is all for this, around the clock.
    """

    usd_per_hour: float
    usd_per_busy_hour: float = 0.0
    utilization: float | None = None

    def working(self, seconds: float) -> float:
        """Dollars for so many seconds of work that no hour stands idle for, such as training."""
        return seconds / 3600 * (self.usd_per_hour + self.usd_per_busy_hour)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a route costs a month: `base + per_unit * n + rent * max(1, n / capacity)`.

    Attributes:
        base: one-off costs and retraining, spread over the months.
        per_unit: what each unit adds.
        rent: of one machine, or deployment, around the clock.
        capacity: units that one can answer a month.
    """

    base: float
    per_unit: float
    rent: float = 0.0
    capacity: float = math.inf

    def at(self, volume: float) -> float:
        """Dollars a month for `volume` units a month.

        >>> curve = Curve(base=10, per_unit=0.5, rent=100, capacity=1000)
        >>> curve.at(0), curve.at(1000), curve.at(2000)
        (110.0, 610.0, 1210.0)
        """
        machines = max(1.0, volume / self.capacity)
        return float(self.base + self.per_unit * volume + self.rent * machines)


def machine_share(machine: Machine, seconds: float) -> Curve:
    """What answering on a machine costs a month, `seconds` of it a unit.

    >>> machine_share(Machine(usd_per_hour=3.6, utilization=0.5), seconds=2).per_unit
    0.004
    """
    busy = machine.usd_per_busy_hour * seconds / 3600
    if machine.utilization is not None:
        paid = machine.usd_per_hour * seconds / 3600 / machine.utilization
        return Curve(0.0, busy + paid)
    capacity = HOURS_A_MONTH * 3600 / seconds if seconds else math.inf
    return Curve(0.0, busy, machine.usd_per_hour * HOURS_A_MONTH, capacity)


def months_until(end: date, today: date) -> float:
    """Months left; 0 for a day that is past."""
    return max(0.0, (end - today).days / DAYS_A_MONTH)


def retrainings(months: float, every: float | None) -> int:
    """How often a route is made anew within the months; the first time is not counted.

    >>> retrainings(12, 3), retrainings(12, 12), retrainings(12, None), retrainings(0.5, 3)
    (3, 0, 0, 0)
    """
    return 0 if every is None else max(0, math.ceil(months / every) - 1)
