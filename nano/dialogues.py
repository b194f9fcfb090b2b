"""The larger set of dialogues for the bundled model: a tutor by rule, students by profile.

    python nano/build_tasks.py      (writes tutor_dialogues.jsonl with the other files)

The problems are the facts of the shelf `stated`: the model has read them and was never asked
about them. Every fact has two dialogues with two kinds of student; none with the held-out kind.
The tutor looks at what the student has just said: silence is met with encouragement, a belief
with what it cannot explain, a guess with a question, the right answer with a check. It tells only
after four turns of help.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from knowledge import Fact, capital, spread

from tunelm.scoring.said import states
from tunelm.tutor.dialogues import STUDENT, TEACHER, Dialogue, Problem, Turn
from tunelm.tutor.solved import ending_of, is_right, reveals, solved_at
from tunelm.tutor.strategies import Strategy
from tunelm.tutor.students import PROFILES, TRAINING, Student

S = Strategy
MOST_HELP = 4
MOST_WORDS = 4
"""Of an answer: a longer one is not said in passing."""
KINDS_A_FACT = 2

VERBS = frozenset(
    "organ_function organelle_function plant_part_function process_effect python_builtin"
    " python_keyword data_structure algorithm unix_command medical_instrument nutrient_role"
    " explorer_deed grammar_job law_statement component_function".split()
)
"""Relations whose values are verbs, which do not fit what students say ("Is it pumps blood?")."""

STUDENT_SAYS: Mapping[str, tuple[str, ...]] = {
    "tries": (
        "I think {wrong}.", "Could it be {wrong}?", "What about {wrong}?", "{wrong}, I think."
    ),
    "right": ("Oh, {right}!", "Then it is {right}.", "I think it is {right}.", "{right}!"),
    "asked why": ("I am not sure why.", "It came to my mind.", "It was the first I thought of."),
    "stuck": ("I have no idea.", "No idea, sorry.", "I don't remember."),
    "told": ("Oh. {right}, then.", "I see, {right}."),
    "shows": (
        "I would tell a friend that the answer is {right}.",
        "The answer is {right}, and the others belong to something else.",
    ),
}  # fmt: skip

TEACHER_SAYS: Mapping[Strategy, tuple[str, ...]] = {
    S.SOCRATIC: (
        'What comes to your mind when you read "{k}"?',
        'Suppose it were {w}. What would that say about "{k}"?',
        "Read it again: {q} What kind of thing must the answer be?",
        'What do you already know about "{k}" that could help you here?',
        "How could you find out whether {w} fits?",
    ),
    S.SCAFFOLDING: (
        'First step: say in your own way what is asked about "{k}". What is it?',
        'Let us take it apart. Is "{k}" a person, a place, a thing or something else?',
        'One step at a time. Why can {w} not be right for "{k}"?',
        'Start small: what is one thing that you are sure of about "{k}"?',
        'Let us sort it together. What kind of answer goes with "{k}": a name, a number, a word?',
    ),
    S.MISCONCEPTION: (
        'I see where that comes from, but {w} goes with "{mk}". Can it go with "{k}", too?',
        'Many people mix these up: {w} goes with "{mk}". So what goes with "{k}"?',
        'You said {w}. What would then be left for "{mk}", if "{k}" had it?',
        'Easy to confuse! {w} goes with "{mk}". What is different about "{k}"?',
        'That is "{mk}" and not "{k}". What do you know of each of the two?',
    ),
    S.EXAMPLE: (
        'Here is one like it: with "{ek}" goes {ev}. In the same way, what goes with "{k}"?',
        'For example, take "{ek}": I thought of where I had read of it, and found {ev}. And "{k}"?',
        'Let me show you another: for "{ek}" it is {ev}. Try "{k}" again.',
    ),
    S.CLARIFICATION: (
        "What made you think of {w}?",
        "How did you get to {w}?",
        "Tell me more: why {w}?",
        'What do you mean by {w} when you think of "{k}"?',
    ),
    S.HINT: (
        "Here is a hint: the answer has {n} and begins with {c}.",
        "A clue: it begins with {c}. What could it be?",
        'For "{k}" we look for {n}. The first letter is {c}.',
        'Think of "{k}" and of the letter {c}. What comes to your mind?',
        'What we look for is {size} signs long. What do you know of "{k}" that has this length?',
    ),
    S.ENCOURAGEMENT: (
        'No rush, wrong guesses are free. What is the first thing you know about "{k}"?',
        "That is fine, we will find it together. What part of the question do you know?",
        'Take your time. Even a half idea about "{k}" helps. What is yours?',
        "Do not worry, this one is hard for many. Which word of the question do you know best?",
    ),
    S.TELLING: (
        "Let me tell you this one: {answer} Say it back to me?",
        "You tried hard, so here it is: {answer} What do you take from it?",
        "{answer} That is one to remember. Can you say it again?",
    ),
    S.CHECK: (
        "Yes, {v}. How would you explain it to a friend?",
        "That is it. Can you say in your own words why?",
        "Right. How do you know that it is not {x}?",
        "Yes! Now explain it to me as if I had never heard of it.",
    ),
}  # fmt: skip

CLOSES = (
    "Well done, you found it yourself. {answer}",
    "Good thinking, and you did not give up. {answer}",
    "Well explained. You can be proud of that.",
    "Great, you have it now. {answer}",
)
CLOSES_AT_ONCE = (
    "Right from the start, and you could say why. {answer}",
    "Good that you asked whether it is right: now you are sure. {answer}",
    "Well explained. You can trust yourself with this one.",
)
CLOSES_TOLD = (
    "Good that you stayed with it. Ask me again tomorrow, and you will know it.",
    "Well done for going on. Next time it will come by itself.",
)
SILENT = ("...", "hm.", "know", "idea", "sure", "remember", "can't")


@dataclass(frozen=True)
class Case:
    """A fact as a problem, with the facts around it that a tutor can point to."""

    fact: Fact
    problem: Problem
    others: tuple[Fact, ...]


def generate(facts: Sequence[Fact]) -> Iterator[Dialogue]:
    """All dialogues, in an order that mixes the subjects; the same every time."""
    found = [
        converse(case, profile)
        for number, case in enumerate(cases(facts))
        for profile in kinds(number)
    ]
    yield from sorted(found, key=lambda d: spread(d.id))


def kinds(number: int) -> list[str]:
    """The profiles of a fact's students: all pairs come up equally often."""
    first = number % len(TRAINING)
    step = 1 + number // len(TRAINING) % (len(TRAINING) - 1)
    return [TRAINING[(first + i * step) % len(TRAINING)] for i in range(KINDS_A_FACT)]


