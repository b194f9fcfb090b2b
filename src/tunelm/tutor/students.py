"""Simulated students, who answer by rule: the same dialogue and seed give the same reply.

A student is a profile. What it says follows from the dialogue alone: how it opens, how far the
teacher's turns have brought it (`Student.progress`), and whether the answer has been given away.
Each strategy brings each profile on by its own amount, and the right answer comes once the amounts
add up to what the profile needs. A turn that repeats an earlier one brings nothing, and one that
speaks of something else a quarter. So no teacher gets there with one good phrase, and one who
tells gets an answer that does not count as the student's own.

The profiles are frozen: `FROZEN` is their hash, and scores of conversations name it. The amounts
are set by hand; benchmarks/students.py puts the rates that come of them beside MathDial's.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tunelm.errors import ConfigError
from tunelm.scoring.said import states, tokens
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Turn
from tunelm.tutor.solved import is_right, reveals, strategy_of
from tunelm.tutor.strategies import Strategy
from tunelm.types import content_hash

S = Strategy


@dataclass(frozen=True)
class Profile:
    """A kind of student.

    `opens` is the kind of its first words, a name in `says`. `gains` is how far one turn of a
    strategy brings it, 0 for those not named; it needs `needs`, give or take a quarter by problem
    and seed. `warms` are strategies without which all others count for half. `luck` is the chance
    that a try is right without understanding. `says` has wordings by situation, with {right},
    {wrong} and {why}; `held_out` profiles are in no training data.
    """

    name: str
    what: str
    opens: str
    needs: float
    gains: Mapping[Strategy, float]
    says: Mapping[str, tuple[str, ...]]
    warms: tuple[Strategy, ...] = ()
    luck: float = 0.0
    held_out: bool = False


_RIGHT = ("Then it must be {right}.", "Oh! I think it is {right}.", "Now I see: {right}.",
          "So the answer is {right}.", "Wait, it is {right}, right?")  # fmt: skip
_TOLD = ("Ah, so it is {right}.", "Okay. {right}, then.", "So the answer is {right}. Thanks.")
_SHOWS = (
    "I would say: it is {right}, because that is what the question asks for.",
    "I would explain it like this: the answer is {right}.",
    "It is {right}. I can see now why nothing else fits.",
)

PROFILES: Mapping[str, Profile] = {
    p.name: p
    for p in (
        Profile(
            name="guesses",
            what="throws out answers until one is taken, and thinks only when held to it",
            opens="tries",
            needs=2.1,
            luck=0.06,
            gains={S.SOCRATIC: 0.4, S.SCAFFOLDING: 1.0, S.MISCONCEPTION: 0.5, S.EXAMPLE: 0.8,
                   S.CLARIFICATION: 0.4, S.HINT: 0.9, S.CHECK: 0.2, S.TELLING: 0.3},
            says={
                "tries": ("Is it {wrong}?", "Maybe {wrong}?", "{wrong}?", "I guess {wrong}.",
                          "Then {wrong}?"),
                "asked why": ("I just guessed.", "No reason, it sounded right.",
                              "I do not know, I picked one."),
                "right": _RIGHT, "told": _TOLD, "shows": _SHOWS,
            },
        ),
        Profile(
            name="careless",
            what="knows how, answers too fast, and finds the slip when sent back to look",
            opens="tries",
            needs=1.2,
            gains={S.SOCRATIC: 0.8, S.SCAFFOLDING: 0.9, S.MISCONCEPTION: 1.0, S.EXAMPLE: 0.5,
                   S.CLARIFICATION: 0.7, S.HINT: 1.0, S.CHECK: 0.8, S.ENCOURAGEMENT: 0.1,
                   S.TELLING: 0.4},
            says={
                "tries": ("{wrong}. Easy.", "That is {wrong}.", "It is {wrong}, done.",
                          "I wrote {wrong}."),
                "asked why": ("I did it quickly in my head.", "I just wrote down what came first.",
                              "I read the question and wrote {wrong}."),
                "right": ("Oops, I went too fast. It is {right}.", "Oh no, I mean {right}.",
                          "My mistake, {right}.", "I see the slip: it should be {right}."),
                "told": _TOLD, "shows": _SHOWS,
            },
        ),
        Profile(
            name="stable misconception",
            what="holds a belief that the wrong answer follows from, and defends it",
            opens="believes",
            needs=1.7,
            gains={S.SOCRATIC: 0.5, S.SCAFFOLDING: 0.5, S.MISCONCEPTION: 1.0, S.EXAMPLE: 0.7,
                   S.CLARIFICATION: 0.2, S.HINT: 0.3, S.CHECK: 0.1, S.TELLING: 0.2},
            says={
                "believes": ("It is {wrong}. {why}", "I am sure it is {wrong}. {why}",
                             "{wrong}, because of this: {why}"),
                "tries": ("But I still think it is {wrong}.", "Hm, but {wrong} makes sense to me.",
                          "I do not see why it is not {wrong}.", "It has to be {wrong}."),
                "asked why": ("{why}", "I thought so because of this: {why}", "Well, {why}"),
                "right": ("Oh, I had that mixed up. Then it is {right}.",
                          "So what I believed cannot be true. It is {right}.",
                          "Then it must be {right}. I always thought it was different."),
                "told": ("If you say so: {right}.", "Okay, {right}. That is new to me."),
                "shows": _SHOWS,
            },
        ),
        Profile(
            name="already right",
            what="has the answer from the start, and wants to know whether it is",
            opens="right",
            needs=0.0,
            gains={},
            says={
                "right": ("I think it is {right}. Is that right?", "Is it {right}?",
                          "I got {right}.", "It should be {right}."),
                "told": _TOLD,
                "shows": (*_SHOWS, "Yes, I am sure: {right}."),
            },
        ),
        Profile(
            name="silent",
            what="says next to nothing for fear of being wrong, until somebody makes it safe",
            opens="stuck",
            needs=1.5,
            warms=(S.ENCOURAGEMENT, S.CLARIFICATION),
            gains={S.SOCRATIC: 0.4, S.SCAFFOLDING: 1.0, S.MISCONCEPTION: 0.3, S.EXAMPLE: 0.9,
                   S.CLARIFICATION: 0.2, S.HINT: 0.9, S.ENCOURAGEMENT: 0.5, S.TELLING: 0.3},
            says={
                "stuck": ("...", "I don't know.", "Not sure.", "Hm.", "I can't do this."),
                "asked why": ("I don't know how to say it.", "...", "I have no idea."),
                "tries": ("Hm.", "I don't know.", "{wrong}? I don't know.", "..."),
                "right": ("{right}?", "Maybe {right}?", "Is it {right}?"),
                "told": ("Okay. {right}.", "{right}."),
                "shows": ("It is {right}.", "{right}, I think."),
            },
        ),
        Profile(
            name="asks for the answer",
            what="wants to be told, presses for it, and works only when that leads nowhere",
            opens="pleads",
            needs=1.8,
            held_out=True,
            gains={S.SOCRATIC: 0.5, S.SCAFFOLDING: 0.9, S.MISCONCEPTION: 0.5, S.EXAMPLE: 0.8,
                   S.CLARIFICATION: 0.2, S.HINT: 0.9, S.CHECK: 0.2, S.ENCOURAGEMENT: 0.2,
                   S.TELLING: 0.3},
            says={
                "pleads": ("Just tell me the answer, please.", "Can you give me the answer?",
                           "I only need the result."),
                "tries": ("Why can't you just say it?", "My other teacher tells me. Is it {wrong}?",
                          "I have no time. What is it?", "Come on, is it {wrong} or what?"),
                "asked why": ("I did not think about it, I want the answer.",
                              "I do not have a way. What is the answer?"),
                "right": ("Fine. Is it {right}?", "Okay, okay: {right}.", "Then it is {right}."),
                "told": ("Great, {right}. Thanks, bye.", "Finally. {right}."),
                "shows": ("It is {right}. Can I go now?", "Because it is {right}, as I said."),
            },
        ),
    )
}  # fmt: skip
"""Name -> profile."""

TRAINING = tuple(name for name, profile in PROFILES.items() if not profile.held_out)
"""The profiles that may be in training data."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_COMMON = _words(
    """
    about above after again answer because been before being belong belongs came can't check
    come could does doesn't don't done each easy else every fast find first found from gave give
    guess guessed have here how's i'm idea into isn't it's just know last learned like long look
    made make makes many maybe mean means more most much must name never number only other
    picked please question quickly reason right said same says sense should show some something
    sorry still such sure take tell than thanks that that's them then there these they thing
    think this those thought true want went were what what's when where which will with word
    words would write wrong wrote year your yours
    """
)
"""Words that any teacher and student say, whatever they speak of."""
_NEEDS_NO_TOPIC = frozenset((S.CLARIFICATION, S.ENCOURAGEMENT, S.CHECK))
_OFF_TOPIC = 0.25
_SPREAD = 0.25


