"""Functions on dates and times."""

import calendar
from datetime import date, timedelta


def is_leap_year(year: int) -> bool:
    """Tell whether a year has 366 days in the Gregorian calendar.

    Args:
        year: The year.

    Returns:
        True for every fourth year, but for full hundreds that 400 does not divide.

    Examples:
        >>> is_leap_year(2000)
        True
        >>> is_leap_year(1900)
        False
        >>> is_leap_year(2024)
        True
    """
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_between(first: date, second: date) -> int:
    """Count the days between two dates, whichever comes first.

    Args:
        first: One date.
        second: The other date.

    Returns:
        The number of nights between them.

    Examples:
        >>> days_between(date(2024, 3, 1), date(2024, 2, 27))
        3
    """
    return abs((second - first).days)


def age_on(birthday: date, day: date) -> int:
    """Compute how old a person is on a day.

    Args:
        birthday: The date of birth.
        day: The day to look at.

    Returns:
        The age in full years.

    Raises:
        ValueError: If the person is not born yet.

    Examples:
        >>> age_on(date(1990, 6, 15), date(2020, 6, 14))
        29
        >>> age_on(date(1990, 6, 15), date(2020, 6, 15))
        30
        >>> age_on(date(2020, 1, 2), date(2020, 1, 1))
        Traceback (most recent call last):
            ...
        ValueError: not born yet
    """
    if day < birthday:
        raise ValueError("not born yet")
    had_birthday = (day.month, day.day) >= (birthday.month, birthday.day)
    return day.year - birthday.year - (0 if had_birthday else 1)


def next_weekday(day: date, weekday: int) -> date:
    """Find the next day that falls on a certain day of the week.

    Args:
        day: The day to begin after.
        weekday: 0 for Monday to 6 for Sunday.

    Returns:
        A date one to seven days later.

    Examples:
        >>> next_weekday(date(2024, 5, 1), 4)
        datetime.date(2024, 5, 3)
    """
    ahead = (weekday - day.weekday() - 1) % 7 + 1
    return day + timedelta(days=ahead)


def last_of_month(day: date) -> date:
    """Find the last day of a date's month.

    Args:
        day: Any day of the month.

    Returns:
        The date of the month's end.

    Examples:
        >>> last_of_month(date(2023, 2, 10))
        datetime.date(2023, 2, 28)
    """
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def format_duration(seconds: int) -> str:
    """Write a duration in hours, minutes and seconds.

    Args:
        seconds: The duration, not negative.

    Returns:
        The duration as H:MM:SS.

    Raises:
        ValueError: If the duration is negative.

    Examples:
        >>> format_duration(3725)
        '1:02:05'
        >>> format_duration(-1)
        Traceback (most recent call last):
            ...
        ValueError: negative duration
    """
    if seconds < 0:
        raise ValueError("negative duration")
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def parse_clock(text: str) -> int:
    """Read a time of day.

    Args:
        text: The time as HH:MM, from 00:00 to 23:59.

    Returns:
        The minutes since midnight.

    Raises:
        ValueError: If there is no such time.

    Examples:
        >>> parse_clock("14:05")
        845
        >>> parse_clock("23:59")
        1439
        >>> parse_clock("24:00")
        Traceback (most recent call last):
            ...
        ValueError: no time of day: 24:00
    """
    hours, minutes = map(int, text.split(":"))
    if not (0 <= hours < 24 and 0 <= minutes < 60):
        raise ValueError(f"no time of day: {text}")
    return hours * 60 + minutes


def is_weekend(day: date) -> bool:
    """Tell whether a date falls on a Saturday or a Sunday.

    Args:
        day: The date.

    Returns:
        True on weekends.

    Examples:
        >>> is_weekend(date(2024, 6, 8))
        True
        >>> is_weekend(date(2024, 6, 7))
        False
    """
    return day.weekday() >= 5


def workdays(start: date, end: date) -> int:
    """Count the days from Monday to Friday in a period.

    Args:
        start: The first day.
        end: The day after the last.

    Returns:
        The number of workdays; holidays are not known.

    Examples:
        >>> workdays(date(2024, 6, 6), date(2024, 6, 11))
        3
        >>> workdays(date(2024, 6, 8), date(2024, 6, 10))
        0
    """
    days = (start + timedelta(days=n) for n in range((end - start).days))
    return sum(day.weekday() < 5 for day in days)


def quarter(day: date) -> int:
    """Give the quarter of the year that a date falls into.

    Args:
        day: The date.

    Returns:
        A number from 1 to 4.

    Examples:
        >>> quarter(date(2024, 3, 31))
        1
        >>> quarter(date(2024, 10, 1))
        4
    """
    return (day.month - 1) // 3 + 1


def iso_to_german(text: str) -> str:
    """Rewrite a date from the ISO form into the German one.

    Args:
        text: A date as YYYY-MM-DD.

    Returns:
        The date as DD.MM.YYYY.

    Examples:
        >>> iso_to_german("2024-11-05")
        '05.11.2024'
    """
    year, month, day = text.split("-")
    return f"{day}.{month}.{year}"


