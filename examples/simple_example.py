"""Three classic ways to adapt a model, played through on five questions.

    python examples/simple_example.py

The model is a table of word counts: it has read a few sentences and answers a question with the
six words that go best with the words of the prompt (in no order: it has no grammar). Small as it
is, every number printed is computed while you wait. It has met the facts, but it likes to chat;
the five pairs want one plain sentence. Each approach mends that in another place:

    prompt optimization   the model stays, the text before the question changes
    cloud fine-tuning     all weights change, on somebody else's machine
    local LoRA            the weights stay, a small correction beside them is learned

Standard library only; runs on Python 3.8 and later. Nothing is sent anywhere.
"""

import collections
import copy
import json
import math
import random
import re
import sys
from pathlib import Path

TASKS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks"
PAIRS, TEXTBOOK = TASKS / "small_edu_qa.jsonl", TASKS / "textbook.md"
PLAIN = "Answer the question."  # the prompt before anything is optimized
INSTRUCTIONS = (PLAIN, "Chat message:", "Textbook sentence:", "Short textbook sentence:")
ANSWER_WORDS, SHARPNESS, EPOCHS, RANK = 6, 3.0, 20, 2
FULL_RATE, LORA_RATE = 10.0, 1.0  # step sizes, set by hand with these pairs in view


def background(rows):
    """What the model has read, as (place, sentence): the textbook's sentence on each pair and
    the two beside it, once as they stand there, and once as people chat."""
    lines = [line for line in TEXTBOOK.read_text(encoding="utf-8").splitlines() if line]
    read = []
    for row in rows:
        keys = (row["group"].split("/")[-1].replace("_", " ").lower(), row["key_answer"].lower())
        at = [i for i, line in enumerate(lines) if all(key in line.lower() for key in keys)]
        if not at:
            sys.exit(f"{TEXTBOOK} has no sentence with {keys[0]!r} and {keys[1]!r}")
        for line in lines[at[0] - 1 : at[0] + 2]:
            if not line.startswith("#"):
                read.append(("short textbook sentence", line))
                read.append(("long chat message", "Well, you know, I guess " + line))
    return read


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def token_f1(got, wanted):
    """SQuAD's score between 0 and 1: the words two texts share, articles left out."""
    a, b = ([w for w in words(t) if w not in ("a", "an", "the")] for t in (got, wanted))
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def mean(values):
    return sum(values) / len(values)


class WordCounts:
    """weights[q][a]: is the word a more usual in sentences with the word q than elsewhere?

    q may also be where the sentence stood. A word's score is the mean over the prompt's words.
    """

    def __init__(self, read):
        texts = [(set(words(place + " " + s)), set(words(s))) for place, s in read]
        self.inputs = sorted(set(words(PLAIN)).union(*(whole for whole, _ in texts)))
        self.outputs = sorted(set().union(*(sentence for _, sentence in texts)))
        usual = {a: mean([a in sentence for _, sentence in texts]) for a in self.outputs}
        self.weights = {q: {} for q in self.inputs}
        for q in self.inputs:
            near = [sentence for whole, sentence in texts if q in whole]
            for a in self.outputs:
                share = (sum(a in s for s in near) + usual[a] / 2) / (len(near) + 1 / 2)
                self.weights[q][a] = SHARPNESS * (math.log(share) - math.log(usual[a]) / 2)

    def read(self, prompt):
        """The share of each word in the prompt; words the model never met are skipped."""
        known = collections.Counter(w for w in words(prompt) if w in self.weights)
        return {w: n / sum(known.values()) for w, n in known.items()}

    def scores(self, shares, correction=None):
        """One number for each word of an answer; a correction adds its own."""
        more = correction.scores(shares) if correction else dict.fromkeys(self.outputs, 0.0)
        own = {a: sum(x * self.weights[q][a] for q, x in shares.items()) for a in self.outputs}
        return {a: own[a] + more[a] for a in self.outputs}

    def answer(self, prompt, correction=None):
        scores = self.scores(self.read(prompt), correction)
        return " ".join(sorted(scores, key=lambda a: -scores[a])[:ANSWER_WORDS])

    def plain_answer(self, question, correction=None):
        return self.answer(PLAIN + " " + question, correction)


