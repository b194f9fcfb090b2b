"""Functions of physics, chemistry, biology and earth science."""

import math
import re
from collections import Counter


def free_fall(seconds: float) -> float:
    """Compute how far a stone falls from rest.

    Args:
        seconds: How long it falls.

    Returns:
        Metres with two decimals, without the drag of air.

    Raises:
        ValueError: If the time is negative.

    Examples:
        >>> free_fall(2)
        19.62
        >>> free_fall(-1)
        Traceback (most recent call last):
            ...
        ValueError: negative time
    """
    if seconds < 0:
        raise ValueError("negative time")
    return round(9.81 * seconds**2 / 2, 2)


def reverse_complement(strand: str) -> str:
    """Write the other strand of a piece of DNA.

    Args:
        strand: Bases A, C, G and T from its start.

    Returns:
        The bases of the other strand from that one's start.

    Examples:
        >>> reverse_complement("AACGT")
        'ACGTT'
        >>> reverse_complement("GGA")
        'TCC'
    """
    partners = {"A": "T", "T": "A", "C": "G", "G": "C"}
    return "".join(partners[base] for base in reversed(strand))


def gc_content(strand: str) -> float:
    """Compute the share of the bases G and C in a piece of DNA.

    Args:
        strand: Bases in either case.

    Returns:
        A percentage with one decimal; 0.0 for an empty piece.

    Examples:
        >>> gc_content("ggATCA")
        50.0
        >>> gc_content("")
        0.0
    """
    if not strand:
        return 0.0
    found = sum(base in "GC" for base in strand.upper())
    return round(100 * found / len(strand), 1)


def count_atoms(formula: str) -> dict[str, int]:
    """Count the atoms of a formula without brackets.

    Args:
        formula: Symbols, each with its number behind it where that is not 1.

    Returns:
        The number of atoms by symbol.

    Examples:
        >>> count_atoms("C2H5OH")
        {'C': 2, 'H': 6, 'O': 1}
    """
    counts = Counter()
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula):
        counts[symbol] += int(number or 1)
    return dict(counts)


def ph_name(value: float) -> str:
    """Say what a pH value means.

    Args:
        value: The pH from 0 to 14.

    Returns:
        acidic, neutral or basic; 7 is neutral.

    Raises:
        ValueError: If it is outside of 0 to 14.

    Examples:
        >>> ph_name(6.9)
        'acidic'
        >>> ph_name(7)
        'neutral'
        >>> ph_name(15)
        Traceback (most recent call last):
            ...
        ValueError: no pH: 15
    """
    if not 0 <= value <= 14:
        raise ValueError(f"no pH: {value}")
    if value == 7:
        return "neutral"
    return "acidic" if value < 7 else "basic"


def half_life(amount: float, half: float, elapsed: float) -> float:
    """Compute what is left of a radioactive substance.

    Args:
        amount: How much there was.
        half: The time in which half of it decays.
        elapsed: How much time has passed, in the same unit.

    Returns:
        The rest with two decimals.

    Examples:
        >>> half_life(80, 5, 15)
        10.0
    """
    return round(amount * 0.5 ** (elapsed / half), 2)


def parallel_resistance(resistors: list[float]) -> float:
    """Compute the resistance of resistors side by side.

    Args:
        resistors: Their values in ohms.

    Returns:
        The resistance of all together, with two decimals.

    Raises:
        ValueError: If one of them is not above 0.

    Examples:
        >>> parallel_resistance([6, 3])
        2.0
        >>> parallel_resistance([0, 3])
        Traceback (most recent call last):
            ...
        ValueError: ohms must be above 0
    """
    if any(ohms <= 0 for ohms in resistors):
        raise ValueError("ohms must be above 0")
    return round(1 / sum(1 / ohms for ohms in resistors), 2)


def punnett(mother: str, father: str) -> dict[str, int]:
    """Cross two parents for one gene.

    Args:
        mother: Her two alleles.
        father: His two alleles.

    Returns:
        How many of four children have which alleles, capitals first.

    Examples:
        >>> punnett("Aa", "Aa")
        {'AA': 1, 'Aa': 2, 'aa': 1}
    """
    counts = Counter("".join(sorted(m + f)) for m in mother for f in father)
    return dict(sorted(counts.items()))


def wind_chill(celsius, speed):
    """Estimate how cold wind makes the air feel.

    Args:
        celsius: The temperature of the air.
        speed: The wind in kilometres an hour; below 5 it does not matter.

    Returns:
        The felt temperature with one decimal.

    Examples:
        >>> wind_chill(-5, 30)
        -13.0
        >>> wind_chill(4, 3)
        4
    """
    if speed < 5:
        return celsius
    p = speed**0.16
    return round(13.12 + 0.6215 * celsius - 11.37 * p + 0.3965 * celsius * p, 1)


def magnitude_ratio(first: float, second: float) -> float:
    """Compare the swings of the ground in two earthquakes.

    Args:
        first: The magnitude of one.
        second: The magnitude of the other.

    Returns:
        How many times larger the swings of the first were, with one decimal.

    Examples:
        >>> magnitude_ratio(6.5, 5.0)
        31.6
    """
    return round(10 ** (first - second), 1)


