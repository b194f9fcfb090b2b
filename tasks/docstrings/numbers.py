"""Functions on whole numbers."""

import math


def is_prime(n: int) -> bool:
    """Tell whether a number is prime.

    Args:
        n: A whole number.

    Returns:
        True where it has no divisor but 1 and itself.

    Examples:
        >>> is_prime(13)
        True
        >>> is_prime(9)
        False
        >>> is_prime(1)
        False
    """
    if n < 2:
        return False
    return all(n % d != 0 for d in range(2, math.isqrt(n) + 1))


def digit_sum(n: int) -> int:
    """Add the digits of a number.

    Args:
        n: A whole number; its sign does not matter.

    Returns:
        The sum of its decimal digits.

    Examples:
        >>> digit_sum(-409)
        13
    """
    return sum(int(digit) for digit in str(abs(n)))


def prime_factors(n: int) -> list[int]:
    """Split a number into its prime factors.

    Args:
        n: A whole number above 1.

    Returns:
        The factors from small to large, repeated ones as often as they occur.

    Raises:
        ValueError: If the number is below 2.

    Examples:
        >>> prime_factors(84)
        [2, 2, 3, 7]
        >>> prime_factors(1)
        Traceback (most recent call last):
            ...
        ValueError: n must be at least 2
    """
    if n < 2:
        raise ValueError("n must be at least 2")
    factors = []
    divisor = 2
    while n > 1:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    return factors


def collatz_length(n: int) -> int:
    """Count the numbers of a Collatz sequence down to 1.

    Args:
        n: The first number, at least 1.

    Returns:
        The length of the sequence, both ends included.

    Examples:
        >>> collatz_length(6)
        9
        >>> collatz_length(1)
        1
    """
    length = 1
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        length += 1
    return length


def fibonacci(n):
    """Compute a number of the Fibonacci sequence.

    Args:
        n: Its place; the sequence begins with 0 at place 0 and 1 at place 1.

    Returns:
        The number at that place.

    Examples:
        >>> fibonacci(10)
        55
        >>> fibonacci(0)
        0
    """
    current, following = 0, 1
    for _ in range(n):
        current, following = following, current + following
    return current


def divisors(n: int) -> list[int]:
    """List all divisors of a number.

    Args:
        n: A whole number above 0.

    Returns:
        Its divisors from 1 to the number itself.

    Examples:
        >>> divisors(12)
        [1, 2, 3, 4, 6, 12]
    """
    return [d for d in range(1, n + 1) if n % d == 0]


def is_perfect(n: int) -> bool:
    """Tell whether a number is the sum of its proper divisors.

    Args:
        n: A whole number above 0.

    Returns:
        True for perfect numbers such as 6.

    Examples:
        >>> is_perfect(28)
        True
        >>> is_perfect(12)
        False
    """
    return n > 1 and sum(d for d in range(1, n) if n % d == 0) == n


def reverse_digits(n: int) -> int:
    """Write the digits of a number backwards.

    Args:
        n: A whole number; the sign is kept.

    Returns:
        The reversed number, without leading zeros.

    Examples:
        >>> reverse_digits(-1230)
        -321
        >>> reverse_digits(45)
        54
    """
    sign = -1 if n < 0 else 1
    return sign * int(str(abs(n))[::-1])


def to_base(n: int, base: int) -> str:
    """Write a number in another base.

    Args:
        n: A whole number, not negative.
        base: The base, from 2 to 16.

    Returns:
        Its digits, with a to f for 10 to 15.

    Raises:
        ValueError: If the base is outside of 2 to 16.

    Examples:
        >>> to_base(254, 16)
        'fe'
        >>> to_base(0, 2)
        '0'
        >>> to_base(5, 17)
        Traceback (most recent call last):
            ...
        ValueError: no such base: 17
    """
    if not 2 <= base <= 16:
        raise ValueError(f"no such base: {base}")
    digits = ""
    while n > 0:
        digits = "0123456789abcdef"[n % base] + digits
        n //= base
    return digits or "0"


def lcm_of(numbers: list[int]) -> int:
    """Find the least common multiple of several numbers.

    Args:
        numbers: Whole numbers above 0.

    Returns:
        The smallest number that all of them divide; 1 without any.

    Examples:
        >>> lcm_of([4, 6, 10])
        60
    """
    result = 1
    for number in numbers:
        result = result * number // math.gcd(result, number)
    return result


def clamp(value: float, low: float, high: float) -> float:
    """Keep a value within limits.

    Args:
        value: Any number.
        low: The lower limit.
        high: The upper limit.

    Returns:
        The value, or the limit that it is beyond.

    Raises:
        ValueError: If the lower limit is above the upper one.

    Examples:
        >>> clamp(15, 0, 10)
        10
        >>> clamp(-3, 0, 10)
        0
        >>> clamp(5, 9, 1)
        Traceback (most recent call last):
            ...
        ValueError: low is above high
    """
    if low > high:
        raise ValueError("low is above high")
    return max(low, min(value, high))