def overlap_days(first: tuple[date, date], second: tuple[date, date]) -> int:
    """Count the days that two stays have in common.

    Args:
        first: The first and the last day of one stay.
        second: The first and the last day of the other.

    Returns:
        The number of shared days, 0 where there are none.

    Examples:
        >>> overlap_days((date(2024, 7, 1), date(2024, 7, 9)), (date(2024, 7, 7), date(2024, 8, 1)))
        3
        >>> overlap_days((date(2024, 7, 1), date(2024, 7, 2)), (date(2024, 7, 5), date(2024, 7, 6)))
        0
    """
    start = max(first[0], second[0])
    end = min(first[1], second[1])
    return max(0, (end - start).days + 1)


def twelve_hour(hour: int, minute: int) -> str:
    """Write a time of day on the twelve-hour clock.

    Args:
        hour: The hour from 0 to 23.
        minute: The minute from 0 to 59.

    Returns:
        The time with am or pm.

    Examples:
        >>> twelve_hour(0, 5)
        '12:05 am'
        >>> twelve_hour(15, 30)
        '3:30 pm'
    """
    half = "am" if hour < 12 else "pm"
    return f"{hour % 12 or 12}:{minute:02} {half}"


def add_months(day: date, months: int) -> date:
    """Move a date by months.

    Args:
        day: The date.
        months: How many months later, or earlier where negative.

    Returns:
        The same day of another month, or its last day where it is shorter.

    Examples:
        >>> add_months(date(2024, 1, 31), 1)
        datetime.date(2024, 2, 29)
        >>> add_months(date(2024, 11, 10), 3)
        datetime.date(2025, 2, 10)
    """
    years, month = divmod(day.month - 1 + months, 12)
    year, month = day.year + years, month + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def season(month: int) -> str:
    """Name the season of a month in the northern half of the earth.

    Args:
        month: 1 for January to 12 for December.

    Returns:
        The season, which begins with March, June, September and December.

    Raises:
        ValueError: If there is no such month.

    Examples:
        >>> season(12)
        'winter'
        >>> season(5)
        'spring'
        >>> season(13)
        Traceback (most recent call last):
            ...
        ValueError: no month 13
    """
    if month < 1 or month > 12:
        raise ValueError(f"no month {month}")
    return ["winter", "spring", "summer", "autumn"][month % 12 // 3]


def minutes_until(now: str, then: str) -> int:
    """Count the minutes from one time of day to the next occurrence of another.

    Args:
        now: A time as HH:MM.
        then: Another time as HH:MM, which may be after midnight.

    Returns:
        The minutes to wait, less than a day.

    Examples:
        >>> minutes_until("22:30", "01:15")
        165
        >>> minutes_until("08:00", "08:45")
        45
    """
    start, end = (int(t[:2]) * 60 + int(t[3:]) for t in (now, then))
    return (end - start) % 1440


def human_delta(days: int) -> str:
    """Say in words how far away a day is.

    Args:
        days: Days from today, negative for the past.

    Returns:
        Words such as tomorrow.

    Examples:
        >>> human_delta(0)
        'today'
        >>> human_delta(1)
        'tomorrow'
        >>> human_delta(-3)
        '3 days ago'
    """
    near = {0: "today", 1: "tomorrow", -1: "yesterday"}
    if days in near:
        return near[days]
    return f"in {days} days" if days > 0 else f"{-days} days ago"


def day_of_year(month: int, day: int, leap: bool = False) -> int:
    """Count the days from New Year to a date.

    Args:
        month: The month from 1 to 12.
        day: The day of the month.
        leap: Whether February has 29 days.

    Returns:
        1 for the first of January.

    Examples:
        >>> day_of_year(3, 1)
        60
        >>> day_of_year(3, 1, leap=True)
        61
    """
    lengths = [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    return sum(lengths[: month - 1]) + day


def century(year):
    """Name the century of a year.

    Args:
        year: A year after Christ.

    Returns:
        The number of the century; the year 1900 still belongs to the 19th.

    Examples:
        >>> century(1900)
        19
        >>> century(1901)
        20
    """
    return (year - 1) // 100 + 1


def weekly_dates(start: date, count: int) -> list[str]:
    """List dates that lie a week apart.

    Args:
        start: The first date.
        count: How many dates to list.

    Returns:
        The dates in ISO form.

    Examples:
        >>> weekly_dates(date(2024, 12, 25), 2)
        ['2024-12-25', '2025-01-01']
    """
    return [(start + timedelta(weeks=n)).isoformat() for n in range(count)]


def parse_duration(text: str) -> int:
    """Read a duration such as 1h30m.

    Args:
        text: Numbers, each followed by h, m or s.

    Returns:
        The duration in seconds.

    Raises:
        ValueError: If a unit is unknown.

    Examples:
        >>> parse_duration("1h30m5s")
        5405
        >>> parse_duration("10d")
        Traceback (most recent call last):
            ...
        ValueError: unknown unit 'd'
    """
    total, digits = 0, ""
    for sign in text:
        if sign.isdigit():
            digits += sign
            continue
        if sign not in "hms":
            raise ValueError(f"unknown unit {sign!r}")
        total += int(digits) * {"h": 3600, "m": 60, "s": 1}[sign]
        digits = ""
    return total
