"""Functions on prices, taxes and interest."""

from decimal import ROUND_HALF_UP, Decimal


def compound_interest(amount: float, rate: float, years: int) -> float:
    """Compute what savings grow to when interest is added each year.

    Args:
        amount: The money at the start.
        rate: The yearly interest in percent.
        years: How many years pass.

    Returns:
        The money at the end with two decimals.

    Examples:
        >>> compound_interest(1000, 5, 3)
        1157.63
    """
    return round(amount * (1 + rate / 100) ** years, 2)


def net_price(gross: float, tax: float = 19.0) -> float:
    """Take the tax out of a price.

    Args:
        gross: The price with tax.
        tax: The rate of the tax in percent of the price without it.

    Returns:
        The price without tax with two decimals.

    Examples:
        >>> net_price(119)
        100.0
        >>> net_price(53.5, tax=7)
        50.0
    """
    return round(gross / (1 + tax / 100), 2)


def make_change(cents: int) -> dict[int, int]:
    """Pay an amount with as few coins as possible.

    Args:
        cents: The amount.

    Returns:
        How many coins of 50, 20, 10, 5, 2 and 1 cents it takes, without kinds that are not used.

    Raises:
        ValueError: If the amount is negative.

    Examples:
        >>> make_change(87)
        {50: 1, 20: 1, 10: 1, 5: 1, 2: 1}
        >>> make_change(-5)
        Traceback (most recent call last):
            ...
        ValueError: negative amount
    """
    if cents < 0:
        raise ValueError("negative amount")
    coins = {}
    for coin in (50, 20, 10, 5, 2, 1):
        if cents >= coin:
            coins[coin] = cents // coin
            cents %= coin
    return coins


def discount(price: float, percent: float, minimum: float = 0.0) -> float:
    """Reduce a price, but not below a minimum.

    Args:
        price: The usual price.
        percent: The reduction in percent.
        minimum: The lowest price.

    Returns:
        The reduced price with two decimals.

    Examples:
        >>> discount(80, 25)
        60.0
        >>> discount(10, 90, 2.5)
        2.5
    """
    return max(minimum, round(price * (100 - percent) / 100, 2))


def shipping_cost(weight: float, express: bool = False) -> float:
    """Look up what a parcel costs.

    Args:
        weight: Its weight in kilograms.
        express: Whether it must arrive the next day, which costs 5.0 more.

    Returns:
        The price by weight: up to 2, up to 10, and up to 30 kilograms.

    Raises:
        ValueError: If it is heavier than 30 kilograms.

    Examples:
        >>> shipping_cost(2)
        4.5
        >>> shipping_cost(9.5, express=True)
        13.0
        >>> shipping_cost(31)
        Traceback (most recent call last):
            ...
        ValueError: too heavy
    """
    for limit, price in ((2, 4.5), (10, 8.0), (30, 14.0)):
        if weight <= limit:
            return price + (5.0 if express else 0.0)
    raise ValueError("too heavy")


def split_bill(total: int, people: int) -> list[int]:
    """Split a bill into shares that differ by a cent at most.

    Args:
        total: The bill in cents.
        people: How many people share it.

    Returns:
        The shares, which add up to the bill, larger ones first.

    Examples:
        >>> split_bill(1000, 3)
        [334, 333, 333]
    """
    share, rest = divmod(total, people)
    return [share + 1] * rest + [share] * (people - rest)


def income_tax(income: int) -> float:
    """Compute a tax with three steps.

    Args:
        income: The income of a year.

    Returns:
        Nothing of the first 10000, 20 percent of the next 20000, and 40 percent of the rest.

    Examples:
        >>> income_tax(9000)
        0.0
        >>> income_tax(25000)
        3000.0
        >>> income_tax(50000)
        12000.0
    """
    tax = 0.0
    if income > 10000:
        tax += 0.2 * (min(income, 30000) - 10000)
    if income > 30000:
        tax += 0.4 * (income - 30000)
    return tax


def format_money(cents, sign="EUR"):
    """Write an amount with thousands separators.

    Args:
        cents: The amount in cents.
        sign: The currency behind it.

    Returns:
        The amount with two decimals.

    Examples:
        >>> format_money(1234567)
        '12,345.67 EUR'
        >>> format_money(5, "USD")
        '0.05 USD'
    """
    return f"{cents // 100:,}.{cents % 100:02} {sign}"


def monthly_payment(loan: float, rate: float, months: int) -> float:
    """Compute the constant monthly payment of a loan.

    Args:
        loan: The money borrowed.
        rate: The yearly interest in percent; 0 is allowed.
        months: How many payments there are.

    Returns:
        The payment with two decimals.

    Examples:
        >>> monthly_payment(10000, 6, 24)
        443.21
        >>> monthly_payment(1200, 0, 12)
        100.0
    """
    if rate == 0:
        return round(loan / months, 2)
    monthly = rate / 1200
    return round(loan * monthly / (1 - (1 + monthly) ** -months), 2)


