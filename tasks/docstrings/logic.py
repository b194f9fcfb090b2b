"""Functions on bits, grids, schedules and matrices."""


def count_ones(n: int) -> int:
    """Count the bits of a number that are set.

    Args:
        n: A whole number, not negative.

    Returns:
        The number of ones in its binary form.

    Examples:
        >>> count_ones(11)
        3
        >>> count_ones(0)
        0
    """
    count = 0
    while n:
        n &= n - 1
        count += 1
    return count


def is_power_of_two(n: int) -> bool:
    """Tell whether a number is a power of two.

    Args:
        n: A whole number.

    Returns:
        True for 1, 2, 4, 8 and so on.

    Examples:
        >>> is_power_of_two(64)
        True
        >>> is_power_of_two(48)
        False
        >>> is_power_of_two(0)
        False
    """
    return n > 0 and n & (n - 1) == 0


def set_bit(n: int, place: int, on: bool = True) -> int:
    """Switch one bit of a number on or off.

    Args:
        n: The number.
        place: Which bit, counted from 0 at the right.
        on: Whether it is switched on.

    Returns:
        The changed number.

    Raises:
        ValueError: If the place is negative.

    Examples:
        >>> set_bit(8, 1)
        10
        >>> set_bit(10, 3, on=False)
        2
        >>> set_bit(1, -1)
        Traceback (most recent call last):
            ...
        ValueError: negative place
    """
    if place < 0:
        raise ValueError("negative place")
    return n | (1 << place) if on else n & ~(1 << place)


def majority(votes: list[bool]) -> bool:
    """Tell whether more than half of the votes are for something.

    Args:
        votes: True for yes and False for no.

    Returns:
        False in case of a tie.

    Examples:
        >>> majority([True, False, True])
        True
        >>> majority([True, False])
        False
    """
    return sum(votes) * 2 > len(votes)


def multiply_matrices(a: list[list[int]], b: list[list[int]]) -> list[list[int]]:
    """Multiply two matrices.

    Args:
        a: The rows of the left matrix.
        b: The rows of the right matrix, as many as the left one has columns.

    Returns:
        The rows of the product.

    Raises:
        ValueError: If the shapes do not fit.

    Examples:
        >>> multiply_matrices([[1, 2], [3, 4]], [[0, 1], [5, 2]])
        [[10, 5], [20, 11]]
        >>> multiply_matrices([[1, 2]], [[1, 2]])
        Traceback (most recent call last):
            ...
        ValueError: shapes do not fit
    """
    if len(a[0]) != len(b):
        raise ValueError("shapes do not fit")
    return [[sum(x * y for x, y in zip(row, column)) for column in zip(*b)] for row in a]


def determinant(m: list[list[int]]) -> int:
    """Compute the determinant of a matrix by its first row.

    Args:
        m: As many rows as columns.

    Returns:
        The determinant.

    Examples:
        >>> determinant([[2, 0, 1], [1, 3, 2], [1, 1, 4]])
        18
    """
    if len(m) == 1:
        return m[0][0]
    total = 0
    for j, value in enumerate(m[0]):
        rest = [row[:j] + row[j + 1 :] for row in m[1:]]
        total += (-1) ** j * value * determinant(rest)
    return total


def rotate_grid(rows: list[str]) -> list[str]:
    """Turn a picture of characters to the right.

    Args:
        rows: Lines of one length.

    Returns:
        The lines of the turned picture.

    Examples:
        >>> rotate_grid(["abc", "def"])
        ['da', 'eb', 'fc']
    """
    return ["".join(column) for column in zip(*rows[::-1])]


def meetings_clash(meetings: list[tuple[int, int]]) -> bool:
    """Tell whether any two meetings happen at the same time.

    Args:
        meetings: Start and end of each meeting.

    Returns:
        False where each ends before or when the next begins.

    Examples:
        >>> meetings_clash([(13, 15), (9, 11), (10, 12)])
        True
        >>> meetings_clash([(9, 10), (10, 11)])
        False
    """
    ordered = sorted(meetings)
    return any(one[1] > other[0] for one, other in zip(ordered, ordered[1:]))


