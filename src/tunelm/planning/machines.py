"""What the price table says of machines: what renting one costs, and what a card draws."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from tunelm.errors import ConfigError
from tunelm.prices import Price, listed_prices

RENTS = ("gpu", "host")
"""The table's words for what can be rented by the hour."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What is listed of one machine: `rents` from the cheapest on, and its `power`."""

    name: str
    rents: tuple[Price, ...]
    power: Price | None

    def rent(self, today: date) -> Price | None:
        """The middle one of the rents that are not stale, else of all; None where none is known.

        Of an even number it is the cheaper of the two in the middle: a price that someone asks.
        """
        fresh = [price for price in self.rents if not price.stale(today)]
        among = fresh or list(self.rents)
        return among[(len(among) - 1) // 2] if among else None


ANY_OTHER = "give --gpu-usd-per-hour, or for your own --watts and --usd-per-kwh."


def find_machine(name: str, any_other: str = ANY_OTHER) -> Listed:
    """A machine by its name; case, spaces, dashes and the maker's name do not matter.

    >>> find_machine("nvidia rtx4090").name
    'RTX 4090'

    Raises ConfigError with the closest names where there is none, and what to do of `any_other`.
    """
    names = machine_names()
    wanted = _plain(name)
    found = next((n for n in names if _plain(n) == wanted), None)
    if found is None:
        raise ConfigError(
            f"no machine {name!r} in the price table. {_closest(wanted, names)} Of any other, "
            f"{any_other}"
        )
    rows = [p for p in listed_prices() if p.model == found and p.value is not None]
    rents = sorted((p for p in rows if p.method in RENTS), key=lambda p: p.value or 0.0)
    return Listed(found, tuple(rents), next((p for p in rows if p.method == "power"), None))


def machine_names() -> list[str]:
    """The machines that can be named."""
    kinds = (*RENTS, "power")
    return sorted({price.model for price in listed_prices() if price.method in kinds})


def hosting_price(provider: str, model: str, machine: str | None) -> Price | None:
    """What an hour of a deployment costs at a provider: on `machine`, else on the cheapest.

    None where the table has nothing; `value` None where it was looked for and not found.
    """
    rows = [p for p in listed_prices() if (p.provider, p.method) == (provider, "hosting")]
    rows = [p for p in rows if p.model in ("any", model) or p.model in machine_names()]
    if machine is not None:
        rows = [p for p in rows if _plain(p.model) == _plain(machine)] or rows
    return min(rows, key=lambda p: (p.value is None, p.value or 0.0), default=None)


def _closest(wanted: str, names: Sequence[str]) -> str:
    plain = {_plain(name): name for name in names}
    near = [name for form, name in plain.items() if form.startswith(wanted) and wanted]
    near += [plain[form] for form in difflib.get_close_matches(wanted, plain, n=3, cutoff=0.4)]
    return f"Closest: {_listed(near[:5])}." if near else f"Known: {_listed(names)}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]|^(nvidia|geforce|tesla|\s)+", "", name.lower())


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a named machine brings to the assumptions, and the listed prices that were used."""

    usd_per_hour: float | None
    watts: float | None
    name: str | None = None
    prices: tuple[Price, ...] = ()
    others: tuple[Price, ...] = ()


def choose_machine(
    name: str | None,
    usd_per_hour: float | None,
    watts: float | None,
    usd_per_kwh: float | None,
    today: date,
) -> Chosen:
    """A machine that is rented, or one's own where the price of power is said.

    What is not said is looked up: the rent of a rented one, the power of one's own.

    Raises ConfigError for an unknown name, or where the table lacks what is needed.
    """
    if name is None:
        return Chosen(usd_per_hour, watts)
    listed = find_machine(name)
    if usd_per_kwh is not None:
        if watts is not None:
            return Chosen(usd_per_hour, watts, listed.name)
        if listed.power is None:
            raise ConfigError(f"what {listed.name} draws is not listed: give --watts.")
        return Chosen(usd_per_hour, listed.power.value, listed.name, (listed.power,))
    if usd_per_hour is not None or watts is not None:
        return Chosen(usd_per_hour, watts, listed.name)
    rent = listed.rent(today)
    if rent is None:
        raise ConfigError(
            f"no rent of {listed.name} is listed: give --gpu-usd-per-hour, or for your own "
            "--usd-per-kwh."
        )
    others = tuple(price for price in listed.rents if price is not rent)
    return Chosen(rent.value, None, listed.name, (rent,), others)
