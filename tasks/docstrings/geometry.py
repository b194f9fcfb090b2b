"""Functions of plane and solid geometry."""

import math


def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Measure the straight distance between two points.

    Args:
        a: The coordinates of one point.
        b: The coordinates of the other point.

    Returns:
        The Euclidean distance.

    Examples:
        >>> distance((1, 2), (4, 6))
        5.0
    """
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2)


def triangle_area(a: float, b: float, c: float) -> float:
    """Compute the area of a triangle from its sides by Heron's formula.

    Args:
        a: The first side.
        b: The second side.
        c: The third side.

    Returns:
        The area.

    Raises:
        ValueError: If one side is longer than the other two together.

    Examples:
        >>> triangle_area(3, 4, 5)
        6.0
        >>> triangle_area(1, 1, 5)
        Traceback (most recent call last):
            ...
        ValueError: no such triangle
    """
    if a + b < c or a + c < b or b + c < a:
        raise ValueError("no such triangle")
    s = (a + b + c) / 2
    return math.sqrt(s * (s - a) * (s - b) * (s - c))


def polygon_area(corners: list[tuple[float, float]]) -> float:
    """Compute the area of a polygon by the shoelace formula.

    Args:
        corners: Its corners in their order around it.

    Returns:
        The area, whichever way round the corners go.

    Examples:
        >>> polygon_area([(0, 0), (4, 0), (4, 3), (0, 3)])
        12.0
        >>> polygon_area([(1, 1), (1, 3), (4, 1)])
        3.0
    """
    total = 0
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1]):
        total += x1 * y2 - x2 * y1
    return abs(total) / 2


def circle_area(radius: float) -> float:
    """Compute the area of a circle.

    Args:
        radius: The distance from its middle to its edge.

    Returns:
        The area with two decimals.

    Raises:
        ValueError: If the radius is negative.

    Examples:
        >>> circle_area(3)
        28.27
        >>> circle_area(-0.5)
        Traceback (most recent call last):
            ...
        ValueError: negative radius
    """
    if radius < 0:
        raise ValueError("negative radius")
    return round(math.pi * radius**2, 2)


def midpoint(a, b):
    """Find the point halfway between two others.

    Args:
        a: One point as a tuple of coordinates.
        b: The other point with as many coordinates.

    Returns:
        The point in the middle.

    Examples:
        >>> midpoint((0, 4), (6, 10))
        (3.0, 7.0)
    """
    return tuple((x + y) / 2 for x, y in zip(a, b))


def rectangles_overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> bool:
    """Tell whether two rectangles have any area in common.

    Args:
        first: Left, bottom, right and top of one rectangle.
        second: The same of the other one.

    Returns:
        False where they only touch.

    Examples:
        >>> rectangles_overlap((0, 0, 4, 4), (3, 3, 6, 6))
        True
        >>> rectangles_overlap((0, 0, 4, 4), (4, 0, 8, 4))
        False
        >>> rectangles_overlap((0, 5, 9, 9), (0, 0, 9, 5))
        False
    """
    wide = first[0] < second[2] and second[0] < first[2]
    high = first[1] < second[3] and second[1] < first[3]
    return wide and high


def slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Compute how steep the line through two points is.

    Args:
        a: One point.
        b: Another point.

    Returns:
        The rise for each step to the right.

    Raises:
        ValueError: If the line is vertical.

    Examples:
        >>> slope((1, 2), (3, 8))
        3.0
        >>> slope((1, 2), (1, 5))
        Traceback (most recent call last):
            ...
        ValueError: vertical line
    """
    if a[0] == b[0]:
        raise ValueError("vertical line")
    return (b[1] - a[1]) / (b[0] - a[0])


def is_right_triangle(a: int, b: int, c: int) -> bool:
    """Tell whether three sides make a right angle.

    Args:
        a: One side, above 0.
        b: Another side.
        c: The third side; the longest may be any of them.

    Returns:
        True where the squares of the shorter sides add up to that of the longest.

    Examples:
        >>> is_right_triangle(13, 5, 12)
        True
        >>> is_right_triangle(4, 5, 6)
        False
    """
    x, y, longest = sorted([a, b, c])
    return x**2 + y**2 == longest**2


def rotate_quarter(point: tuple[int, int], times: int = 1) -> tuple[int, int]:
    """Turn a point around the origin by right angles.

    Args:
        point: Its coordinates.
        times: How many right angles to turn to the left.

    Returns:
        The new coordinates.

    Examples:
        >>> rotate_quarter((2, 1))
        (-1, 2)
        >>> rotate_quarter((2, 1), 6)
        (-2, -1)
    """
    x, y = point
    for _ in range(times % 4):
        x, y = -y, x
    return x, y


def box_volume(length: float, width: float, height: float) -> float:
    """Compute the volume of a box.

    Args:
        length: Its length.
        width: Its width.
        height: Its height.

    Returns:
        The volume in cubes of the unit of length.

    Examples:
        >>> box_volume(2, 3, 4.5)
        27.0
    """
    return length * width * height


def sphere_volume(diameter: float) -> float:
    """Compute the volume of a ball from its diameter.

    Args:
        diameter: The distance through its middle.

    Returns:
        The volume with one decimal.

    Examples:
        >>> sphere_volume(6)
        113.1
    """
    return round(4 / 3 * math.pi * (diameter / 2) ** 3, 1)


