"""Functions on lists."""

from collections.abc import Iterable


def running_total(values: list[float]) -> list[float]:
    """Add up values step by step.

    Args:
        values: Numbers in their order.

    Returns:
        For each place the sum of all values up to it.

    Examples:
        >>> running_total([2, 3, -1])
        [2, 5, 4]
    """
    totals = []
    total = 0
    for value in values:
        total += value
        totals.append(total)
    return totals


def chunked(items: list, size: int) -> list[list]:
    """Split a list into parts of a given length.

    Args:
        items: The list to split.
        size: How many items a part has; the last part may have fewer.

    Returns:
        The parts.

    Raises:
        ValueError: If the size is below 1.

    Examples:
        >>> chunked([1, 2, 3, 4, 5], 2)
        [[1, 2], [3, 4], [5]]
        >>> chunked([1], 1)
        [[1]]
        >>> chunked([1], 0)
        Traceback (most recent call last):
            ...
        ValueError: size must be at least 1
    """
    if size < 1:
        raise ValueError("size must be at least 1")
    return [items[i : i + size] for i in range(0, len(items), size)]


def flatten(nested):
    """Take all items out of lists within lists.

    Args:
        nested: A list whose items may be lists, however deep.

    Returns:
        One flat list in the same order.

    Examples:
        >>> flatten([1, [2, [3]], []])
        [1, 2, 3]
    """
    flat = []
    for item in nested:
        if isinstance(item, list):
            flat.extend(flatten(item))
        else:
            flat.append(item)
    return flat


def unique_in_order(items: Iterable[str]) -> list[str]:
    """Keep the first of equal items.

    Args:
        items: Texts, some of which may come again.

    Returns:
        Each text once, in the order in which it first came.

    Examples:
        >>> unique_in_order(["tea", "milk", "tea", "salt"])
        ['tea', 'milk', 'salt']
    """
    return list(dict.fromkeys(items))


def rotate(items: list, steps: int) -> list:
    """Move items from the front of a list to its end.

    Args:
        items: The list, which stays as it is.
        steps: How many items move; negative numbers move them the other way.

    Returns:
        The rotated list.

    Examples:
        >>> rotate(["a", "b", "c", "d"], 1)
        ['b', 'c', 'd', 'a']
        >>> rotate([], 3)
        []
    """
    if not items:
        return []
    start = steps % len(items)
    return items[start:] + items[:start]


def pairs_with_sum(numbers: list[int], target: int) -> list[tuple[int, int]]:
    """Find the pairs of numbers that add up to a target.

    Args:
        numbers: The numbers; each place is used in a pair at most once with each other.
        target: The wanted sum.

    Returns:
        The pairs, by the place of their first number.

    Examples:
        >>> pairs_with_sum([1, 5, 3, 7, 2], 8)
        [(1, 7), (5, 3)]
    """
    found = []
    for i, first in enumerate(numbers):
        for second in numbers[i + 1 :]:
            if first + second == target:
                found.append((first, second))
    return found


def second_largest(numbers: list[int]) -> int:
    """Find the second largest of different numbers.

    Args:
        numbers: At least two different numbers; repeats count once.

    Returns:
        The largest number below the maximum.

    Raises:
        ValueError: If there are fewer than two different numbers.

    Examples:
        >>> second_largest([4, 9, 7, 9, 1])
        7
        >>> second_largest([5, 2])
        2
        >>> second_largest([3, 3])
        Traceback (most recent call last):
            ...
        ValueError: two different numbers are needed
    """
    different = sorted(set(numbers))
    if len(different) < 2:
        raise ValueError("two different numbers are needed")
    return different[-2]


def interleave(first: list, second: list) -> list:
    """Take items from two lists in turn.

    Args:
        first: The list to begin with.
        second: The other list.

    Returns:
        All items; what is left of the longer list stands at the end.

    Examples:
        >>> interleave([1, 3], [2, 4, 5])
        [1, 2, 3, 4, 5]
    """
    shared = min(len(first), len(second))
    mixed = [item for pair in zip(first, second) for item in pair]
    return mixed + first[shared:] + second[shared:]


def split_at(items: list, value: object) -> list[list]:
    """Cut a list wherever a value stands, as str.split does with text.

    Args:
        items: The list to cut.
        value: What stands between the parts; it is left out.

    Returns:
        The parts, which may be empty.

    Examples:
        >>> split_at([4, 0, 5, 6, 0], 0)
        [[4], [5, 6], []]
    """
    parts = [[]]
    for item in items:
        if item == value:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def longest_run(items: list) -> int:
    """Find how often the same item stands in a row at most.

    Args:
        items: Any items.

    Returns:
        The length of the longest run; 0 for an empty list.

    Examples:
        >>> longest_run(["x", "y", "y", "y", "x", "x"])
        3
    """
    best = current = 0
    for place, item in enumerate(items):
        same = place > 0 and item == items[place - 1]
        current = current + 1 if same else 1
        best = max(best, current)
    return best


def transpose(rows: list[list[int]]) -> list[list[int]]:
    """Turn the rows of a table into its columns.

    Args:
        rows: Rows of one length.

    Returns:
        The columns as lists.

    Raises:
        ValueError: If the rows differ in length.

    Examples:
        >>> transpose([[1, 2, 3], [4, 5, 6]])
        [[1, 4], [2, 5], [3, 6]]
        >>> transpose([[1], [2, 3]])
        Traceback (most recent call last):
            ...
        ValueError: rows of different length
    """
    if len({len(row) for row in rows}) > 1:
        raise ValueError("rows of different length")
    return [list(column) for column in zip(*rows)]


