"""Functions on single strings."""

import re
from collections import Counter


def count_vowels(text: str) -> int:
    """Count the vowels a, e, i, o and u, in either case.

    Args:
        text: Any text.

    Returns:
        How many of its characters are vowels.

    Examples:
        >>> count_vowels("Orange Juice")
        6
    """
    return sum(letter in "aeiou" for letter in text.lower())


def is_palindrome(text: str) -> bool:
    """Tell whether a text reads the same backwards, letters and digits alone.

    Args:
        text: A text; case, spaces and punctuation do not matter.

    Returns:
        True for a palindrome.

    Examples:
        >>> is_palindrome("Never odd, or even")
        True
        >>> is_palindrome("Almost")
        False
    """
    kept = [sign.lower() for sign in text if sign.isalnum()]
    return kept == kept[::-1]


def snake_case(name: str) -> str:
    """Turn a name in camel case into one in snake case.

    Args:
        name: A name such as parseHttpHeader.

    Returns:
        The same words in lower case, joined by underscores.

    Examples:
        >>> snake_case("parseHttpHeader")
        'parse_http_header'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def camel_case(name, first_upper=False):
    """Join the words of a snake-case name in camel case.

    Args:
        name: Words joined by underscores.
        first_upper: Whether the first word begins with a capital, too.

    Returns:
        The name without underscores.

    Examples:
        >>> camel_case("read_data_file")
        'readDataFile'
        >>> camel_case("read_me", True)
        'ReadMe'
    """
    words = [word.capitalize() for word in name.split("_")]
    if not first_upper:
        words[0] = words[0].lower()
    return "".join(words)


def truncate(text: str, width: int, mark: str = "...") -> str:
    """Cut a text to a width and mark the cut.

    Args:
        text: The text to cut.
        width: Most characters of the result, the mark included.
        mark: What stands at the end of a text that was cut.

    Returns:
        The text itself where it is short enough.

    Raises:
        ValueError: If the mark alone is wider than the width.

    Examples:
        >>> truncate("a long sentence", 9)
        'a long...'
        >>> truncate("four", 4)
        'four'
        >>> truncate("a long sentence", 2)
        Traceback (most recent call last):
            ...
        ValueError: no room for the mark
    """
    if len(mark) > width:
        raise ValueError("no room for the mark")
    if len(text) <= width:
        return text
    return text[: width - len(mark)] + mark


def reverse_words(sentence: str) -> str:
    """Put the words of a sentence into the opposite order.

    Args:
        sentence: Words between white space.

    Returns:
        The words from last to first, one space between them.

    Examples:
        >>> reverse_words("tea  before noon")
        'noon before tea'
    """
    return " ".join(reversed(sentence.split()))


def most_common_letter(text: str) -> str:
    """Find the letter that a text has most often, ignoring case.

    Args:
        text: A text with at least one letter.

    Returns:
        The letter in lower case; of equally frequent ones the first in the alphabet.

    Raises:
        ValueError: If there is no letter.

    Examples:
        >>> most_common_letter("Bananas, 5000000")
        'a'
        >>> most_common_letter("tree-root")
        'e'
        >>> most_common_letter("5000")
        Traceback (most recent call last):
            ...
        ValueError: no letters
    """
    counts = Counter(filter(str.isalpha, text.lower()))
    if not counts:
        raise ValueError("no letters")
    return min(counts, key=lambda letter: (-counts[letter], letter))


def caesar(text: str, shift: int) -> str:
    """Shift each letter of a text along the alphabet, as Caesar's cipher does.

    Args:
        text: The text; what is no letter from A to Z stays.
        shift: By how many places, to the left where negative.

    Returns:
        The shifted text, capitals kept.

    Examples:
        >>> caesar("Zoo, abc!", 2)
        'Bqq, cde!'
    """
    result = ""
    for sign in text:
        if "a" <= sign.lower() <= "z":
            base = ord("a") if sign.islower() else ord("A")
            sign = chr((ord(sign) - base + shift) % 26 + base)
        result += sign
    return result


def longest_word(sentence):
    """Find the longest word of a sentence.

    Args:
        sentence: Words between white space.

    Returns:
        The word with the most characters, the first of equals; empty without words.

    Examples:
        >>> longest_word("he often wrote short letters")
        'letters'
    """
    return max(sentence.split(), key=len, default="")


def hide_middle(secret: str, shown: int = 2) -> str:
    """Hide all but the ends of a secret behind stars.

    Args:
        secret: The text to hide.
        shown: How many characters stay at either end.

    Returns:
        A text of the same length; stars alone where it is too short to hide anything.

    Examples:
        >>> hide_middle("password")
        'pa****rd'
        >>> hide_middle("pass")
        '****'
        >>> hide_middle("token", 1)
        't***n'
    """
    hidden = len(secret) - 2 * shown
    if hidden <= 0:
        return "*" * len(secret)
    return secret[:shown] + "*" * hidden + secret[-shown:]


def squeeze(text: str) -> str:
    """Drop every character that repeats the one before it.

    Args:
        text: Any text.

    Returns:
        The text without repeats in a row.

    Examples:
        >>> squeeze("bookkeeper")
        'bokeper'
    """
    return "".join(sign for i, sign in enumerate(text) if i == 0 or sign != text[i - 1])


def count_overlapping(text: str, part: str) -> int:
    """Count how often a part stands in a text, overlaps included.

    Args:
        text: Where to look.
        part: What to look for.

    Returns:
        The number of places at which the part begins.

    Raises:
        ValueError: If the part is empty.

    Examples:
        >>> count_overlapping("banana", "ana")
        2
        >>> count_overlapping("banana", "")
        Traceback (most recent call last):
            ...
        ValueError: empty part
    """
    if not part:
        raise ValueError("empty part")
    return sum(text.startswith(part, start) for start in range(len(text)))


def initials(name: str) -> str:
    """Make initials of a person's name.

    Args:
        name: First names and last name.

    Returns:
        The first letter of each part as a capital, with a full stop behind it.

    Examples:
        >>> initials("anna maria Weber")
        'A.M.W.'
    """
    return "".join(part[0].upper() + "." for part in name.split())


def center_in(text: str, width: int, fill: str = " ") -> str:
    """Put a text into the middle of a line.

    Args:
        text: What stands in the middle.
        width: The length of the line.
        fill: The one character on both sides.

    Returns:
        The line; an odd character more stands on the right.

    Examples:
        >>> center_in("sum", 8, "-")
        '--sum---'
    """
    missing = max(0, width - len(text))
    left = missing // 2
    return fill * left + text + fill * (missing - left)


def common_prefix(first: str, second: str) -> str:
    """Find what two texts have in common at their start.

    Args:
        first: One text.
        second: The other text.

    Returns:
        The longest common start, which may be empty.

    Examples:
        >>> common_prefix("interest", "internet")
        'inter'
    """
    size = 0
    while size < min(len(first), len(second)) and first[size] == second[size]:
        size += 1
    return first[:size]


def is_anagram(first: str, second: str) -> bool:
    """Tell whether two texts are made of the same letters.

    Args:
        first: One text; case and spaces do not count.
        second: The other text.

    Returns:
        True where the letters of one can be put in order to make the other.

    Examples:
        >>> is_anagram("Dirty room", "dormitory")
        True
        >>> is_anagram("tree", "three")
        False
    """
    return sorted(first.lower().replace(" ", "")) == sorted(second.lower().replace(" ", ""))


def strip_notes(text: str) -> str:
    """Remove everything that stands in square brackets.

    Args:
        text: A text with notes in brackets.

    Returns:
        The text alone, without white space around it.

    Examples:
        >>> strip_notes("One [sic] bold word [see page 4]")
        'One  bold word'
    """
    return re.sub(r"\[[^\]]*\]", "", text).strip()


def number_lines(text: str, start: int = 1) -> str:
    r"""Put a number before each line of a text.

    Args:
        text: Lines of text.
        start: The number of the first line.

    Returns:
        The lines, each with its number, a colon and a space before it.

    Examples:
        >>> number_lines("salt\nflour", 9)
        '9: salt\n10: flour'
    """
    lines = text.split("\n")
    return "\n".join(f"{number}: {line}" for number, line in enumerate(lines, start))


def split_chunks(text: str, size: int) -> list[str]:
    """Cut a text into pieces of one length.

    Args:
        text: The text to cut.
        size: Characters of a piece; the last one may be shorter.

    Returns:
        The pieces in their order.

    Examples:
        >>> split_chunks("ABCDEFGH", 3)
        ['ABC', 'DEF', 'GH']
    """
    return [text[start : start + size] for start in range(0, len(text), size)]


def swap_ends(text):
    """Exchange the first and the last character of a text.

    Args:
        text: Any text.

    Returns:
        The changed text; one of fewer than two characters stays.

    Examples:
        >>> swap_ends("plan")
        'nlap'
        >>> swap_ends("to")
        'ot'
    """
    if len(text) < 2:
        return text
    return text[-1] + text[1:-1] + text[0]


def title_except(text: str, small: list[str]) -> str:
    """Capitalize the words of a title but for small ones.

    Args:
        text: The title in any case.
        small: Words in lower case that stay as they are, except at the start.

    Returns:
        The title.

    Examples:
        >>> title_except("the OLD man and the sea", ["and", "the"])
        'The Old Man and the Sea'
    """
    words = text.lower().split()
    return " ".join(
        word if place and word in small else word.capitalize() for place, word in enumerate(words)
    )


def ends_sentence(line: str) -> bool:
    """Tell whether a line ends with a sentence.

    Args:
        line: A line of text; blanks, quotation marks and brackets at its end are passed over.

    Returns:
        True after a full stop, a question mark or an exclamation mark.

    Examples:
        >>> ends_sentence("(She left at noon.) ")
        True
        >>> ends_sentence("However,")
        False
    """
    return line.rstrip(" \"')]").endswith((".", "?", "!"))