class FullCorrection:
    """A number of its own for each pair of words: every weight may change."""

    def __init__(self, model):
        self.delta = {q: dict.fromkeys(model.outputs, 0.0) for q in model.inputs}
        self.outputs, self.parameters = model.outputs, len(model.inputs) * len(model.outputs)

    def scores(self, shares):
        return {a: sum(x * self.delta[q][a] for q, x in shares.items()) for a in self.outputs}

    def step(self, shares, gradient, rate):
        for q, x in shares.items():
            for a, g in gradient.items():
                self.delta[q][a] -= rate * x * g


class LowRankCorrection:
    """LoRA: the change is the product A B, RANK numbers for each word on either side.

    A starts at random and B at zero, so that training begins exactly at the base model.
    """

    def __init__(self, model, rank=RANK, seed=0):
        draw = random.Random(seed)
        self.a = {q: [draw.gauss(0, 1) for _ in range(rank)] for q in model.inputs}
        self.b = {w: [0.0] * rank for w in model.outputs}
        self.rank, self.parameters = rank, rank * (len(self.a) + len(self.b))

    def inner(self, shares):
        return [sum(x * self.a[q][r] for q, x in shares.items()) for r in range(self.rank)]

    def scores(self, shares):
        u = self.inner(shares)
        return {w: sum(s * t for s, t in zip(u, b)) for w, b in self.b.items()}

    def step(self, shares, gradient, rate):
        u = self.inner(shares)
        v = [sum(g * self.b[w][r] for w, g in gradient.items()) for r in range(self.rank)]
        for q, x in shares.items():
            self.a[q] = [s - rate * x * t for s, t in zip(self.a[q], v)]
        for w, g in gradient.items():
            self.b[w] = [s - rate * g * t for s, t in zip(self.b[w], u)]


def train(model, pairs, correction, rate):
    """Plain gradient descent, one pair at a time. Returns the mean loss of each epoch.

    The loss: minus the mean log-probability (softmax of the scores) of the gold answer's words
    that the model knows; its gradient is probability minus target.
    """
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for question, gold in pairs:
            shares = model.read(PLAIN + " " + question)
            scores = model.scores(shares, correction)
            norm = math.log(sum(math.exp(s) for s in scores.values()))
            target = collections.Counter(w for w in words(gold) if w in scores)
            size = sum(target.values())
            total += sum(n * (norm - scores[w]) for w, n in target.items()) / size
            gradient = {a: math.exp(s - norm) - target[a] / size for a, s in scores.items()}
            correction.step(shares, gradient, rate)
        losses.append(total / len(pairs))
    return losses


# Each approach below sees some pairs. It gives back a function from question to answer, and what
# it cost: updates, parameters trained, tokens billed (words stand for them), and a note.


def prompt_optimization(model, pairs):
    """Try every prompt, with and without a demonstration, on the pairs at hand; keep the best."""
    billed, best, chosen = 0, -1.0, ""
    for demo in ((), pairs[0]):
        for instruction in INSTRUCTIONS:
            prompt, scores = " ".join((instruction,) + demo), []
            for question, gold in pairs[1:] if demo else pairs:  # never graded on its own demo
                answer = model.answer(prompt + " " + question)
                billed += len(words(prompt + " " + question)) + len(words(answer))
                scores.append(token_f1(answer, gold))
            if mean(scores) > best:
                best, chosen = mean(scores), prompt
    return (lambda q: model.answer(chosen + " " + q)), (0, 0, billed, "chose: " + chosen)


