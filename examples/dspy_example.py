"""Prompt optimization by hand with DSPy, in six steps; offline on the bundled model.

python examples/dspy_example.py [--model TARGET] [--rows N]
"""

import argparse
import json
import tempfile
from pathlib import Path

import dspy
import numpy as np

import tunelm
from tunelm.routes.programs.door import TextAdapter, dspy_lm
from tunelm.routes.programs.quiet import quiet
from tunelm.scoring.statistics import paired
from tunelm.scoring.text import token_f1

ROWS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "edu_qa.jsonl"


class EducationalQA(dspy.Signature):
    """Answer the student's question in one or two sentences."""

    question: str = dspy.InputField()
    answer: str = dspy.OutputField()


class EducationalQAModel(dspy.Module):
    """A question in, an answer out: the program that is optimized."""

    def __init__(self):
        super().__init__()
        self.generate = dspy.Predict(EducationalQA)

    def forward(self, question):
        return self.generate(question=question)


def read_rows(wanted):
    """Train, dev and test examples: all rows of one fact, a group, stand on one side."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    groups = {group: i for i, group in enumerate(sorted({row["group"] for row in rows}))}
    parts = {"train": [], "dev": [], "test": []}
    for row in rows:
        example = dspy.Example(row, gold=row["answer"]).with_inputs("question")
        parts[("train", "dev", "test")[groups[row["group"]] % 3]].append(example)
    return parts["train"], parts["dev"][:32], parts["test"][:wanted]


def metric(example, prediction, trace=None):
    """SQuAD F1 of the words, from 0 to 1; while bootstrapping, whether it is good enough."""
    value = token_f1(prediction.answer, example.gold)
    return value if trace is None else value >= 0.9


def score(program, rows):
    """The metric of each row; a question that fails has no answer, and counts as wrong."""
    runs = dspy.Parallel(num_threads=16, max_errors=10**6)
    with quiet():
        answers = runs([(program, row.inputs()) for row in rows])
    return [
        0.0 if got is None else metric(row, got) for row, got in zip(rows, answers, strict=True)
    ]


def main():
    parser = argparse.ArgumentParser(description="Prompt optimization by hand, in six steps.")
    parser.add_argument("--model", default="tunelm-nano", help="what `tunelm.load` opens")
    parser.add_argument("--rows", type=int, default=120, help="held-out questions to score")
    arguments = parser.parse_args()
    print("\n== Step 1: environment and data ==")
    train, dev, test = read_rows(arguments.rows)
    print(f"DSPy {dspy.__version__}; {len(train)} train, {len(dev)} dev, {len(test)} test rows")

    print("\n== Step 2: format ==")
    lm = dspy_lm(tunelm.load(arguments.model))
    dspy.configure(lm=lm, adapter=TextAdapter())
    print(TextAdapter().format(EducationalQA, [], test[0].inputs()))

    print("\n== Step 3: model ==")
    program = EducationalQAModel()
    print(f"{lm.engine.model.name} in an EducationalQAModel")

    print("\n== Step 4: optimization ==")
    with quiet():
        optimizer = dspy.BootstrapFewShotWithRandomSearch(
            metric=metric, max_bootstrapped_demos=3, max_labeled_demos=3, num_candidate_programs=1,
            num_threads=16, max_errors=10**6,  # DSPy would end at the tenth row that fails
        )  # fmt: skip
        optimized = optimizer.compile(program, trainset=train[:60], valset=dev)  # never test rows
    usage = lm.engine.usage
    print(
        f"{len(optimized.generate.demos)} demonstrations after {lm.engine.made} calls with "
        f"{usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
    )

    print("\n== Step 5: inference ==")
    with tempfile.TemporaryDirectory() as folder:
        optimized.save(Path(folder) / "program.json")  # JSON; no key, no pickle
        again = EducationalQAModel()
        again.load(Path(folder) / "program.json")
    question = "What is the capital of Canada?"
    print(f"{question} {again(question=question).answer}")

    print("\n== Step 6: comparison ==")
    before, after = (
        np.column_stack([score(p, test), np.ones(len(test))]) for p in (program, again)
    )
    found = paired(after, before, [row.group for row in test])
    print(
        f"F1 {100 * before.mean(0)[0]:.1f} before, {100 * after.mean(0)[0]:.1f} after: "
        f"{100 * found.diff:+.1f} points (95% interval {100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}, {len(test)} rows)"
    )


if __name__ == "__main__":
    main()
