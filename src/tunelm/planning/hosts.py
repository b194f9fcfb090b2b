"""What answering costs a month by each way there is, at list prices, before anything was run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import NamedTuple

from tunelm.errors import ConfigError
from tunelm.planning.breakeven import BreakEven, break_even
from tunelm.planning.costs import HOURS_A_MONTH, Curve, months_until
from tunelm.planning.hardware import Hardware, cards, hardware
from tunelm.planning.listed import Listing, as_if_hosted
from tunelm.planning.machines import Listed, find_machine
from tunelm.planning.wishes import Wishes
from tunelm.prices import is_stale, usual_epochs
from tunelm.providers import presets

MODELS = (
    "openai/gpt-6-luna",
    "openai/gpt-4.1-mini-2025-04-14",
    "anthropic/claude-haiku-5-5",
    "gemini/gemini-3.5-flash-lite",
    "mistral/ministral-8b-2512",
    "nebius/meta-llama/Meta-Llama-3.1-8B-Instruct",
)
"""Small hosted models of several makers, as the price list names them."""
TUNED = ("openai/gpt-4.1-mini-2025-04-14", "nebius/meta-llama/Llama-3.1-8B-Instruct")
"""Models that a provider fine-tunes by the OpenAI protocol."""
SELF = "your own machine"
USUAL = 24e9
"""Bytes of a card that models of 7 billion parameters can be trained on with LoRA."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of an answer: mean tokens of its prompt and output; and those of all train rows."""

    prompt: float
    output: float
    train: float
    train_rows: int


@dataclass(frozen=True, slots=True)
class Way:
    """A way to answer. `curve` None: what it costs is not known, and `why` says why.

    `once` is paid once, in US dollars; `ends` the day on which the model shuts down; `over`
    whether it costs more than the budget.
    """

    name: str
    how: str
    curve: Curve | None
    once: float
    month: float | None
    months: float
    source: str
    as_of: date | None
    stale: bool
    ends: date | None = None
    why: str = ""
    over: bool = False


class _Priced(NamedTuple):
    """What is said of a way beside its costs."""

    name: str
    how: str
    source: str
    as_of: date | None
    ends: date | None = None


def ways(wishes: Wishes, tokens: Tokens, machine: Listed | None, today: date) -> list[Way]:
    """Each way with what it costs a month at the wished volume.

    Args:
        wishes: the constraints; with `private` there are no hosts among them.
        tokens: of an answer, and of the train rows.
        machine: to rent; None: none is.
        today: for ages of prices and ends of models.
    """
    found: list[Way] = []
    if not wishes.private:
        found += [_hosted(name, False, wishes, tokens, today) for name in MODELS]
        found += [_hosted(name, True, wishes, tokens, today) for name in TUNED]
    if machine is not None and (rent := machine.rent(today)) is not None:
        hour = rent.value or 0.0
        name = f"an open model on a rented {machine.name}"
        how = f"${hour:.2f} an hour, around the clock; one machine, if it is fast enough"
        priced = _Priced(name, how, f"{rent.provider}: {rent.source}", rent.as_of)
        found.append(_way(priced, Curve(0.0, 0.0, hour * HOURS_A_MONTH), 0.0, wishes, today))
    return sorted(found, key=lambda way: (way.month is None, way.month or 0.0))


def pays_off(found: Sequence[Way]) -> tuple[Way, Way, BreakEven] | None:
    """(the cheapest host, the rented machine, from which volume on the machine costs less)."""
    hosts = [w for w in found if w.curve and "rented" not in w.name and w.months > 0]
    rented = next((w for w in found if "rented" in w.name), None)
    if not hosts or rented is None or rented.curve is None:
        return None
    best = hosts[0]
    assert best.curve is not None
    return best, rented, break_even(best.curve, rented.curve)


def to_rent(memory_bytes: float, today: date) -> Listed | None:
    """The listed GPU with the lowest rent that holds so much; None where none does."""
    holding = [c.name for c in cards().values() if c.gpu and c.memory_bytes >= memory_bytes]
    priced: list[tuple[float, Listed]] = []
    for name in holding:
        try:
            listed = find_machine(name)
        except ConfigError:
            continue
        if (rent := listed.rent(today)) is not None and rent.value is not None:
            priced.append((rent.value, listed))
    return min(priced, key=lambda pair: pair[0])[1] if priced else None


def rentable(wishes: Wishes, today: date) -> tuple[Listed, Wishes] | None:
    """A GPU to rent where there is none: the cheapest with USUAL memory, and the wishes on it."""
    listed = None if wishes.hardware.gpu else to_rent(USUAL, today)
    if listed is None:
        return None
    return listed, replace(wishes, hardware=hardware(listed.name, None, {}))


def own_machine(machine: Hardware) -> str:
    """What is said of a machine of one's own, which has no list price."""
    return (
        f"{SELF} ({machine.name}): no list price; `tunelm cost RUN --watts N --usd-per-kwh N` "
        "reckons its power from the measured seconds"
    )


def _hosted(name: str, tuned: bool, wishes: Wishes, tokens: Tokens, today: date) -> Way:
    title = f"{name}, fine-tuned" if tuned else name
    try:
        listing = as_if_hosted(name, tuned)
    except ConfigError as error:
        return _unknown(title, str(error), wishes)
    provider = presets().get(name.partition("/")[0])
    if tuned and provider and provider.jobs_end and provider.jobs_end <= today:
        return _unknown(title, f"takes no job since {provider.jobs_end}", wishes)
    if listing.prices is None:
        return _unknown(title, listing.why, wishes)
    once = _once(listing, tokens) if tuned else 0.0
    if once is None:
        return _unknown(title, "no price of its training is listed", wishes)
    rent = 0.0
    if listing.hosting is not None:
        if listing.hosting.value is None:
            return _unknown(title, "no price of its deployment is listed", wishes)
        rent = listing.hosting.value * HOURS_A_MONTH
    prices = listing.prices
    per_unit = prices.cost(tokens.prompt, tokens.output)
    how = "a deployment around the clock" if rent else ""
    priced = _Priced(title, how, prices.source, prices.as_of, listing.ends)
    return _way(priced, Curve(0.0, per_unit, rent), once, wishes, today)


def _way(priced: _Priced, curve: Curve, once: float, wishes: Wishes, today: date) -> Way:
    name, how, source, as_of, ends = priced
    months = wishes.months if ends is None else min(wishes.months, months_until(ends, today))
    stale = as_of is not None and is_stale(as_of, today)
    if months <= 0:
        return Way(name, how, None, once, None, 0.0, source, as_of, stale, ends, f"ended {ends}")
    whole = Curve(once / months, curve.per_unit, curve.rent, curve.capacity)
    month = whole.at(wishes.volume)
    over = wishes.budget_usd is not None and max(month, once) > wishes.budget_usd
    return Way(name, how, whole, once, month, months, source, as_of, stale, ends, "", over)


def _once(listing: Listing, tokens: Tokens) -> float | None:
    if listing.usd_train is None:
        return None
    return listing.usd_train * tokens.train * usual_epochs(tokens.train_rows) / 1e6


def _unknown(name: str, why: str, wishes: Wishes) -> Way:
    return Way(name, "", None, 0.0, None, wishes.months, "", None, False, None, why)
