"""What a student's turn is, by rule: right, wrong, stuck, vague, a plea for the answer, and so on.

The rules read words. The problem's solutions and known wrong answers decide first, whatever the
language; cues for the rest are English, with the commonest phrases of German, French and Spanish.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from tunelm.scoring.said import states, tokens
from tunelm.tutor.dialogues import STUDENT, Dialogue
from tunelm.tutor.safety import Found, find_in
from tunelm.tutor.solved import is_right


class Situation(StrEnum):
    """What the student's last turn is to the teacher."""

    OPENING = "has not spoken"
    RIGHT = "right"
    EXPLAINED = "right, with a reason"
    WRONG = "wrong"
    BELIEF = "wrong, with a reason"
    AGAIN = "wrong again"
    PLEADS = "wants to be told"
    STUCK = "does not know"
    SILENT = "says nothing"
    ASKS = "asks a question"
    VAGUE = "vague"
    IDEA = "has an idea"


class Mark(StrEnum):
    """What else there is to a turn; each adds a sentence to the note for the teacher."""

    RULES = "asks to drop the rules"
    UPSET = "swears"
    FOREIGN = "another language"
    LONG = "very long"


@dataclass(frozen=True, slots=True)
class Reading:
    """A student's turn as the rules read it; `found`: what a fixed text has to answer."""

    situation: Situation
    marks: tuple[Mark, ...] = ()
    found: Found | None = None


LONG_WORDS = 150
"""A turn with more words is very long: its point is asked for unless it holds an answer."""
ENOUGH = 0.6
"""The share of an explanation's longer words that a student's own must hold to count as right."""
_FEW_WORDS = 2
_READ = 4000
"""Characters of an endless turn that are read, half from each end."""

_REASON = re.compile(
    r"\b(because|since|therefore|that'?s why|so that|weil|denn|parce que|car|porque)\b", re.I
)
_PLEADS = re.compile(
    r"\b(just|only|simply|please)?\s*(tell|give|show|say)\s+(me\s+|it|us\s+)?"
    r"(the\s+|a\s+)?(right\s+|final\s+|correct\s+)?(answer|solution|result)"
    r"|\bwhat(?:'s| is) the (right |final |correct )?(answer|solution|result)\b"
    r"|\bjust (tell me|say it|answer)\b|\bwhy can'?t you just\b"
    r"|\bsag(?: mir)?(?: einfach)? die (antwort|lösung)|\bdonne[- ]moi la (réponse|solution)"
    r"|\bdime la (respuesta|solución)",
    re.I,
)
_RULES = re.compile(
    r"\b(ignore|forget|disregard|drop|break|override|bypass)\b.{0,40}"
    r"\b(rules?|instructions?|prompts?|guidelines?|everything)\b"
    r"|\byou are (now|no longer)\b|\b(system|hidden|secret) (prompt|instructions?)\b"
    r"|\b(pretend|act as if|role-?play)\b|\bdeveloper mode\b"
    r"|\b(ignorier|vergiss)\w*\b.{0,40}\b(regeln|anweisungen)|\bignore\w* .{0,20}\b(règles|reglas)",
    re.I | re.S,
)
_STUCK = re.compile(
    r"\b(i )?(don'?t|do not|dunno|didn'?t) (know|understand|get it|remember)\b|\bdunno\b|\bidk\b"
    r"|\bno (idea|clue)\b|\bi'?m (stuck|lost|confused)\b|\bnot sure\b|\bcan'?t do\b|\bgive up\b"
    r"|\btoo (hard|difficult)\b|\bweiß (es |ich )?nicht|\bkeine ahnung|\bje ne sais pas"
    r"|\baucune idée|\bno (lo )?sé\b",
    re.I,
)
_VAGUE = re.compile(
    r"\b(something|somehow|somewhere|stuff|whatever|kind of|sort of|that thing|things?|it just (is"
    r"|does))\b",
    re.I,
)
_UPSET = re.compile(
    r"\b(fuck\w*|shit\w*|damn(ed|it)?|bullshit|crap|bitch\w*|bastard\w*|asshole\w*|idiot\w*"
    r"|stupid|shut up|scheiße|scheiss\w*|verdammt|merde|putain|mierda|joder)\b",
    re.I,
)
_ENGLISH = re.compile(
    r"\b(the|is|it|i|a|an|to|of|and|you|what|that|in|not|do|don't|my|me|be|was|are|this|on|but)\b"
)
_OTHERS = re.compile(
    r"\b(der|die|das|ich|ist|nicht|und|ein|eine|es|wie|was|le|la|les|je|est|pas|un|une|et|que|de|el"
    r"|los|yo|no|y|por|qué|il|lo|che|è|non|sono|é|não|eu|o|os|um|uma|het|een|niet|jest|nie)\b"
)
"""Words of English, and of other languages, that hardly any sentence goes without."""


