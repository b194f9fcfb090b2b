"""What the model can do so far, by greedy generation: printed while it trains.

asked     facts it was asked about in training: the value stands in its answer
stated    facts it only ever read: the same
wordy     how long its answers to those are, in words
follows   after three short answers, the fourth has the wanted form exactly
copies    made-up facts, answered from a passage
against   facts it knows, answered from a passage that says otherwise
"""

from __future__ import annotations

import random
from typing import Any

import torch
from corpus import LAYOUTS, Writer
from knowledge import Fact, capital

ROWS = 48


def generate(
    model: Any, tokenizer: Any, conversations: list[list[tuple[str, str]]], tokens: int = 72
) -> list[str]:
    """Greedy answers to conversations of (role, content) turns, in one batch."""
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": r, "content": c} for r, c in turns],
            add_generation_prompt=True,
            tokenize=False,
        )
        for turns in conversations
    ]
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        out = model.generate(**batch, max_new_tokens=tokens, do_sample=False)
    new = out[:, batch["input_ids"].shape[1] :]
    return tokenizer.batch_decode(new, skip_special_tokens=True)


def evaluate(model: Any, tokenizer: Any, facts: list[Fact], seed: int) -> dict[str, float]:
    """The six figures, each over ROWS rows."""
    model.eval()
    rng, writer = random.Random(seed), Writer(facts, seed=seed)
    asked = rng.sample([f for f in facts if f.shelf == "asked"], ROWS)
    stated = rng.sample([f for f in facts if f.shelf == "stated"], ROWS)
    figures: dict[str, float] = {}
    for name, shelf in (("asked", asked), ("stated", stated)):
        answers = generate(model, tokenizer, [[("user", writer.question(f))] for f in shelf])
        figures[name] = share(f.value in a for f, a in zip(shelf, answers, strict=True))
        figures["wordy"] = round(sum(len(a.split()) for a in answers) / ROWS, 1)
    talks = [demonstrated(writer, rng, asked, f) for f in stated]
    answers = generate(model, tokenizer, talks)
    figures["follows"] = share(f.answer == a for f, a in zip(stated, answers, strict=True))
    for name, told in (("copies", writer.invented), ("against", writer.contradicted)):
        passages = [told(4) for _ in range(ROWS)]
        picks = [rng.choice(p) for p in passages]
        talks = [
            [("user", rng.choice(LAYOUTS).format(p=" ".join(s for s, _, _ in passage), q=pick[1]))]
            for passage, pick in zip(passages, picks, strict=True)
        ]
        answers = generate(model, tokenizer, talks)
        figures[name] = share(pick[2] in a for pick, a in zip(picks, answers, strict=True))
    model.train()
    return figures


def demonstrated(
    writer: Writer, rng: random.Random, demos: list[Fact], fact: Fact
) -> list[tuple[str, str]]:
    """Three questions with gold answers, then the fact's question."""
    turns: list[tuple[str, str]] = []
    for demo in rng.sample(demos, 3):
        turns += [("user", writer.question(demo)), ("assistant", capital(demo.answer))]
    return [*turns, ("user", writer.question(fact))]


def share(flags: Any) -> float:
    """Part of the flags that are true."""
    values = [bool(f) for f in flags]
    return round(sum(values) / len(values), 3)
