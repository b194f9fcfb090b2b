"""A fact said early in a conversation, pinned by nobody: is it still in the prompt, and used?

A conversation on school subjects opens with one planted fact ("My exam is in 17 days."), goes on
for `depth` pairs of question and answer, and then asks for it. The prompt may have `--limit`
tokens of the model's own tokenizer. Two things are counted apart, for each policy and depth: the
fact is in the prompt that was sent, and the answer holds it. `scripted` is a model that answers
right if and only if the fact is in its prompt: what a perfect reader could do. `pinned` is the
control: the same with the fact pinned. The turns between hold figures and names too, so a summary
has to choose. One kind of fact in five has nothing that the summary by rule looks for.

    python benchmarks/history.py                 # about two minutes on one core
    python benchmarks/history.py --facts 4       # a look
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

import tunelm
from tunelm.data.read import read_rows
from tunelm.models.base import ChatModel
from tunelm.scoring.text import contains
from tunelm.testing import ScriptedModel
from tunelm.tutor.history import POLICIES, Budget, Fitted, History, budget_of, fit_history
from tunelm.types import Message, Request

SYSTEM = Message("system", "You are a helpful teacher.")
DEPTHS = (1, 2, 5, 10, 20, 40)
FACTS = (
    ("My name is {x}.", "What is my name?", ("Carla", "Omar", "Ingrid", "Tomas", "Mina")),
    ("My secret word is {x}.", "What is my secret word?",
     ("lantern", "walnut", "copper", "harbor", "velvet")),
    ("My exam is in {x} days.", "In how many days is my exam?", ("17", "23", "41", "58", "86")),
    ("I am on page {x} of my book.", "On which page of my book am I?",
     ("19", "37", "44", "62", "93")),
    ("There is a {x} in the bag.", "What is in the bag?",
     ("kettle", "mirror", "ribbon", "compass", "candle")),
)  # fmt: skip
ROWS = Path(tunelm.__file__).parent / "tasks" / "edu_qa.jsonl"


def main() -> None:
    """Print a table; `--out` also writes it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", default=320, type=int, help="tokens of a prompt")
    parser.add_argument("--facts", default=20, type=int, help="planted facts for each cell")
    parser.add_argument("--model", default="tunelm-nano")
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    model = tunelm.load(args.model)
    room = budget_of(model, 24)
    budget = Budget(min(args.limit, room.limit), room.count, room.how)
    rows = cells(model, budget, args.facts, args.seed)
    seconds = time.perf_counter() - began
    show(rows, budget, args.model, seconds)
    if args.out:
        found = {"limit": budget.limit, "counted": budget.how, "seconds": seconds, "rows": rows}
        args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def cells(model: ChatModel, budget: Budget, facts: int, seed: int) -> list[dict[str, Any]]:
    """A row for each policy and depth."""
    answered = [(r.example.question, r.example.answers[0]) for r in read_rows(ROWS)]
    rows: list[dict[str, Any]] = []
    for policy in (*POLICIES, "pinned"):
        for depth in DEPTHS:
            planted = [plant(i, depth, answered, seed) for i in range(facts)]
            fitted = [fit(talk, said, policy, budget) for talk, said, _ in planted]
            asked = [Request(f.messages, 24) for f in fitted]
            values = [value for _, _, value in planted]
            facts_said = [said for _, said, _ in planted]
            rows.append(
                {
                    "policy": policy,
                    "depth": depth,
                    "n": facts,
                    "in_prompt": sum(map(holds, (r.messages for r in asked), facts_said)),
                    "scripted": right(reader(planted), asked, values),
                    "model": right(model, asked, values),
                    "left_out": sum(len(f.left_out) for f in fitted) / facts,
                    "tokens": sum(f.tokens or 0 for f in fitted) / facts,
                }
            )
    return rows


def plant(
    number: int, depth: int, answered: Sequence[tuple[str, str]], seed: int
) -> tuple[list[Message], str, str]:
    """(a conversation that ends with the question for the fact, the fact, its value)."""
    rng = random.Random(f"{seed}/{number}")  # the same fact and beginning at every depth
    say, ask, values = FACTS[number % len(FACTS)]
    value = values[number // len(FACTS) % len(values)]
    said = say.format(x=value)
    turns = [SYSTEM, Message("user", said), Message("assistant", "Good to know.")]
    others = [pair for pair in answered if not contains(" ".join(pair), value)]
    for question, answer in rng.sample(others, max(DEPTHS))[: depth - 1]:
        turns += [Message("user", question), Message("assistant", answer)]
    return [*turns, Message("user", ask)], said, value


def fit(talk: Sequence[Message], said: str, policy: str, budget: Budget) -> Fitted:
    """The prompt under a policy."""
    if policy == "pinned":
        return fit_history(talk, budget, History(pinned=(said,)))
    return fit_history(talk, budget, History(next(p for p in POLICIES if p == policy)))


def holds(messages: Sequence[Message], said: str) -> bool:
    """Whether the fact is in the prompt, word by word."""
    return any(said in message.content for message in messages)


def reader(planted: Sequence[tuple[list[Message], str, str]]) -> ScriptedModel:
    """A model that knows what is asked for, and says it if it can read it."""
    waiting = iter(planted)

    def answer(request: Request) -> str:
        _, said, value = next(waiting)
        return f"It is {value}." if holds(request.messages, said) else "I do not know."

    return ScriptedModel(answer)


def right(model: ChatModel, asked: Sequence[Request], values: Sequence[str]) -> int:
    """How many answers hold the value; one that failed does not."""
    answers = model.complete(asked)
    return sum(contains(a.text, v) for a, v in zip(answers, values, strict=True))


def show(rows: Sequence[dict[str, Any]], budget: Budget, model: str, seconds: float) -> None:
    """The table: counts of n, and the interval of the last column."""
    print(f"Prompts of at most {budget.limit} tokens, {budget.how}; {seconds:.0f} s.\n")
    heads = ("policy", "depth", "n", "in the prompt", "a perfect reader", model, "95%")
    heads = (*heads, "left out", "tokens")
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for row in rows:
        n = row["n"]
        low, high = binomtest(row["model"], n).proportion_ci(method="wilson")
        cells = (
            row["policy"], row["depth"], n, row["in_prompt"], row["scripted"], row["model"],
            f"{low:.2f} to {high:.2f}", f"{row['left_out']:.1f}", f"{row['tokens']:.0f}",
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