def transcribe(dna: str) -> list[str]:
    """Copy DNA into RNA and cut it into codons.

    Args:
        dna: The bases of the coding strand.

    Returns:
        The codons with U for T; bases left over at the end are dropped.

    Examples:
        >>> transcribe("ATGTTCA")
        ['AUG', 'UUC']
    """
    rna = dna.replace("T", "U")
    return [rna[i : i + 3] for i in range(0, len(rna) - 2, 3)]


def lens_image(focal: float, distance: float) -> float:
    """Compute where a thin lens makes a sharp image.

    Args:
        focal: The focal length.
        distance: How far the object is from the lens.

    Returns:
        The distance of the image with one decimal; negative on the object's side.

    Raises:
        ValueError: If the object stands in the focus.

    Examples:
        >>> lens_image(10, 15)
        30.0
        >>> lens_image(10, 10)
        Traceback (most recent call last):
            ...
        ValueError: no image
    """
    if focal == distance:
        raise ValueError("no image")
    return round(focal * distance / (distance - focal), 1)


def kinetic_energy(mass: float, speed: float) -> float:
    """Compute the energy of something that moves.

    Args:
        mass: Its mass in kilograms.
        speed: Its speed in metres a second.

    Returns:
        The energy in joules.

    Examples:
        >>> kinetic_energy(4, 3)
        18.0
    """
    return 0.5 * mass * speed**2


def density_floats(mass: float, volume: float, liquid: float = 1.0) -> bool:
    """Tell whether a body floats.

    Args:
        mass: Its mass in grams.
        volume: Its volume in cubic centimetres.
        liquid: The density of the liquid, 1.0 for water.

    Returns:
        True where the body is lighter than as much liquid.

    Examples:
        >>> density_floats(90, 100)
        True
        >>> density_floats(90, 100, liquid=0.8)
        False
        >>> density_floats(100, 100)
        False
    """
    return mass / volume < liquid


def day_length(hours_up: int, minutes_up: int, hours_down: int, minutes_down: int) -> str:
    """Say how long the sun was up.

    Args:
        hours_up: The hour of sunrise.
        minutes_up: The minute of sunrise.
        hours_down: The hour of sunset on the same day.
        minutes_down: The minute of sunset.

    Returns:
        Hours and minutes.

    Examples:
        >>> day_length(6, 45, 18, 10)
        '11 h 25 min'
    """
    minutes = (hours_down - hours_up) * 60 + minutes_down - minutes_up
    return f"{minutes // 60} h {minutes % 60} min"


def body_mass_index(kilograms: float, metres: float) -> tuple[float, str]:
    """Compute the body mass index and its class.

    Args:
        kilograms: The weight.
        metres: The height.

    Returns:
        The index with one decimal, and low below 18.5, normal below 25, or high.

    Examples:
        >>> body_mass_index(70, 1.75)
        (22.9, 'normal')
        >>> body_mass_index(50, 1.75)
        (16.3, 'low')
        >>> body_mass_index(100, 2.0)
        (25.0, 'high')
    """
    index = kilograms / metres**2
    if index < 18.5:
        return round(index, 1), "low"
    return round(index, 1), "normal" if index < 25 else "high"


def light_travel(kilometres: float) -> str:
    """Say how long light takes for a distance in space.

    Args:
        kilometres: The distance.

    Returns:
        Whole seconds below two minutes, and whole minutes from then on.

    Examples:
        >>> light_travel(384400)
        '1 s'
        >>> light_travel(149600000)
        '8 min'
    """
    seconds = kilometres / 299792.458
    if seconds < 120:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60)} min"


def dilution(stock: float, wanted: float, volume: float) -> float:
    """Compute how much of a strong solution a weaker one takes.

    Args:
        stock: The concentration of the strong solution.
        wanted: The concentration of the weaker one.
        volume: How much of the weaker one is made.

    Returns:
        The volume of the strong solution with two decimals.

    Raises:
        ValueError: If the strong solution is too weak.

    Examples:
        >>> dilution(12, 3, 200)
        50.0
        >>> dilution(1, 3, 200)
        Traceback (most recent call last):
            ...
        ValueError: the stock is too weak
    """
    if wanted > stock:
        raise ValueError("the stock is too weak")
    return round(volume * wanted / stock, 2)


def orbit_years(distance: float) -> float:
    """Compute the year of a planet by Kepler's third law.

    Args:
        distance: Its distance from the sun, the earth's being 1.

    Returns:
        The time of one orbit in earth years, with two decimals.

    Examples:
        >>> orbit_years(4)
        8.0
        >>> orbit_years(0.723)
        0.61
    """
    return round(math.sqrt(distance**3), 2)


def population(start, birth_rate, death_rate, years):
    """Follow a population over some years.

    Args:
        start: How many animals there are.
        birth_rate: Births a year for each animal.
        death_rate: Deaths a year for each animal.
        years: How many years pass.

    Returns:
        The number at the end, rounded down each year.

    Examples:
        >>> population(100, 0.3, 0.1, 2)
        144
    """
    for _ in range(years):
        start = int(start * (1 + birth_rate - death_rate))
    return start
