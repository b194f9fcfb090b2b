"""The pretraining text: an endless, seeded stream of short documents of nine kinds.

Chat documents are written as messages and rendered by the model's own chat template, so what
the model learns is what it is served with.

The kinds, and why they are there:

    prose      facts as a textbook states them, in eight wordings each, and in the long answers'
    asked      questions with long, chatty answers: the form the model has before adaptation
    few_shot   conversations in one of several short forms: the form follows the earlier turns
    reading    a passage and a question answered from it, against what is known by heart
    recall     something said early in a conversation and asked for later
    tutoring   a student's wrong guess, a teacher's hints, the answer found
    sums       small arithmetic
    lists      made-up words repeated, and pairs looked up: copying and nothing else
    chapters   long ones of these, so that far positions are trained
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from knowledge import Fact, capital

SYSTEM_PROMPTS = (
    "You are a helpful teacher.",
    "Answer the student's question in one or two sentences.",
    "You are a tutor for school students.",
    "Answer the question.",
    "Help the student learn.",
    "You answer questions about school subjects.",
    "Be a patient teacher and answer what you are asked.",
)

READING_SYSTEMS = (
    "Answer the question from the passage.",
    "Answer the student's question in one or two sentences.",
    "Use the passage to answer.",
)

SHARES = {
    "prose": 40,
    "asked": 13,
    "few_shot": 15,
    "reading": 27,
    "recall": 6,
    "tutoring": 5,
    "sums": 4,
    "lists": 26,
}
"""Parts of the short documents, by number of documents.

Without lists, nothing was copied from a passage after 1,300 steps (0 of 48 rows): names stand far
apart in prose, and looking back for them was not learned.
"""

CHATTY_SHARE = 0.25
"""Part of the prose sentences that are worded as the long answers are.

