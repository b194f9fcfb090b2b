"""`tunelm cost`: formulas against closed forms and brute force, and the command on real runs."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tunelm
from tunelm.cli import cli
from tunelm.errors import ConfigError, RunDirError, TunelmError
from tunelm.planning.analysis import analyse
from tunelm.planning.assumptions import Assumptions
from tunelm.planning.breakeven import break_even
from tunelm.planning.charts import cost_plot, tornado
from tunelm.planning.costs import (
    HOURS_A_MONTH,
    Curve,
    Machine,
    TokenPrices,
    machine_share,
    retrainings,
)
from tunelm.planning.facts import ENDPOINT, MACHINE, Answered, RouteFacts, Spent
from tunelm.planning.listed import as_if_hosted, hosted, shutdown_of
from tunelm.planning.machines import Chosen, choose_machine, find_machine, hosting_price
from tunelm.planning.passing import passing_cost
from tunelm.planning.reckon import NO_MACHINE, reckon
from tunelm.planning.run_costs import read_facts
from tunelm.planning.sensitivity import swings
from tunelm.prices import Price, listed_prices
from tunelm.testing import ChatServer, ScriptedModel, make_tiny_model
from tunelm.tutor.dialogues import read_dialogues, write_dialogues
from tunelm.types import Request

from .conftest import make_task

TODAY = date(2026, 11, 21)
TASKS = Path(tunelm.__file__).parent / "tasks"
MINI = TokenPrices(0.40, 1.60, "list", TODAY, usd_cached_in=0.10)
TUNED = TokenPrices(0.80, 3.20, "list", TODAY, usd_cached_in=0.20)


def at_endpoint(
    name: str,
    prices: TokenPrices,
    prefix: float,
    once: float = 0.0,
    question: float = 300,
    output: float = 150,
) -> RouteFacts:
    """A route whose every answer has the same tokens; `once` dollars were spent on training."""
    job = Spent("train", "training", once * 1e6, 0.0, usd_train=1.0)
    return RouteFacts(
        name,
        "prompt",
        False,
        "done",
        ENDPOINT,
        prompt=prefix + question,
        completion=output,
        cacheable=prefix,
        turns=1.0,
        prices=prices,
        spent=(job,) if once else (),
        learns=True,
    )


def on_machine(name: str, seconds: float, fit_seconds: float = 0.0) -> RouteFacts:
    return RouteFacts(
        name,
        "local",
        False,
        "done",
        MACHINE,
        prompt=100,
        completion=20,
        cacheable=0,
        turns=1.0,
        seconds=seconds,
        fit_seconds=fit_seconds,
        learns=True,
    )


def curve_of(facts: RouteFacts, given: Assumptions) -> Curve:
    found = reckon(facts, given, TODAY)
    assert found.curve is not None, found.why
    return found.curve


# ---- break-even


@pytest.mark.parametrize(
    ("prefix", "hit", "expected"),
    [
        (1500, 0.0, 28_125),
        (3000, 0.0, 8_036),
        (8000, 0.0, 2_377),
        (1500, 1.0, None),
        (3000, 1.0, None),
        (8000, 1.0, 15_341),
    ],
)
def test_a_cached_prefix_flips_the_break_even_of_a_fine_tune(
    prefix: float, hit: float, expected: float | None
):
    """The worked numbers: gpt-4.1-mini with examples in its prompt against its own tune."""
    given = Assumptions(months=1, cache_hit_rate=hit)
    few_shot, tune = at_endpoint("few-shot", MINI, prefix), at_endpoint("tune", TUNED, 0, 6.75)
    found = break_even(curve_of(few_shot, given), curve_of(tune, given))
    if expected is None:
        assert found.kind == "never"
    else:
        assert found.kind == "from"
        assert found.spans[0] == (pytest.approx(expected, abs=1), math.inf)


def test_a_gpu_around_the_clock_against_a_cheap_api():
    luna = at_endpoint("luna", TokenPrices(0.10, 0.50, "list"), 0)
    for rent, expected in ((1.19, 8.3e6), (2.69, 18.7e6)):
        given = Assumptions(usd_per_hour=rent)
        local = curve_of(on_machine("local", seconds=0.01), given)
        found = break_even(curve_of(luna, given), local)
        assert found.spans[0][0] == pytest.approx(expected, rel=0.01)


def a_case(rng: random.Random) -> tuple[RouteFacts, RouteFacts, Assumptions]:
    """Two routes, with prefixes, caches, one-off costs and retraining; each may be a machine's."""

    def route(name: str) -> RouteFacts:
        if rng.random() < 0.3:
            return on_machine(name, rng.choice((0.05, 0.5, 3.0)), rng.choice((0.0, 900.0)))
        usd_in = rng.choice((0.1, 0.4, 2.0))
        cached = rng.choice((None, usd_in / 4, usd_in / 10))
        prices = TokenPrices(usd_in, usd_in * rng.choice((1, 4)), "", usd_cached_in=cached)
        once = rng.choice((0.0, 0.0, 6.75, 200.0))
        sizes = (rng.choice((0, 1500, 8000)), once, rng.choice((50, 300)), rng.choice((0, 150)))
        return at_endpoint(name, prices, *sizes)

    given = Assumptions(
        months=rng.choice((1, 7, 12)),
        cache_hit_rate=rng.choice((0.0, 0.6, 1.0)),
        usd_per_hour=rng.choice((0.02, 1.19)),
        utilization=rng.choice((None, 0.3)),
        retrain_every=rng.choice((None, 3.0)),
        speed=rng.choice((1.0, 8.0)),
    )
    return route("a"), route("b"), given