def perimeter(corners: list[tuple[float, float]]) -> float:
    """Measure the way around a polygon.

    Args:
        corners: Its corners in their order; the last is joined to the first.

    Returns:
        The sum of the lengths of all sides.

    Examples:
        >>> perimeter([(0, 0), (3, 0), (3, 4)])
        12.0
    """
    total = 0.0
    for place, corner in enumerate(corners):
        total += math.dist(corner, corners[place - 1])
    return total


def point_in_circle(x: float, y: float, radius: float = 1.0) -> bool:
    """Tell whether a point lies in a circle around the origin.

    Args:
        x: How far the point lies to the right.
        y: How far it lies up.
        radius: The radius of the circle.

    Returns:
        True inside and on the edge.

    Examples:
        >>> point_in_circle(3, 4, 5)
        True
        >>> point_in_circle(1, 1)
        False
    """
    return x * x + y * y <= radius * radius


def bearing_name(degrees: float) -> str:
    """Name the point of the compass that a direction is nearest to.

    Args:
        degrees: The direction, 0 for north and 90 for east.

    Returns:
        One of N, NE, E, SE, S, SW, W and NW.

    Examples:
        >>> bearing_name(100)
        'E'
        >>> bearing_name(350)
        'N'
        >>> bearing_name(230)
        'SW'
    """
    names = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"]
    return names[int((degrees + 22.5) // 45) % 8]


def diagonal_count(sides):
    """Count the diagonals of a polygon.

    Args:
        sides: How many sides it has.

    Returns:
        The number of lines between corners that are no sides.

    Raises:
        ValueError: If there are fewer than three sides.

    Examples:
        >>> diagonal_count(6)
        9
        >>> diagonal_count(3)
        0
        >>> diagonal_count(2)
        Traceback (most recent call last):
            ...
        ValueError: a polygon has three sides or more
    """
    if sides < 3:
        raise ValueError("a polygon has three sides or more")
    return sides * (sides - 3) // 2


def manhattan(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Count the blocks to walk between two street corners.

    Args:
        a: Street and avenue of one corner.
        b: Street and avenue of the other corner.

    Returns:
        The length of a shortest way along the streets.

    Examples:
        >>> manhattan((2, 7), (5, 3))
        7
    """
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def interior_angle(corners: int) -> float:
    """Compute the angle at each corner of a regular polygon.

    Args:
        corners: How many corners it has, at least 3.

    Returns:
        The angle in degrees.

    Examples:
        >>> interior_angle(8)
        135.0
    """
    return (corners - 2) * 180 / corners


def bounding_box(points: list[tuple[int, int]]) -> tuple[int, int, int, int]:
    """Find the smallest upright rectangle around points.

    Args:
        points: At least one point.

    Returns:
        Its left, bottom, right and top.

    Examples:
        >>> bounding_box([(3, 1), (-2, 8), (0, 4)])
        (-2, 1, 3, 8)
    """
    across = [x for x, _ in points]
    up = [y for _, y in points]
    return min(across), min(up), max(across), max(up)


def scale_shape(points: list[tuple[float, float]], factor: float) -> list[tuple[float, float]]:
    """Enlarge a shape, seen from the origin.

    Args:
        points: Its corners.
        factor: How many times larger it becomes; below 1 it shrinks.

    Returns:
        The new corners.

    Examples:
        >>> scale_shape([(1, 2), (4, 0)], 1.5)
        [(1.5, 3.0), (6.0, 0.0)]
    """
    return [(x * factor, y * factor) for x, y in points]


def triangle_kind(a: float, b: float, c: float) -> str:
    """Name the kind of a triangle by its sides.

    Args:
        a: The first side.
        b: The second side.
        c: The third side.

    Returns:
        equilateral, isosceles or scalene, for three, two or no equal sides.

    Examples:
        >>> triangle_kind(2, 3, 2)
        'isosceles'
        >>> triangle_kind(2, 3, 4)
        'scalene'
        >>> triangle_kind(5, 5, 5)
        'equilateral'
    """
    return {1: "equilateral", 2: "isosceles", 3: "scalene"}[len({a, b, c})]


def tiles_needed(room: tuple[int, int], tile: int) -> int:
    """Count the square tiles that cover a floor.

    Args:
        room: Length and width of the floor in centimetres.
        tile: The side of a tile in centimetres; tiles at the walls are cut.

    Returns:
        The number of tiles; a cut tile's rest is not used again.

    Examples:
        >>> tiles_needed((410, 300), 50)
        54
    """
    return math.ceil(room[0] / tile) * math.ceil(room[1] / tile)


def step_height(rise: float, steps: int) -> float:
    """Give the height of each step of a staircase.

    Args:
        rise: The height of the whole staircase in centimetres.
        steps: How many steps it has.

    Returns:
        The height of one step with one decimal.

    Raises:
        ValueError: If there is no step.

    Examples:
        >>> step_height(275, 16)
        17.2
        >>> step_height(275, 0)
        Traceback (most recent call last):
            ...
        ValueError: no steps
    """
    if steps < 1:
        raise ValueError("no steps")
    return round(rise / steps, 1)
