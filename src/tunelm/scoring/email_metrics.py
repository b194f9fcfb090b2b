"""The metrics of replies to customers: is it right, is nothing made up, is it kind, is it whole.

A row's last message ends with the shop's note to whoever answers, behind the last line of dashes
(`---`). Its metadata has `facts`, what the reply must say, and may have `allowed`, what it may say
though no message does. What the checks read are words and figures of English, not meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tunelm.errors import DataError
from tunelm.scoring.email_facts import known, read, stem
from tunelm.scoring.email_lexicon import politeness, promises
from tunelm.scoring.metric import Metric, row_metric
from tunelm.types import Example

MIN_KINDS, ALL_KINDS = 3, 5
"""Kinds of politeness that a reply needs to pass, and that make it fully polite."""

WORDS = (30, 160)
"""Fewest and most words of a reply, greeting and sign-off included."""

OPENING = 3
"""Sentences behind the greeting in which the customer's trouble is to be named."""
SHARED = 2
"""Words of the customer's that these sentences take up."""

_RULE = re.compile(r"(?m)^-{3,}[ \t\r]*$")
_GREETING = re.compile(
    r"(?:dear|hello|hi|hey|good (?:morning|afternoon|evening|day)|greetings)\b[^\n]*", re.IGNORECASE
)
_SIGN_OFF = re.compile(
    r"(?:(?:with |very )?(?:kind|best|warm|friendly)(?:est)?(?: and warm)? (?:regards|wishes)"
    r"|(?:yours )?(?:sincerely|faithfully|truly)|regards|all the best|many thanks|with (?:kind )?"
    r"thanks|warmly|cheers|best)\b[ \t]*[,.!]?[ \t]*",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\[[^\]\n]*\]|<[^>\n]*>|\{[^}\n]*\}|_{3,}")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_ACKNOWLEDGES = re.compile(
    r"\b(?:sorry|apolog\w+|underst[ao]\w+|must (?:be|have been)|disappoint\w+|frustrat\w+|annoy\w+"
    r"|upset\w*|glad|congratulat\w+|pity|worr(?:y|ied|ying)|thank(?:s| you)(?: very much)? for"
    r"|good (?:question|to hear)|(?:can|i) (?:see|imagine)|great to hear|right to|made (?:us|our)"
    r"|(?:how|what an?) (?:good|nice|lovely|kind|sad|annoying|shame))\b",
    re.IGNORECASE,
)
_COMMON = """
    a about after again all also am an and any are as at back be because been before but by can
    could dear did do does done for from get getting go good got had has have he hello her here hi
    him his how i if in into is it its just know let like me message more much must my need no not
    now of off ok on one only or order our out over please really said say see she should shop so
    some still such tell than thank thanks that the their them then there these they thing this
    time to too up us very want was we well were what when where which who why will with wish
    would write writing you your yours sorry regards
"""
_STEMS = frozenset(map(stem, _COMMON.split()))


def split_note(message: str) -> tuple[str, str]:
    r"""What the customer wrote, and the shop's note behind the last line of dashes.

    Without such a line both are the whole message.

    >>> split_note("Where is it?\n---\nDecision: sent on 3 May")
    ('Where is it?', 'Decision: sent on 3 May')
    """
    *before, note = _RULE.split(message)
    return "\n".join(before).strip() or message, note.strip()


def facts_kept(output: str, example: Example) -> float:
    """The share of the row's `facts` that the reply says."""
    wanted = _facts(example)
    said = read(output)
    kept = [any(said.has(read(form)) for form in forms) for forms in wanted]
    return sum(kept) / len(kept) if kept else 1.0


def made_up(output: str, example: Example) -> frozenset[str]:
    """What the reply says that comes from nowhere: figures, dates, addresses and promises."""
    allowed = [*_texts(example, "allowed"), *(form for forms in _facts(example) for form in forms)]
    given = [*(message.content for message in example.messages), *allowed]
    figures = read(output).entities - frozenset[str]().union(*map(known, given))
    promised = promises(output) - frozenset[str]().union(
        *map(promises, [split_note(example.question)[1], *allowed])
    )
    return figures | promised


def nothing_invented(output: str, example: Example) -> float:
    """1 where nothing in the reply is made up, else 0."""
    return float(bool(output.strip()) and not made_up(output, example))