def spent_by_hand(facts: RouteFacts, given: Assumptions, volume: float) -> float:
    """All dollars of all months, summed as bills would be."""
    fits = 1
    if given.retrain_every:
        fits = len([m for m in range(int(given.months)) if m % int(given.retrain_every) == 0])
    if facts.where == MACHINE:
        rent = given.usd_per_hour or 0.0
        fit_s, answer_s = (s / given.speed for s in (facts.fit_seconds or 0, facts.seconds or 0))
        hours = volume * answer_s / 3600
        paid = hours / given.utilization if given.utilization else max(730.0, hours)
        return fits * fit_s / 3600 * rent + given.months * paid * rent
    prices = facts.prices
    assert prices is not None
    assert facts.prompt is not None
    prefix = facts.cacheable or 0.0
    hit = given.cache_hit_rate * prefix
    usd_cached = prices.usd_in if prices.usd_cached_in is None else prices.usd_cached_in
    answer = (facts.prompt - hit) * prices.usd_in + hit * usd_cached
    answer += (facts.completion or 0) * prices.usd_out
    once = sum((s.prompt or 0) / 1e6 for s in facts.spent)
    return fits * once + given.months * volume * answer / 1e6


def test_break_even_is_that_of_the_bills_in_a_thousand_random_cases():
    rng = random.Random(7)
    kinds: dict[str, int] = {}
    for _ in range(1000):
        a, b, given = a_case(rng)
        found = break_even(curve_of(a, given), curve_of(b, given))
        kinds[found.kind] = kinds.get(found.kind, 0) + 1
        edges = [edge for span in found.spans for edge in span if 0 < edge < math.inf]
        asked = [10 ** rng.uniform(-1, 10) for _ in range(8)]
        for edge in edges:
            asked += [edge * (1 - 1e-6), edge * (1 + 1e-6)]
            bills = [spent_by_hand(facts, given, edge) for facts in (a, b)]
            assert bills[0] == pytest.approx(bills[1], rel=1e-9), "at a break-even both cost alike"
        for volume in asked:
            usd_a, usd_b = (spent_by_hand(facts, given, volume) for facts in (a, b))
            if math.isclose(usd_a, usd_b, rel_tol=1e-11):
                continue
            inside = any(low < volume < high for low, high in found.spans)
            assert inside == (usd_b < usd_a), (a, b, given, volume, found)
    for kind in ("never", "from the first", "from", "up to", "the same", "between"):
        assert kinds.get(kind, 0) >= 3, kinds


def test_the_closed_form_for_two_routes_without_machines_in_a_thousand_cases():
    rng = random.Random(11)
    seen: dict[str, int] = {}
    for _ in range(1000):
        prefix, hit = rng.uniform(0, 10_000), rng.choice((0.0, rng.random(), 1.0))
        once, months = rng.choice((0.0, rng.uniform(0.1, 500))), rng.uniform(0.5, 24)
        given = Assumptions(months=months, cache_hit_rate=hit)
        few, tune = at_endpoint("few", MINI, prefix), at_endpoint("tune", TUNED, 0, once)
        found = break_even(curve_of(few, given), curve_of(tune, given))
        saved = (prefix * (0.4 * (1 - hit) + 0.1 * hit) + 300 * 0.4 + 150 * 1.6) / 1e6
        saved -= (300 * 0.8 + 150 * 3.2) / 1e6
        seen[found.kind] = seen.get(found.kind, 0) + 1
        if saved <= 0:
            assert found.kind == "never"
        elif once == 0:
            assert found.kind == "from the first"
        else:
            assert found.spans == ((pytest.approx(once / saved / months, rel=1e-9), math.inf),)
    assert min(seen[kind] for kind in ("never", "from the first", "from")) > 50


def test_one_machine_that_is_faster_pays_between_two_volumes():
    """Same rent, twice the speed, dearer to make: it pays only once the slow one is too small."""
    slow, fast = Curve(0, 0, 100, 1000), Curve(50, 0, 100, 2000)
    assert break_even(slow, fast).spans == ((1500.0, math.inf),)
    shared = Curve(0, 0.14)
    assert break_even(shared, Curve(0, 0.05, 100, 1000)).kind == "never"
    spans = break_even(shared, Curve(0, 0.03, 100, 1000)).spans
    assert spans[0] == (pytest.approx(100 / 0.11), math.inf)
    assert break_even(slow, slow).kind == "the same"


# ---- the parts of a cost


def test_a_machine_that_is_shared_is_paid_by_its_busy_time():
    shared = machine_share(Machine(3.6, 0.36, 0.5), 2.0)
    assert (shared.per_unit, shared.rent) == (pytest.approx(2 * 0.0001 + 2 * 0.001 / 0.5), 0.0)
    alone = machine_share(Machine(3.6, 0.36), 2.0)
    assert alone.rent == 3.6 * HOURS_A_MONTH
    assert alone.capacity == HOURS_A_MONTH * 1800
    assert alone.at(alone.capacity * 2) == pytest.approx(
        2 * alone.rent + alone.per_unit * alone.capacity * 2
    )


