"""What a model says as a teacher, held to the turn's strategy by rule and without a second call.

Four things are put right, each noted in the reply. A sentence that is not for pupils
(tunelm.tutor.safety), and one that gives the known answer away in a turn that is not to tell, is
withheld with all that follows. A last sentence that was cut off at
the most tokens is left out. And a turn without a question gets one (`QUESTIONS`), unless it closes.
It goes sentence by sentence, so that a stream is held to the same as a whole answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Turn
from tunelm.tutor.reading import clipped, is_foreign
from tunelm.tutor.safety import is_unfit
from tunelm.tutor.solved import reveals
from tunelm.tutor.strategies import Strategy

S = Strategy

QUESTIONS: Mapping[Strategy, tuple[str, ...]] = {
    S.SOCRATIC: ("What do you think, and why?", "What makes you think so?", "What follows?"),
    S.SCAFFOLDING: ("What would be a first small step?", "Which part can you do already?"),
    S.MISCONCEPTION: ("Can that be? How could you test it?", "Where does it not fit?"),
    S.EXAMPLE: ("Can you do the same with your problem?", "Now yours: how would you begin?"),
    S.CLARIFICATION: ("What do you mean by that?", "How did you get there?"),
    S.HINT: ("What does that tell you?", "Does that help you on?"),
    S.CHECK: ("Can you explain in your own words why?", "How would you explain it to a friend?"),
    S.ENCOURAGEMENT: ("What do you know about it already?", "Which part is clear to you?"),
    S.TELLING: ("Can you say in your own words why that is so?", "What do you take from it?"),
}
"""What a teacher's turn asks where the model asked nothing; every strategy wants a question."""
CLOSING = "Well done, you have got there."
"""The last turn, where a model says nothing at all."""

WITHHELD = "the answer was withheld"
UNFIT = "a sentence that is not for pupils was withheld"
ASKED = "a question was added"
SHORTENED = "an unfinished sentence was left out"
UNASKED = "no question: rules write English, and the student does not"
EMPTY = "the model said nothing"

_END = re.compile(r"[.!?…。？！][\"'”’)]*\s")
_MARK = re.compile(r"[?？؟]")
_FINISHED = re.compile(r"[.!?…。？！؟:)\]\"'”’]\s*$")


class Mender:
    """Takes a teacher's turn in pieces and gives it back, mended, in pieces.

    Attributes:
        text: all given back so far.
        notes: what was mended.
        stopped: whether the rest is withheld: the model need not go on.
    """

    def __init__(
        self, dialogue: Dialogue, strategy: Strategy, closes: bool, safe: bool = True
    ) -> None:
        """`safe`: whether sentences that are not for pupils are withheld."""
        self.text = ""
        self.notes: list[str] = []
        self.stopped = False
        self._dialogue = dialogue
        self._strategy = strategy
        self._closes = closes
        self._safe = safe
        self._held = ""
        self._gap = ""

    def feed(self, piece: str) -> str:
        """The next piece of the model's; what may be shown now: whole sentences."""
        shown = ""
        self._held += piece
        while not self.stopped and (end := _END.search(self._held)):
            sentence, self._held = self._held[: end.end()], self._held[end.end() :]
            shown += self._take(sentence)
        return shown

    def end(self, cut: bool = False) -> str:
        """What is still to be shown. `cut`: the model stopped at the most tokens."""
        shown, rest, self._held = "", self._held, ""
        if not self.stopped and rest.strip():
            if cut and self.text and not _FINISHED.search(rest):
                self.notes.append(SHORTENED)
            else:
                shown = self._take(rest)
        if added := self._addition():
            added = f" {added}" if self.text else added
            self.text += added
        return shown + added

    def _take(self, sentence: str) -> str:
        """A sentence with the space before it; that behind it waits for the next one."""
        if self._safe and is_unfit(sentence, self._dialogue.problem.text):
            self.stopped = True
            self.notes.append(UNFIT)
            return ""
        lead = self._gap + sentence[: len(sentence) - len(sentence.lstrip())]
        said = (lead if self.text else "") + sentence.strip()
        told = self._dialogue.plus(Turn(TEACHER, self.text + said, self._strategy))
        if self._strategy is not S.TELLING and reveals(told, len(told.turns) - 1):
            self.stopped = True
            self.notes.append(WITHHELD)
            return ""
        self._gap = sentence[len(sentence.rstrip()) :]
        self.text += said
        return said

    def _addition(self) -> str:
        """A question, or words where there are none; "" for a turn that is well as it is."""
        silent = not self.text
        if silent and not self.stopped:
            self.notes.append(EMPTY)
        if self._closes:
            return CLOSING if silent else ""
        if _MARK.search(self.text):
            return ""
        students = self._dialogue.by(STUDENT)
        if students and is_foreign(clipped(students[-1].text)):
            self.notes.append(UNASKED)
            return self._dialogue.problem.text if silent else ""
        self.notes.append(ASKED)
        questions = QUESTIONS[self._strategy]
        return questions[len(self._dialogue.by(TEACHER)) % len(questions)]
