"""Functions of statistics."""

import math
from collections import Counter


def mean(values: list[float]) -> float:
    """Compute the arithmetic mean.

    Args:
        values: At least one number.

    Returns:
        The sum of the numbers by their count.

    Raises:
        ValueError: If there are no numbers.

    Examples:
        >>> mean([2, 4, 9])
        5.0
        >>> mean([])
        Traceback (most recent call last):
            ...
        ValueError: no values
    """
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)


def median(values: list[float]) -> float:
    """Find the value in the middle.

    Args:
        values: At least one number, in any order.

    Returns:
        The middle of the sorted numbers; of two middle ones their mean.

    Examples:
        >>> median([9, 1, 5])
        5
        >>> median([4, 1, 8, 2])
        3.0
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


def modes(values: list[int]) -> list[int]:
    """Find the values that occur most often.

    Args:
        values: Numbers in any order.

    Returns:
        The most frequent ones from small to large.

    Examples:
        >>> modes([3, 1, 3, 2, 1])
        [1, 3]
        >>> modes([])
        []
    """
    counts = Counter(values)
    most = max(counts.values(), default=0)
    return sorted(value for value, count in counts.items() if count == most)


def variance(values, sample=True):
    """Compute the variance of numbers.

    Args:
        values: At least two numbers.
        sample: Whether to divide by one less than their count.

    Returns:
        The mean squared distance from the mean.

    Examples:
        >>> variance([2, 4, 6])
        4.0
        >>> variance([1, 5], sample=False)
        4.0
    """
    middle = sum(values) / len(values)
    squares = sum((value - middle) ** 2 for value in values)
    return squares / (len(values) - (1 if sample else 0))


def weighted_mean(values: list[float], weights: list[float]) -> float:
    """Compute a mean in which some values count more.

    Args:
        values: The numbers.
        weights: How much each of them counts.

    Returns:
        The weighted mean.

    Raises:
        ValueError: If there are not as many weights as numbers.

    Examples:
        >>> weighted_mean([1.0, 4.0], [3, 1])
        1.75
        >>> weighted_mean([1.0], [1, 2])
        Traceback (most recent call last):
            ...
        ValueError: 1 values but 2 weights
    """
    if len(values) != len(weights):
        raise ValueError(f"{len(values)} values but {len(weights)} weights")
    return sum(v * w for v, w in zip(values, weights)) / sum(weights)


def percentile(values: list[float], share: float) -> float:
    """Find the value below which a share of all values lies.

    Args:
        values: At least one number.
        share: The share from 0 to 1.

    Returns:
        The value at that share of the sorted numbers, between two of them by their distance.

    Examples:
        >>> percentile([40, 10, 20, 30], 0.5)
        25.0
        >>> percentile([10, 20, 30], 0.25)
        15.0
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def correlation(xs: list[float], ys: list[float]) -> float:
    """Compute Pearson's correlation of two columns.

    Args:
        xs: Numbers that are not all equal.
        ys: As many other numbers.

    Returns:
        A number from -1 to 1 with three decimals.

    Examples:
        >>> correlation([1, 2, 3, 4], [2, 1, 4, 5])
        0.849
    """
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    shared = sum((x - mx) * (y - my) for x, y in zip(xs, ys))
    spread = sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys)
    return round(shared / math.sqrt(spread), 3)


def moving_average(values: list[float], width: int) -> list[float]:
    """Smooth a series by the mean of neighbours.

    Args:
        values: The series.
        width: How many neighbours one mean is made of.

    Returns:
        The means; there are width - 1 fewer than values.

    Examples:
        >>> moving_average([2, 4, 9, 5], 2)
        [3.0, 6.5, 7.0]
    """
    starts = range(len(values) - width + 1)
    return [sum(values[i : i + width]) / width for i in starts]


def z_scores(values: list[float]) -> list[float]:
    """Express values in standard deviations from their mean.

    Args:
        values: Numbers that are not all equal.

    Returns:
        A score for each number with two decimals.

    Raises:
        ValueError: If all numbers are equal.

    Examples:
        >>> z_scores([1, 2, 6])
        [-0.93, -0.46, 1.39]
        >>> z_scores([4, 4])
        Traceback (most recent call last):
            ...
        ValueError: all values are equal
    """
    middle = sum(values) / len(values)
    spread = math.sqrt(sum((v - middle) ** 2 for v in values) / len(values))
    if spread == 0:
        raise ValueError("all values are equal")
    return [round((v - middle) / spread, 2) for v in values]


