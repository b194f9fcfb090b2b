"""The statistics: against scipy where it has a counterpart, and against planted truths."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from tunelm.errors import ConfigError
from tunelm.scoring.metrics import METRICS
from tunelm.scoring.statistics import Interval, holm, interval, mde, paired, verdict
from tunelm.types import Example, Message

Array = NDArray[np.float64]


def rows_of(values: Array) -> Array:
    """Statistics of a per-row metric: (value, 1) for each row; NaN where the value is."""
    return np.stack([values, np.where(np.isnan(values), np.nan, 1.0)], axis=-1)


def clustered(
    rng: np.random.Generator, groups: int, shift: float = 0.0, sizes: tuple[int, int] = (1, 6)
) -> tuple[Array, Array, list[str]]:
    """Two systems' values and the rows' groups; a group's rows share much of their value."""
    size = rng.integers(sizes[0], sizes[1] + 1, groups)
    index = np.repeat(np.arange(groups), size)
    difficulty = rng.normal(0, 0.2, groups)[index]
    liking = rng.normal(shift, 0.1, groups)[index]

    def noise() -> Array:
        return rng.normal(0, 0.1, len(index))

    return 0.5 + difficulty + liking + noise(), 0.5 + difficulty + noise(), [f"g{i}" for i in index]


def bleu_rows(seed: int, groups: int) -> tuple[Array, Array, list[str]]:
    """BLEU statistics of a good and a poor system, three rows a group."""
    rng, metric = random.Random(seed), METRICS["bleu"]
    words = list("abcdefghij")
    good, poor, names = [], [], []
    for i in range(3 * groups):
        answer = " ".join(rng.choices(words, k=9))
        row = Example(str(i), (Message("user", "?"),), (answer,), f"g{i // 3}")
        good.append(metric.statistics(answer[:-5] + rng.choice(words), row))
        poor.append(metric.statistics(" ".join(rng.choices(words, k=9)), row))
        names.append(row.group)
    return np.array(good), np.array(poor), names


def test_an_interval_holds_the_mean_and_counts_rows_and_groups() -> None:
    values, _, groups = clustered(np.random.default_rng(1), 40)
    found = interval(rows_of(values), groups)
    assert found.value == pytest.approx(values.mean())
    assert (found.n, found.n_groups) == (len(values), 40)
    assert found.low is not None
    assert found.high is not None
    assert found.low < values.mean() < found.high