def round_to(value: int, step: int) -> int:
    """Round a whole number to a multiple of a step.

    Args:
        value: The number, not negative.
        step: The step, above 0; from half a step on it is rounded up.

    Returns:
        The nearest multiple.

    Examples:
        >>> round_to(37, 5)
        35
        >>> round_to(38, 5)
        40
    """
    return (value + step // 2) // step * step


def happy(n: int) -> bool:
    """Tell whether a number is happy.

    A happy number reaches 1 when it is replaced by the sum of its digits' squares again and again.

    Args:
        n: A whole number above 0.

    Returns:
        True for a happy number, False where the sums go round in a circle.

    Examples:
        >>> happy(19)
        True
        >>> happy(4)
        False
    """
    seen = set()
    while n != 1 and n not in seen:
        seen.add(n)
        n = sum(int(digit) ** 2 for digit in str(n))
    return n == 1


def triangle_number(n: int) -> int:
    """Add the whole numbers from 1 up to a number.

    Args:
        n: The last number to add.

    Returns:
        The sum, which is 0 for 0.

    Raises:
        ValueError: If the number is negative.

    Examples:
        >>> triangle_number(10)
        55
        >>> triangle_number(0)
        0
        >>> triangle_number(-1)
        Traceback (most recent call last):
            ...
        ValueError: negative
    """
    if n < 0:
        raise ValueError("negative")
    return n * (n + 1) // 2


def armstrong(n: int) -> bool:
    """Tell whether a number equals the sum of its digits raised to their count.

    Args:
        n: A whole number, not negative.

    Returns:
        True for numbers such as 153, which is 1 + 125 + 27.

    Examples:
        >>> armstrong(153)
        True
        >>> armstrong(10)
        False
    """
    digits = [int(digit) for digit in str(n)]
    return n == sum(digit ** len(digits) for digit in digits)


def ordinal(n):
    """Write a number as an English ordinal.

    Args:
        n: A whole number above 0.

    Returns:
        The number with its ending.

    Examples:
        >>> ordinal(22)
        '22nd'
        >>> ordinal(13)
        '13th'
        >>> ordinal(1)
        '1st'
    """
    if 10 <= n % 100 <= 20:
        return f"{n}th"
    return f"{n}{({1: 'st', 2: 'nd', 3: 'rd'}).get(n % 10, 'th')}"


def to_roman(n: int) -> str:
    """Write a number in Roman numerals.

    Args:
        n: A whole number from 1 to 3999.

    Returns:
        The numeral in capitals.

    Examples:
        >>> to_roman(1994)
        'MCMXCIV'
        >>> to_roman(38)
        'XXXVIII'
    """
    values = [1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1]
    signs = ["M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"]
    text = ""
    for value, sign in zip(values, signs):
        text += sign * (n // value)
        n %= value
    return text


def power_mod(base: int, exponent: int, modulus: int) -> int:
    """Compute the remainder of a power by repeated squaring.

    Args:
        base: The number to raise.
        exponent: How often it is multiplied, not negative.
        modulus: What is divided by.

    Returns:
        The remainder of base to the exponent by the modulus.

    Examples:
        >>> power_mod(3, 13, 50)
        23
        >>> power_mod(7, 0, 10)
        1
    """
    result = 1
    while exponent > 0:
        if exponent % 2 == 1:
            result = result * base % modulus
        base = base * base % modulus
        exponent //= 2
    return result


def perfect_square(n: int) -> bool:
    """Tell whether a number is the square of a whole number.

    Args:
        n: A whole number; negative ones never are.

    Returns:
        True for 0, 1, 4, 9 and so on.

    Examples:
        >>> perfect_square(49)
        True
        >>> perfect_square(50)
        False
        >>> perfect_square(-4)
        False
    """
    return n >= 0 and math.isqrt(n) ** 2 == n


def primes_below(limit: int) -> list[int]:
    """Find all primes below a limit with the sieve of Eratosthenes.

    Args:
        limit: The number to stop before.

    Returns:
        The primes from small to large.

    Examples:
        >>> primes_below(20)
        [2, 3, 5, 7, 11, 13, 17, 19]
    """
    marked = set()
    primes = []
    for n in range(2, limit):
        if n not in marked:
            primes.append(n)
            marked.update(range(n * n, limit, n))
    return primes


def digital_root(n: int) -> int:
    """Add digits until one digit is left.

    Args:
        n: A whole number, not negative.

    Returns:
        The last digit.

    Examples:
        >>> digital_root(9875)
        2
        >>> digital_root(10)
        1
    """
    while n > 9:
        n = sum(map(int, str(n)))
    return n


def number_of_digits(n: int, base: int = 10) -> int:
    """Count the digits of a number.

    Args:
        n: A whole number; the sign is no digit.
        base: The base it is written in.

    Returns:
        At least 1.

    Examples:
        >>> number_of_digits(-1000)
        4
        >>> number_of_digits(8, base=2)
        4
        >>> number_of_digits(0)
        1
    """
    n = abs(n)
    count = 1
    while n >= base:
        n //= base
        count += 1
    return count
