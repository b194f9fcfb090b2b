"""Functions that make series, most of them generators."""

from collections.abc import Iterable, Iterator
from itertools import islice


def countdown(start: int) -> Iterator[int]:
    """Count down to zero.

    Args:
        start: The first number.

    Yields:
        Each number down to 0.

    Examples:
        >>> list(countdown(3))
        [3, 2, 1, 0]
    """
    while start >= 0:
        yield start
        start -= 1


def collatz(n: int) -> Iterator[int]:
    """Go through the Collatz sequence of a number.

    Args:
        n: The first number.

    Yields:
        The numbers down to 1.

    Raises:
        ValueError: If the first number is below 1.

    Examples:
        >>> list(collatz(6))
        [6, 3, 10, 5, 16, 8, 4, 2, 1]
        >>> list(collatz(0))
        Traceback (most recent call last):
            ...
        ValueError: below 1
    """
    if n < 1:
        raise ValueError("below 1")
    yield n
    while n > 1:
        n = 3 * n + 1 if n % 2 else n // 2
        yield n


def pairwise_sums(values: Iterable[int]) -> Iterator[int]:
    """Add each value to the one before it.

    Args:
        values: Numbers in their order.

    Yields:
        The sum of each two neighbours.

    Examples:
        >>> list(pairwise_sums([1, 5, 2, 8]))
        [6, 7, 10]
    """
    previous = None
    for value in values:
        if previous is not None:
            yield previous + value
        previous = value


def frange(start: float, stop: float, step: float) -> Iterator[float]:
    """Count in steps that need not be whole numbers.

    Args:
        start: The first number.
        stop: The number to stop before.
        step: The distance between two numbers.

    Yields:
        The numbers, each computed from the start so that errors do not add up.

    Raises:
        ValueError: If the step is not above 0.

    Examples:
        >>> list(frange(1, 2.5, 0.5))
        [1.0, 1.5, 2.0]
        >>> list(frange(0, 1, 0))
        Traceback (most recent call last):
            ...
        ValueError: step must be above 0
    """
    if step <= 0:
        raise ValueError("step must be above 0")
    count = 0
    while start + count * step < stop:
        yield start + count * step
        count += 1