def cloud_fine_tuning(model, pairs):
    """What a provider does with uploaded rows; here the same learner, with all weights free."""
    correction = FullCorrection(model)
    losses = train(model, pairs, correction, FULL_RATE)
    billed = EPOCHS * sum(len(words(PLAIN + " " + q + " " + a)) for q, a in pairs)
    note = "; ".join(f"epoch {e} loss {losses[e - 1]:.2f}" for e in (1, EPOCHS // 2, EPOCHS))
    cost = (EPOCHS * len(pairs), correction.parameters, billed, "events: " + note)
    return (lambda q: model.plain_answer(q, correction)), cost


def local_lora(model, pairs):
    """The weights stand still; a low-rank correction beside them is trained."""
    correction, before = LowRankCorrection(model), copy.deepcopy(model.weights)
    losses = train(model, pairs, correction, LORA_RATE)
    frozen = "base weights untouched" if model.weights == before else "base weights CHANGED"
    note = f"loss {losses[0]:.2f} to {losses[-1]:.2f}, {frozen}"
    cost = (EPOCHS * len(pairs), correction.parameters, 0, note)
    return (lambda q: model.plain_answer(q, correction)), cost


def show(score, *lines):
    print(f"  {score:.2f}  " + "\n        ".join(lines))


def leave_one_out(model, pairs, approach):
    """Each pair is answered by a model that was adapted on the other pairs only."""
    rounds = []
    for i, (question, gold) in enumerate(pairs):
        ask, (*cost, note) = approach(model, pairs[:i] + pairs[i + 1 :])
        before, after = (token_f1(f(question), gold) for f in (model.plain_answer, ask))
        show(after, question, ask(question), note)
        rounds.append((before, after, *cost))
    before, after, updates, parameters, billed = zip(*rounds)
    return mean(before), mean(after), sum(updates), parameters[0], sum(billed)


def main():
    try:
        rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
        model = WordCounts(background(rows))
    except OSError as error:
        sys.exit(f"cannot read tunelm's tasks ({error}): run this file inside the repository")
    pairs = [(row["question"], row["answer"]) for row in rows]
    print(f"The base model, prompted with {PLAIN!r} (token-F1, question, gold, answer):")
    for question, gold in pairs:
        answer = model.plain_answer(question)
        show(token_f1(answer, gold), question, gold, answer)
    print("\n== prompt optimization: each pair is answered with the prompt the others chose ==")
    table = [("prompt optimization", *leave_one_out(model, pairs, prompt_optimization))]
    print("\n== cloud fine-tuning: 1. upload, 2. job, 3. events, 4. result ==")
    print("The file, in OpenAI's chat format (a round leaves out its own line). NOTHING IS SENT:")
    for pair in pairs:
        chat = zip(("system", "user", "assistant"), (PLAIN, *pair))
        print("  " + json.dumps({"messages": [{"role": r, "content": c} for r, c in chat]}))
    print(f"The job: that file, a base model, {EPOCHS} epochs. (OpenAI wants ten rows or more.)")
    print("Its events and its result, computed on the spot:")
    table.append(("cloud fine-tuning", *leave_one_out(model, pairs, cloud_fine_tuning)))
    print(f"\n== local LoRA: W is frozen, W + A B answers, only A and B (rank {RANK}) learn ==")
    table.append(("local LoRA", *leave_one_out(model, pairs, local_lora)))
    print(f"\n== comparison: mean token-F1 of held-out pairs; sums over {len(pairs)} rounds ==")
    print("approach              before   after  updates  parameters  tokens billed")
    for name, before, after, updates, parameters, billed in table:
        print(f"{name:20} {before:7.3f} {after:7.3f} {updates:8} {parameters:11} {billed:14}")
    print("(Parameters of one round; words stand for tokens. LoRA costs your machine's time.)")
    print(f"\n{len(pairs)} pairs prove nothing: one answer moves a mean by up to {1 / len(pairs)};")
    print("and F1 pays for form as for facts. On hundreds of rows, with intervals: tunelm compare")


if __name__ == "__main__":
    main()