def histogram(values: list[float], width: float) -> dict[float, int]:
    """Count values in bins of one width.

    Args:
        values: Numbers.
        width: The width of a bin.

    Returns:
        For the lower end of each bin that is not empty the number of values in it.

    Examples:
        >>> histogram([1, 4, 5, 9, 6], 5)
        {0: 2, 5: 3}
    """
    counts = Counter(value // width * width for value in values)
    return dict(sorted(counts.items()))


def trimmed_mean(values: list[float], cut: int = 1) -> float:
    """Compute a mean without the extreme values.

    Args:
        values: More numbers than are cut off.
        cut: How many of the smallest, and of the largest, are left out.

    Returns:
        The mean of the others.

    Examples:
        >>> trimmed_mean([100, 2, 4, 3, -50])
        3.0
        >>> trimmed_mean([5, 1, 3, 9, 4, 8], 2)
        4.5
    """
    kept = sorted(values)[cut : len(values) - cut]
    return sum(kept) / len(kept)


def range_of(values):
    """Measure how far values lie apart.

    Args:
        values: At least one number.

    Returns:
        The largest less the smallest.

    Examples:
        >>> range_of([7, -2, 4])
        9
    """
    return max(values) - min(values)


def accuracy(predicted: list[str], true: list[str]) -> float:
    """Compute the share of right predictions.

    Args:
        predicted: The predicted labels.
        true: The true labels in the same order.

    Returns:
        A share from 0 to 1.

    Raises:
        ValueError: If the lists differ in length, or are empty.

    Examples:
        >>> accuracy(["cat", "dog", "cat", "cat"], ["cat", "dog", "dog", "cat"])
        0.75
        >>> accuracy([], [])
        Traceback (most recent call last):
            ...
        ValueError: nothing to compare
    """
    if len(predicted) != len(true) or not true:
        raise ValueError("nothing to compare")
    return sum(p == t for p, t in zip(predicted, true)) / len(true)


def f1_score(hits: int, false_alarms: int, misses: int) -> float:
    """Compute the harmonic mean of precision and recall from counts.

    Args:
        hits: What was found and is right.
        false_alarms: What was found and is wrong.
        misses: What is right and was not found.

    Returns:
        The F1 score, 0.0 where there is nothing at all.

    Examples:
        >>> f1_score(6, 2, 6)
        0.6
        >>> f1_score(0, 0, 0)
        0.0
    """
    total = 2 * hits + false_alarms + misses
    return 2 * hits / total if total else 0.0


def geometric_mean(values: list[float]) -> float:
    """Compute the mean factor of growth.

    Args:
        values: Numbers above 0.

    Returns:
        The root of their product, with four decimals.

    Raises:
        ValueError: If a number is not above 0.

    Examples:
        >>> geometric_mean([2, 8])
        4.0
        >>> geometric_mean([1, 2, 3])
        1.8171
        >>> geometric_mean([0.5, 0])
        Traceback (most recent call last):
            ...
        ValueError: values must be above 0
    """
    if min(values) <= 0:
        raise ValueError("values must be above 0")
    return round(math.prod(values) ** (1 / len(values)), 4)


def cumulative_share(counts: list[int]) -> list[float]:
    """Say which share of all is reached with each count.

    Args:
        counts: Counts in their order, not all zero.

    Returns:
        Shares that rise to 1.0.

    Examples:
        >>> cumulative_share([5, 3, 2])
        [0.5, 0.8, 1.0]
    """
    total = sum(counts)
    return [sum(counts[: i + 1]) / total for i in range(len(counts))]


def line_fit(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Fit a straight line by least squares.

    Args:
        xs: Where the points lie to the right, not all at one place.
        ys: How high they lie.

    Returns:
        The slope of the line and its height at 0, with two decimals.

    Examples:
        >>> line_fit([1, 2, 3], [2, 4, 9])
        (3.5, -2.0)
    """
    count = len(xs)
    products = sum(x * y for x, y in zip(xs, ys))
    rise = count * products - sum(xs) * sum(ys)
    slope = rise / (count * sum(x * x for x in xs) - sum(xs) ** 2)
    return round(slope, 2), round((sum(ys) - slope * sum(xs)) / count, 2)


def entropy(shares: list[float]) -> float:
    """Compute the entropy of a distribution.

    Args:
        shares: Probabilities that add up to 1.

    Returns:
        The entropy in bits with three decimals.

    Examples:
        >>> entropy([0.5, 0.25, 0.25])
        1.5
        >>> entropy([1.0, 0.0])
        0.0
    """
    return round(sum(-p * math.log2(p) for p in shares if p > 0), 3)


def outliers(values: list[float], factor: float = 2.0) -> list[float]:
    """Find the values that lie far from the mean.

    Args:
        values: Numbers.
        factor: How many standard deviations are far.

    Returns:
        The far values in their order.

    Examples:
        >>> outliers([10, 11, 9, 10, 12, 8, 10, 30])
        [30]
        >>> outliers([1, 1, 1, 5], factor=3.0)
        []
    """
    centre = sum(values) / len(values)
    squares = [(value - centre) ** 2 for value in values]
    limit = factor * math.sqrt(sum(squares) / len(squares))
    return [value for value in values if abs(value - centre) > limit]


def confusion(predicted: list[bool], true: list[bool]) -> dict[str, int]:
    """Count the four outcomes of a test.

    Args:
        predicted: What the test said of each case.
        true: What each case really was.

    Returns:
        The counts of true and false positives and negatives as tp, fp, fn and tn.

    Examples:
        >>> confusion([True, True, False, False, True], [True, False, True, False, True])
        {'tp': 2, 'fp': 1, 'fn': 1, 'tn': 1}
    """
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for said, is_so in zip(predicted, true):
        if said:
            counts["tp" if is_so else "fp"] += 1
        else:
            counts["fn" if is_so else "tn"] += 1
    return counts


def mean_absolute_error(forecast, actual):
    """Say how far forecasts were off on average.

    Args:
        forecast: What was expected.
        actual: What came, in the same order.

    Returns:
        The mean distance, whichever way the forecasts were wrong.

    Examples:
        >>> mean_absolute_error([10, 12, 9], [11, 9, 9])
        1.3333333333333333
    """
    errors = [abs(f - a) for f, a in zip(forecast, actual)]
    return sum(errors) / len(errors)
