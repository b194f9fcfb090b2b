"""Functions on dictionaries and sets."""

from collections import Counter, defaultdict


def invert(mapping: dict[str, int]) -> dict[int, str]:
    """Exchange the keys and values of a dictionary.

    Args:
        mapping: A dictionary whose values are all different.

    Returns:
        A dictionary from each value to its key.

    Raises:
        ValueError: If two keys have the same value.

    Examples:
        >>> invert({"one": 1, "two": 2})
        {1: 'one', 2: 'two'}
        >>> invert({"a": 1, "b": 1})
        Traceback (most recent call last):
            ...
        ValueError: values are not unique
    """
    if len(set(mapping.values())) < len(mapping):
        raise ValueError("values are not unique")
    return {value: key for key, value in mapping.items()}


def count_by_length(words: list[str]) -> dict[int, int]:
    """Count how many words there are of each length.

    Args:
        words: The words.

    Returns:
        The number of words by length, short lengths first.

    Examples:
        >>> count_by_length(["oak", "elm", "pine", "fir"])
        {3: 3, 4: 1}
    """
    counts = Counter(map(len, words))
    return dict(sorted(counts.items()))


def group_by_initial(names):
    """Sort names into groups by their first letter.

    Args:
        names: Names that are not empty.

    Returns:
        The names, in their order, by first letter as a capital.

    Examples:
        >>> group_by_initial(["anna", "Bert", "Alan"])
        {'A': ['anna', 'Alan'], 'B': ['Bert']}
    """
    groups = defaultdict(list)
    for name in names:
        groups[name[0].upper()].append(name)
    return dict(groups)