def test_hardware_of_ones_own_is_spread_over_its_life_and_draws_power_when_it_works():
    given = Assumptions(watts=500, usd_per_kwh=0.3, hardware_usd=7300, hardware_months=10)
    machine = given.machine
    assert machine is not None
    assert machine.usd_per_hour == pytest.approx(1.0)
    assert machine.usd_per_busy_hour == pytest.approx(0.15)
    found = reckon(on_machine("local", 36.0, fit_seconds=3600.0), given, TODAY)
    assert found.once_usd == pytest.approx(1.15)
    assert found.per_unit == pytest.approx(0.0015)
    assert found.curve
    assert found.curve.rent == pytest.approx(730)


def test_a_route_on_this_machine_is_unknown_and_never_free():
    found = reckon(on_machine("local", 1.0), Assumptions(), TODAY)
    assert (found.curve, found.per_unit, found.once_usd) == (None, None, None)
    assert found.why == NO_MACHINE == "unknown: give --watts and --usd-per-kwh, or --gpu"
    unpriced = replace(at_endpoint("api", MINI, 0), prices=None, why="no price of x is known")
    assert reckon(unpriced, Assumptions(), TODAY).why == "unknown: no price of x is known"
    uncounted = replace(at_endpoint("api", MINI, 0), spent=(Spent("optimize", "x", None, 1, MINI),))
    assert reckon(uncounted, Assumptions(), TODAY).curve is None


def test_one_off_costs_never_reach_beyond_the_day_the_model_shuts_down():
    tune = replace(at_endpoint("tune", TUNED, 0, 100.0), ends=TODAY + timedelta(days=61))
    found = reckon(tune, Assumptions(months=12), TODAY)
    assert found.months == pytest.approx(2.0, abs=0.01)
    assert found.curve
    assert found.curve.base == pytest.approx(100 / found.months)
    gone = reckon(replace(tune, ends=TODAY, model="gpt-4o"), Assumptions(), TODAY)
    assert gone.curve is None
    assert gone.why == f"gpt-4o shut down on {TODAY}"


def test_retraining_repeats_a_seeds_share_and_not_peoples_work():
    assert [retrainings(m, 3) for m in (1, 3, 4, 12)] == [0, 0, 1, 3]
    tune = replace(at_endpoint("tune", TUNED, 0, 90.0), seeds=3, lost_calls=2, lost_usd=5.0)
    given = Assumptions(months=12, retrain_every=4, hours=10, usd_an_hour=50)
    found = reckon(tune, given, TODAY)
    assert {part.item: part.usd for part in found.once} == {
        "work on the data": 500,
        "training": 90,
        "failed or uncounted calls, at most": 5,
    }
    assert (found.again, found.refits) == (30, 2)
    assert found.curve
    assert found.curve.base == pytest.approx((595 + 60) / 12)


def test_batches_are_cheaper_and_nothing_in_them_is_cached():
    prices = replace(MINI, usd_batch_in=0.2, usd_batch_out=0.8)
    facts = at_endpoint("api", prices, 1000)
    found = reckon(facts, Assumptions(batch=True, cache_hit_rate=1.0), TODAY)
    assert found.per_unit == pytest.approx((1300 * 0.2 + 150 * 0.8) / 1e6)
    without = reckon(at_endpoint("api", MINI, 1000), Assumptions(batch=True), TODAY)
    assert without.per_unit == pytest.approx((1300 * 0.4 + 150 * 1.6) / 1e6)


def test_a_deployment_is_paid_by_the_hour_or_unknown():
    price = hosting_price("fireworks", "qwen3-14b", None)
    assert price
    assert (price.model, price.value) == ("H100", 8.0)
    assert hosting_price("fireworks", "qwen3-14b", "B200") != price
    facts = replace(at_endpoint("tune", TokenPrices(0, 0, ""), 0), hosting=price)
    found = reckon(facts, Assumptions(), TODAY)
    assert found.curve
    assert found.curve.at(1) == 8 * 730
    unknown = replace(facts, hosting=hosting_price("azure", "gpt-4o", None))
    assert "what an hour of its deployment costs" in reckon(unknown, Assumptions(), TODAY).why
    paid = reckon(unknown, Assumptions(usd_per_hour=1.7), TODAY)
    assert paid.curve
    assert paid.curve.rent == pytest.approx(1.7 * 730)


