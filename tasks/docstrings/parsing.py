"""Functions that read small formats, or write them."""

import re


def parse_pairs(text: str) -> dict[str, str]:
    """Read settings written as name=value.

    Args:
        text: Pairs with semicolons between them; white space around names and values is dropped.

    Returns:
        The values by name.

    Raises:
        ValueError: If a pair has no equals sign.

    Examples:
        >>> parse_pairs("size = 4; colour=red")
        {'size': '4', 'colour': 'red'}
        >>> parse_pairs("size")
        Traceback (most recent call last):
            ...
        ValueError: no '=' in 'size'
    """
    pairs = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"no '=' in {part!r}")
        pairs[name.strip()] = value.strip()
    return pairs


def parse_range(text: str) -> list[int]:
    """Read a list of page numbers and ranges.

    Args:
        text: Numbers and ranges with commas between them.

    Returns:
        Every page, ranges with both their ends.

    Examples:
        >>> parse_range("1,4-6,9")
        [1, 4, 5, 6, 9]
    """
    pages = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        pages.extend(range(int(first), int(last or first) + 1))
    return pages


def parse_bool(word):
    """Read a yes or a no.

    Args:
        word: yes, true, on or 1, or no, false, off or 0, in any case.

    Returns:
        True or False.

    Raises:
        ValueError: If it is another word.

    Examples:
        >>> parse_bool(" Yes")
        True
        >>> parse_bool("off")
        False
        >>> parse_bool("maybe")
        Traceback (most recent call last):
            ...
        ValueError: neither yes nor no: maybe
    """
    folded = word.strip().lower()
    if folded in ("yes", "true", "on", "1"):
        return True
    if folded in ("no", "false", "off", "0"):
        return False
    raise ValueError(f"neither yes nor no: {word}")


def split_csv(line: str) -> list[str]:
    """Split a line of comma-separated values.

    Args:
        line: Values with commas between them; a value in double quotes may hold commas.

    Returns:
        The values without their quotes.

    Examples:
        >>> split_csv('3,"salt, fine",kg')
        ['3', 'salt, fine', 'kg']
    """
    values, current, quoted = [], "", False
    for sign in line:
        if sign == '"':
            quoted = not quoted
        elif sign == "," and not quoted:
            values.append(current)
            current = ""
        else:
            current += sign
    return [*values, current]


def query_string(parameters: dict[str, str]) -> str:
    """Write the parameters of a web address.

    Args:
        parameters: Values by name, all of plain letters and digits.

    Returns:
        The parameters by name, with a question mark before them; empty without any.

    Examples:
        >>> query_string({"q": "tea", "page": "2"})
        '?page=2&q=tea'
        >>> query_string({})
        ''
    """
    if not parameters:
        return ""
    return "?" + "&".join(f"{name}={parameters[name]}" for name in sorted(parameters))


def balanced(text: str) -> bool:
    """Tell whether all brackets of a text are closed in the right order.

    Args:
        text: A text with round, square and curly brackets.

    Returns:
        True where every bracket has its partner.

    Examples:
        >>> balanced("f(a[1], {b})")
        True
        >>> balanced("(]")
        False
        >>> balanced("((")
        False
    """
    partners = {")": "(", "]": "[", "}": "{"}
    opened = []
    for sign in text:
        if sign in partners.values():
            opened.append(sign)
        elif sign in partners and (not opened or opened.pop() != partners[sign]):
            return False
    return not opened


def evaluate_rpn(expression: str) -> int:
    """Compute an expression in reverse Polish notation.

    Args:
        expression: Whole numbers and the signs +, - and *, with spaces between them.

    Returns:
        The result.

    Raises:
        ValueError: If numbers are left over.

    Examples:
        >>> evaluate_rpn("2 3 + 4 *")
        20
        >>> evaluate_rpn("9 5 -")
        4
        >>> evaluate_rpn("1 2")
        Traceback (most recent call last):
            ...
        ValueError: numbers left over
    """
    stack = []
    for token in expression.split():
        if token in ("+", "-", "*"):
            second, first = stack.pop(), stack.pop()
            stack.append({"+": first + second, "-": first - second, "*": first * second}[token])
        else:
            stack.append(int(token))
    if len(stack) != 1:
        raise ValueError("numbers left over")
    return stack[0]


def file_extension(name: str) -> str:
    """Find the extension of a file's name.

    Args:
        name: The name, with or without folders before it.

    Returns:
        What follows the last dot in lower case; empty without one or for a hidden file.

    Examples:
        >>> file_extension("photos/Cat.JPG")
        'jpg'
        >>> file_extension(".profile")
        ''
    """
    base = name.rsplit("/", 1)[-1]
    stem, dot, extension = base.rpartition(".")
    return extension.lower() if dot and stem else ""