def merge_counts(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    """Add two tables of counts.

    Args:
        first: Counts by name.
        second: More counts by name.

    Returns:
        For every name of either table the sum of its counts, by name.

    Examples:
        >>> merge_counts({"red": 2, "blue": 1}, {"red": 3})
        {'blue': 1, 'red': 5}
    """
    names = sorted(first.keys() | second.keys())
    return {name: first.get(name, 0) + second.get(name, 0) for name in names}


def pick(mapping: dict, keys: list) -> dict:
    """Keep only some keys of a dictionary.

    Args:
        mapping: The dictionary, which stays as it is.
        keys: The keys to keep; unknown ones are passed over.

    Returns:
        A dictionary in the order of the keys.

    Examples:
        >>> pick({"a": 1, "b": 2, "c": 3}, ["c", "x", "a"])
        {'c': 3, 'a': 1}
    """
    return {key: mapping[key] for key in keys if key in mapping}


def best_key(scores: dict[str, float]) -> str:
    """Find the key with the highest value.

    Args:
        scores: Values by key.

    Returns:
        The key; of equal ones the first in the alphabet.

    Raises:
        ValueError: If there are no scores.

    Examples:
        >>> best_key({"Mia": 8.5, "Jan": 9.0, "Eva": 9.0})
        'Eva'
        >>> best_key({})
        Traceback (most recent call last):
            ...
        ValueError: no scores
    """
    if not scores:
        raise ValueError("no scores")
    top = max(scores.values())
    return min(key for key, value in scores.items() if value == top)


def get_path(tree: dict, path: str, default: object = None) -> object:
    """Look up a value in dictionaries within dictionaries.

    Args:
        tree: The outermost dictionary.
        path: The keys on the way, with dots between them.
        default: What to give where a key is missing.

    Returns:
        The value at the end of the path, or the default.

    Examples:
        >>> get_path({"a": {"b": 7}}, "a.b")
        7
        >>> get_path({"a": {"b": 7}}, "a.c", 0)
        0
    """
    for key in path.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return default
        tree = tree[key]
    return tree


def diff_keys(old: dict, new: dict) -> dict[str, list]:
    """Say how the keys of two dictionaries differ.

    Args:
        old: The dictionary before.
        new: The dictionary after.

    Returns:
        The sorted keys that were added, removed, and changed in their value.

    Examples:
        >>> diff_keys({"a": 1, "b": 2, "c": 3}, {"b": 5, "c": 3, "d": 4})
        {'added': ['d'], 'removed': ['a'], 'changed': ['b']}
    """
    added = sorted(new.keys() - old.keys())
    removed = sorted(old.keys() - new.keys())
    changed = sorted(key for key in old.keys() & new.keys() if old[key] != new[key])
    return {"added": added, "removed": removed, "changed": changed}


def jaccard(first: set[str], second: set[str]) -> float:
    """Measure how alike two sets are by Jaccard's index.

    Args:
        first: One set.
        second: The other set.

    Returns:
        The size of their intersection by that of their union; 1.0 for two empty sets.

    Examples:
        >>> jaccard({"a", "b", "c"}, {"b", "c", "d"})
        0.5
        >>> jaccard(set(), set())
        1.0
    """
    if not first and not second:
        return 1.0
    return len(first & second) / len(first | second)


def normalize_weights(weights: dict[str, float]) -> dict[str, float]:
    """Scale weights so that they add up to one.

    Args:
        weights: Weights by name, not all of them zero.

    Returns:
        Each weight's share of the total.

    Raises:
        ZeroDivisionError: If the weights add up to zero.

    Examples:
        >>> normalize_weights({"a": 3, "b": 1})
        {'a': 0.75, 'b': 0.25}
        >>> normalize_weights({"a": 0})
        Traceback (most recent call last):
            ...
        ZeroDivisionError: weights add up to zero
    """
    total = sum(weights.values())
    if total == 0:
        raise ZeroDivisionError("weights add up to zero")
    return {name: weight / total for name, weight in weights.items()}


def top_words(text: str, count: int) -> list[str]:
    """List the most frequent words of a text.

    Args:
        text: Words between white space, in any case.
        count: How many words to list.

    Returns:
        The words in lower case, the most frequent first, equals by the alphabet.

    Examples:
        >>> top_words("Sea and sky and sea and sand", 2)
        ['and', 'sea']
    """
    counts = Counter(text.lower().split())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return ranked[:count]


def flatten_keys(tree: dict, prefix: str = "") -> dict[str, object]:
    """Write nested dictionaries as one, with dotted keys.

    Args:
        tree: A dictionary whose values may be dictionaries.
        prefix: What stands before every key.

    Returns:
        The innermost values by their path.

    Examples:
        >>> flatten_keys({"a": 1, "b": {"c": 2, "d": {"e": 3}}})
        {'a': 1, 'b.c': 2, 'b.d.e': 3}
    """
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten_keys(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def index_by(rows: list[dict], field: str) -> dict:
    """Make rows accessible by one of their fields.

    Args:
        rows: Dictionaries that have the field.
        field: The field whose values become keys.

    Returns:
        The rows by value; of rows with the same value the last.

    Examples:
        >>> index_by([{"id": 1, "x": 5}, {"id": 2, "x": 6}, {"id": 1, "x": 7}], "id")
        {1: {'id': 1, 'x': 7}, 2: {'id': 2, 'x': 6}}
    """
    return {row[field]: row for row in rows}


def missing_numbers(numbers: set[int]) -> list[int]:
    """Find the gaps in a set of whole numbers.

    Args:
        numbers: The numbers.

    Returns:
        Those between the smallest and the largest that are not there.

    Examples:
        >>> missing_numbers({3, 4, 7, 9})
        [5, 6, 8]
        >>> missing_numbers(set())
        []
    """
    if not numbers:
        return []
    return [n for n in range(min(numbers), max(numbers)) if n not in numbers]


def without_empty(record: dict) -> dict:
    """Leave out the fields of a record that say nothing.

    Args:
        record: A record, which stays as it is.

    Returns:
        Its fields but those that are None, an empty text or an empty list; zeros stay.

    Examples:
        >>> without_empty({"name": "Ada", "age": 0, "note": "", "tags": []})
        {'name': 'Ada', 'age': 0}
    """
    return {key: value for key, value in record.items() if value not in (None, "", [])}


def column_totals(rows: list[dict[str, int]]) -> dict[str, int]:
    """Add up each column of a table.

    Args:
        rows: Rows of numbers by column; a row may lack columns.

    Returns:
        The sum of each column, in the order of their first appearance.

    Examples:
        >>> column_totals([{"mon": 2}, {"tue": 5, "mon": 1}])
        {'mon': 3, 'tue': 5}
    """
    totals = {}
    for row in rows:
        for column, value in row.items():
            totals[column] = totals.get(column, 0) + value
    return totals


def in_exactly_one(sets):
    """Find the items that stand in one of several sets only.

    Args:
        sets: A list of sets.

    Returns:
        The sorted items that no two sets share.

    Examples:
        >>> in_exactly_one([{1, 2}, {2, 3}, {3, 4}])
        [1, 4]
    """
    counts = Counter(item for group in sets for item in group)
    return sorted(item for item, count in counts.items() if count == 1)


def rename_keys(record: dict, names: dict[str, str]) -> dict:
    """Give some keys of a record other names.

    Args:
        record: The record.
        names: New names by old ones.

    Returns:
        The record in the same order, keys without a new name as they were.

    Examples:
        >>> rename_keys({"Nm": "Li", "age": 30}, {"Nm": "name"})
        {'name': 'Li', 'age': 30}
    """
    return {names.get(key, key): value for key, value in record.items()}


def reachable(links: dict[str, list[str]], start: str) -> list[str]:
    """Find everything that links lead to.

    Args:
        links: For each page the pages it links to.
        start: The page to begin with.

    Returns:
        The pages that can be reached, the first one included, by name.

    Examples:
        >>> reachable({"a": ["b"], "b": ["c", "a"], "d": ["a"]}, "a")
        ['a', 'b', 'c']
    """
    seen = set()
    waiting = [start]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            waiting.extend(links.get(page, []))
    return sorted(seen)


def share_of(counts: dict[str, int], name: str) -> float:
    """Give the share of one name in all counts, in percent.

    Args:
        counts: Counts by name.
        name: The name to look at.

    Returns:
        The percentage with one decimal; 0.0 for an unknown name.

    Raises:
        ValueError: If nothing was counted.

    Examples:
        >>> share_of({"yes": 2, "no": 1}, "yes")
        66.7
        >>> share_of({"yes": 2}, "never")
        0.0
        >>> share_of({}, "yes")
        Traceback (most recent call last):
            ...
        ValueError: nothing was counted
    """
    total = sum(counts.values())
    if total == 0:
        raise ValueError("nothing was counted")
    return round(100 * counts.get(name, 0) / total, 1)


def apply_defaults(given: dict, defaults: dict) -> dict:
    """Fill in settings that were not given.

    Args:
        given: What somebody set; None means not set.
        defaults: All settings with their usual values.

    Returns:
        A value for each of the defaults.

    Raises:
        KeyError: If something was set that there is no default for.

    Examples:
        >>> apply_defaults({"size": 5, "unit": None}, {"size": 1, "unit": "cm"})
        {'size': 5, 'unit': 'cm'}
        >>> apply_defaults({"sise": 5}, {"size": 1})
        Traceback (most recent call last):
            ...
        KeyError: 'sise'
    """
    for key in given:
        if key not in defaults:
            raise KeyError(key)
    chosen = {key: value for key, value in given.items() if value is not None}
    return {**defaults, **chosen}