def pascal_row(n: int) -> list[int]:
    """Compute a row of Pascal's triangle.

    Args:
        n: The number of the row, 0 for the top.

    Returns:
        Its numbers from left to right.

    Examples:
        >>> pascal_row(4)
        [1, 4, 6, 4, 1]
    """
    row = [1]
    for k in range(n):
        row.append(row[k] * (n - k) // (k + 1))
    return row


def look_and_say(text: str) -> str:
    """Say what digits one sees, as the look-and-say sequence does.

    Args:
        text: Digits.

    Returns:
        For each run of a digit its length and the digit.

    Examples:
        >>> look_and_say("111221")
        '312211'
    """
    said, place = "", 0
    while place < len(text):
        end = place
        while end < len(text) and text[end] == text[place]:
            end += 1
        said += str(end - place) + text[place]
        place = end
    return said


def batches(items: Iterable[int], size: int) -> Iterator[tuple[int, ...]]:
    """Hand out items in batches.

    Args:
        items: The items, however many.
        size: How many items a batch has; the last may have fewer.

    Yields:
        The batches.

    Examples:
        >>> list(batches([4, 5, 6, 7, 8], 2))
        [(4, 5), (6, 7), (8,)]
    """
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


def round_robin(first: list[str], second: list[str]) -> Iterator[str]:
    """Take turns between two queues until one of them is empty.

    Args:
        first: The queue that begins.
        second: The other queue.

    Yields:
        One item of each in turn; what is left of the longer queue is not handed out.

    Examples:
        >>> list(round_robin(["a", "b", "c"], ["x", "y"]))
        ['a', 'x', 'b', 'y']
    """
    for one, other in zip(first, second):
        yield one
        yield other


def geometric(start, ratio, count):
    """List the numbers of a geometric series.

    Args:
        start: The first number.
        ratio: What each number is multiplied by.
        count: How many numbers to list.

    Returns:
        The numbers.

    Examples:
        >>> geometric(3, 2, 4)
        [3, 6, 12, 24]
    """
    return [start * ratio**place for place in range(count)]


def even_numbers(numbers: Iterable[int], limit: int) -> Iterator[int]:
    """Pick even numbers until there are enough.

    Args:
        numbers: The numbers to pick from.
        limit: How many to pick at most.

    Yields:
        The even numbers in their order.

    Examples:
        >>> list(even_numbers([1, 2, 4, 7, 6, 8], 3))
        [2, 4, 6]
    """
    picked = 0
    for number in numbers:
        if picked == limit:
            return
        if number % 2 == 0:
            picked += 1
            yield number


def binomial(n: int, k: int) -> int:
    """Count the ways to choose some things out of many.

    Args:
        n: How many things there are.
        k: How many are chosen.

    Returns:
        The binomial coefficient, 0 where more are chosen than there are.

    Examples:
        >>> binomial(6, 2)
        15
        >>> binomial(3, 5)
        0
    """
    if k > n:
        return 0
    result = 1
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result


def partial_sums_until(values: list[int], limit: int) -> int:
    """Count how many values it takes to reach a sum.

    Args:
        values: Numbers that are added in their order.
        limit: The sum to reach.

    Returns:
        The number of values added.

    Raises:
        ValueError: If all of them together are not enough.

    Examples:
        >>> partial_sums_until([5, 3, 4, 9], 8)
        2
        >>> partial_sums_until([1, 2], 10)
        Traceback (most recent call last):
            ...
        ValueError: the sum is never reached
    """
    total = 0
    for count, value in enumerate(values, 1):
        total += value
        if total >= limit:
            return count
    raise ValueError("the sum is never reached")


def permutations_of(word: str) -> list[str]:
    """List all orders of the letters of a word.

    Args:
        word: A short word with different letters.

    Returns:
        The orders in the alphabet's order, if the letters are so.

    Examples:
        >>> permutations_of("abc")
        ['abc', 'acb', 'bac', 'bca', 'cab', 'cba']
    """
    if len(word) <= 1:
        return [word]
    found = []
    for place, letter in enumerate(word):
        rest = word[:place] + word[place + 1 :]
        found += [letter + other for other in permutations_of(rest)]
    return found


def tribonacci(count: int) -> list[int]:
    """List numbers each of which is the sum of the three before.

    Args:
        count: How many numbers to list.

    Returns:
        The numbers, which begin with 0, 0 and 1.

    Examples:
        >>> tribonacci(8)
        [0, 0, 1, 1, 2, 4, 7, 13]
        >>> tribonacci(2)
        [0, 0]
    """
    numbers = [0, 0, 1]
    while len(numbers) < count:
        numbers.append(sum(numbers[-3:]))
    return numbers[:count]


def growth_steps(start: float, factor: float, target: float) -> int:
    """Count the steps of growth until a target is reached.

    Args:
        start: The size at the beginning, above 0.
        factor: What the size is multiplied by at each step.
        target: The size to reach.

    Returns:
        The number of steps.

    Raises:
        ValueError: If it does not grow.

    Examples:
        >>> growth_steps(1, 2, 1000)
        10
        >>> growth_steps(5, 3, 5)
        0
        >>> growth_steps(1, 0.5, 8)
        Traceback (most recent call last):
            ...
        ValueError: no growth
    """
    if factor <= 1:
        raise ValueError("no growth")
    steps = 0
    while start < target:
        start *= factor
        steps += 1
    return steps


def zigzag(count: int) -> list[int]:
    """List whole numbers that go away from zero on both sides.

    Args:
        count: How many numbers to list.

    Returns:
        0, 1, -1, 2, -2 and so on.

    Examples:
        >>> zigzag(5)
        [0, 1, -1, 2, -2]
    """
    return [(n + 1) // 2 if n % 2 else -(n // 2) for n in range(count)]


def local_peaks(values: list[int]) -> Iterator[int]:
    """Find the values that are higher than both neighbours.

    Args:
        values: A series of numbers; its ends are no peaks.

    Yields:
        The place of each peak.

    Examples:
        >>> list(local_peaks([1, 5, 2, 2, 7, 3, 8]))
        [1, 4]
    """
    for place in range(1, len(values) - 1):
        if values[place - 1] < values[place] > values[place + 1]:
            yield place


def repeat_each(items: list[str], times: int) -> Iterator[str]:
    """Hand out each item several times in a row.

    Args:
        items: The items.
        times: How often each comes.

    Yields:
        The items, equal ones one after the other.

    Examples:
        >>> list(repeat_each(["a", "b"], 2))
        ['a', 'a', 'b', 'b']
    """
    for item in items:
        for _ in range(times):
            yield item


def alternate_signs(numbers):
    """Add and subtract numbers in turn.

    Args:
        numbers: The numbers; the first is added.

    Returns:
        The alternating sum.

    Examples:
        >>> alternate_signs([10, 3, 2, 4])
        5
    """
    return sum(numbers[::2]) - sum(numbers[1::2])


def next_smaller(values: list[int]) -> list[int]:
    """Find for each value the next one to the right that is smaller.

    Args:
        values: Numbers, all above 0.

    Returns:
        The smaller values, -1 where there is none.

    Examples:
        >>> next_smaller([4, 5, 2, 10, 8])
        [2, 2, -1, 8, -1]
    """
    found = []
    for place, value in enumerate(values):
        found.append(next((v for v in values[place + 1 :] if v < value), -1))
    return found