def is_sorted(values: list[int], strict: bool = False) -> bool:
    """Tell whether values never fall.

    Args:
        values: The values to look at.
        strict: Whether equal neighbours are wrong as well.

    Returns:
        True where they are in order.

    Examples:
        >>> is_sorted([1, 4, 4])
        True
        >>> is_sorted([1, 4, 4], strict=True)
        False
        >>> is_sorted([2, 1])
        False
    """
    neighbours = zip(values, values[1:])
    if strict:
        return all(a < b for a, b in neighbours)
    return all(a <= b for a, b in neighbours)


def partition(numbers: list[int], limit: int) -> tuple[list[int], list[int]]:
    """Divide numbers into small ones and large ones.

    Args:
        numbers: The numbers to divide.
        limit: The smallest of the large numbers.

    Returns:
        The numbers below the limit, and the others.

    Examples:
        >>> partition([8, 3, 5, 1], 5)
        ([3, 1], [8, 5])
    """
    small = [n for n in numbers if n < limit]
    large = [n for n in numbers if n >= limit]
    return small, large


def insert_sorted(values: list[int], new: int) -> list[int]:
    """Insert a value into a sorted list without changing it.

    Args:
        values: Values from small to large.
        new: The value to insert, after those that are equal.

    Returns:
        A new sorted list.

    Examples:
        >>> insert_sorted([1, 4, 9], 4)
        [1, 4, 4, 9]
        >>> insert_sorted([7], 2)
        [2, 7]
    """
    place = 0
    while place < len(values) and values[place] <= new:
        place += 1
    return values[:place] + [new] + values[place:]


def differences(values):
    """Subtract each value from the next one.

    Args:
        values: Numbers in their order.

    Returns:
        The steps between neighbours, one fewer than there are values.

    Examples:
        >>> differences([10, 12, 9])
        [2, -3]
    """
    return [later - earlier for earlier, later in zip(values, values[1:])]


def take_until(items: list[str], stop: str) -> list[str]:
    """Take items from the front up to a certain one.

    Args:
        items: The items.
        stop: The item to stop at, which is not taken.

    Returns:
        The items before the first stop; all of them where it does not occur.

    Examples:
        >>> take_until(["eggs", "milk", "END", "tea"], "END")
        ['eggs', 'milk']
    """
    taken = []
    for item in items:
        if item == stop:
            break
        taken.append(item)
    return taken


def every_nth(items: list, n: int, start: int = 0) -> list:
    """Pick every n-th item of a list.

    Args:
        items: The list.
        n: The step from one item to the next.
        start: The place of the first item to pick.

    Returns:
        The picked items.

    Examples:
        >>> every_nth(["a", "b", "c", "d", "e"], 2)
        ['a', 'c', 'e']
        >>> every_nth([1, 2, 3, 4], 3, 1)
        [2]
    """
    return items[start::n]


def find_all(items: list, wanted: object) -> list[int]:
    """Find every place at which an item stands.

    Args:
        items: Where to look.
        wanted: What to look for.

    Returns:
        The places, counted from 0.

    Examples:
        >>> find_all([5, 1, 5, 5], 5)
        [0, 2, 3]
    """
    return [place for place, item in enumerate(items) if item == wanted]


def merge_sorted(left: list[int], right: list[int]) -> list[int]:
    """Merge two sorted lists into one.

    Args:
        left: Numbers from small to large.
        right: Other numbers from small to large.

    Returns:
        All numbers from small to large.

    Examples:
        >>> merge_sorted([1, 6], [2, 3, 9])
        [1, 2, 3, 6, 9]
    """
    merged = []
    left, right = left[:], right[:]
    while left and right:
        merged.append(left.pop(0) if left[0] <= right[0] else right.pop(0))
    return merged + left + right


def move_zeros(numbers: list[int]) -> list[int]:
    """Move all zeros to the end of a list.

    Args:
        numbers: Whole numbers.

    Returns:
        The other numbers in their order, and then as many zeros as there were.

    Examples:
        >>> move_zeros([0, 7, 0, 4])
        [7, 4, 0, 0]
    """
    others = [n for n in numbers if n != 0]
    return others + [0] * (len(numbers) - len(others))


def windows(items, width):
    """List all neighbours of a certain number.

    Args:
        items: A list.
        width: How many neighbours stand in a window.

    Returns:
        Each stretch of that many items, from left to right.

    Examples:
        >>> windows([1, 2, 3, 4], 3)
        [[1, 2, 3], [2, 3, 4]]
    """
    return [items[i : i + width] for i in range(len(items) - width + 1)]


def rank_of(scores: list[int], score: int) -> int:
    """Tell which place a score takes, as in sports.

    Args:
        scores: All scores; more is better.
        score: The score to place.

    Returns:
        1 for the best; equal scores share a place.

    Examples:
        >>> rank_of([50, 70, 70, 40], 50)
        3
        >>> rank_of([50, 70], 70)
        1
    """
    return 1 + sum(other > score for other in scores)