def test_an_interval_of_single_rows_is_near_students() -> None:
    """One row a group is the textbook case: mean plus or minus t times standard error."""
    values = np.random.default_rng(2).normal(0.5, 0.1, 30)
    found = interval(rows_of(values), list(range(30)))
    theirs = scipy_stats.ttest_1samp(values, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_rows_of_one_group_are_not_taken_for_independent() -> None:
    values, _, groups = clustered(np.random.default_rng(3), 30, sizes=(6, 6))
    by_group = interval(rows_of(values), groups)
    by_row = interval(rows_of(values), list(range(len(values))))
    assert width(by_group) > 1.6 * width(by_row)


def width(found: Interval) -> float:
    """From end to end."""
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def test_intervals_cover_the_truth_with_few_groups() -> None:
    """95% nominal; the plain percentile interval of 8 groups covers about 87%."""
    rng = np.random.default_rng(4)
    hits = 0
    for trial in range(400):
        values, _, groups = clustered(rng, 8)
        found = interval(rows_of(values), groups, seed=trial, resamples=400)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.5 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_a_score_of_zero_everywhere_is_not_certain_to_be_zero() -> None:
    zeros = rows_of(np.zeros(90))
    groups = [i // 3 for i in range(90)]
    exact = scipy_stats.binomtest(0, 30).proportion_ci(method="exact")
    low_end = interval(zeros, groups, scale=1.0)
    assert (low_end.low, low_end.high) == (0.0, pytest.approx(exact.high))
    high_end = interval(rows_of(np.ones(90)), groups, scale=1.0)
    assert (high_end.low, high_end.high) == (pytest.approx(1 - exact.high), 1.0)


def test_the_interval_stays_on_the_scale() -> None:
    values = np.array([1.0] * 11 + [0.0])
    seeds = np.stack([rows_of(values), rows_of(1 - values), rows_of(values)])
    found = interval(seeds, list(range(12)), scale=1.0)
    assert (found.low, found.high) == (0.0, 1.0)


def test_unscored_rows_are_left_out_and_are_not_zero() -> None:
    values = np.array([1.0, 1.0, np.nan, 0.0, 1.0, np.nan])
    found = interval(rows_of(values), ["a", "a", "a", "b", "b", "c"])
    assert found.value == 0.75
    assert (found.n, found.n_groups) == (4, 2)
    other = np.array([0.0, np.nan, 1.0, 0.0, 0.0, 1.0])
    both = paired(rows_of(values), rows_of(other), ["a", "a", "a", "b", "b", "c"])
    assert both.diff == pytest.approx(2 / 3)
    assert (both.n, both.n_groups) == (3, 2)


def test_what_cannot_be_known_is_none() -> None:
    one, nothing = rows_of(np.array([1.0, 0.0])), rows_of(np.array([np.nan, np.nan]))
    assert interval(one, ["a", "a"]) == Interval(0.5, None, None, 2, 1)
    assert interval(nothing, ["a", "b"]) == Interval(None, None, None, 0, 0)
    alone = paired(one, one[::-1], ["a", "a"])
    assert (alone.diff, alone.low, alone.p, alone.agrees) == (0.0, None, None, True)
    assert paired(one, nothing, ["a", "b"]).diff is None
    assert mde(one, one, ["a", "a"]) is None


def test_labels_must_fit_the_rows() -> None:
    with pytest.raises(ConfigError, match=r"\(1, 2, 2\) for 3 group labels"):
        interval(np.ones((2, 2)), ["a", "b", "c"])


@pytest.mark.parametrize("groups", [7, 12, 40])
def test_the_sign_flip_test_is_scipys_permutation_test_on_group_sums(groups: int) -> None:
    a, b, names = clustered(np.random.default_rng(groups), groups, shift=0.06)
    sums = [
        sum(a[i] - b[i] for i in range(len(a)) if names[i] == name) for name in dict.fromkeys(names)
    ]
    theirs = scipy_stats.permutation_test(
        (np.array(sums),),
        np.sum,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(0),
    )
    found = paired(rows_of(a), rows_of(b), names, resamples=20_000)
    exact = groups <= 12
    assert found.diff == pytest.approx((a - b).mean())
    assert found.p == pytest.approx(
        theirs.pvalue, rel=1e-9 if exact else 0.1, abs=1e-3 * (not exact)
    )


def test_the_sign_flip_test_of_six_groups_by_hand() -> None:
    """All six groups point one way: 2 of the 64 sign patterns are as extreme."""
    a = rows_of(np.array([0.9, 0.8, 0.9, 0.7, 0.8, 0.6]))
    b = rows_of(np.array([0.1, 0.2, 0.4, 0.1, 0.3, 0.5]))
    found = paired(a, b, list("abcdef"))
    assert found.p == 2 / 64
    assert found.agrees
    same = paired(a, a, list("abcdef"))
    assert (same.diff, same.p, same.low, same.high, same.agrees) == (0, 1, 0, 0, True)


def test_systems_that_never_differ_are_not_certain_to_be_alike() -> None:
    rows, groups = rows_of(np.zeros(90)), [i // 3 for i in range(90)]
    exact = scipy_stats.binomtest(0, 30).proportion_ci(method="exact").high
    found = paired(rows, rows, groups, scale=100.0)
    assert (found.low, found.diff, found.high) == (
        pytest.approx(-100 * exact),
        0,
        pytest.approx(100 * exact),
    )
    assert (found.p, found.agrees) == (1, True)
    apart = paired(rows_of(np.ones(90)), rows, groups, scale=1.0)
    assert (apart.low, apart.high) == (pytest.approx(1 - 2 * exact), 1.0)


@pytest.mark.parametrize("groups", range(2, 12))
def test_limits_without_variation_agree_with_the_test(groups: int) -> None:
    good, poor = rows_of(np.ones(groups)), rows_of(np.zeros(groups))
    assert paired(good, poor, list(range(groups)), scale=1.0).agrees
    assert paired(poor, good, list(range(groups)), scale=1.0).agrees


def test_a_difference_stays_on_the_scale() -> None:
    a, b = np.array([1.0] * 11 + [0.0]), np.zeros(12)
    assert paired(rows_of(a), rows_of(b), list(range(12))).high > 1
    assert paired(rows_of(a), rows_of(b), list(range(12)), scale=1.0).high == 1


def test_ties_count_one_half() -> None:
    """Nine wins and one loss of ten pairs: 22 of 1,024 patterns are at least as extreme.

    Two are the observed one's own difference of ten or more wins, the other 20 tie with it.
    """
    a = rows_of(np.array([1.0] * 9 + [0.0]))
    b = rows_of(np.array([0.0] * 9 + [1.0]))
    assert paired(a, b, list("abcdefghij")).p == (2 + 20 / 2 + 1) / 1024


def test_a_disagreement_of_interval_and_p_is_said() -> None:
    """Five groups can reach p = 1/16 at best, while their interval may lie above zero."""
    a = rows_of(np.array([0.50, 0.51, 0.49, 0.50, 0.52]))
    found = paired(a, rows_of(np.zeros(5)), list("abcde"))
    assert found.p == 2 / 32
    assert found.low is not None
    assert found.low > 0
    assert not found.agrees


def test_a_planted_null_is_called_different_in_five_of_a_hundred() -> None:
    rng = np.random.default_rng(5)
    calls = [
        verdict(found.diff, found.p)
        for found in (
            paired(rows_of(a), rows_of(b), names, seed=i, resamples=400)
            for i in range(600)
            for a, b, names in [clustered(rng, 30)]
        )
    ]
    false = len(calls) - calls.count("not distinguishable")
    assert 0.02 <= false / 600 <= 0.05 + 2 * (0.05 * 0.95 / 600) ** 0.5


def test_a_difference_of_the_mde_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(6)
    a, b, names = clustered(rng, 3000, sizes=(3, 3))
    wide = mde(rows_of(a), rows_of(b), names)
    assert wide is not None
    # Of 3,000 groups for the precision; 60 groups have sqrt(50) times the standard error,
    # and their t quantiles are wider by 2%.
    shift, found = wide * 50**0.5 * 1.02, 0
    for trial in range(400):
        a, b, names = clustered(rng, 60, shift, sizes=(3, 3))
        one = paired(rows_of(a), rows_of(b), names, seed=trial, resamples=400)
        found += verdict(one.diff, one.p) == "better"
    assert 0.74 <= found / 400 <= 0.86


def test_the_mde_of_single_rows_is_the_paired_t_formula() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.5, 0.1, 50), rng.normal(0.5, 0.1, 50)
    t = scipy_stats.t(49)
    expected = (t.ppf(0.975) + t.ppf(0.8)) * scipy_stats.sem(a - b)
    assert mde(rows_of(a), rows_of(b), list(range(50))) == pytest.approx(expected)


def test_a_corpus_metric_is_compared_by_swapping_groups() -> None:
    metric = METRICS["bleu"]
    good, poor, names = bleu_rows(1, 20)
    found = paired(good, poor, names, metric.aggregate, resamples=2000)
    value = interval(good, names, metric.aggregate, resamples=2000, scale=metric.scale)
    assert value.value == metric.aggregate(good.sum(axis=0).tolist())
    other = metric.aggregate(poor.sum(axis=0).tolist())
    assert found.diff is not None
    assert value.value is not None
    assert found.diff == pytest.approx(value.value - other)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.diff < found.high
    assert found.p == 1 / 2001
    t = scipy_stats.t(19)
    error = (found.high - found.low) / (2 * t.ppf(0.975))
    smallest = mde(good, poor, names, metric.aggregate)
    assert smallest == pytest.approx((t.ppf(0.975) + t.ppf(0.8)) * error, rel=0.2)
    few = paired(*bleu_rows(2, 5), metric.aggregate, resamples=500)
    assert few.p == 2 / 32


def test_the_same_seed_gives_the_same_result_and_the_order_of_rows_does_not_matter() -> None:
    a, b, names = clustered(np.random.default_rng(8), 40)
    first = paired(rows_of(a), rows_of(b), names, seed=3)
    assert paired(rows_of(a), rows_of(b), names, seed=3) == first
    assert paired(rows_of(a), rows_of(b), names, seed=4) != first
    order = np.random.default_rng(0).permutation(len(a))
    shuffled = paired(rows_of(a)[order], rows_of(b)[order], [names[i] for i in order], seed=3)
    assert shuffled.p == first.p
    assert (shuffled.low, shuffled.high) == pytest.approx((first.low, first.high))


def test_exchanging_the_systems_mirrors_the_result() -> None:
    a, b, names = clustered(np.random.default_rng(9), 30, 0.05)
    one, other = paired(rows_of(a), rows_of(b), names), paired(rows_of(b), rows_of(a), names)
    assert one.p == other.p
    assert one.diff is not None
    assert one.low is not None
    assert (other.diff, other.high) == pytest.approx((-one.diff, -one.low))


def test_variance_between_seeds_widens_the_interval_and_raises_p() -> None:
    rng = np.random.default_rng(10)
    a, b, names = clustered(rng, 60, 0.08)
    steady = np.stack([rows_of(a)] * 3)
    moving = np.stack([rows_of(a + shift) for shift in (-0.06, 0.0, 0.06)])
    alone = interval(rows_of(a), names)
    assert width(interval(steady, names)) == pytest.approx(width(alone))
    assert width(interval(moving, names)) > 1.3 * width(alone)
    calm = paired(steady, rows_of(b), names)
    luck = paired(moving, rows_of(b), names)
    assert calm.diff == pytest.approx((a - b).mean())
    assert luck.diff == pytest.approx((a - b).mean())
    assert calm.p is not None
    assert luck.p is not None
    assert calm.p < 0.01 < 0.05 < luck.p
    smallest, smallest_with_luck = mde(steady, rows_of(b), names), mde(moving, rows_of(b), names)
    assert smallest is not None
    assert smallest_with_luck is not None
    assert smallest_with_luck > 1.3 * smallest


def test_lucky_seeds_are_not_called_better() -> None:
    """Two routes of one quality, three trainings each: few false verdicts all the same."""
    rng = np.random.default_rng(11)
    false = 0
    for trial in range(300):
        values, _, names = clustered(rng, 40)
        runs = [
            np.stack(
                [
                    rows_of(values + rng.normal(0, 0.05) + rng.normal(0, 0.1, len(values)))
                    for _ in range(3)
                ]
            )
            for _ in range(2)
        ]
        found = paired(runs[0], runs[1], names, seed=trial, resamples=300)
        false += verdict(found.diff, found.p) != "not distinguishable"
    assert false / 300 <= 0.08


def test_systems_may_have_different_numbers_of_seeds() -> None:
    good, poor, names = bleu_rows(3, 15)
    one = paired(good, poor, names, METRICS["bleu"].aggregate, resamples=300)
    many = paired(np.stack([good] * 3), np.stack([poor] * 2), names, METRICS["bleu"].aggregate)
    assert many.diff == pytest.approx(one.diff)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.4, 0.01, 0.02], [0.8, 0.8, 0.04, 0.06]),
        ([0.04], [0.04]),
        ([0.03, None, 0.02], [0.04, None, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values: list[float | None], adjusted: list[float | None]) -> None:
    assert holm(p_values) == [None if p is None else pytest.approx(p) for p in adjusted]


@pytest.mark.parametrize(
    ("diff", "p", "expected"),
    [
        (0.1, 0.05, "better"),
        (-0.1, 0.001, "worse"),
        (0.1, 0.0501, "not distinguishable"),
        (0.1, None, "not distinguishable"),
        (None, None, "not distinguishable"),
    ],
)
def test_verdicts(diff: float | None, p: float | None, expected: str) -> None:
    assert verdict(diff, p) == expected
