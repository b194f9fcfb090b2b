"""Functions on check digits, ciphers and encodings."""


def luhn_valid(number: str) -> bool:
    """Check a card number by the Luhn formula.

    Args:
        number: The digits, spaces between them allowed.

    Returns:
        True where the check digit is right.

    Examples:
        >>> luhn_valid("7992 7398 713")
        True
        >>> luhn_valid("7992 7398 731")
        False
    """
    digits = [int(sign) for sign in number if sign.isdigit()]
    total = 0
    for place, digit in enumerate(reversed(digits)):
        if place % 2 == 1:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


def isbn10_check(digits: str) -> str:
    """Compute the check digit of a ten-digit ISBN.

    Args:
        digits: The first nine digits.

    Returns:
        The tenth: a digit, or X for 10.

    Raises:
        ValueError: If there are not nine digits.

    Examples:
        >>> isbn10_check("030640615")
        '2'
        >>> isbn10_check("097522980")
        'X'
        >>> isbn10_check("12")
        Traceback (most recent call last):
            ...
        ValueError: nine digits are needed
    """
    if len(digits) != 9 or not digits.isdigit():
        raise ValueError("nine digits are needed")
    total = sum((10 - i) * int(digit) for i, digit in enumerate(digits))
    rest = -total % 11
    return "X" if rest == 10 else str(rest)


def ean_check(code: str) -> int:
    """Compute the last digit of a bar code.

    Args:
        code: The first twelve digits.

    Returns:
        The digit that makes the weighted sum, 1 and 3 in turn, a multiple of 10.

    Examples:
        >>> ean_check("400638133393")
        1
    """
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(code))
    return -total % 10


