"""Functions that convert between units."""


def celsius_to_fahrenheit(celsius: float) -> float:
    """Convert a temperature from Celsius into Fahrenheit.

    Args:
        celsius: The temperature in degrees Celsius.

    Returns:
        The temperature in degrees Fahrenheit.

    Raises:
        ValueError: If it is below absolute zero.

    Examples:
        >>> celsius_to_fahrenheit(100)
        212.0
        >>> celsius_to_fahrenheit(-300)
        Traceback (most recent call last):
            ...
        ValueError: below absolute zero
    """
    if celsius < -273.15:
        raise ValueError("below absolute zero")
    return celsius * 9 / 5 + 32


def feet_and_inches(centimetres: float) -> str:
    """Write a height in feet and inches.

    Args:
        centimetres: The height in centimetres.

    Returns:
        Whole feet and inches, rounded to the nearest inch.

    Examples:
        >>> feet_and_inches(180)
        '5 ft 11 in'
        >>> feet_and_inches(61)
        '2 ft 0 in'
    """
    feet, inches = divmod(round(centimetres / 2.54), 12)
    return f"{feet} ft {inches} in"


def human_size(count: int) -> str:
    """Write a number of bytes in a unit that fits.

    Args:
        count: Bytes.

    Returns:
        The number with one decimal and its unit, each unit being 1024 of the one before.

    Examples:
        >>> human_size(1536)
        '1.5 KiB'
        >>> human_size(7)
        '7.0 B'
        >>> human_size(3 * 1024 * 1024)
        '3.0 MiB'
    """
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def pace(kilometres: float, minutes: float) -> str:
    """Express a runner's speed as time for a kilometre.

    Args:
        kilometres: The distance, above 0.
        minutes: The time it took.

    Returns:
        Minutes and seconds for one kilometre.

    Examples:
        >>> pace(10, 52.5)
        '5:15'
    """
    seconds = round(minutes * 60 / kilometres)
    return f"{seconds // 60}:{seconds % 60:02}"


def litres_per_100km(miles_per_gallon: float) -> float:
    """Convert fuel economy from miles per US gallon into litres for 100 kilometres.

    Args:
        miles_per_gallon: How far a gallon takes a car.

    Returns:
        The consumption with one decimal.

    Raises:
        ValueError: If the car does not move at all.

    Examples:
        >>> litres_per_100km(30)
        7.8
        >>> litres_per_100km(0)
        Traceback (most recent call last):
            ...
        ValueError: must be above 0
    """
    if miles_per_gallon <= 0:
        raise ValueError("must be above 0")
    return round(235.215 / miles_per_gallon, 1)


def knots_to_kmh(knots):
    """Convert the speed of a ship into kilometres an hour.

    Args:
        knots: Nautical miles an hour.

    Returns:
        Kilometres an hour with two decimals.

    Examples:
        >>> knots_to_kmh(12)
        22.22
    """
    return round(knots * 1.852, 2)


def beaufort(speed: float) -> int:
    """Rate a wind on the lower part of the Beaufort scale.

    Args:
        speed: Metres a second.

    Returns:
        The force from 0 to 6; 6 stands for anything stronger, too.

    Examples:
        >>> beaufort(4.0)
        3
        >>> beaufort(0.2)
        0
        >>> beaufort(30)
        6
    """
    limits = [0.5, 1.6, 3.4, 5.5, 8.0, 10.8]
    return sum(speed >= limit for limit in limits)


def scale_recipe(amounts: dict[str, float], portions: int, wanted: int) -> dict[str, float]:
    """Compute the amounts of a recipe for another number of people.

    Args:
        amounts: What the recipe takes, by ingredient.
        portions: For how many people it is written.
        wanted: For how many people it should be.

    Returns:
        The new amounts with one decimal.

    Examples:
        >>> scale_recipe({"flour": 250, "eggs": 3}, 4, 6)
        {'flour': 375.0, 'eggs': 4.5}
    """
    return {name: round(a * wanted / portions, 1) for name, a in amounts.items()}


def oven_gas_mark(celsius: int) -> int:
    """Convert the heat of an oven into a British gas mark.

    Args:
        celsius: The temperature, from 140 degrees on.

    Returns:
        The gas mark, which rises by one about every 14 degrees.

    Raises:
        ValueError: If it is below 140 degrees.

    Examples:
        >>> oven_gas_mark(180)
        4
        >>> oven_gas_mark(140)
        1
        >>> oven_gas_mark(100)
        Traceback (most recent call last):
            ...
        ValueError: too cool for a gas mark
    """
    if celsius < 140:
        raise ValueError("too cool for a gas mark")
    return round((celsius - 140) / 14) + 1