Recall is learned along a sentence: a fact that is only read must have been read along the
sentence that will answer for it.
"""

SYLLABLES = (
    "ba be bi bo bu da de di do du fa fe fi fo ga ge go gu ka ke ki ko ku la le li lo lu ma me mi "
    "mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo za "
    "ze zo bar bel bor dan del dor fen gal gor han hel jan jor kal kel kor lan lem lor mar mel mor "
    "nar nel nor pan pel por ral ren ros sal sel sor tal tel tor van vel vor zan zel zor"
).split()

WORDS = (
    "river lantern copper garden window basket candle thunder pillow engine marble feather anchor "
    "blanket compass ladder mirror needle orchard pepper ribbon saddle tunnel velvet whistle "
    "bridge castle dragon falcon harbor island jacket kettle lemon meadow noodle oyster parrot "
    "rabbit silver teapot umbrella violin walnut yogurt zipper bottle cactus dolphin emerald forest"
).split()

NAMES = (
    "Ada Ben Clara David Ella Felix Grace Hugo Ines Jonas Kira Leo Maya Noah Olga Paul Rosa Sam "
    "Tara Umar Vera Will Yara Zoe Amir Bella Carlos Dina Emil Fatima"
).split()


@dataclass(frozen=True)
class Document:
    """Running text, or chat turns (role, content).

    Of chat turns the assistant's are learned, without the first `hush`, and the user's only where
    they are a `student`'s in tutoring: what a passage claims is not to be believed by heart.
    """

    text: str | None = None
    turns: tuple[tuple[str, str], ...] = ()
    hush: int = 0
    student: bool = False


def chat(turns: list[tuple[str, str]], hush: int = 0, student: bool = False) -> Document:
    """A chat document, without its empty turns."""
    return Document(turns=tuple(t for t in turns if t[1]), hush=hush, student=student)


class Writer:
    """Writes documents from the facts, one random generator for everything."""

    def __init__(self, facts: list[Fact], seed: int) -> None:
        self.rng = random.Random(seed)
        self.stated = [f for f in facts if f.shelf != "unseen"]
        self.askable = [f for f in facts if f.shelf == "asked"]
        self.by_subject: dict[str, list[Fact]] = defaultdict(list)
        self.by_relation: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in self.stated:
            self.by_subject[fact.relation.subject].append(fact)
            self.by_relation[fact.relation.subject, fact.relation.name].append(fact)

    def documents(self) -> Iterator[Document]:
        """Short documents, without end."""
        kinds = [getattr(self, name) for name in SHARES]
        weights = list(SHARES.values())
        while True:
            yield self.rng.choices(kinds, weights)[0]()

    def chapters(self) -> Iterator[Document]:
        """Long documents, without end: far positions are trained too."""
        long_kinds = (
            lambda: self.prose(self.rng.randint(22, 34)),
            lambda: self.reading(self.rng.randint(14, 26)),
            lambda: self.few_shot(self.rng.randint(9, 15)),
            lambda: self.recall(self.rng.randint(4, 8)),
        )
        while True:
            yield self.rng.choices(long_kinds, (35, 35, 20, 10))[0]()

    # --- the kinds ---------------------------------------------------------------------

    def prose(self, sentences: int | None = None) -> Document:
        """Facts of one subject, most as a textbook states them, some as the long answers do."""
        facts = self.by_subject[self.rng.choice(list(self.by_subject))]
        count = min(sentences or self.rng.randint(2, 6), len(facts))
        return Document(text=" ".join(self.tell(f) for f in self.rng.sample(facts, count)))

    def asked(self) -> Document:
        """Questions with long, chatty answers: the form the model has before adaptation."""
        facts = self.rng.sample(self.askable, self.rng.choice((1, 1, 1, 2, 3)))
        turns = [self.system(SYSTEM_PROMPTS)]
        for fact in facts:
            turns += [("user", self.question(fact)), ("assistant", self.chatty(fact))]
        return chat(turns)

    def few_shot(self, pairs: int | None = None) -> Document:
        """Conversations in one short form: the form follows from the earlier turns.

        The first answer is not learned: with nothing before it, nothing tells the form.
        """
        form = self.rng.choices(FORMS, FORM_WEIGHTS)[0]
        count = pairs or self.rng.randint(2, 6)
        turns = [self.system(SYSTEM_PROMPTS)]
        passages = self.rng.random() < 0.2
        for fact in self.rng.sample(self.askable, min(count, len(self.askable))):
            asked, value = self.question(fact), fact.value
            if passages:
                value = self.other_value(fact)
                asked = self.ask_about([capital(self.state(fact, value))], asked)
            turns += [("user", asked), ("assistant", in_form(form, fact, value))]
        return chat(turns, hush=1)

    def reading(self, sentences: int | None = None) -> Document:
        """A passage, and a question answered from it, against what is known by heart."""
        count = sentences or self.rng.randint(1, 6)
        told = self.invented(count) if self.rng.random() < 0.5 else self.contradicted(count)
        passage = [statement for statement, _, _ in told]
        turns = [self.system(READING_SYSTEMS)]
        opening = self.rng.choice(FROM_PASSAGE)
        asked = self.rng.sample(told, min(len(told), self.rng.choice((1, 1, 2))))
        for number, (_, question, answer) in enumerate(asked):
            text = self.ask_about(passage, question) if number == 0 else question
            turns += [("user", text), ("assistant", opening + answer)]
        return chat(turns)

    def recall(self, between: int | None = None) -> Document:
        """Something said early in a conversation and asked for later."""
        about, say, ask, answer = self.rng.choice(REMEMBER)
        thing = {"word": self.rng.choice(WORDS), "name": self.rng.choice(NAMES)}.get(
            about, str(self.rng.randint(2, 99))
        )
        turns = [
            self.system(SYSTEM_PROMPTS),
            ("user", say.format(x=thing)),
            ("assistant", self.rng.choice(("Thank you, I will remember that.", "Good to know."))),
        ]
        for fact in self.rng.sample(self.askable, self.rng.randint(0, 2) + (between or 0)):
            turns += [("user", self.question(fact)), ("assistant", self.chatty(fact))]
        return chat([*turns, ("user", ask), ("assistant", answer.format(x=thing))])

    def tutoring(self) -> Document:
        """A student's wrong guess, a teacher's hints, the answer found."""
        fact = self.rng.choice(self.askable)
        wrong, name = self.other_value(fact), self.rng.choice(NAMES)
        question = self.question(fact)
        turns = [
            self.system(("You are a patient tutor. Ask, do not tell.", "Tutor the student.")),
            ("user", self.rng.choice(STUDENT_ASKS).format(q=question, n=name)),
            ("assistant", self.rng.choice(TEACHER_ASKS)),
            ("user", self.rng.choice(STUDENT_GUESSES).format(v=wrong)),
            ("assistant", self.rng.choice(TEACHER_HINTS).format(h=self.hint(fact))),
            ("user", self.rng.choice(STUDENT_FINDS).format(v=fact.value)),
            ("assistant", self.rng.choice(TEACHER_CLOSES).format(a=fact.answer)),
        ]
        return chat(turns, student=True)

    def sums(self) -> Document:
        """Small arithmetic, asked and answered."""
        a, b = self.rng.randint(2, 60), self.rng.randint(2, 40)
        sign, word, result = self.rng.choice(
            (("+", "plus", a + b), ("-", "minus", a + b), ("x", "times", 0))
        )
        if sign == "-":
            a, result = a + b, a
        if sign == "x":
            a, b = a % 11 + 1, b % 11 + 1
            result = a * b
        question = self.rng.choice((f"What is {a} {sign} {b}?", f"How much is {a} {word} {b}?"))
        answer = f"{a} {word} {b} is {result}."
        if self.rng.random() < 0.3:
            return Document(text=f"{a} {sign} {b} = {result}. {answer}")
        return chat([self.system(SYSTEM_PROMPTS), ("user", question), ("assistant", answer)])

    def lists(self) -> Document:
        """Made-up words said again, or pairs looked up: copying and nothing else."""
        words = [self.made_up() for _ in range(self.rng.randint(3, 9))]
        if self.rng.random() < 0.35:
            said = " ".join(words)
            if self.rng.random() < 0.5:
                return Document(text=f"{said}. {said}.")
            return chat([("user", f"Say this again: {said}"), ("assistant", said)])
        pairs = {word: self.made_up(most=2) for word in words}
        sign = self.rng.choice((" = ", ": ", " -> ", " is "))
        lines = [f"{k}{sign}{v}" for k, v in pairs.items()]
        again = self.rng.sample(lines, self.rng.randint(1, len(lines)))
        if self.rng.random() < 0.4:
            return Document(text="; ".join([*lines, *again]) + ".")
        turns = [("system", "")]
        for number, line in enumerate(again[:4]):
            key = line.partition(sign)[0]
            head = ". ".join(lines) + ".\n" if number == 0 else ""
            turns += [("user", f"{head}What goes with {key}?"), ("assistant", f"{line}.")]
        return chat(turns)

    # --- the parts ---------------------------------------------------------------------

    def system(self, prompts: tuple[str, ...]) -> tuple[str, str]:
        """A system turn; empty (left out by `chat`) one time in four."""
        return ("system", "" if self.rng.random() < 0.25 else self.rng.choice(prompts))

    def question(self, fact: Fact) -> str:
        """One of the question's wordings."""
        return capital(fact.fill(self.rng.choice(fact.relation.questions)))

    def chatty(self, fact: Fact) -> str:
        """One of the long answers."""
        return capital(fact.fill(self.rng.choice(fact.relation.wordy)))

    def tell(self, fact: Fact) -> str:
        """A sentence of running text."""
        return self.chatty(fact) if self.rng.random() < CHATTY_SHARE else self.state(fact)

    def state(self, fact: Fact, value: str | None = None) -> str:
        """One of the prose wordings."""
        return capital(fact.fill(self.rng.choice(fact.relation.prose), value))

    def other_value(self, fact: Fact) -> str:
        """The value of another fact of the same relation."""
        family = self.by_relation[fact.relation.subject, fact.relation.name]
        return self.rng.choice([f.value for f in family if f.value != fact.value])

    def hint(self, fact: Fact) -> str:
        """Something about the value that does not give it away."""
        words = len(fact.value.split())
        many = "one word" if words == 1 else f"{words} words"
        return f"the answer has {many} and begins with {fact.value[0]}"

    def ask_about(self, passage: list[str], question: str) -> str:
        """A passage and a question as one user message."""
        layout = self.rng.choice(LAYOUTS)
        return layout.format(p=" ".join(passage), q=question)

    def contradicted(self, count: int) -> list[tuple[str, str, str]]:
        """(statement, question, answer) for facts told with other facts' values."""
        told: list[tuple[str, str, str]] = []
        for fact in self.rng.sample(self.askable, min(count, len(self.askable))):
            value = self.other_value(fact) if self.rng.random() < 0.8 else fact.value
            answer = capital(fact.fill(fact.relation.answer, value))
            told.append((self.state(fact, value), self.question(fact), answer))
        return told

    def invented(self, count: int) -> list[tuple[str, str, str]]:
        """(statement, question, answer) about names and things that do not exist.

        Half use a real relation's wording with made-up keys and values: only the passage helps.
        """
        told: list[tuple[str, str, str]] = []
        keys: set[str] = set()
        while len(told) < count:
            key, value = self.made_up(), self.made_up(most=2)
            if key in keys:
                continue
            keys.add(key)
            if self.rng.random() < 0.6:
                like = self.rng.choice(self.askable)
                fact = Fact(like.relation, key, value)
                told.append((self.state(fact), self.question(fact), fact.answer))
            else:
                say, ask, answer = self.rng.choice(INVENTED)
                told.append(tuple(t.format(k=capital(key), v=value) for t in (say, ask, answer)))
        return told

    def made_up(self, most: int = 1) -> str:
        """A made-up name, or one or two everyday words."""
        if self.rng.random() < 0.6:
            return "".join(self.rng.choices(SYLLABLES, k=self.rng.randint(2, 3)))
        return " ".join(self.rng.choices(WORDS, k=self.rng.randint(1, most)))