def slugify(title: str) -> str:
    """Make a piece of a web address of a title.

    Args:
        title: Any text.

    Returns:
        Its letters and digits in lower case, a hyphen for whatever stands between them.

    Examples:
        >>> slugify("  10 Ways to Save: Water & Heat! ")
        '10-ways-to-save-water-heat'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def extract_numbers(text: str) -> list[int]:
    """Find the whole numbers in a text.

    Args:
        text: Any text; a minus sign right before a digit belongs to the number.

    Returns:
        The numbers in their order.

    Examples:
        >>> extract_numbers("from -3 to 12 in 4 steps")
        [-3, 12, 4]
    """
    return [int(number) for number in re.findall(r"-?\d+", text)]


def parse_version(text: str) -> tuple[int, ...]:
    """Read a version so that versions can be compared.

    Args:
        text: Numbers with dots between them, with or without a v before them.

    Returns:
        The numbers; zeros at the end are dropped.

    Examples:
        >>> parse_version("v1.10.0")
        (1, 10)
    """
    numbers = [int(part) for part in text.removeprefix("v").split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def run_length_encode(text: str) -> str:
    """Write repeated characters as the character and its number.

    Args:
        text: A text without digits.

    Returns:
        The shorter form; a character that stands alone has no number.

    Examples:
        >>> run_length_encode("aaabccd")
        'a3bc2d'
    """
    result = ""
    for place, sign in enumerate(text):
        if place > 0 and text[place - 1] == sign:
            continue
        length = len(text[place:]) - len(text[place:].lstrip(sign))
        result += sign + (str(length) if length > 1 else "")
    return result


def run_length_decode(code: str) -> str:
    """Undo a run-length code such as a3bc2.

    Args:
        code: Characters, each with a number behind it where it stands more than once.

    Returns:
        The text that was encoded.

    Examples:
        >>> run_length_decode("x4yz2")
        'xxxxyzz'
    """
    parts = re.findall(r"(\D)(\d*)", code)
    return "".join(sign * int(count or 1) for sign, count in parts)


def indent_level(line, width=4):
    """Measure how deep a line of code is indented.

    Args:
        line: A line that begins with spaces.
        width: Spaces of one level.

    Returns:
        The number of whole levels.

    Examples:
        >>> indent_level("        return")
        2
        >>> indent_level("   x", width=2)
        1
    """
    return (len(line) - len(line.lstrip(" "))) // width


def parse_fraction(text: str) -> float:
    """Read a mixed number as recipes write it.

    Args:
        text: A whole number, a fraction, or both, such as 1 1/2.

    Returns:
        The number.

    Examples:
        >>> parse_fraction("1 3/4")
        1.75
        >>> parse_fraction("2")
        2.0
    """
    total = 0.0
    for part in text.split():
        over, _, under = part.partition("/")
        total += int(over) / int(under or 1)
    return total


def mask_digits(text: str, keep: int) -> str:
    """Hide the digits of a number but for the last ones.

    Args:
        text: A card or phone number with any separators, which stay.
        keep: How many digits stay readable.

    Returns:
        The text with an x for each hidden digit.

    Examples:
        >>> mask_digits("1234-5678", 3)
        'xxxx-x678'
    """
    hidden = sum(map(str.isdigit, text)) - keep
    result = ""
    for sign in text:
        if sign.isdigit() and hidden > 0:
            sign = "x"
            hidden -= 1
        result += sign
    return result


def make_table(rows: list[list[str]]) -> list[str]:
    """Write rows of cells in columns of one width each.

    Args:
        rows: Rows with the same number of cells.

    Returns:
        A line for each row, cells filled up with blanks and two blanks between them.

    Examples:
        >>> make_table([["a", "long"], ["bcd", "x"]])
        ['a    long', 'bcd  x']
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths)) for row in rows)
    return [line.rstrip() for line in lines]


def parse_hex_colour(code: str) -> tuple[int, int, int]:
    """Read a colour as web pages write it.

    Args:
        code: Six hexadecimal digits behind a hash sign.

    Returns:
        Red, green and blue from 0 to 255.

    Raises:
        ValueError: If it is not of that form.

    Examples:
        >>> parse_hex_colour("#ff8000")
        (255, 128, 0)
        >>> parse_hex_colour("ff8000")
        Traceback (most recent call last):
            ...
        ValueError: no colour: ff8000
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", code):
        raise ValueError(f"no colour: {code}")
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def first_sentence(text: str) -> str:
    """Take the first sentence of a text.

    Args:
        text: One or more sentences.

    Returns:
        The text up to the first full stop, question mark or exclamation mark that a space follows.

    Examples:
        >>> first_sentence("Version 2.0 is out! Try it.")
        'Version 2.0 is out!'
        >>> first_sentence("no end")
        'no end'
    """
    return re.split(r"(?<=[.?!]) ", text, maxsplit=1)[0]


def comment_of(line: str) -> str:
    """Find the comment at the end of a line of a settings file.

    Args:
        line: A line in which a hash sign begins a comment.

    Returns:
        The comment without the sign and blanks around it; empty where there is none.

    Examples:
        >>> comment_of("size = 3  # in metres ")
        'in metres'
    """
    return line.partition("#")[2].strip()


def join_words(words: list[str], last: str = "and") -> str:
    """Write a list of words as one would in a sentence.

    Args:
        words: The words.
        last: The word before the last of them.

    Returns:
        The words with commas between them.

    Examples:
        >>> join_words(["tea", "milk", "salt"])
        'tea, milk and salt'
        >>> join_words(["tea"])
        'tea'
        >>> join_words(["a", "b"], "or")
        'a or b'
    """
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + f" {last} {words[-1]}"