def cases(facts: Sequence[Fact]) -> Iterator[Case]:
    """The facts that a dialogue can be about."""
    families: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        if fact.shelf != "unseen":
            families[fact.relation.subject, fact.relation.name].append(fact)
    for fact in facts:
        name = fact.relation.name
        if fact.shelf != "stated" or name in VERBS or len(fact.value.split()) > MOST_WORDS:
            continue
        rng = random.Random(fact.id)
        family = families[fact.relation.subject, name]
        others = [f for f in rng.sample(family, len(family)) if _apart(f, fact)]
        if len(others) < 3 or states(fact.key, [fact.value]):
            continue
        question = capital(fact.fill(rng.choice(fact.relation.questions)))
        problem = Problem(
            text=question,
            subject=fact.relation.subject,
            group=fact.id,
            solutions=(fact.value,),
            wrong=tuple(f.value for f in others[:3]),
            misconception=f'I know it from "{others[0].key}".',
        )
        yield Case(fact, problem, tuple(others))


def _apart(other: Fact, fact: Fact) -> bool:
    """Whether the other fact can be told without giving this one away, and is no answer to it."""
    said = f"{other.answer} {other.key}"
    return not states(said, [fact.value]) and not states(fact.value, [other.value])


def converse(case: Case, profile: str) -> Dialogue:
    """A whole dialogue: the student opens, and the teacher has the last word."""
    rng = random.Random(f"{case.fact.id}/{profile}")
    student = Student(PROFILES[profile], says=STUDENT_SAYS)
    dialogue = student.answer(Dialogue(case.problem, profile=profile))
    while not _right(dialogue):
        strategy = choose(dialogue, rng)
        dialogue = student.answer(dialogue.plus(speak(case, dialogue, strategy, rng)))
    dialogue = student.answer(dialogue.plus(speak(case, dialogue, S.CHECK, rng)))
    closes = CLOSES_AT_ONCE if solved_at(dialogue) == 1 else CLOSES
    if any(turn.strategy is S.TELLING for turn in dialogue.turns):
        closes = CLOSES_TOLD
    close = rng.choice(closes).format(answer=case.fact.answer)
    dialogue = dialogue.plus(Turn(TEACHER, close, S.ENCOURAGEMENT))
    return replace(dialogue, ending=ending_of(dialogue))