def test_dollars_for_a_passing_answer_have_the_interval_of_their_share():
    rng = np.random.default_rng(3)
    passes = (rng.random((1, 200)) < 0.4).astype(float)
    tokens = np.full((1, 200), 100.0)
    groups = tuple(str(i // 2) for i in range(200))
    found = passing_cost(Answered(groups, tokens, tokens, passes), 0.002, None)
    share = passes.mean()
    assert (found.share, found.n, found.n_groups) == (pytest.approx(share), 200, 100)
    assert found.usd == pytest.approx(0.002 / share)
    assert found.low
    assert found.high
    half = 1.98 * math.sqrt(share * (1 - share) / 200)
    assert 0.002 / found.low == pytest.approx(share + half, abs=0.02)
    assert 0.002 / found.high == pytest.approx(share - half, abs=0.02)
    none = passing_cost(Answered(groups, tokens, tokens, passes * 0), 0.002, None)
    assert (none.usd, none.why) == (None, "none of 200 test rows passed")


def test_rows_that_took_more_tokens_cost_more():
    prices = TokenPrices(1.0, 0.0, "")
    prompt = np.array([[100.0, 300.0, 100.0, 300.0] * 10])
    groups = tuple(map(str, range(40)))
    dear_pass = np.array([[0.0, 1.0, 0.0, 1.0] * 10])
    got = [
        passing_cost(Answered(groups, prompt, prompt * 0, p), 0.0002, prices)
        for p in (dear_pass, 1 - dear_pass)
    ]
    assert [g.usd for g in got] == [pytest.approx(0.0004)] * 2
    widths = [(g.high or 0) - (g.low or 0) for g in got]
    assert widths[0] < widths[1], "where the dear rows pass, dollars and passes move together"


# ---- what flips the answer


def test_the_answer_flips_where_the_break_even_lies():
    few, tune = at_endpoint("few", MINI, 8000), at_endpoint("tune", TUNED, 0, 6.75)
    given = Assumptions(volume=1000, months=1)
    found = {s.varied.name: s for s in swings([few, tune], given, TODAY)}
    volume = found["volume"]
    assert volume.above
    assert volume.above.value == pytest.approx(6.75 / (2840e-6), rel=1e-6)
    assert (volume.above.route, volume.below) == ("tune", None)
    assert volume.lead_low > 0 > volume.lead_high
    assert found["cache_hit_rate"].above is None
    cached = {s.varied.name: s for s in swings([few, tune], replace(given, volume=5000.0), TODAY)}
    flip = cached["cache_hit_rate"].above
    assert flip
    assert flip.route == "few"
    saved = 2840e-6 - flip.value * 8000 * 0.3e-6
    assert saved * 5000 == pytest.approx(6.75, rel=1e-6)
    assert swings([few], given, TODAY) == []


# ---- machines of the price table


def test_every_machine_has_a_source_a_day_and_a_figure_that_can_be():
    rows = [p for p in listed_prices() if p.method in ("gpu", "host", "power")]
    names = {p.model for p in rows}
    for card in ("T4", "L4", "A10", "L40S", "H100 SXM", "H200", "B200", "RTX 4090", "RTX 5090"):
        assert card in names
    for price in rows:
        assert price.source
        assert price.as_of <= date.today()
        least, most = (20, 1500) if price.method == "power" else (0.005, 20)
        assert price.value is not None
        assert least <= price.value <= most, price
        assert price.unit == ("watts" if price.method == "power" else "USD per hour")


def test_the_middle_rent_is_taken_and_old_ones_only_where_there_is_nothing_else():
    fresh = find_machine("NVIDIA H100-SXM")
    assert [p.value for p in fresh.rents] == sorted(p.value for p in fresh.rents if p.value)
    assert fresh.rent(TODAY) in fresh.rents
    t4 = find_machine("t4").rent(TODAY)
    assert t4
    assert t4.provider == "akash", "modal's is stale by then"
    host = find_machine("CX33").rent(TODAY)
    assert host
    assert host.stale(TODAY)


def test_a_named_machine_is_rented_unless_power_is_paid():
    rented = choose_machine("L4", None, None, None, TODAY)
    assert rented.usd_per_hour == 0.7992
    assert rented.watts is None
    own = choose_machine("RTX 4090", None, None, 0.3, TODAY)
    assert (own.usd_per_hour, own.watts) == (None, 450)
    with pytest.raises(ConfigError, match="what CX33 draws is not listed"):
        choose_machine("CX33", None, None, 0.3, TODAY)


# ---- the command, on real runs


def right_on_even_boxes(request: Request) -> str:
    found = re.search(r"box (\d+)", request.messages[-1].content)
    box = int(found[1]) if found else 1
    return "The code is gone." if box % 2 else f"The code is {box * 7 % 10}."


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three routes on this machine, and one behind an endpoint that charges."""
    folder = tmp_path_factory.mktemp("cost")
    task = make_task(folder, make_tiny_model(folder / "model"))
    with ChatServer(ScriptedModel(right_on_even_boxes)) as server:
        chosen = [
            'compare.routes=["constant","baseline","local","api"]',
            "compare.primary_metric=exact_match",
            "routes.api.kind=baseline",
            "routes.api.model=scripted",
            f"routes.api.base_url={server.url}",
            "routes.api.usd_per_million_in=0.15",
            "routes.api.usd_per_million_out=0.6",
            "budget.spend=true",
            "budget.max_usd=1",
            "routes.local.max_steps=2",
        ]
        tunelm.compare(task, folder / "run", overrides=chosen)
    return folder / "run"


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of conversations with an endpoint that charges."""
    folder = tmp_path_factory.mktemp("talks")
    every = read_dialogues(TASKS / "tutor_dialogues.jsonl")
    groups = list(dict.fromkeys(d.problem.group for d in every))[:30]
    kept = [d for d in every if d.problem.group in groups]
    write_dialogues(folder / "tutor_dialogues.jsonl", kept)
    text = (TASKS / "edu-dialogue.toml").read_text(encoding="utf-8")
    (folder / "task.toml").write_text(text, encoding="utf-8")
    with ChatServer(ScriptedModel(lambda r: "What do you think, step by step?")) as server:
        chosen = [
            "data.min_test_groups=3",
            "data.dev=0.2",
            "compare.conversations=12",
            "task.max_tokens=16",
            'compare.routes=["baseline"]',
            "routes.baseline.model=scripted",
            f"routes.baseline.base_url={server.url}",
            "routes.baseline.usd_per_million_in=1",
            "routes.baseline.usd_per_million_out=4",
            "budget.spend=true",
            "budget.max_usd=1",
        ]
        tunelm.compare(folder / "task.toml", folder / "run", overrides=chosen)
    return folder / "run"


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, ["cost", *(str(arg) for arg in args)])


def analysed(*args: object) -> dict[str, Any]:
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def on_that_day(run: Path, price_as: str | None = None) -> dict[str, Any]:
    """The analysis as it was on TODAY: models shut down, and tests go on."""
    nothing = Chosen(None, None)
    return analyse(read_facts(run, TODAY, price_as), Assumptions(), [], nothing, TODAY)


def its(analysis: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in analysis["routes"] if r["name"] == name)


def test_what_a_run_measured_is_what_is_priced(run: Path, tmp_path: Path):
    found = analysed(run, "--out", tmp_path, "--requests-a-month", 5000)
    report = json.loads((run / "report.json").read_text())
    api = its(found, "api")
    usage = next(r for r in report["routes"] if r["name"] == "api")["usage"]
    rows = report["split"]["test"]["rows"]
    assert api["prompt_tokens"] == pytest.approx(usage["evaluate_test"]["prompt_tokens"] / rows)
    per_answer = api["prompt_tokens"] * 0.15 + api["completion_tokens"] * 0.6
    assert api["running_usd"] == pytest.approx(per_answer / 1e6)
    once = sum(u["prompt_tokens"] * 0.15 + u["completion_tokens"] * 0.6 for u in usage.values())
    assert api["once_usd"] == pytest.approx(once / 1e6)
    assert api["month_usd"] == pytest.approx(once / 12e6 + 5000 * api["running_usd"])
    assert found["cheapest"] == "api"
    for name in ("baseline", "local"):
        assert its(found, name)["why"] == NO_MACHINE
        assert its(found, name)["month_usd"] is None
    pair = next(p for p in found["break_even"] if {p["first"], p["second"]} == {"local", "api"})
    assert (pair["kind"], pair["why"]) == (None, f"local: {NO_MACHINE}")
    assert {p["source"] for p in found["prices"]} == {"the prices given in the task file"}
    assert all(p["as_of"] for p in found["prices"])
    assert its(found, "constant")["control"]


def test_without_a_price_of_the_machine_all_that_is_known_is_said(run: Path, tmp_path: Path):
    found = analysed(run, "--out", tmp_path)
    report = json.loads((run / "report.json").read_text())
    local = its(found, "local")
    scores = next(r for r in report["routes"] if r["name"] == "local")["scores"]["exact_match"]
    assert local["passing"]["share"] == local["score"] == scores["value"]
    assert (local["passing"]["n"], local["passing"]["usd"]) == (scores["n"], None)
    assert local["seconds_a_month"] == pytest.approx(1000 * local["seconds"])
    faster = its(analysed(run, "--out", tmp_path, "--speed", 4), "local")
    assert faster["seconds_a_month"] == pytest.approx(250 * local["seconds"])
    assert local["month_usd"] is None
    cases = {case["option"]: case["month_usd"] for case in found["cases"]}
    for option, usd in cases.items():
        again = analysed(run, "--out", tmp_path, *shlex.split(option))
        for name in ("baseline", "local"):
            assert usd[name] == pytest.approx(its(again, name)["month_usd"])
        assert again["cases"] == []
    assert len(cases) == 3
    page = (tmp_path / "cost.md").read_text()
    assert "exact_match" in page


def test_what_answers_without_a_model_is_rented_and_hosted_nowhere(run: Path, tmp_path: Path):
    folder = tmp_path / "run"
    copy_with(run, folder, primary="exact_match")
    report = json.loads((folder / "report.json").read_text())
    for route in report["routes"]:
        if route["name"] == "local":
            route["kind"] = "rule"
    report["winner"]["name"] = "local"
    report["routes"] = [r for r in report["routes"] if r["name"] != "api"]
    (folder / "report.json").write_text(json.dumps(report))
    found = analysed(folder)
    rule = its(found, "local")
    assert rule["model"] == "no language model"
    priced = [case["month_usd"]["local"] for case in found["cases"]]
    assert priced[0] is not None
    assert priced[1:] == [None, None]
    told = invoke(folder).stdout
    assert "nobody has said what it costs" in told
    assert "the comparison's choice, local: " in told
    hosted = its(analysed(folder, "--price-as", "openai/gpt-4o-mini"), "local")
    assert (hosted["as_if"], hosted["month_usd"]) == (None, None)
    rented = analysed(folder, "--gpu-usd-per-hour", 1)
    assert any("without a language model" in w for w in rented["warnings"])


def test_passing_answers_of_a_share_and_by_a_threshold(run: Path, tmp_path: Path):
    found = analysed(run, "--out", tmp_path)
    report = json.loads((run / "report.json").read_text())
    scores = next(r for r in report["routes"] if r["name"] == "api")["scores"]["exact_match"]
    passing = its(found, "api")["passing"]
    assert passing["share"] == pytest.approx(scores["value"])
    assert passing["n"] == scores["n"]
    assert passing["n_groups"] == scores["n_groups"]
    assert 0.2 < scores["value"] < 0.8
    assert passing["low"] < passing["usd"] < passing["high"]
    by_f1 = tmp_path / "f1"
    copy_with(run, by_f1, primary="token_f1")
    unsaid = its(analysed(by_f1), "api")["passing"]
    assert unsaid["usd"] is None
    assert "--pass-at" in unsaid["why"]
    loose, strict = (its(analysed(by_f1, "--pass-at", x), "api")["passing"] for x in (0.1, 0.99))
    assert loose["share"] > strict["share"]


def copy_with(run: Path, folder: Path, primary: str) -> None:
    """The same run, with another primary metric in its report."""
    import shutil

    shutil.copytree(run, folder)
    report = json.loads((folder / "report.json").read_text())
    report["task"]["primary_metric"] = primary
    (folder / "report.json").write_text(json.dumps(report))


def test_the_page_and_the_pictures(run: Path, tmp_path: Path):
    result = invoke(
        *(run, "--out", tmp_path, "--gpu", "L4", "--utilization", 0.003, "--cache-hit-rate", 0.5),
        *("--hours-of-work", 8, "--usd-per-hour", 50, "--retrain-every", 4),
    )
    assert result.exit_code == 0, result.exception
    assert "api costs least" in result.stdout
    page = (tmp_path / "cost.md").read_text()
    for part in (
        "## What flips the answer",
        "cost.svg",
        "cost-sensitivity.svg",
        "modal.com/pricing",
    ):
        assert part in page
    assert "older than 90 days, of 2026-05-07: L4: rent" in page
    assert "break-even = " in page
    assert "was measured on the machine of the run" in page
    assert re.search(r"\| local \| retraining \| .*\| 2 x ", page)
    for name in ("cost.svg", "cost-sensitivity.svg"):
        text = (tmp_path / name).read_text()
        assert ET.fromstring(text).tag.endswith("svg")
        assert "prefers-color-scheme:dark" in text
        assert "nan" not in text
    json.loads((tmp_path / "cost.json").read_text())


def test_names_in_pictures_are_escaped():
    curve = {"base": 1.0, "per_unit": 0.1, "rent": 0.0, "capacity": None}
    bad = '<script>"a" & b'
    analysis = {
        "unit": "answer",
        "cheapest": bad,
        "lead": 1.0,
        "assumptions": [{"name": "volume", "value": 100.0}],
        "routes": [{"name": bad, "curve": curve, "control": False}],
        "sensitivity": [
            {"title": bad, "low": 1.0, "high": 2.0, "lead_low": -1.0, "lead_high": 3.0}
        ],
    }
    for picture in (cost_plot(analysis), tornado(analysis)):
        assert picture
        assert "<script>" not in picture
        ET.fromstring(picture)


def test_an_earlier_picture_does_not_outlive_its_numbers(run: Path, tmp_path: Path):
    assert invoke(run, "--out", tmp_path, "--watts", 60, "--usd-per-kwh", 0.3).exit_code == 0
    assert (tmp_path / "cost-sensitivity.svg").exists()
    assert invoke(run, "--out", tmp_path).exit_code == 0
    assert not (tmp_path / "cost-sensitivity.svg").exists()


def test_as_if_hosted_local_routes_have_a_providers_prices(run: Path, tmp_path: Path):
    found = on_that_day(run, "openai/gpt-4.1-mini")
    local, baseline = its(found, "local"), its(found, "baseline")
    assert local["as_if"] == "openai/gpt-4.1-mini"
    train = next(s for s in local["spent"] if s["phase"] == "train")
    once = {part["item"]: part["usd"] for part in local["once"]}
    assert once["training"] == pytest.approx(train["prompt"] * 5.0 / 1e6)
    per_answer = local["prompt_tokens"] * 0.8 + local["completion_tokens"] * 3.2
    assert local["running_usd"] == pytest.approx(per_answer / 1e6)
    assert baseline["running_usd"] == pytest.approx(
        (baseline["prompt_tokens"] * 0.4 + baseline["completion_tokens"] * 1.6) / 1e6
    )
    assert local["ends"] == "2027-01-14"
    figures = {row["figure"] for row in found["prices"]}
    assert "5 USD per 1M tokens" in figures
    assert local["months"] == pytest.approx(54 / (365.25 / 12))
    assert any("shuts down on 2027-01-14" in w for w in found["warnings"])
    result = invoke(run, "--out", tmp_path, "--price-as", "openai/gpt-4.1-mini")
    assert result.exit_code == 0, result.exception
    assert "as if at openai/gpt-4.1-mini" in result.stdout


def test_of_conversations_all_is_by_the_conversation(talks: Path, tmp_path: Path):
    found = analysed(talks, "--out", tmp_path, "--conversations-a-month", 300)
    report = json.loads((talks / "report.json").read_text())
    taken = report["conversations"]["routes"]["baseline"]
    baseline = its(found, "baseline")
    assert found["unit"] == "conversation"
    assert baseline["prompt_tokens"] == pytest.approx(taken["prompt_tokens"])
    assert baseline["running_usd"] == pytest.approx(taken["usd"])
    assert baseline["running_usd_a_turn"] == pytest.approx(taken["usd"] / taken["teacher_turns"])
    assert baseline["cacheable_tokens"] == pytest.approx(taken["kept_tokens"])
    share = next(r for r in report["routes"] if r["name"] == "baseline")["scores"]
    assert baseline["passing"]["share"] == pytest.approx(share["solved_unaided"]["value"])
    assert baseline["passing"]["n"] == 12
    assert "a single answer" in (tmp_path / "cost.md").read_text()
    with pytest.raises(ConfigError, match="give --conversations-a-month"):
        refused(talks, "--requests-a-month", 5)
    with pytest.raises(ConfigError, match="a conversation waits for each of its turns"):
        refused(talks, "--batch")


def test_a_prefix_below_the_providers_least_is_not_cached(run: Path):
    from tunelm.planning.run_costs import _kept

    taken = {"kept_tokens": 3000.0, "prompt_by_turn": [500.0, 1000.0, 1500.0, 2000.0]}
    assert _kept(taken, 0) == 3000
    assert _kept(taken, 1024) == pytest.approx(3000 * 1500 / 3000)
    assert _kept(taken, 5000) == 0
    facts = read_facts(run, TODAY, price_as="openai/gpt-4o-mini")
    short = next(r for r in facts.routes if r.name == "baseline")
    assert short.cacheable == 0
    assert "fewer than 1,024 are not cached" in short.cacheable_how
    unruled = next(r for r in read_facts(run, TODAY).routes if r.name == "baseline")
    assert unruled.cacheable
    assert unruled.prompt
    assert 0 < unruled.cacheable < unruled.prompt


def refused(*args: object) -> None:
    """Raises what the command was refused with."""
    result = invoke(*args)
    assert isinstance(result.exception, TunelmError), result.output
    assert "\n" not in str(result.exception)
    raise result.exception


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--requests-a-month", "0"), "--requests-a-month .*0: a number above 0"),
        (("--requests-a-month", "-5"), "-5: a number above 0"),
        (("--requests-a-month", "1e300"), r"1e\+300: a number above 0, at most 1e\+12"),
        (("--requests-a-month", "nan"), "nan: a number above 0"),
        (("--requests-a-month", "5", "--conversations-a-month", "5"), "not both"),
        (("--conversations-a-month", "5"), "single answers: give --requests-a-month"),
        (("--gpu-usd-per-hour", "5 €"), "--gpu-usd-per-hour '5 €': a plain number"),
        (("--gpu-usd-per-hour", "EUR5"), "'EUR5': a plain number"),
        (("--gpu-usd-per-hour", "1,5"), "'1,5': a plain number is expected, without currency"),
        (("--gpu-usd-per-hour", "-1"), "-1: a number from 0"),
        (("--gpu", "L4", "--utilization", "0"), "--utilization 0: a share above 0"),
        (("--gpu", "L4", "--utilization", "1.2"), "1.2: a share above 0 and at most 1"),
        (("--utilization", "0.3"), "give --gpu, --gpu-usd-per-hour or --hardware-usd too"),
        (("--cache-hit-rate", "60"), "60: a share from 0 to 1"),
        (("--cache-hit-rate", "60%"), "'60%': a plain number"),
        (("--gpu", "H10"), r"no machine 'H10'.*Closest: H100"),
        (("--gpu", "A100"), "Closest: A100-40GB SXM, A100-80GB PCIe, A100-80GB SXM"),
        (("--watts", "60"), "--watts needs --usd-per-kwh too"),
        (("--hours-of-work", "5"), "--hours-of-work needs --usd-per-hour too"),
        (
            ("--gpu-usd-per-hour", "1", "--watts", "60", "--usd-per-kwh", "1"),
            "give one of them",
        ),
        (("--hardware-usd", "900", "--hardware-months", "36"), "give --watts and --usd-per-kwh"),
        (("--price-as", "openai/gpt-4o-minni"), "Closest: openai/gpt-4o-mini"),
        (("--price-as", "gpt-4o"), "PROVIDER/MODEL"),
        (("--months", "0"), "--months 0: a number above 0"),
    ],
)
def test_bad_input_is_one_line(run: Path, tmp_path: Path, args: tuple[str, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        refused(run, "--out", tmp_path / "out", *args)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path, run: Path):
    with pytest.raises(RunDirError, match="no run there"):
        refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RunDirError, match=r"has no report\.json"):
        refused(tmp_path)
    for content, said in (
        ("[]", "no report"),
        ('{"schema_version": 9}', "schema version 9"),
        ('{"schema_version": 1, "task": {}}', "an older tunelm wrote it"),
    ):
        (tmp_path / "report.json").write_text(content)
        with pytest.raises(RunDirError, match=said):
            refused(tmp_path)