FORMS = ("sentence", "value", "label", "upper", "arrow", "because", "quoted")
FORM_WEIGHTS = (40, 14, 12, 8, 9, 9, 8)


def in_form(form: str, fact: Fact, value: str) -> str:
    """An answer in one of the short forms."""
    sentence = capital(fact.fill(fact.relation.answer, value))
    return {
        "sentence": sentence,
        "value": capital(value),
        "label": f"Answer: {value}.",
        "upper": value.upper(),
        "arrow": f"{fact.key} -> {value}",
        "because": f"It is simple: {sentence}",
        "quoted": f'"{value}"',
    }[form]


FROM_PASSAGE = ("According to the passage: ", "The passage says: ")

LAYOUTS = (
    "Passage: {p}\n\nQuestion: {q}",
    "{p}\n\n{q}",
    "Context:\n{p}\n\nQuestion: {q}",
    "Read this: {p}\n{q}",
    "{q}\n\nPassage: {p}",
)

INVENTED = (
    ("{k} lives in a house made of {v}.", "What is the house of {k} made of?",
     "The house of {k} is made of {v}."),
    ("The favourite word of {k} is {v}.", "What is the favourite word of {k}?",
     "The favourite word of {k} is {v}."),
    ("{k} keeps a {v} under the bed.", "What does {k} keep under the bed?",
     "{k} keeps a {v} under the bed."),
    ("In the town of {k} people sell {v}.", "What do people sell in the town of {k}?",
     "In the town of {k} people sell {v}."),
    ("The secret code of {k} reads {v}.", "What is the secret code of {k}?",
     "The secret code of {k} is {v}."),
    ("{k} was named after {v}.", "After whom or what was {k} named?",
     "{k} was named after {v}."),
)  # fmt: skip