def read_student(dialogue: Dialogue, explanation: str | None = None) -> Reading:
    """The student's last turn as the rules read it.

    In this order: nothing said; right, by the problem's solutions or by an `explanation` whose
    words it shares (`ENOUGH`); one of the problem's wrong answers, unless a later turn goes on
    calculating beside it; a plea for the answer, or to drop the rules; "I don't know"; a question;
    vague words, or hardly any. Everything else is an idea, numbers included: one that is no known
    wrong answer may be the right one of a step. Apart from all that, words are looked for that no
    model is to answer (tunelm.tutor.safety).
    """
    found = find_in(dialogue)
    if not dialogue.turns or dialogue.turns[-1].role != STUDENT:
        return Reading(Situation.OPENING, found=found)
    text = clipped(dialogue.turns[-1].text)
    marks = marks_of(text)
    return Reading(_situation(dialogue, text, explanation, Mark.RULES in marks), marks, found)


def marks_of(text: str) -> tuple[Mark, ...]:
    """What there is to a turn beside what it says."""
    found = {
        Mark.RULES: bool(_RULES.search(text)),
        Mark.UPSET: bool(_UPSET.search(text)),
        Mark.FOREIGN: is_foreign(text),
        Mark.LONG: len(text) >= _READ or len(text.split()) > LONG_WORDS,
    }
    return tuple(mark for mark, there in found.items() if there)


def clipped(text: str) -> str:
    """The text, or both ends of an endless one: what the rules read."""
    return text if len(text) <= _READ else f"{text[: _READ // 2]} {text[-_READ // 2 :]}"


def is_foreign(text: str) -> bool:
    """Whether a text is in another language than English, as far as its commonest words tell.

    >>> is_foreign("Ich weiß es nicht."), is_foreign("I think it is 7/12."), is_foreign("42")
    (True, False, False)
    """
    letters = [c for c in text if c.isalpha()]
    if letters and sum(c > "ɏ" for c in letters) * 2 > len(letters):  # no Latin script
        return True
    english, others = (len(cues.findall(text.casefold())) for cues in (_ENGLISH, _OTHERS))
    return others > english and others >= 2


def got_there(dialogue: Dialogue, explanation: str | None = None) -> bool | None:
    """Whether the student has said the right answer or explanation; None where neither is known."""
    if not dialogue.problem.solutions and not explanation:
        return None
    return any(_right(dialogue, turn.text, explanation) for turn in dialogue.by(STUDENT))


def _situation(dialogue: Dialogue, text: str, explanation: str | None, rules: bool) -> Situation:
    if not any(c.isalnum() for c in text):
        return Situation.SILENT
    reason = bool(_REASON.search(text))
    if _right(dialogue, text, explanation):
        explained = reason or _explains(text, explanation)
        return Situation.EXPLAINED if explained else Situation.RIGHT
    problem = dialogue.problem
    wrong = [w for w in problem.wrong if states(text, [w])]
    believes = problem.misconception is not None and states(text, [problem.misconception])
    before = [turn.text for turn in dialogue.by(STUDENT)[:-1]]
    if believes or (wrong and not (before and _works(text, dialogue))):
        if reason or believes:
            return Situation.BELIEF
        again = any(states(earlier, wrong) for earlier in before)
        return Situation.AGAIN if again else Situation.WRONG
    if rules or _PLEADS.search(text):
        return Situation.PLEADS
    if _STUCK.search(text):
        return Situation.STUCK
    if text.rstrip().endswith(("?", "？", "؟")):
        return Situation.ASKS
    few = len(tokens(text)) <= _FEW_WORDS and not any(c.isdigit() for c in text)
    return Situation.VAGUE if few or _VAGUE.search(text) else Situation.IDEA


def _works(text: str, dialogue: Dialogue) -> bool:
    """Whether a turn calculates on: it has a number that is neither given nor a wrong answer."""
    problem = dialogue.problem
    known = {t for part in (problem.text, *problem.wrong) for t in tokens(part)}
    return any(t[0].isdigit() and t not in known for t in tokens(text))


def _right(dialogue: Dialogue, text: str, explanation: str | None) -> bool:
    return is_right(clipped(text), dialogue.problem) or _explains(clipped(text), explanation)


def _explains(text: str, explanation: str | None) -> bool:
    """Whether a text holds enough of an explanation's longer words."""
    wanted = {w for w in tokens(explanation or "") if len(w) > 3}
    return bool(wanted) and len(wanted & set(tokens(text))) >= ENOUGH * len(wanted)