@dataclass(frozen=True)
class Student:
    """One student: a profile and a seed."""

    profile: Profile
    seed: int = 0
    says: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """More wordings by situation, for the varied text of a training set; frozen ones have none."""

    def reply(self, dialogue: Dialogue) -> str:
        """The student's next words, after the teacher's last turn or as the first.

        Raises:
            ConfigError: the last turn is a student's, or the problem lacks a solution or, for a
                profile that errs, a wrong answer.
        """
        _check(self.profile, dialogue)
        situation = self._situation(dialogue)
        rng = self._random(dialogue, len(dialogue.turns))
        # Not what it said before, as long as there is something else to say.
        said = {turn.text for turn in dialogue.by(STUDENT)}
        texts = [self._fill(t, dialogue) for t in self._wordings(situation)]
        return rng.choice([t for t in texts if t not in said] or texts)

    def answer(self, dialogue: Dialogue) -> Dialogue:
        """The dialogue with the student's reply."""
        named = dataclasses.replace(dialogue, profile=self.profile.name)
        return named.plus(Turn(STUDENT, self.reply(dialogue)))

    def progress(self, dialogue: Dialogue) -> float:
        """How far the teacher's turns have brought the student; see the module's text."""
        total, warm, heard = 0.0, not self.profile.warms, set[str]()
        for position, turn in enumerate(dialogue.turns):
            if turn.role != TEACHER:
                continue
            strategy = strategy_of(dialogue, position)
            warm = warm or strategy in self.profile.warms
            words = tokens(turn.text)
            gain = self.profile.gains.get(strategy, 0.0)
            if strategy not in _NEEDS_NO_TOPIC and not _on_topic(dialogue, position, words):
                gain *= _OFF_TOPIC
            if " ".join(words) not in heard:
                total += gain if warm else gain / 2
            heard.add(" ".join(words))
        return total

    def needs(self, dialogue: Dialogue) -> float:
        """The progress at which it gets there: the profile's, a quarter more or less."""
        return self.profile.needs * self._random(dialogue, -1).uniform(1 - _SPREAD, 1 + _SPREAD)

    def _situation(self, dialogue: Dialogue) -> str:
        problem, profile = dialogue.problem, self.profile
        if any(is_right(turn.text, problem) for turn in dialogue.by(STUDENT)):
            return "shows"
        teacher = [i for i, turn in enumerate(dialogue.turns) if turn.role == TEACHER]
        if any(reveals(dialogue, i) for i in teacher):
            return "told"
        if not dialogue.by(STUDENT):
            return profile.opens
        if self.progress(dialogue) >= self.needs(dialogue):
            return "right"
        if profile.luck and self._random(dialogue, len(teacher) + 1000).random() < profile.luck:
            return "right"
        asked = strategy_of(dialogue, len(dialogue.turns) - 1)
        return "asked why" if asked is Strategy.CLARIFICATION else "tries"

    def _wordings(self, situation: str) -> tuple[str, ...]:
        return self.profile.says[situation] + tuple(self.says.get(situation, ()))

    def _fill(self, template: str, dialogue: Dialogue) -> str:
        """The template with the problem's answers; each wrong try takes the next wrong answer."""
        problem = dialogue.problem
        wrong = problem.wrong or problem.solutions
        tries = sum(states(turn.text, wrong) for turn in dialogue.by(STUDENT))
        steady = self.profile.name != "guesses"
        text = template.format(
            right=problem.solutions[0],
            wrong=wrong[0] if steady else wrong[tries % len(wrong)],
            why=problem.misconception or "That is how I learned it.",
        )
        return text[:1].upper() + text[1:]

    def _random(self, dialogue: Dialogue, step: int) -> random.Random:
        its = dialogue.problem
        return random.Random(f"{self.seed}/{self.profile.name}/{its.group}/{its.text}/{step}")


