"""Functions for classes, shops, surveys and other daily work."""


def letter_grade(points: float, most: float = 100) -> str:
    """Turn points into a grade.

    Args:
        points: The points reached.
        most: The points that can be reached.

    Returns:
        A from 90 percent on, B from 80, C from 70, D from 60, and F below.

    Raises:
        ValueError: If there are more points than can be reached, or fewer than none.

    Examples:
        >>> letter_grade(80)
        'B'
        >>> letter_grade(79.5)
        'C'
        >>> letter_grade(14, most=20)
        'C'
        >>> letter_grade(101)
        Traceback (most recent call last):
            ...
        ValueError: impossible points: 101
    """
    if not 0 <= points <= most:
        raise ValueError(f"impossible points: {points}")
    percent = 100 * points / most
    for limit, grade in ((90, "A"), (80, "B"), (70, "C"), (60, "D")):
        if percent >= limit:
            return grade
    return "F"


def seat_label(number: int, per_row: int) -> str:
    """Name a seat of a theatre by row and place.

    Args:
        number: The number of the seat, counted from 1.
        per_row: How many seats a row has.

    Returns:
        A letter for the row and the place in it.

    Examples:
        >>> seat_label(13, 10)
        'B3'
        >>> seat_label(10, 10)
        'A10'
    """
    row, place = divmod(number - 1, per_row)
    return chr(ord("A") + row) + str(place + 1)


def full_name(first: str, last: str, formal: bool = False) -> str:
    """Write a person's name.

    Args:
        first: The first name.
        last: The last name.
        formal: Whether the last name comes first, as in lists.

    Returns:
        The name.

    Examples:
        >>> full_name("Ada", "Moreau")
        'Ada Moreau'
        >>> full_name("Ada", "Moreau", formal=True)
        'Moreau, Ada'
    """
    return f"{last}, {first}" if formal else f"{first} {last}"


def attendance(present: int, enrolled: int) -> str:
    """Describe how many came to a class.

    Args:
        present: How many came.
        enrolled: How many could have come.

    Returns:
        The share in whole percent, with a word for less than half.

    Raises:
        ZeroDivisionError: If nobody is enrolled.

    Examples:
        >>> attendance(18, 24)
        '75%'
        >>> attendance(5, 20)
        '25% (low)'
        >>> attendance(1, 0)
        Traceback (most recent call last):
            ...
        ZeroDivisionError: nobody is enrolled
    """
    if enrolled == 0:
        raise ZeroDivisionError("nobody is enrolled")
    share = round(100 * present / enrolled)
    return f"{share}%" + (" (low)" if share < 50 else "")


def make_teams(names: list[str], teams: int) -> list[list[str]]:
    """Deal people out to teams in turn.

    Args:
        names: The people.
        teams: How many teams there are.

    Returns:
        The teams, whose sizes differ by one at most.

    Examples:
        >>> make_teams(["Al", "Bo", "Cy", "Di", "Ed"], 2)
        [['Al', 'Cy', 'Ed'], ['Bo', 'Di']]
    """
    return [names[team::teams] for team in range(teams)]


def low_stock(stock: dict[str, int], least: int) -> list[str]:
    """List the goods that have to be ordered.

    Args:
        stock: Pieces in stock by name.
        least: How many pieces there should be at least.

    Returns:
        The names with fewer pieces, the scarcest first.

    Examples:
        >>> low_stock({"pens": 3, "ink": 12, "paper": 0}, 5)
        ['paper', 'pens']
    """
    scarce = [name for name, pieces in stock.items() if pieces < least]
    return sorted(scarce, key=lambda name: stock[name])


def waiting_time(ahead: int, minutes: float, counters: int = 1) -> float:
    """Estimate how long one waits in a queue.

    Args:
        ahead: How many people are ahead.
        minutes: How long serving one of them takes.
        counters: At how many counters people are served.

    Returns:
        Minutes with one decimal.

    Examples:
        >>> waiting_time(9, 2.5, 3)
        7.5
        >>> waiting_time(4, 2)
        8.0
    """
    return round(ahead * minutes / counters, 1)


def nearest_shop(me: int, shops: dict[str, int]) -> str:
    """Find the shop that is nearest along a street.

    Args:
        me: My house number.
        shops: House numbers by shop, at least one.

    Returns:
        The nearest shop; of two the one named first.

    Examples:
        >>> nearest_shop(40, {"baker": 12, "grocer": 51, "florist": 90})
        'grocer'
        >>> nearest_shop(10, {"a": 8, "b": 12})
        'a'
    """
    return min(shops, key=lambda name: abs(shops[name] - me))


def rating_stars(rating: float) -> str:
    """Draw a rating as stars.

    Args:
        rating: A rating from 0 to 5.

    Returns:
        Five signs: a star for each point after rounding, and dots.

    Examples:
        >>> rating_stars(3.6)
        '****.'
        >>> rating_stars(0)
        '.....'
    """
    full = round(rating)
    return "*" * full + "." * (5 - full)


def shifts_for(workers: list[str], days: int) -> dict[int, str]:
    """Plan who works on which day.

    Args:
        workers: The people, who take turns.
        days: How many days to plan, counted from 1.

    Returns:
        The person by day.

    Raises:
        ValueError: If there is nobody to work.

    Examples:
        >>> shifts_for(["Ana", "Ben"], 3)
        {1: 'Ana', 2: 'Ben', 3: 'Ana'}
        >>> shifts_for([], 3)
        Traceback (most recent call last):
            ...
        ValueError: nobody to work
    """
    if not workers:
        raise ValueError("nobody to work")
    return {day: workers[(day - 1) % len(workers)] for day in range(1, days + 1)}