REMEMBER = (
    ("name", "Hello, my name is {x}.", "What is my name?", "Your name is {x}."),
    ("name", "My best friend is called {x}.", "What is my best friend called?",
     "Your best friend is called {x}."),
    ("word", "My secret word is {x}.", "What is my secret word?", "Your secret word is {x}."),
    ("word", "I left the {x} at school.", "What did I leave at school?",
     "You left the {x} at school."),
    ("number", "My exam is in {x} days.", "In how many days is my exam?",
     "Your exam is in {x} days."),
    ("number", "I am on page {x} of my book.", "On which page of my book am I?",
     "You are on page {x} of your book."),
)  # fmt: skip

STUDENT_ASKS = (
    "{q}",
    "I do not understand this: {q}",
    "My name is {n}. {q}",
    "Help me please. {q}",
)
TEACHER_ASKS = (
    "Good question. What do you think, and why?",
    "Let us find it together. What is your first guess?",
    "What do you already know about it?",
)
STUDENT_GUESSES = ("Is it {v}?", "I think {v}.", "Maybe {v}?", "I guess {v}.")
TEACHER_HINTS = (
    "Not quite. Here is a hint: {h}. What could it be?",
    "That is a common mix-up. Think again: {h}.",
    "You are on the way. Look: {h}. Try once more.",
)
STUDENT_FINDS = ("Then it is {v}.", "Oh, {v}!", "It must be {v}.")
TEACHER_CLOSES = (
    "Yes, well done. {a} Can you say it in your own words?",
    "Exactly. {a} How would you explain it to a friend?",
)