def test_calls_of_which_no_cost_was_reported_are_in_the_price(run: Path, tmp_path: Path):
    import shutil

    again = tmp_path / "run"
    shutil.copytree(run, again)
    lines = [
        {"time": 1, "id": "x1", "route": "api", "worst": 0.5},
        {"time": 2, "id": "x2", "route": "api", "worst": 0.25},
        {"time": 3, "id": "x2", "usd": 0.0, "prompt_tokens": 0, "completion_tokens": 0},
        {"time": 4, "id": "x3", "route": "judge", "worst": 0.3},
        {"time": 5, "id": "x3", "usd": 0.125, "prompt_tokens": 9, "completion_tokens": 9},
    ]
    with (again / "spending.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
        file.write('{"time": 6, "id": "cut')
    found = analysed(again)
    api = its(found, "api")
    assert (api["lost_calls"], api["lost_usd"]) == (1, 0.5)
    before = its(analysed(run, "--out", tmp_path / "o"), "api")["once_usd"]
    assert api["once_usd"] == pytest.approx(before + 0.5)
    assert found["other_calls"] == {"calls": 1, "usd": 0.125}
    assert any("such as a judge's" in warning for warning in found["warnings"])


def test_a_run_without_a_finished_route_says_what_was_spent_for_nothing(run: Path, tmp_path: Path):
    import shutil

    again = tmp_path / "run"
    shutil.copytree(run, again)
    report = json.loads((again / "report.json").read_text())
    for route in report["routes"]:
        route |= {"status": "failed", "reason": "gone", "scores": None}
    (again / "report.json").write_text(json.dumps(report))
    result = invoke(again)
    assert result.exit_code == 0, result.exception
    assert "No route's cost is known: no route has finished." in result.stdout
    assert "api: failed; what was spent on it buys nothing." in result.stdout
    assert not (again / "cost.svg").exists()


def test_a_job_at_tunelm_serve_has_the_list_price_that_its_task_names(run: Path, tmp_path: Path):
    import shutil

    again = tmp_path / "run"
    shutil.copytree(run, again)
    path = again / "routes/local/seed-0/adapted.json"
    adapted = json.loads(path.read_text())
    adapted["detail"]["prices"] = {"listed": "openai/gpt-4o-mini", "usd_in": 0.3, "usd_out": 1.2}
    path.write_text(json.dumps(adapted))
    local = its(on_that_day(again), "local")
    assert local["as_if"] == "openai/gpt-4o-mini"
    tokens = (local["prompt_tokens"], local["completion_tokens"])
    assert local["running_usd"] == pytest.approx((tokens[0] * 0.3 + tokens[1] * 1.2) / 1e6)


def test_a_teacher_behind_an_api_is_paid_beside_the_time_of_this_machine(run: Path, tmp_path: Path):
    import shutil

    again = tmp_path / "run"
    shutil.copytree(run, again)
    path = again / "routes/local/seed-0/adapted.json"
    adapted = json.loads(path.read_text())
    prices = {"usd_in": 2.0, "usd_out": 8.0, "source": "the prices given"}
    adapted["detail"]["paid"] = {"teach": {"model": "teacher", "prices": prices}}
    path.write_text(json.dumps(adapted))
    report = json.loads((again / "report.json").read_text())
    local = next(r for r in report["routes"] if r["name"] == "local")
    local["usage"]["teach"] = {"prompt_tokens": 1000, "completion_tokens": 500, "cached_tokens": 0}
    (again / "report.json").write_text(json.dumps(report))
    found = its(analysed(again, "--gpu-usd-per-hour", 3600), "local")
    once = {part["item"]: part["usd"] for part in found["once"]}
    assert once == {
        "teacher's answers": pytest.approx(0.006),
        "machine time": pytest.approx(local["measured"]["seconds_fit"]["value"]),
    }


def test_prices_of_a_hosted_job_are_looked_up_and_given_ones_are_kept():
    made = date(2026, 9, 1)
    endpoint: dict[str, Any] = {
        "model": "ft:gpt-4o-mini-2024-07-18:org::id",
        "fine_tuned_model": "ft:gpt-4o-mini-2024-07-18:org::id",
        "base_url": "https://api.openai.com/v1",
        "prices": {"usd_in": 0.3, "usd_out": 1.2, "source": "0.3 in, 1.2 out (a list of then)"},
    }
    found = shutdown_of(hosted(endpoint, made, "openai", 3.0), endpoint, "openai")
    assert found.prices
    assert (found.prices.usd_cached_in, found.prices.least_prefix) == (0.15, 1024)
    assert found.prices.as_of
    assert found.prices.as_of > made
    assert found.training
    assert found.training.value == 3.0
    assert (found.ends, found.hosting) == (date(2027, 1, 14), None)
    given = {**endpoint, "prices": {"usd_in": 9.0, "usd_out": 9.0, "source": "the prices given"}}
    kept = hosted(given, made, "openai", None).prices
    assert kept
    assert (kept.usd_in, kept.as_of, kept.usd_cached_in) == (9.0, made, None)
    azure = {**endpoint, "model": "mine", "base_url": "https://r.openai.azure.com/openai/v1"}
    deployed = hosted(azure, made, "azure", None)
    assert deployed.hosting
    assert deployed.hosting.value is None
    nobody: dict[str, Any] = {"model": "x", "base_url": "https://a.example/v1", "prices": {}}
    nobody["prices"] = {"usd_in": None, "usd_out": None}
    assert hosted(nobody, made, None, None).why == "no price of x is known"


def test_a_fine_tune_and_its_base_end_on_days_of_their_own():
    tuned = as_if_hosted("azure/gpt-4.1-mini", tuned=True)
    assert tuned.ends == date(2027, 10, 14)
    assert as_if_hosted("azure/gpt-4.1-mini", tuned=False).ends == date(2026, 10, 14)
    assert tuned.hosting
    with pytest.raises(ConfigError, match="Valid: PROVIDER/MODEL with one of"):
        as_if_hosted("nobody/x", tuned=True)


def test_a_price_that_is_not_listed_any_more_keeps_its_day(run: Path, monkeypatch: Any):
    price = Price("p", "L4", "gpu", 1.0, "USD per hour", "s", date(2020, 1, 1), True)
    monkeypatch.setattr("tunelm.planning.machines.listed_prices", lambda: (price,))
    chosen = choose_machine("L4", None, None, None, TODAY)
    assert chosen.prices[0].stale(TODAY)