def survey_summary(answers: list[str]) -> str:
    """Sum up the answers of a survey in a line.

    Args:
        answers: yes, no or anything else.

    Returns:
        The counts of yes, no and other answers.

    Examples:
        >>> survey_summary(["yes", "no", "yes", "perhaps", "yes", "no"])
        'yes 3, no 2, other 1'
    """
    yes, no = answers.count("yes"), answers.count("no")
    return f"yes {yes}, no {no}, other {len(answers) - yes - no}"


def reading_minutes(text: str, speed: int = 200) -> int:
    """Estimate how long reading a text takes.

    Args:
        text: The text.
        speed: Words a minute.

    Returns:
        Minutes, at least 1.

    Examples:
        >>> reading_minutes("one two three four five", 2)
        2
        >>> reading_minutes("short")
        1
    """
    return max(1, len(text.split()) // speed)


def bus_at(minute, first, every):
    """Find the next bus.

    Args:
        minute: The present time in minutes since midnight.
        first: When the first bus leaves.
        every: How many minutes pass between two buses.

    Returns:
        When the next bus leaves; one that leaves right now counts.

    Examples:
        >>> bus_at(100, 10, 20)
        110
        >>> bus_at(50, 10, 20)
        50
        >>> bus_at(0, 10, 20)
        10
    """
    if minute <= first:
        return first
    return first + -(-(minute - first) // every) * every


def username(first: str, last: str, taken: list[str]) -> str:
    """Make a user name that nobody has.

    Args:
        first: The first name.
        last: The last name.
        taken: The user names that are taken.

    Returns:
        The first letter and the last name in small letters, with a number where that is taken.

    Examples:
        >>> username("Mia", "Brook", ["jdoe"])
        'mbrook'
        >>> username("Max", "Brook", ["mbrook", "mbrook2"])
        'mbrook3'
    """
    base = (first[0] + last).lower()
    name, number = base, 2
    while name in taken:
        name = f"{base}{number}"
        number += 1
    return name


def podium(times: dict[str, float]) -> list[str]:
    """List the three fastest runners.

    Args:
        times: Seconds by runner; a time of 0 means that somebody did not finish.

    Returns:
        The names, the fastest first.

    Examples:
        >>> podium({"Kim": 61.2, "Lee": 59.9, "Ray": 0, "Sam": 64.0, "Tom": 70.5})
        ['Lee', 'Kim', 'Sam']
    """
    finished = [name for name in times if times[name] > 0]
    return sorted(finished, key=lambda name: times[name])[:3]


def overtime(hours: list[float], normal: float = 8.0) -> float:
    """Add up the hours worked beyond the normal day.

    Args:
        hours: The hours of each day.
        normal: The hours of a normal day.

    Returns:
        The extra hours; shorter days are not taken off.

    Examples:
        >>> overtime([8, 9.5, 6, 10])
        3.5
        >>> overtime([8, 7], normal=6)
        3
    """
    return sum(max(0, day - normal) for day in hours)


def elect(ballots: list[list[str]]) -> str:
    """Elect somebody by Borda's count.

    Args:
        ballots: Each voter's candidates, the favourite first.

    Returns:
        The candidate with the most points: none for the last place, one more for each place above.

    Examples:
        >>> elect([["Ann", "Bob", "Cat"], ["Bob", "Cat", "Ann"], ["Bob", "Ann", "Cat"]])
        'Bob'
        >>> elect([["Ann", "Bob", "Cat"], ["Ann", "Cat", "Bob"]])
        'Ann'
    """
    points = {}
    for ballot in ballots:
        for place, name in enumerate(ballot):
            points[name] = points.get(name, 0) + len(ballot) - 1 - place
    return max(sorted(points), key=lambda name: points[name])


def luggage_fee(weights: list[float], allowed: float = 20.0) -> int:
    """Compute the fee for heavy luggage.

    Args:
        weights: The weight of each bag in kilograms.
        allowed: What all bags together may weigh.

    Returns:
        8 for each kilogram begun above that.

    Examples:
        >>> luggage_fee([12, 10.5])
        24
        >>> luggage_fee([20.0])
        0
    """
    extra = max(0.0, sum(weights) - allowed)
    begun = int(extra) + (extra > int(extra))
    return 8 * begun


def birthday_message(name: str, age: int) -> str:
    """Write a line for a birthday card.

    Args:
        name: Whose birthday it is.
        age: How old the person becomes.

    Returns:
        The line; round birthdays have an exclamation mark more.

    Examples:
        >>> birthday_message("Eve", 40)
        'Happy 40, dear Eve!!'
        >>> birthday_message("Eve", 41)
        'Happy 41, dear Eve!'
    """
    return f"Happy {age}, dear {name}!" + ("!" if age % 10 == 0 else "")


def cake_pieces(guests: int, per_guest: int, cake: int) -> tuple[int, int]:
    """Count the cakes for a party.

    Args:
        guests: How many guests come.
        per_guest: How many pieces each of them eats.
        cake: How many pieces a cake has.

    Returns:
        The number of cakes, and how many pieces are left over.

    Raises:
        ValueError: If a cake has no pieces.

    Examples:
        >>> cake_pieces(7, 2, 12)
        (2, 10)
        >>> cake_pieces(1, 1, 0)
        Traceback (most recent call last):
            ...
        ValueError: a cake has pieces
    """
    if cake < 1:
        raise ValueError("a cake has pieces")
    eaten = guests * per_guest
    cakes = -(-eaten // cake)
    return cakes, cakes * cake - eaten