def merge_intervals(intervals: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join intervals that overlap or touch.

    Args:
        intervals: Start and end of each.

    Returns:
        The joined intervals from left to right.

    Examples:
        >>> merge_intervals([(5, 8), (1, 3), (3, 4), (6, 7)])
        [(1, 4), (5, 8)]
    """
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def rooms_needed(meetings):
    """Count the rooms that meetings take at the busiest moment.

    Args:
        meetings: Start and end of each meeting; a room is free again at the end.

    Returns:
        The largest number of meetings at once.

    Examples:
        >>> rooms_needed([(9, 12), (10, 11), (11, 13), (12, 14)])
        2
        >>> rooms_needed([])
        0
    """
    most = 0
    for start, _ in meetings:
        running = sum(begin <= start < end for begin, end in meetings)
        most = max(most, running)
    return most


def exclusive(flags: list[bool]) -> bool:
    """Tell whether exactly one of several flags is set.

    Args:
        flags: The flags.

    Returns:
        True for a single True.

    Examples:
        >>> exclusive([False, True, False])
        True
        >>> exclusive([True, True])
        False
        >>> exclusive([])
        False
    """
    return flags.count(True) == 1


def neighbours_sum(grid: list[list[int]], row: int, column: int) -> int:
    """Add the numbers above, below, left and right of a cell.

    Args:
        grid: Rows of numbers.
        row: The row of the cell.
        column: Its column.

    Returns:
        The sum of those neighbours that lie within the grid.

    Examples:
        >>> neighbours_sum([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 1, 1)
        20
        >>> neighbours_sum([[1, 2], [3, 4]], 0, 0)
        5
    """
    total = 0
    for i, j in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        if 0 <= i < len(grid) and 0 <= j < len(grid[0]):
            total += grid[i][j]
    return total


def topological_order(needs: dict[str, list[str]]) -> list[str]:
    """Put tasks into an order in which each comes after what it needs.

    Args:
        needs: For each task the tasks it needs.

    Returns:
        The tasks; of those that are possible next the first in the alphabet.

    Raises:
        ValueError: If tasks need each other.

    Examples:
        >>> topological_order({"eat": ["cook"], "cook": ["shop"], "shop": [], "call": []})
        ['call', 'shop', 'cook', 'eat']
        >>> topological_order({"a": ["b"], "b": ["a"]})
        Traceback (most recent call last):
            ...
        ValueError: a circle
    """
    done = []
    while len(done) < len(needs):
        ready = sorted(t for t in needs if t not in done and all(n in done for n in needs[t]))
        if not ready:
            raise ValueError("a circle")
        done.append(ready[0])
    return done


def path_length(grid: list[str]) -> int:
    """Find the shortest way through a maze, from its top left to its bottom right.

    Args:
        grid: Lines of dots, with a hash sign for each wall.

    Returns:
        The number of steps up, down, left and right; -1 where there is no way.

    Examples:
        >>> path_length(["...", "##.", "..."])
        4
        >>> path_length([".#", "#."])
        -1
    """
    rows, columns = len(grid), len(grid[0])
    waiting, seen = [(0, 0, 0)], {(0, 0)}
    for row, column, steps in waiting:
        if (row, column) == (rows - 1, columns - 1):
            return steps
        for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            i, j = row + down, column + right
            if 0 <= i < rows and 0 <= j < columns and grid[i][j] == "." and (i, j) not in seen:
                seen.add((i, j))
                waiting.append((i, j, steps + 1))
    return -1


def truth_table(rows: int) -> list[str]:
    """List all combinations of switches.

    Args:
        rows: How many switches there are.

    Returns:
        The combinations as zeros and ones, in binary order.

    Examples:
        >>> truth_table(2)
        ['00', '01', '10', '11']
    """
    return [f"{n:0{rows}b}" for n in range(2**rows)]


def chess_board(size: int, light: str = ".", dark: str = "#") -> list[str]:
    """Draw a chessboard.

    Args:
        size: How many rows and columns it has.
        light: The sign of a light square, as the top left one is.
        dark: The sign of a dark square.

    Returns:
        The lines from top to bottom.

    Examples:
        >>> chess_board(3)
        ['.#.', '#.#', '.#.']
        >>> chess_board(2, "o", "x")
        ['ox', 'xo']
    """
    return ["".join((light, dark)[(i + j) % 2] for j in range(size)) for i in range(size)]


def spiral(grid: list[list[int]]) -> list[int]:
    """Read a grid of numbers along a spiral.

    Args:
        grid: Rows of one length.

    Returns:
        The numbers from the top left, to the right, and around to the middle.

    Examples:
        >>> spiral([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
        [1, 2, 3, 6, 9, 8, 7, 4, 5]
    """
    found = []
    rows = [list(row) for row in grid]
    while rows:
        found.extend(rows.pop(0))
        rows = [list(column) for column in zip(*rows)][::-1]
    return found


def schedule_fits(tasks: list[int], hours: int) -> list[int]:
    """Choose as many tasks as fit into a day.

    Args:
        tasks: How many hours each task takes.
        hours: How many hours there are.

    Returns:
        The lengths of the chosen tasks, the shortest first.

    Examples:
        >>> schedule_fits([4, 1, 3, 2], 6)
        [1, 2, 3]
    """
    chosen = []
    for task in sorted(tasks):
        if sum(chosen) + task > hours:
            break
        chosen.append(task)
    return chosen


def all_subsets(items):
    """List all ways to choose some of a few items.

    Args:
        items: The items.

    Returns:
        The choices as lists, the empty one first.

    Examples:
        >>> all_subsets(["a", "b"])
        [[], ['a'], ['b'], ['a', 'b']]
    """
    subsets = [[]]
    for item in items:
        subsets += [chosen + [item] for chosen in subsets]
    return subsets


def water_trapped(heights: list[int]) -> int:
    """Compute how much rain stays between walls.

    Args:
        heights: The height of each wall, one unit wide.

    Returns:
        The units of water.

    Examples:
        >>> water_trapped([3, 0, 2, 0, 4])
        7
        >>> water_trapped([1, 2, 3])
        0
    """
    total = 0
    for place, height in enumerate(heights):
        left = max(heights[: place + 1])
        right = max(heights[place:])
        total += min(left, right) - height
    return total
