"""The nine things a teacher's turn can do: one table, and a guess where nobody has labelled it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """What a teacher's turn is for. A turn has one: what it mainly does."""

    SOCRATIC = "Socratic question"
    SCAFFOLDING = "scaffolding"
    MISCONCEPTION = "misconception handling"
    EXAMPLE = "worked example"
    CLARIFICATION = "clarification request"
    HINT = "hint"
    CHECK = "check of understanding"
    ENCOURAGEMENT = "encouragement"
    TELLING = "telling"


@dataclass(frozen=True, slots=True)
class Described:
    """A strategy in words: what it is, and when a teacher should reach for it."""

    what: str
    when: str


STRATEGIES: Mapping[Strategy, Described] = {
    Strategy.SOCRATIC: Described(
        "a question whose answer takes the student's own reasoning a step further",
        "the student has something to think with: an idea, half an answer, a result to test",
    ),
    Strategy.SCAFFOLDING: Described(
        "the problem cut into a smaller step, which the student is to do",
        "the student does not know where to begin, or the step asked for was too large",
    ),
    Strategy.MISCONCEPTION: Described(
        "the student's wrong idea named and set against something that it cannot explain",
        "a wrong answer follows from a belief, or comes back after it was put right",
    ),
    Strategy.EXAMPLE: Described(
        "another problem of the same kind, worked through, and the student sent back to their own",
        "the student lacks the method and hints have not helped",
    ),
    Strategy.CLARIFICATION: Described(
        "a request to say what was meant, or how it was found; it adds nothing of its own",
        "an answer whose way is unknown, or words that can be read in two ways",
    ),
    Strategy.HINT: Described(
        "a piece of information that narrows the answer down without giving it",
        "the student thinks in the right direction and is stuck",
    ),
    Strategy.CHECK: Described(
        "a task that shows whether it was understood: explain it, use it, vary it",
        "the student has said the right answer, above all if quickly or after help",
    ),
    Strategy.ENCOURAGEMENT: Described(
        "what went well is named, or fear taken away, and the student invited to go on",
        "the student is silent, gives up, or has just done something well",
    ),
    Strategy.TELLING: Described(
        "the answer, or the whole way to it, said by the teacher",
        "nothing else has helped, or it is a convention that nobody could find out",
    ),
}

_CUES: Mapping[Strategy, re.Pattern[str]] = {
    strategy: re.compile(rf"\b({words})", re.IGNORECASE)
    for strategy, words in {
        Strategy.EXAMPLE: (
            "for example|for instance|(one|case) like it|let me (do|show you) (one|another)"
            "|the same way"
        ),
        Strategy.CHECK: (
            "in your own words|explain (it|this|that) to|how would you (explain|check)|now try"
            "|try another|how do you know|can you explain why"
        ),
        Strategy.CLARIFICATION: (
            "what (do|did) you mean|what (makes|made) you|how did you (get|find|come)|tell me more"
            "|(talk|walk|take) me through|say more"
        ),
        Strategy.MISCONCEPTION: (
            "not quite|mix(ed)?[- ]up|mixing|common mistake|many people think|you said"
            "|easy to confuse|if that were"
        ),
        Strategy.HINT: "hint|clue|begins? with|remember that|think (of|about)|notice",
        Strategy.SCAFFOLDING: "first|steps?\\b|let us|let's|begin|start with|one at a time|next",
        Strategy.ENCOURAGEMENT: (
            "well done|do not worry|don't worry|no rush|no hurry|take your time|never mind"
            "|that is fine|you can do"
        ),
    }.items()
}
"""Words that show a strategy, the most telling first."""


def guess_strategy(text: str, reveals: bool = False, solved: bool = False) -> Strategy:
    """The strategy of a turn that carries no label, by the first cue that its words hold.

    A rule of thumb for turns of models that do not say what they do: it agrees with the labels of
    edu_dialogues.jsonl on about half of the turns, so people's labels are better wherever there
    are any. A statement without a cue counts as telling, which helps simulated students least.

    Args:
        text: what the teacher says.
        reveals: whether that gives the answer away.
        solved: whether the student has said the right answer before.

    >>> guess_strategy("Here is a hint: it begins with n.").value
    'hint'
    >>> guess_strategy("How do they compare?").value
    'Socratic question'
    """
    if reveals:
        return Strategy.TELLING
    if solved:
        return Strategy.CHECK if "?" in text else Strategy.ENCOURAGEMENT
    for strategy, cue in _CUES.items():
        if cue.search(text):
            return strategy
    return Strategy.SOCRATIC if "?" in text else Strategy.TELLING