def greeting_and_signoff(output: str, example: Example) -> float:
    """Half for a greeting as the first line, half for a sign-off with a name as the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if not lines:
        return 0.0
    greets = _GREETING.match(lines[0]) and not _PLACEHOLDER.search(lines[0])
    return (bool(greets) + _signs_off(lines)) / 2


def length_fits(output: str, example: Example) -> float:
    """1 where the reply has as many words as `WORDS` says, else 0."""
    return float(WORDS[0] <= len(output.split()) <= WORDS[1])


def polite(output: str, example: Example) -> float:
    """Kinds of politeness, each once, at most `ALL_KINDS`; a rough kind takes one away."""
    kinds, rough = politeness(output)
    return max(min(len(kinds), ALL_KINDS) - len(rough), 0) / ALL_KINDS


def empathy(output: str, example: Example) -> float:
    """How far the first sentences say what happened to the customer; 0 without a feeling word."""
    opening = _opening(output)
    if not _ACKNOWLEDGES.search(opening.replace("\u2019", "'")):
        return 0.0
    # of what the note holds, every reply speaks: the item, the customer's name
    mail, note = split_note(example.question)
    theirs = _content(mail) - (_content(note) if note != mail else frozenset())
    return min(len(_content(opening) & theirs), SHARED) / SHARED


def email_passes(output: str, example: Example) -> float:
    """1 for a reply that could be sent: every fact, nothing made up, whole, polite, not rough."""
    kinds, rough = politeness(output)
    return float(
        len(kinds) >= MIN_KINDS
        and not rough - {"please-start"}
        and greeting_and_signoff(output, example) == 1
        and facts_kept(output, example) == 1
        and nothing_invented(output, example) == 1
    )


def _signs_off(lines: Sequence[str]) -> bool:
    """Whether one of the last four lines closes the mail and a name follows."""
    for place in range(max(len(lines) - 4, 0), len(lines)):
        match = _SIGN_OFF.match(lines[place])
        if match:
            name = "".join((lines[place][match.end() :], *lines[place + 1 :]))
            return bool(re.search(r"[^\W\d_]", name)) and not _PLACEHOLDER.search(name)
    return False


def _opening(output: str) -> str:
    sentences = [s for s in _SENTENCE.split(output) if s and s.strip()]
    if sentences and _GREETING.fullmatch(sentences[0]) and len(sentences[0].split()) <= 5:
        sentences = sentences[1:]
    return " ".join(sentences[:OPENING])


def _content(text: str) -> frozenset[str]:
    reading = read(text)
    return frozenset(t for t in reading.tokens if len(t) > 2) - reading.entities - _STEMS


def _facts(example: Example) -> list[list[str]]:
    """The row's facts, each as the forms it may be said in.

    Raises:
        DataError: the row has none, or not as a list of texts.
    """
    given = example.metadata.get("facts")
    if given is None:
        raise DataError(
            f'row {example.id} has no "facts", and its reply cannot be checked without: give it a '
            'list of what must be said, "facts": ["24.90 EUR", ["refund", "money back"]], or [] '
            "where there is nothing"
        )
    return list(_forms(example, "facts", given))


def _texts(example: Example, name: str) -> list[str]:
    given = example.metadata.get(name)
    return (
        [] if given is None else [form for forms in _forms(example, name, given) for form in forms]
    )


def _forms(example: Example, name: str, given: Any) -> Iterator[list[str]]:
    for fact in cast(list[Any], given) if isinstance(given, list) else [None]:
        forms = cast(list[Any], fact) if isinstance(fact, list) else [fact]
        if not forms or not all(isinstance(form, str) and form.strip() for form in forms):
            raise DataError(
                f'row {example.id}: "{name}" is {given!r}, expected a list of texts, or of lists '
                "of texts that mean the same"
            )
        yield cast(list[str], forms)


OF_EMAILS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        row_metric(
            "email_passes",
            f"email_passes|facts:all|invented:none|form:whole|kinds:{MIN_KINDS}|rough:none",
            email_passes,
            "share of replies that say every fact, make up nothing, greet and sign off, are polite "
            f"in at least {MIN_KINDS} ways and in no way rough",
        ),
        row_metric(
            "facts_kept",
            "facts_kept|keys:facts|match:stems,figures in one form",
            facts_kept,
            "share of the facts a reply must say that it says: content",
        ),
        row_metric(
            "nothing_invented",
            "nothing_invented|from:messages,allowed,facts|promises from:note,allowed,facts",
            nothing_invented,
            "share of replies without a number, date, time span, address or promise that comes "
            "from nowhere: content",
        ),
        row_metric(
            "polite",
            f"polite|kinds:9,at most {ALL_KINDS}|rough:-1 each",
            polite,
            "kinds of politeness, each counted once, less those of roughness: form",
        ),
        row_metric(
            "empathy",
            f"empathy|opening:{OPENING} sentences|words of the customer:{SHARED}",
            empathy,
            "how far the first sentences take up, with feeling, what happened to the customer: "
            "form and content",
        ),
        row_metric(
            "greeting_and_signoff",
            "greeting_and_signoff|half each|placeholders:none",
            greeting_and_signoff,
            "a greeting first and a sign-off with a name last, half for each: form",
        ),
        row_metric(
            "length_fits",
            f"length_fits|words:{WORDS[0]}-{WORDS[1]}",
            length_fits,
            f"share of replies of {WORDS[0]} to {WORDS[1]} words: form",
        ),
    )
}
"""Those of replies to customers, by name."""
