"""What a run cannot measure, and a user says: volume, cache, machine, power, work, months."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from tunelm.errors import ConfigError
from tunelm.planning.costs import HOURS_A_MONTH, Machine

VOLUME, MONTHS = 1_000.0, 12.0
"""Where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """One set of assumptions; None is not said.

    Attributes:
        volume: units (answers or conversations) a month.
        months: over which one-off costs are spread.
        cache_hit_rate: the share of prefix tokens that the provider reads from its cache.
        usd_per_hour: what renting a machine costs, or a deployment at a provider.
        utilization: the share of paid hours in which a machine answers; None: it is all for
            this, around the clock.
        speed: how many times as fast as measured a machine answers and trains.
        watts: what the machine draws while it computes.
        usd_per_kwh: of power; saying it means that the machine is one's own.
        hardware_usd: what one's own machine cost.
        hardware_months: over how many months that is spread.
        retrain_every: months between two fits of a route that learns.
        hours: of people's work on the data, for routes that learn from it.
        usd_an_hour: what such an hour costs.
        token_prices: a factor on all prices of tokens.
        batch: whether answers are asked for in batches, at the provider's discount.
    """

    volume: float = VOLUME
    months: float = MONTHS
    cache_hit_rate: float = 0.0
    usd_per_hour: float | None = None
    utilization: float | None = None
    speed: float = 1.0
    watts: float | None = None
    usd_per_kwh: float | None = None
    hardware_usd: float | None = None
    hardware_months: float | None = None
    retrain_every: float | None = None
    hours: float | None = None
    usd_an_hour: float | None = None
    token_prices: float = 1.0
    batch: bool = False

    def __post_init__(self) -> None:
        """Raises ConfigError: what was got, and what is valid."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and field.name in _LIMITS:
                _check(field.name, value)
        for one, other in _TOGETHER:
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                said, missing = (one, other) if getattr(self, other) is None else (other, one)
                raise ConfigError(f"{FLAGS[said]} needs {FLAGS[missing]} too.")
        if self.usd_per_hour is not None and self.usd_per_kwh is not None:
            raise ConfigError(
                f"{FLAGS['usd_per_hour']} is the rent of a machine, power included, and "
                f"{FLAGS['usd_per_kwh']} is for one of your own: give one of them."
            )
        if self.hardware_usd is not None and self.usd_per_kwh is None:
            raise ConfigError(
                f"{FLAGS['hardware_usd']} is for a machine of your own, which draws power: give "
                f"{FLAGS['watts']} and {FLAGS['usd_per_kwh']} too."
            )
        if self.utilization is not None and self.machine is None:
            raise ConfigError(
                "--utilization says how busy a machine is kept: give --gpu, --gpu-usd-per-hour or "
                "--hardware-usd too."
            )

    @property
    def machine(self) -> Machine | None:
        """The machine that local routes answer on; None where its price is not known."""
        if self.usd_per_hour is not None:
            return Machine(self.usd_per_hour, 0.0, self.utilization)
        if self.watts is None or self.usd_per_kwh is None:
            return None
        rent = 0.0
        if self.hardware_usd is not None and self.hardware_months is not None:
            rent = self.hardware_usd / (self.hardware_months * HOURS_A_MONTH)
        return Machine(rent, self.watts / 1000 * self.usd_per_kwh, self.utilization)


FLAGS = {
    "volume": "--requests-a-month or --conversations-a-month",
    "months": "--months",
    "cache_hit_rate": "--cache-hit-rate",
    "usd_per_hour": "--gpu-usd-per-hour",
    "utilization": "--utilization",
    "speed": "--speed",
    "watts": "--watts",
    "usd_per_kwh": "--usd-per-kwh",
    "hardware_usd": "--hardware-usd",
    "hardware_months": "--hardware-months",
    "retrain_every": "--retrain-every",
    "hours": "--hours-of-work",
    "usd_an_hour": "--usd-per-hour",
    "token_prices": "(prices of tokens)",
    "batch": "--batch",
}
"""How each is said on the command line."""

_LEAST, _MOST = 1e-9, 1e12
"""Beyond these, a number is taken to be a slip."""
_ABOVE = f"a number above 0, at most {_MOST:g},"
_FROM_0 = f"a number from 0 to {_MOST:g}"
_SHARE = "a share from 0 to 1"
_SHARE_ABOVE = "a share above 0 and at most 1, such as 0.3,"
_LIMITS: dict[str, tuple[str, float, float]] = {
    "volume": (_ABOVE, _LEAST, _MOST),
    "months": (_ABOVE, _LEAST, _MOST),
    "cache_hit_rate": (_SHARE, 0, 1),
    "usd_per_hour": (_FROM_0, 0, _MOST),
    "utilization": (_SHARE_ABOVE, _LEAST, 1),
    "speed": (_ABOVE, _LEAST, _MOST),
    "watts": (_FROM_0, 0, _MOST),
    "usd_per_kwh": (_FROM_0, 0, _MOST),
    "hardware_usd": (_FROM_0, 0, _MOST),
    "hardware_months": (_ABOVE, _LEAST, _MOST),
    "retrain_every": (_ABOVE, _LEAST, _MOST),
    "hours": (_FROM_0, 0, _MOST),
    "usd_an_hour": (_FROM_0, 0, _MOST),
    "token_prices": (_FROM_0, 0, _MOST),
}
"""(what is valid, least, most) of each."""
_TOGETHER = (
    ("watts", "usd_per_kwh"),
    ("hardware_usd", "hardware_months"),
    ("hours", "usd_an_hour"),
)


def within(name: str, value: float) -> float:
    """The valid value nearest to this one."""
    _, least, most = _LIMITS[name]
    return min(max(value, least), most)


def _check(name: str, value: float) -> None:
    valid, least, most = _LIMITS[name]
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"{FLAGS[name]} {value:g}: {valid} is expected.")