def best_offer(offers: dict[str, tuple[float, float]]) -> str:
    """Find the offer with the lowest price for a unit.

    Args:
        offers: Price and amount by shop.

    Returns:
        The shop.

    Raises:
        ValueError: If there are no offers.

    Examples:
        >>> best_offer({"north": (4.0, 2), "south": (5.0, 3), "west": (1.9, 1)})
        'south'
        >>> best_offer({})
        Traceback (most recent call last):
            ...
        ValueError: no offers
    """
    if not offers:
        raise ValueError("no offers")
    return min(offers, key=lambda shop: offers[shop][0] / offers[shop][1])


def break_even_units(fixed: float, price: float, cost: float) -> int:
    """Count how many pieces must be sold to earn back fixed costs.

    Args:
        fixed: What has to be paid anyway.
        price: What a piece is sold for.
        cost: What a piece costs to make.

    Returns:
        The smallest number of pieces.

    Raises:
        ValueError: If a piece earns nothing.

    Examples:
        >>> break_even_units(1000, 12, 5)
        143
        >>> break_even_units(1000, 5, 5)
        Traceback (most recent call last):
            ...
        ValueError: no profit per piece
    """
    if price <= cost:
        raise ValueError("no profit per piece")
    return int(-(-fixed // (price - cost)))


def round_cash(cents: int) -> int:
    """Round an amount to five cents, as shops without small coins do.

    Args:
        cents: The amount, not negative.

    Returns:
        The nearest multiple of five.

    Examples:
        >>> round_cash(1232)
        1230
        >>> round_cash(1233)
        1235
    """
    return 5 * ((cents + 2) // 5)


def exact_total(prices: list[str]) -> str:
    """Add prices without the errors of floating point.

    Args:
        prices: Prices as text, with a dot before the cents.

    Returns:
        The sum as text, rounded half up to two decimals.

    Examples:
        >>> exact_total(["0.10", "0.20", "1.005"])
        '1.31'
    """
    total = sum((Decimal(price) for price in prices), Decimal(0))
    return str(total.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))


def tip(amount: float, service: str) -> float:
    """Suggest a tip by how good the service was.

    Args:
        amount: The bill.
        service: poor, good or great.

    Returns:
        Nothing, 10 or 20 percent of the bill, with two decimals.

    Raises:
        KeyError: If the service is called something else.

    Examples:
        >>> tip(45.5, "good")
        4.55
        >>> tip(50, "great")
        10.0
        >>> tip(50, "fine")
        Traceback (most recent call last):
            ...
        KeyError: 'fine'
    """
    shares = {"poor": 0, "good": 10, "great": 20}
    if service not in shares:
        raise KeyError(service)
    return round(amount * shares[service] / 100, 2)


def depreciation(price: float, years: int, life: int = 5) -> float:
    """Compute what a machine is still worth in the books.

    Args:
        price: What it cost.
        years: How long it has been used.
        life: After how many years it is worth nothing.

    Returns:
        The value, which falls by the same amount each year.

    Examples:
        >>> depreciation(1000, 2)
        600.0
        >>> depreciation(1000, 9, life=8)
        0.0
    """
    return price * max(0, life - years) / life


def ticket_price(age: int, student: bool) -> int:
    """Look up the price of a museum ticket.

    Args:
        age: The visitor's age.
        student: Whether the visitor studies.

    Returns:
        0 below 6 years, 4 below 18, for students and from 65 on, and 8 otherwise.

    Examples:
        >>> ticket_price(5, False)
        0
        >>> ticket_price(30, True)
        4
        >>> ticket_price(64, False)
        8
        >>> ticket_price(65, False)
        4
    """
    if age < 6:
        return 0
    return 4 if age < 18 or age >= 65 or student else 8


def stock_profit(prices):
    """Find the best profit of one purchase and one later sale.

    Args:
        prices: The price on each day.

    Returns:
        The largest gain, 0 where prices only fall.

    Examples:
        >>> stock_profit([7, 3, 5, 1, 4, 2])
        3
        >>> stock_profit([5, 4])
        0
    """
    lowest, best = prices[0], 0
    for price in prices:
        best = max(best, price - lowest)
        lowest = min(lowest, price)
    return best


def loyalty_points(purchases: list[float]) -> int:
    """Count the points that purchases earn.

    Args:
        purchases: The amounts paid.

    Returns:
        A point for each full unit paid, and 10 more for every purchase of 50 or above.

    Examples:
        >>> loyalty_points([12.9, 50.0, 49.99])
        121
    """
    return sum(int(paid) + (10 if paid >= 50 else 0) for paid in purchases)


def years_to_double(rate: float) -> int:
    """Count the years until money has doubled.

    Args:
        rate: The yearly interest in percent.

    Returns:
        The first full year in which it is at least twice as much.

    Raises:
        ValueError: If there is no interest.

    Examples:
        >>> years_to_double(7)
        11
        >>> years_to_double(100)
        1
        >>> years_to_double(0)
        Traceback (most recent call last):
            ...
        ValueError: it never doubles
    """
    if rate <= 0:
        raise ValueError("it never doubles")
    years, amount = 0, 1.0
    while amount < 2:
        amount *= 1 + rate / 100
        years += 1
    return years
