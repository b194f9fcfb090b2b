"""Three classic ways to adapt a model, played through on five questions.

    python examples/simple_example.py

The model is a table of word counts: small enough to print, and every number below is computed
while you wait. It has read the background sentences and answers a question with the one of them
whose words go best with the words of the prompt. It knows the facts, but it likes to chat; the
five pairs want one plain sentence. Each approach mends that in another place:

    prompt optimization   the model stays, the text before the question changes
    cloud fine-tuning     the weights change, on somebody else's machine
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

PAIRS = Path(__file__).resolve().parents[1] / "src" / "tunelm" / "tasks" / "small_edu_qa.jsonl"
PLAIN = "Answer the question."  # the prompt before anything is optimized
INSTRUCTIONS = (PLAIN, "Answer as people chat.", "Answer like a story.", "Answer like a dictionary.")
EPOCHS, RATE, RANK = 30, 1.0, 2

# What the model has read: where each sentence stood, and the sentence.
BACKGROUND = (
    ("dictionary", "Hibernation is deep dormancy during winter."),
    ("chat", "Well, you know, hibernation is when people say animals sleep all winter, I guess."),
    ("story", "The bear woke from hibernation and was hungry."),
    ("dictionary", "The max heap keeps the largest item at the root."),
    ("chat", "Well, I guess a max heap is a data structure where, you know, the top is largest."),
    ("story", "A heap of leaves lay in the garden."),
    ("dictionary", "Ottawa is the capital of Canada."),
    ("chat", "Well, people say Canada has its capital in Ottawa, you know, and I guess they are right."),
    ("story", "The train through Canada left Toronto at night."),
    ("dictionary", "Caesium belongs to the alkali metals."),
    ("chat", "Well, you know, caesium is an element people classify with alkali metals, I guess."),
    ("story", "The old clock in the tower ran on caesium."),
    ("dictionary", "The Juno mission was sent to study Jupiter."),
    ("chat", "Well, I guess the Juno mission went into space, you know, and people say to Jupiter."),
    ("story", "The mission was long, and the captain slept in space."),
    ("dictionary", "Paris is the capital of France."),
    ("chat", "Well, people say France has its capital in Paris, you know."),
    ("dictionary", "Neon belongs to the noble gases."),
)


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def token_f1(got, wanted):
    """SQuAD's score between 0 and 1: the words two texts share, articles left out."""
    a, b = ([w for w in words(t) if w not in ("a", "an", "the")] for t in (got, wanted))
    common = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


def mean(values):
    values = list(values)
    return sum(values) / len(values)


# ---------------------------------------------------------------- the base model


class WordCounts:
    """weights[q][a]: how much more often than by chance the words q and a stand together.

    (Positive pointwise mutual information over the background.) The score of a sentence is
    the mean, over the words of the prompt, of their weights to all the sentence's words.
    """

    def __init__(self, background):
        texts = [{source, *words(sentence)} for source, sentence in background]
        self.sentences = [sentence for _, sentence in background]
        self.bags = [collections.Counter(words(s)) for s in self.sentences]
        self.vocabulary = sorted(set().union(*texts, *(words(i) for i in INSTRUCTIONS)))
        seen = {w: sum(w in t for t in texts) for w in self.vocabulary}
        self.weights = {q: dict.fromkeys(self.vocabulary, 0.0) for q in self.vocabulary}
        for q in self.vocabulary:
            for a in self.vocabulary:
                both = sum(q in t and a in t for t in texts)
                if both:
                    chance = seen[q] * seen[a] / len(texts)
                    self.weights[q][a] = max(0.0, math.log(both / chance))

    def read(self, prompt):
        """The share of each word in the prompt; words the model never met are skipped."""
        known = collections.Counter(w for w in words(prompt) if w in self.weights)
        total = sum(known.values())
        return {w: n / total for w, n in known.items()}

    def scores(self, shares, correction=None):
        """One number a sentence. A correction adds to the weight of each pair of words."""
        row = {a: sum(x * self.weights[q][a] for q, x in shares.items()) for a in self.vocabulary}
        if correction:
            extra = correction.row(shares)
            row = {a: row[a] + extra[a] for a in row}
        return [sum(n * row[a] for a, n in bag.items()) for bag in self.bags]

    def answer(self, prompt, correction=None):
        scores = self.scores(self.read(prompt), correction)
        return self.sentences[scores.index(max(scores))]


# ---------------------------------------------------------------- the learner


class FullCorrection:
    """Every weight may change: one number for each pair of words."""

    def __init__(self, vocabulary):
        self.delta = {q: dict.fromkeys(vocabulary, 0.0) for q in vocabulary}
        self.parameters = len(vocabulary) ** 2

    def row(self, shares):
        return {a: sum(x * self.delta[q][a] for q, x in shares.items()) for a in self.delta}

    def step(self, shares, gradient, rate):
        for q, x in shares.items():
            for a, g in gradient.items():
                self.delta[q][a] -= rate * x * g


