"""What an LLM judge is told to look for: one table, a rubric a dimension.

The first eight dimensions are those of MRBench (Maurya et al., NAACL 2025), in our own words; their
names and labels are those of its file, so that a judge can be set beside people. Then uptake, as
rated by Demszky et al. (ACL 2021), from 0 to 2, and the strategy of a turn.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunelm.errors import ConfigError
from tunelm.tutor.strategies import STRATEGIES

OVERALL = "overall"
"""For pairs only: which reply teaches better, all in all."""


@dataclass(frozen=True, slots=True)
class Rubric:
    """One dimension.

    Attributes:
        name: as label files have it.
        question: what is asked about a reply.
        better: what is asked about two: which of them has more of it.
        labels: each label, and when it fits.
        values: each label's value, higher is better; empty for labels without an order.
    """

    name: str
    question: str
    better: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    values: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value; 0 and 1 where labels have none."""
        return (min(self.values.values()), max(self.values.values())) if self.values else (0.0, 1.0)

    def value_of(self, label: str | float) -> float | None:
        """The value of a person's label, or of a number on the same scale; None: it has none."""
        return self.values.get(label) if isinstance(label, str) else label


def rubric_of(dimension: str, pairs: bool = False) -> Rubric:
    """The rubric of a dimension; `strategy=telling` and the like is 1 for that one, else 0.

    Args:
        dimension: a name.
        pairs: whether two replies are compared, which has `overall` too and no strategy.

    Raises:
        ConfigError: there is none; the closest name.
    """
    name, equals, wanted = dimension.partition("=")
    if pairs and dimension == OVERALL:
        return _OVERALL
    if equals and name == "strategy" and not pairs:
        labels = RUBRICS["strategy"].labels
        if wanted in labels:
            values = {label: float(label == wanted) for label in labels}
            return dataclasses.replace(RUBRICS["strategy"], name=dimension, values=values)
        raise ConfigError(f"no strategy {wanted!r}. Valid: {', '.join(labels)}.")
    valid = [n for n in RUBRICS if RUBRICS[n].better] + [OVERALL] if pairs else list(RUBRICS)
    if dimension not in valid:
        near = difflib.get_close_matches(dimension, valid, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"no dimension {dimension!r}.{hint} Valid: {', '.join(valid)}.")
    return RUBRICS[dimension]


def _graded(name: str, question: str, better: str, yes: str, some: str, no: str) -> Rubric:
    """A dimension of which more is better."""
    labels = {"Yes": yes, "To some extent": some, "No": no}
    return Rubric(name, question, better, labels, {"Yes": 1.0, "To some extent": 0.5, "No": 0.0})


RUBRICS: Mapping[str, Rubric] = {
    rubric.name: rubric
    for rubric in (
        _graded(
            "mistake_identification",
            "Does the reply recognize that there is a mistake in what the student said?",
            "recognizes the student's mistake more clearly",
            "it makes clear that something is wrong, or asks about just that",
            "it sounds doubtful, and a reader could not be sure that a mistake was seen",
            "it passes the mistake over, or calls it right",
        ),
        _graded(
            "mistake_location",
            "Does the reply point to the place of the student's mistake?",
            "points more exactly to where the student went wrong",
            "it names or quotes the step, the number or the idea that is wrong",
            "it points in the right direction, vaguely, or to more than the mistake",
            "it leaves open where the mistake is, or points elsewhere",
        ),
        Rubric(
            "revealing_of_the_answer",
            "Does the reply give the final answer away?",
            "leaves the final answer more to the student",
            {
                "Yes": "the final answer of the problem is said, be it right or wrong",
                "To some extent": "so much is said that nothing is left to do but to copy it",
                "No": "the student still has to find the answer",
            },
            {"Yes": 0.0, "To some extent": 0.5, "No": 1.0},
        ),
        _graded(
            "providing_guidance",
            "Does the reply help the student on, by a hint, an explanation or a question?",
            "gives the more useful help",
            "the help is right and fits this student's difficulty",
            "the help is there, and incomplete, vague or partly off the point",
            "there is no help, or it is wrong",
        ),
        _graded(
            "actionability",
            "Does the student know after the reply what to do next?",
            "makes it clearer what the student should do next",
            "one thing to do is plain: a step to take, a question to answer",
            "something could be done, and what exactly is left open",
            "nothing is asked of the student",
        ),
        _graded(
            "coherence",
            "Does the reply fit what was said before?",
            "fits better what was said before",
            "it takes up the student's last turn and agrees with the dialogue",
            "it belongs to the topic, and misses the point of the last turn",
            "it contradicts the dialogue, or could stand anywhere",
        ),
        Rubric(
            "tutor_tone",
            "What tone does the reply take towards the student?",
            "is kinder to the student",
            {
                "Encouraging": "warm: it acknowledges an effort, or gives confidence",
                "Neutral": "matter of fact, neither warm nor unkind",
                "Offensive": "unkind, mocking or belittling",
            },
            {"Encouraging": 1.0, "Neutral": 0.5, "Offensive": 0.0},
        ),
        _graded(
            "humanlikeness",
            "Does the reply sound like a person who teaches?",
            "sounds more like a person who teaches",
            "a teacher could have said it so",
            "stiff, wordy or formulaic in places",
            "clearly a machine's, or no teacher's sentence",
        ),
        Rubric(
            "uptake",
            "Does the reply build on what the student has just said?",
            "builds more on what the student has just said",
            {
                "Yes": "it repeats, extends or questions the student's own idea",
                "To some extent": "it acknowledges the student's words, and goes on without them",
                "No": "it would be the same whatever the student had said",
            },
            {"Yes": 2.0, "To some extent": 1.0, "No": 0.0},
        ),
        Rubric(
            "strategy",
            "What is the reply mainly doing?",
            "",
            {strategy.value: described.what for strategy, described in STRATEGIES.items()},
        ),
    )
}
"""By name."""

_OVERALL = Rubric(
    OVERALL,
    "How well does the reply teach?",
    "teaches better, all in all: it sees the student's difficulty, gives as little help as is"
    " needed, leaves the thinking to the student and makes clear what to do next",
)