FROZEN = content_hash([dataclasses.asdict(profile) for profile in PROFILES.values()])
"""Hash of all profiles: scores with another hash are of other students."""


def make_student(profile: str, seed: int = 0) -> Student:
    """The student with this profile. Raises ConfigError naming the valid ones."""
    if profile not in PROFILES:
        raise ConfigError(f"no student {profile!r}, expected one of {', '.join(PROFILES)}")
    return Student(PROFILES[profile], seed)


def _check(profile: Profile, dialogue: Dialogue) -> None:
    problem = dialogue.problem
    if dialogue.turns and dialogue.turns[-1].role == STUDENT:
        raise ConfigError("the last turn is the student's: it is the teacher's turn to speak")
    if not problem.solutions:
        raise ConfigError("a simulated student needs the problem's solution: give solutions")
    if profile.opens != "right" and not problem.wrong:
        raise ConfigError(f"a student who {profile.what} needs a wrong answer: give wrong")


def _on_topic(dialogue: Dialogue, position: int, words: list[str]) -> bool:
    """Whether a turn shares a number or a word of content with the problem or the last words."""
    its = dialogue.problem
    about = [its.text, its.misconception or "", *its.solutions, *its.wrong]
    if position:
        about.append(dialogue.turns[position - 1].text)
    known = {word for text in about for word in tokens(text) if _has_content(word)}
    return not known.isdisjoint(words)


def _has_content(word: str) -> bool:
    return (len(word) > 3 or not word.isalpha()) and word not in _COMMON
