"""EducationalQAModel made better step by step, each step scored on the same sealed test rows.

python examples/dspy_enhanced.py [--rows N]

The answer alone, then chain of thought, retrieval, few-shot, and structured steps. Whether a step
helps depends on the model: the bundled one is too small to reason, and says so by its scores.
"""

import argparse
from pathlib import Path

import dspy
import numpy as np
from dspy_example import EducationalQA, read_rows, score

import tunelm
from tunelm.retrieval.chunks import read_corpus
from tunelm.retrieval.lexical import Bm25
from tunelm.routes.programs.door import TextAdapter, dspy_lm
from tunelm.scoring.statistics import interval, paired

TEXTBOOK = Path(tunelm.__file__).parent / "tasks" / "textbook.md"
FEW, SHOWN = 3, 3


class WithPassages(dspy.Signature):
    """Answer the student's question in one or two sentences."""

    passage: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class Topic(dspy.Signature):
    """Name what the student's question is about, in a few words."""

    question: str = dspy.InputField()
    topic: str = dspy.OutputField()


class EducationalQAModel(dspy.Module):
    """The program of dspy_example.py, with what has been added to it.

    reason: chain of thought, in the same call. search: a function from text to passages, which
    are put before the question. steps: first name the topic in a call of its own, and search for
    the topic as well.
    """

    def __init__(self, reason=False, search=None, steps=False):
        super().__init__()
        signature = WithPassages if search else EducationalQA
        self.topic = dspy.Predict(Topic) if steps else None
        self.generate = dspy.ChainOfThought(signature) if reason else dspy.Predict(signature)
        self.search = search

    def forward(self, question):
        if self.search is None:
            return self.generate(question=question)
        topic = self.topic(question=question).topic if self.topic else ""
        return self.generate(passage=self.search(f"{question} {topic}"), question=question)


def textbook_search():
    """A function that finds the SHOWN best passages of the bundled textbook."""
    passages = read_corpus(TEXTBOOK, most_words=80, overlap=15).passages
    index = Bm25([passage.searched for passage in passages])

    def search(text):
        hits = index.search([text], SHOWN)[0]
        return "\n".join(f"[{n}] {passages[hit.index].text}" for n, hit in enumerate(hits, 1))

    return search


def few_shot(program, train):
    """The program with FEW gold demonstrations, each with the passages it would be shown."""
    rows = [row for i, row in enumerate(train) if i % 50 == 0][:FEW]
    if program.search:
        rows = [row.copy(passage=program.search(row.question)) for row in rows]
    program.generate.demos = rows
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=120, help="held-out questions to score")
    rows = parser.parse_args().rows
    train, _, test = read_rows(rows)
    dspy.configure(lm=dspy_lm(tunelm.load("tunelm-nano")), adapter=TextAdapter())
    search = textbook_search()
    programs = {
        "answer alone": EducationalQAModel(),
        "+ chain of thought": EducationalQAModel(reason=True),
        "+ retrieval": EducationalQAModel(search=search),
        "+ few-shot": few_shot(EducationalQAModel(search=search), train),
        "+ structured steps": few_shot(EducationalQAModel(search=search, steps=True), train),
    }
    groups = [row.group for row in test]
    print(f"F1 on {len(test)} test rows in {len(set(groups))} groups, with 95% intervals")
    first = None
    for name, program in programs.items():
        values = np.column_stack([score(program, test), np.ones(len(test))])
        found = interval(values, groups, scale=1.0)
        text = (
            f"{name:20} {100 * found.value:5.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
        )
        first = values if first is None else first
        if first is not values:
            diff = paired(values, first, groups)
            text += f"   {100 * diff.diff:+.1f} ({100 * diff.low:+.1f} to {100 * diff.high:+.1f})"
        print(f"{text}{'' if first is values else ' against the answer alone'}", flush=True)


if __name__ == "__main__":
    main()