def paper_size(n: int) -> tuple[int, int]:
    """Give the size of a sheet of the A series.

    Args:
        n: The number behind the A, 0 for the largest.

    Returns:
        Width and height in whole millimetres.

    Examples:
        >>> paper_size(4)
        (210, 297)
        >>> paper_size(0)
        (841, 1189)
    """
    width, height = 841, 1189
    for _ in range(n):
        width, height = height // 2, width
    return width, height


def time_zone_shift(hour: int, offset: int, other: int) -> int:
    """Convert an hour of the day into another time zone.

    Args:
        hour: The hour from 0 to 23.
        offset: The hours by which its zone is ahead of UTC.
        other: The same for the other zone.

    Returns:
        The hour there, from 0 to 23.

    Examples:
        >>> time_zone_shift(22, 1, 9)
        6
        >>> time_zone_shift(3, 2, -5)
        20
    """
    return (hour - offset + other) % 24


def decimal_degrees(degrees: int, minutes: int, seconds: float = 0.0) -> float:
    """Write an angle of a map as one decimal number.

    Args:
        degrees: Whole degrees, negative in the south and west.
        minutes: Minutes of arc.
        seconds: Seconds of arc.

    Returns:
        The degrees with four decimals.

    Examples:
        >>> decimal_degrees(48, 8, 24)
        48.14
        >>> decimal_degrees(-33, 30)
        -33.5
    """
    size = abs(degrees) + minutes / 60 + seconds / 3600
    return round(-size if degrees < 0 else size, 4)


def dozens(count: int) -> str:
    """Write a number of eggs in dozens.

    Args:
        count: The number of eggs, not negative.

    Returns:
        The dozens and what is left over.

    Examples:
        >>> dozens(30)
        '2 dozen and 6'
        >>> dozens(24)
        '2 dozen'
    """
    full, rest = count // 12, count % 12
    return f"{full} dozen" + (f" and {rest}" if rest else "")


def shoe_size_eu(foot: float) -> float:
    """Estimate a European shoe size.

    Args:
        foot: The length of the foot in centimetres.

    Returns:
        The size to the nearest half: one and a half for each centimetre of foot and 1.5 more.

    Examples:
        >>> shoe_size_eu(26.5)
        42.0
    """
    return round((foot + 1.5) * 1.5 * 2) / 2


def battery_hours(milliamp_hours: int, milliamps: float, reserve: float = 0.2) -> float:
    """Estimate how long a battery lasts.

    Args:
        milliamp_hours: What the battery holds.
        milliamps: The current that is drawn.
        reserve: The share that is kept back.

    Returns:
        Hours with one decimal.

    Examples:
        >>> battery_hours(3000, 150)
        16.0
        >>> battery_hours(1000, 100, reserve=0.5)
        5.0
    """
    return round(milliamp_hours * (1 - reserve) / milliamps, 1)


def download_seconds(megabytes: float, megabits: float) -> float:
    """Compute how long a download takes.

    Args:
        megabytes: The size of the file, in megabytes of eight megabits.
        megabits: The speed of the line in megabits a second.

    Returns:
        Seconds with one decimal.

    Raises:
        ZeroDivisionError: If the line stands still.

    Examples:
        >>> download_seconds(700, 50)
        112.0
        >>> download_seconds(1, 0)
        Traceback (most recent call last):
            ...
        ZeroDivisionError: the line stands still
    """
    if megabits == 0:
        raise ZeroDivisionError("the line stands still")
    return round(megabytes * 8 / megabits, 1)


def dog_years(age):
    """Convert the age of a dog into human years by a rule of thumb.

    Args:
        age: The dog's age in years.

    Returns:
        15 for the first year, 9 for the second, and 5 for every further one.

    Examples:
        >>> dog_years(1)
        15
        >>> dog_years(5)
        39
    """
    if age <= 1:
        return 15 * age
    return 15 + 9 * min(age - 1, 1) + 5 * max(age - 2, 0)


def mix_temperature(hot: tuple[float, float], cold: tuple[float, float]) -> float:
    """Compute the temperature of mixed water.

    Args:
        hot: Litres and degrees of the hot water.
        cold: Litres and degrees of the cold water.

    Returns:
        The temperature of the mixture with one decimal.

    Examples:
        >>> mix_temperature((2, 80), (3, 10))
        38.0
    """
    heat = hot[0] * hot[1] + cold[0] * cold[1]
    return round(heat / (hot[0] + cold[0]), 1)


def grade_percent(slope_height: float, slope_length: float) -> str:
    """Write how steep a road is, as road signs do.

    Args:
        slope_height: How far it climbs, in metres.
        slope_length: Over which distance on the map, in metres.

    Returns:
        The grade in whole percent.

    Examples:
        >>> grade_percent(60, 500)
        '12%'
    """
    return f"{round(100 * slope_height / slope_length)}%"