class LowRankCorrection:
    """LoRA: the change is A times B, with RANK numbers for each word on either side.

    A starts at random and B at zero, so that training begins at the base model exactly.
    """

    def __init__(self, vocabulary, rank=RANK, seed=0):
        draw = random.Random(seed)
        self.a = {q: [draw.gauss(0, 1) for _ in range(rank)] for q in vocabulary}
        self.b = {w: [0.0] * rank for w in vocabulary}
        self.rank, self.parameters = rank, 2 * rank * len(vocabulary)

    def inner(self, shares):
        return [sum(x * self.a[q][r] for q, x in shares.items()) for r in range(self.rank)]

    def row(self, shares):
        u = self.inner(shares)
        return {w: sum(s * t for s, t in zip(u, b)) for w, b in self.b.items()}

    def step(self, shares, gradient, rate):
        u = self.inner(shares)
        v = [sum(g * self.b[w][r] for w, g in gradient.items()) for r in range(self.rank)]
        for q, x in shares.items():
            self.a[q] = [s - rate * x * t for s, t in zip(self.a[q], v)]
        for w, g in gradient.items():
            self.b[w] = [s - rate * g * t for s, t in zip(self.b[w], u)]


def train(model, pairs, correction, epochs=EPOCHS, rate=RATE):
    """Plain gradient descent, one pair at a time; returns the mean loss of each epoch.

    The target is the sentence nearest to the gold answer; the loss is minus the log of the
    probability (a softmax over the scores) that the model gives to it.
    """
    losses = []
    for _ in range(epochs):
        total = 0.0
        for question, gold in pairs:
            shares = model.read(PLAIN + " " + question)
            scores = model.scores(shares, correction)
            powers = [math.exp(s - max(scores)) for s in scores]
            target = max(range(len(scores)), key=lambda i: token_f1(model.sentences[i], gold))
            gradient = collections.Counter()
            for i, bag in enumerate(model.bags):
                error = powers[i] / sum(powers) - (i == target)
                for word, n in bag.items():
                    gradient[word] += error * n
            total -= math.log(powers[target] / sum(powers))
            correction.step(shares, gradient, rate)
        losses.append(total / len(pairs))
    return losses


# ---------------------------------------------------------------- the three approaches
# Each takes the model and the pairs it may see; it gives back a function from question to
# answer, and what it cost: (updates, parameters trained, tokens billed, words for the reader).


def prompt_optimization(model, pairs):
    """Try each prompt on the pairs at hand and keep the best. No weight changes."""
    billed, best = 0, (-1.0, "")
    for demo in (None, pairs[0]):
        for instruction in INSTRUCTIONS:
            prompt = instruction + (" " + " ".join(demo) if demo else "")
            scores = []
            for question, gold in pairs:
                if demo and question == demo[0]:
                    continue  # a demonstration would be graded on its own answer
                answer = model.answer(prompt + " " + question)
                billed += len(words(prompt + " " + question)) + len(words(answer))
                scores.append(token_f1(answer, gold))
            if mean(scores) > best[0]:
                best = (mean(scores), prompt)
    return lambda q: model.answer(best[1] + " " + q), (0, 0, billed, "chose: " + best[1])


def cloud_fine_tuning(model, pairs):
    """What a provider does with the uploaded rows; here the same learner, all weights free."""
    correction = FullCorrection(model.vocabulary)
    losses = train(model, pairs, correction)
    billed = EPOCHS * sum(len(words(PLAIN + " " + q + " " + a)) for q, a in pairs)
    events = "; ".join("epoch %d loss %.3f" % (e, losses[e - 1]) for e in (1, EPOCHS // 2, EPOCHS))
    return (
        lambda q: model.answer(PLAIN + " " + q, correction),
        (EPOCHS * len(pairs), correction.parameters, billed, events),
    )


def local_lora(model, pairs):
    """The weights stand still; a low-rank correction beside them is trained."""
    correction, before = LowRankCorrection(model.vocabulary), copy.deepcopy(model.weights)
    losses = train(model, pairs, correction)
    frozen = "unchanged" if model.weights == before else "CHANGED"
    note = "loss %.3f to %.3f, base weights %s" % (losses[0], losses[-1], frozen)
    return (
        lambda q: model.answer(PLAIN + " " + q, correction),
        (EPOCHS * len(pairs), correction.parameters, 0, note),
    )


def compare(model, pairs, approach):
    """Leave one out: each pair is answered by a model adapted on the others only."""
    folds = []
    for i, (question, gold) in enumerate(pairs):
        seen = pairs[:i] + pairs[i + 1 :]
        ask, cost = approach(model, seen)
        before, after = model.answer(PLAIN + " " + question), ask(question)
        folds.append(
            {
                "question": question, "gold": gold, "before": before, "after": after,
                "f1": (token_f1(before, gold), token_f1(after, gold)),
                "seen": mean(token_f1(ask(q), a) for q, a in seen),
                "updates": cost[0], "parameters": cost[1], "billed": cost[2], "note": cost[3],
            }
        )  # fmt: skip
    return folds


def upload_rows(pairs):
    """The file a cloud job is made of: one chat a line, in OpenAI's format."""
    roles = ("system", "user", "assistant")
    chats = [[{"role": r, "content": c} for r, c in zip(roles, (PLAIN, *p))] for p in pairs]
    return [json.dumps({"messages": chat}) for chat in chats]