def choose(dialogue: Dialogue, rng: random.Random) -> Strategy:
    """What the student's last words call for."""
    used = [turn.strategy for turn in dialogue.by(TEACHER)]
    said = dialogue.turns[-1].text.casefold()
    offered = any(wrong.casefold() in said for wrong in dialogue.problem.wrong)
    if len(used) >= MOST_HELP:
        return S.TELLING
    if not offered and any(word in said for word in SILENT) and S.ENCOURAGEMENT not in used:
        return S.ENCOURAGEMENT
    believes = dialogue.problem.misconception or ""
    if believes.casefold() in said and used.count(S.MISCONCEPTION) < 2:
        return S.MISCONCEPTION
    if offered and not used:
        return rng.choice((S.CLARIFICATION, S.SOCRATIC, S.HINT, S.SCAFFOLDING))
    pool = [S.HINT, S.SCAFFOLDING, S.EXAMPLE, S.SOCRATIC]
    if offered:
        pool.append(S.MISCONCEPTION)
    fewest = min(used.count(s) for s in pool)
    return rng.choice([s for s in pool if used.count(s) == fewest])


def speak(case: Case, dialogue: Dialogue, strategy: Strategy, rng: random.Random) -> Turn:
    """A turn of the strategy that was not said before and gives nothing away unless it tells."""
    fact, first = case.fact, case.others[0]
    example = rng.choice(case.others[1:])
    offered = _offered(dialogue)
    mixed = next((f for f in case.others if f.value == offered), first)
    bare = fact.value.removeprefix("the ").removeprefix("an ").removeprefix("a ")
    words = len(bare.split())
    texts = [
        template.format(
            k=fact.key, v=fact.value, w=offered or first.value, q=case.problem.text,
            mk=mixed.key, ek=example.key, ev=example.value, c=bare[0],
            n="one word" if words == 1 else f"{words} words", answer=fact.answer, x=first.value,
            size=len(bare),
        )
        for template in TEACHER_SAYS[strategy]
        # A question about an answer that the student has not offered would put it in their mouth.
        if offered or "{w}" not in template
    ]  # fmt: skip
    turns = [Turn(TEACHER, text, strategy) for text in rng.sample(texts, len(texts))]
    heard = {turn.text for turn in dialogue.turns}
    if strategy not in (S.TELLING, S.CHECK):
        end = len(dialogue.turns)
        turns = [t for t in turns if not reveals(dialogue.plus(t), end)]
    fresh = [t for t in turns if t.text not in heard]
    return (fresh or turns)[0]


def _offered(dialogue: Dialogue) -> str | None:
    """The wrong answer that the student gave last."""
    for turn in reversed(dialogue.by(STUDENT)):
        for wrong in dialogue.problem.wrong:
            if states(turn.text, [wrong]):
                return wrong
    return None


def _right(dialogue: Dialogue) -> bool:
    return is_right(dialogue.turns[-1].text, dialogue.problem)
