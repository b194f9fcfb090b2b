"""What a run's routes would cost in three common cases, where nobody says what a machine costs.

Each case is an example and says so: an assumption of power, the rent of a listed card, the list
prices of a hosted model. None of them is a price of the machine that the run was made on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError
from tunelm.planning.assumptions import Assumptions
from tunelm.planning.facts import MACHINE, WITHOUT_MODEL, RunFacts
from tunelm.planning.hosts import USUAL, to_rent
from tunelm.planning.reckon import reckon
from tunelm.planning.run_costs import read_facts

WATTS, USD_PER_KWH = 60.0, 0.30
"""Assumed of a machine of one's own: a desktop without a GPU, and a household's price of power."""
HOSTED = "openai/gpt-4o-mini"
"""A small hosted model that has list prices of its fine-tune, too."""


def cases(run: Path, facts: RunFacts, given: Assumptions, today: date) -> list[dict[str, Any]]:
    """Each case: its `name`, the `option` that says it, and dollars a month by route.

    A route without a language model needs neither a rented card nor a host, and has no dollars
    there. Empty where the price of the machine is known, or no route answers on it.

    Args:
        run: the run's folder.
        facts: of the run, without any prices for its machine.
        given: volume, months and the rest as they were asked for.
        today: on which prices are looked up.

    Raises:
        RunDirError: files of the run that do not belong together.
    """
    rivals = [r for r in facts.routes if r.status == "done" and not r.control]
    if given.machine is not None or not any(r.where == MACHINE for r in rivals):
        return []
    if any(r.as_if for r in rivals):
        return []
    own = replace(given, watts=WATTS, usd_per_kwh=USD_PER_KWH)
    power = f"--watts {WATTS:g} --usd-per-kwh {USD_PER_KWH:g}"
    found = [_case(f"your own machine at {WATTS:g} W", power, "assumed", facts, own, today)]
    listed = to_rent(USUAL, today)
    rent = listed.rent(today) if listed else None
    if listed is not None and rent is not None and rent.value is not None:
        name, option = f"a rented {listed.name}, around the clock", f'--gpu "{listed.name}"'
        how = f"${rent.value:g} an hour, {rent.provider}, {rent.as_of}"
        rented = replace(given, usd_per_hour=rent.value)
        found.append(_case(name, option, how, facts, rented, today))
    try:
        hosted = read_facts(run, today, HOSTED)
    except ConfigError:  # a price list of the user's own may lack it
        return found
    as_of = next((r.prices.as_of for r in hosted.routes if r.as_if and r.prices), None)
    name, option = f"a host, as if at {HOSTED}", f"--price-as {HOSTED}"
    found.append(_case(name, option, f"list prices of {as_of}", hosted, given, today))
    return found


def _case(
    name: str, option: str, price: str, facts: RunFacts, given: Assumptions, today: date
) -> dict[str, Any]:
    months: dict[str, float | None] = {}
    for route in facts.routes:
        if route.status != "done" or route.control:
            continue
        curve = reckon(route, given, today).curve
        needless = route.kind in WITHOUT_MODEL and given.watts is None
        months[route.name] = None if curve is None or needless else curve.at(given.volume)
    return {"name": name, "option": option, "price": price, "month_usd": months}
