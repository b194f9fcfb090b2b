"""Break-even volumes against bills summed by hand, and the worked numbers of a cached prefix.

python benchmarks/breakeven.py                 # 100,000 random cases, seconds
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from datetime import date
from pathlib import Path

from tunelm.planning.assumptions import Assumptions
from tunelm.planning.breakeven import break_even
from tunelm.planning.costs import Curve, TokenPrices
from tunelm.planning.facts import ENDPOINT, MACHINE, RouteFacts, Spent
from tunelm.planning.reckon import reckon

TODAY = date(2026, 11, 21)
MINI = TokenPrices(0.40, 1.60, "gpt-4.1-mini", usd_cached_in=0.10)
TUNED = TokenPrices(0.80, 3.20, "its fine-tune", usd_cached_in=0.20)


def main() -> None:
    """Print both tables; `--out` also writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=100_000, type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {"random": against_bills(args.cases), "worked": worked()}
    print("| kind | cases | volumes asked | wrong | worst relative error of an edge |")
    print("|---|---|---|---|---|")
    for row in found["random"]:
        print(f"| {' | '.join(str(row[key]) for key in row)} |")
    print("\n| few-shot prefix, tokens | break-even, uncached | cached |\n|---|---|---|")
    for row in found["worked"]:
        print(f"| {row['prefix']:,} | {row['uncached']} | {row['cached']} |")
    if args.out:
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def against_bills(cases: int) -> list[dict[str, object]]:
    """By kind of answer: on how many volumes the bills of both routes say otherwise."""
    rng = random.Random(0)
    count: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    worst: dict[str, float] = {}
    for _ in range(cases):
        a, b, given = case(rng)
        found = break_even(curve_of(a, given), curve_of(b, given))
        count[found.kind] += 1
        edges = [edge for span in found.spans for edge in span if 0 < edge < math.inf]
        volumes = [10 ** rng.uniform(-1, 10) for _ in range(6)]
        volumes += [edge * factor for edge in edges for factor in (1 - 1e-6, 1 + 1e-6)]
        for edge in edges:
            one, other = bill(a, given, edge), bill(b, given, edge)
            worst[found.kind] = max(worst.get(found.kind, 0.0), abs(one / other - 1))
        for volume in volumes:
            one, other = bill(a, given, volume), bill(b, given, volume)
            if math.isclose(one, other, rel_tol=1e-11):
                continue
            asked[found.kind] += 1
            inside = any(low < volume < high for low, high in found.spans)
            wrong[found.kind] += inside != (other < one)
    return [
        {
            "kind": kind,
            "cases": n,
            "asked": asked[kind],
            "wrong": wrong[kind],
            "worst": f"{worst.get(kind, 0.0):.1e}",
        }
        for kind, n in count.most_common()
    ]


def worked() -> list[dict[str, object]]:
    """gpt-4.1-mini with a few-shot prefix against its own tune, 6.75 dollars of training."""
    rows: list[dict[str, object]] = []
    for prefix in (1500, 3000, 8000):
        told: dict[str, object] = {"prefix": prefix}
        for name, hit in (("uncached", 0.0), ("cached", 1.0)):
            given = Assumptions(months=1, cache_hit_rate=hit)
            few = curve_of(hosted(MINI, prefix, 0.0), given)
            found = break_even(few, curve_of(hosted(TUNED, 0, 6.75), given))
            told[name] = f"{found.spans[0][0]:,.0f}" if found.spans else found.kind
        rows.append(told)
    return rows


def hosted(prices: TokenPrices, prefix: float, once: float, output: float = 150) -> RouteFacts:
    """A route behind an API, 300 tokens of question after its prefix."""
    job = Spent("train", "training", once * 1e6, 0.0, usd_train=1.0)
    return RouteFacts(
        *("r", "prompt", False, "done", ENDPOINT),
        prompt=prefix + 300,
        completion=output,
        cacheable=prefix,
        turns=1.0,
        prices=prices,
        spent=(job,) if once else (),
        learns=True,
    )


def case(rng: random.Random) -> tuple[RouteFacts, RouteFacts, Assumptions]:
    """Two routes and a set of assumptions."""

    def route() -> RouteFacts:
        if rng.random() < 0.4:
            return RouteFacts(
                *("r", "local", False, "done", MACHINE),
                seconds=10 ** rng.uniform(-2, 1),
                fit_seconds=10 ** rng.uniform(0, 5),
                turns=1.0,
                learns=True,
            )
        usd_in = 10 ** rng.uniform(-2, 1)
        prices = TokenPrices(
            usd_in,
            usd_in * rng.uniform(1, 8),
            "",
            usd_cached_in=rng.choice((None, usd_in * rng.uniform(0.1, 1))),
        )
        once = rng.choice((0.0, 10 ** rng.uniform(-1, 3)))
        return hosted(prices, rng.choice((0.0, rng.uniform(0, 10_000))), once, rng.uniform(1, 500))

    given = Assumptions(
        months=float(rng.randint(1, 24)),
        cache_hit_rate=rng.choice((0.0, 1.0, rng.random())),
        usd_per_hour=10 ** rng.uniform(-2, 1),
        utilization=rng.choice((None, rng.uniform(0.05, 1))),
        retrain_every=rng.choice((None, float(rng.randint(1, 12)))),
    )
    return route(), route(), given


def curve_of(facts: RouteFacts, given: Assumptions) -> Curve:
    """What it costs, as the command reckons it."""
    found = reckon(facts, given, TODAY).curve
    assert found is not None
    return found


def bill(facts: RouteFacts, given: Assumptions, volume: float) -> float:
    """All dollars of all months, one month after the other, without any of the formulas."""
    usd = 0.0
    every = int(given.retrain_every or given.months)
    for month in range(int(given.months)):
        fitted = month % every == 0
        if facts.where == MACHINE:
            rent = given.usd_per_hour or 0.0
            usd += (facts.fit_seconds or 0.0) / 3600 * rent * fitted
            hours = volume * (facts.seconds or 0.0) / 3600
            usd += rent * (hours / given.utilization if given.utilization else max(730.0, hours))
            continue
        usd += sum(spent.prompt or 0.0 for spent in facts.spent) / 1e6 * fitted
        assert facts.prices is not None
        assert facts.prompt is not None
        cached = facts.prices.usd_cached_in or facts.prices.usd_in
        hits = (facts.cacheable or 0.0) * given.cache_hit_rate
        answer = (facts.prompt - hits) * facts.prices.usd_in + hits * cached
        usd += volume * (answer + (facts.completion or 0.0) * facts.prices.usd_out) / 1e6
    return usd


if __name__ == "__main__":
    main()
