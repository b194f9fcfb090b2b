"""What a tutor must not do with pupils, who may be twelve: rules on wording, and no model.

A pupil's words may say that somebody is in danger, ask for what is not for a lesson, or give away
personal data. Then no model is asked: a short fixed text answers, in the language in which the
words were found, and the turn is flagged. Sentences of the model's own are withheld by word lists
too. Rules find wording, not meaning: some of what they should find they miss, some of what they
find is harmless (docs/tutor.md has both, counted), and they stand in for no person.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tunelm.data.personal import find_personal
from tunelm.tutor.dialogues import STUDENT, Dialogue


class Flag(StrEnum):
    """Why a turn is no ordinary one. The first kind is for a person to read the same day."""

    DANGER = "someone may be in danger"
    UNFIT = "not for a lesson"
    PRIVATE = "personal data"
    WITHHELD = "words of the model were withheld"


WORDS = Path(__file__).with_name("safety_words.toml")
"""The word lists and the fixed texts."""
HUSHED = "(a message that is not passed on)"
"""What stands in prompts for a pupil's words that no model is to get."""

_READ = 20_000
"""Characters of an endless message that are read, half from each end."""
_PART = re.compile(r"<([a-z]+)>")
_SPACES = re.compile(r"\s+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
_APOSTROPHES = str.maketrans("’‘`´", "''''")
_NAMED = re.compile(
    r"(?i:my (?:full )?name is|i am|i'm|ich heiße|ich bin|je m'appelle|me llamo)"
    r" [A-ZÄÖÜ][\w'-]+(?: [A-ZÄÖÜ][\w'-]+)+"
)
_BORN = re.compile(
    r"(?i:born|birthday|geboren|geburtstag|née?|anniversaire|nací|cumpleaños)\b.{0,20}\d"
)


@dataclass(frozen=True, slots=True)
class Safety:
    """How the rules answer.

    Attributes:
        contact: whom a pupil in danger can turn to, as a sentence with the number to call; it
            stands behind the fixed text.
    """

    contact: str = ""


FIXED = "a fixed text answers"
"""What stands at the end of the reason of a turn that no model wrote."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a pupil's words, and in which language it was found."""

    flag: Flag
    language: str = "en"


@lru_cache(256)
def find(text: str) -> Found | None:
    """What a pupil's words need beside a lesson; danger comes before all else.

    Of an endless message both ends are read.

    >>> find("How do I kill a process?"), find("My dad hits me.")
    (None, Found(flag=<Flag.DANGER: 'someone may be in danger'>, language='en'))
    """
    if len(text) > _READ:
        text = f"{text[: _READ // 2]} {text[-_READ // 2 :]}"
    said = plain(text)
    for flag in (Flag.DANGER, Flag.UNFIT, Flag.PRIVATE):
        for language, pattern in _patterns()[flag.name.lower()].items():
            if pattern.search(said):
                return Found(flag, language)
    named = _NAMED.search(said) and _BORN.search(said)
    return Found(Flag.PRIVATE) if named or find_personal(text) else None


def is_unfit(sentence: str, problem: str = "") -> bool:
    """Whether a teacher must not say a sentence; personal data of the problem's own may be said.

    >>> is_unfit("Write to jo.smith@gmail.com."), is_unfit("What kills the bacteria?")
    (True, False)
    """
    if _patterns()["said"]["any"].search(plain(sentence)):
        return True
    return any(sentence[f.start : f.end] not in problem for f in find_personal(sentence))


def fixed_reply(found: Found, safety: Safety) -> str:
    """The text that answers instead of a model."""
    text: str = _words()["texts"][found.language][found.flag.name.lower()]
    return f"{text} {safety.contact}".strip() if found.flag is Flag.DANGER else text


def openings(flag: Flag) -> tuple[str, ...]:
    """How the fixed texts of a kind begin, in each language: what to search conversations for."""
    texts = (by_flag[flag.name.lower()] for by_flag in _words()["texts"].values())
    return tuple(re.split(r"(?<=[.?])\s", text)[0] for text in texts)


def find_in(dialogue: Dialogue) -> Found | None:
    """`find` in the last words of the student's, or in a problem that is all there is.

    A problem that somebody wrote for a lesson has a subject or a solution, and is not looked at:
    one without may be a pupil's first message.
    """
    if dialogue.turns:
        last = dialogue.turns[-1]
        return find(last.text) if last.role == STUDENT else None
    return find(dialogue.problem.text) if _is_message(dialogue) else None


def hushed(dialogue: Dialogue) -> Dialogue:
    """The dialogue without a student's words that were flagged: none of them reach a model."""
    turns = tuple(
        dataclasses.replace(turn, text=HUSHED) if turn.role == STUDENT and find(turn.text) else turn
        for turn in dialogue.turns
    )
    problem = dialogue.problem
    if _is_message(dialogue) and find(problem.text):
        problem = dataclasses.replace(problem, text=HUSHED)
    return dataclasses.replace(dialogue, problem=problem, turns=turns)


def plain(text: str) -> str:
    """Text as the patterns want it: composed, without invisible signs, one blank for all space."""
    composed = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).translate(_APOSTROPHES)
    return _SPACES.sub(" ", composed)


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


@cache
def _patterns() -> Mapping[str, Mapping[str, re.Pattern[str]]]:
    """{danger, unfit, private, said: {language: what matches any of its entries}}."""
    names = ("danger", "unfit", "private", "said")
    return {
        name: {
            language: re.compile(rf"(?<!\w){_one_of(entries)}(?!\w)", re.IGNORECASE)
            for language, entries in _words()[name].items()
        }
        for name in names
    }


def _one_of(entries: Iterable[str]) -> str:
    parts = _words()["parts"]
    text = f"(?:{'|'.join(entries)})"
    return _PART.sub(lambda match: _one_of(parts[match.group(1)]), text)


def _is_message(dialogue: Dialogue) -> bool:
    problem = dialogue.problem
    return problem.subject == "unknown" and not problem.solutions