def rot13(text):
    """Encode small letters by the other half of the alphabet.

    Args:
        text: A text; only small letters from a to z change.

    Returns:
        The encoded text; encoded twice it is itself again.

    Examples:
        >>> rot13("hello, Zoo")
        'uryyb, Zbb'
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    return "".join(
        letters[(letters.index(sign) + 13) % 26] if sign in letters else sign for sign in text
    )


def vigenere(text: str, key: str) -> str:
    """Encrypt capitals by a repeated key word.

    Args:
        text: Capitals from A to Z.
        key: Capitals; each says how far the letter at its place is shifted, A being 0.

    Returns:
        The encrypted capitals.

    Raises:
        ValueError: If the key is empty.

    Examples:
        >>> vigenere("ATTACK", "LEMON")
        'LXFOPV'
        >>> vigenere("ATTACK", "")
        Traceback (most recent call last):
            ...
        ValueError: empty key
    """
    if not key:
        raise ValueError("empty key")
    shifted = (ord(sign) + ord(key[i % len(key)]) for i, sign in enumerate(text))
    return "".join(chr((code - 2 * ord("A")) % 26 + ord("A")) for code in shifted)


def parity_bit(bits: str) -> str:
    """Add a bit so that the number of ones becomes even.

    Args:
        bits: Zeros and ones.

    Returns:
        The bits with one more at their end.

    Examples:
        >>> parity_bit("1011")
        '10111'
        >>> parity_bit("11")
        '110'
    """
    return bits + str(bits.count("1") % 2)


def hamming_distance(first: str, second: str) -> int:
    """Count the places at which two codes differ.

    Args:
        first: One code.
        second: Another code of the same length.

    Returns:
        The number of differing places.

    Raises:
        ValueError: If the lengths differ.

    Examples:
        >>> hamming_distance("karolin", "kathrin")
        3
        >>> hamming_distance("ab", "abc")
        Traceback (most recent call last):
            ...
        ValueError: lengths differ
    """
    if len(first) != len(second):
        raise ValueError("lengths differ")
    return sum(a != b for a, b in zip(first, second))


def gray_code(n: int) -> str:
    """Write a number in Gray code, in which neighbours differ by one bit.

    Args:
        n: A whole number, not negative.

    Returns:
        The code as zeros and ones, without leading zeros.

    Examples:
        >>> gray_code(5)
        '111'
        >>> gray_code(6)
        '101'
    """
    return f"{n ^ (n >> 1):b}"


def morse(text: str) -> str:
    """Write the call SOS, and letters like it, in Morse code.

    Args:
        text: Letters of the set E, I, M, O, S and T, in either case.

    Returns:
        Dots and dashes, a space between letters.

    Raises:
        KeyError: If there is another letter.

    Examples:
        >>> morse("sos")
        '... --- ...'
        >>> morse("time")
        '- .. -- .'
        >>> morse("who")
        Traceback (most recent call last):
            ...
        KeyError: 'W'
    """
    table = {"E": ".", "I": "..", "S": "...", "T": "-", "M": "--", "O": "---"}
    signs = []
    for letter in text.upper():
        if letter not in table:
            raise KeyError(letter)
        signs.append(table[letter])
    return " ".join(signs)


def atbash(word: str) -> str:
    """Exchange the first letter of the alphabet for the last, and so on.

    Args:
        word: Small letters from a to z.

    Returns:
        The encoded word.

    Examples:
        >>> atbash("wizard")
        'draziw'
    """
    return "".join(chr(ord("a") + ord("z") - ord(letter)) for letter in word)


def rail_fence(text: str, rails: int) -> str:
    """Encrypt a text by writing it in a zigzag.

    Args:
        text: The text.
        rails: On how many lines the zigzag runs, at least 2.

    Returns:
        The lines of the zigzag, one after the other.

    Examples:
        >>> rail_fence("WEAREFOUND", 3)
        'WENERFUDAO'
    """
    lines = [""] * rails
    place, step = 0, 1
    for sign in text:
        lines[place] += sign
        if place + step in (-1, rails):
            step = -step
        place += step
    return "".join(lines)


def checksum(data: list[int]) -> int:
    """Compute a simple checksum of bytes that minds their order.

    Args:
        data: Bytes from 0 to 255.

    Returns:
        The sum of each byte times its place, counted from 1, as a remainder by 256.

    Raises:
        ValueError: If a number is no byte.

    Examples:
        >>> checksum([10, 20, 200])
        138
        >>> checksum([256])
        Traceback (most recent call last):
            ...
        ValueError: no byte: 256
    """
    total = 0
    for place, byte in enumerate(data, 1):
        if not 0 <= byte <= 255:
            raise ValueError(f"no byte: {byte}")
        total += place * byte
    return total % 256


def soundex_digit(letter: str) -> str:
    """Look up the Soundex digit of a consonant.

    Args:
        letter: A letter in either case.

    Returns:
        A digit from 1 to 6, and 0 for vowels, H, W and Y.

    Examples:
        >>> soundex_digit("k")
        '2'
        >>> soundex_digit("R")
        '6'
        >>> soundex_digit("a")
        '0'
    """
    groups = ["AEIOUHWY", "BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"]
    for digit, group in enumerate(groups):
        if letter.upper() in group:
            return str(digit)
    return "0"


def to_hex(data: bytes) -> str:
    """Write bytes as pairs of hexadecimal digits.

    Args:
        data: The bytes.

    Returns:
        The pairs with colons between them.

    Examples:
        >>> to_hex(b"Az!")
        '41:7a:21'
    """
    return ":".join(f"{byte:02x}" for byte in data)


def password_strength(password: str) -> int:
    """Rate a password by simple rules.

    Args:
        password: The password.

    Returns:
        A point each for eight characters or more, a digit, a capital, and any other sign.

    Examples:
        >>> password_strength("Tr0ub4dor&3")
        4
        >>> password_strength("secret7")
        1
        >>> password_strength("LONGENOUGH")
        2
    """
    rules = [
        len(password) >= 8,
        any(sign.isdigit() for sign in password),
        any(sign.isupper() for sign in password),
        any(not sign.isalnum() for sign in password),
    ]
    return sum(rules)


def binary_to_text(bits: str) -> str:
    """Read text from bits.

    Args:
        bits: Groups of eight zeros and ones with spaces between them.

    Returns:
        A character for each group.

    Examples:
        >>> binary_to_text("01001000 01101001")
        'Hi'
    """
    return "".join(chr(int(group, 2)) for group in bits.split())


def iban_remainder(iban: str) -> int:
    """Compute the remainder by which an IBAN is checked.

    Args:
        iban: Letters and digits, spaces between them allowed.

    Returns:
        The remainder by 97, which is 1 for a valid one.

    Examples:
        >>> iban_remainder("AB12 CD34")
        75
    """
    plain = iban.replace(" ", "")
    moved = plain[4:] + plain[:4]
    return int("".join(str(int(sign, 36)) for sign in moved)) % 97


def xor_key(data: list[int], key: list[int]) -> list[int]:
    """Encrypt bytes by exclusive or with a repeated key.

    Args:
        data: The bytes.
        key: The bytes of the key, at least one.

    Returns:
        The encrypted bytes; encrypted again they are the data.

    Examples:
        >>> xor_key([1, 2, 3, 255], [3, 5])
        [2, 7, 0, 250]
    """
    return [byte ^ key[i % len(key)] for i, byte in enumerate(data)]


def pig_latin(word):
    """Turn a word into pig Latin.

    Args:
        word: A word in small letters.

    Returns:
        The word with its first consonants behind it and ay, or with way after a vowel.

    Examples:
        >>> pig_latin("string")
        'ingstray'
        >>> pig_latin("apple")
        'appleway'
    """
    for place, letter in enumerate(word):
        if letter in "aeiou":
            return word + "way" if place == 0 else word[place:] + word[:place] + "ay"
    return word + "ay"
