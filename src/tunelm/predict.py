"""A model's answers to a part of the rows, written as they come, resumed where they stopped."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tunelm.models.base import ChatModel, innermost
from tunelm.rundir import append_text, write_text
from tunelm.scoring.continuation import full_text
from tunelm.types import (
    ZERO_USAGE,
    Completion,
    Example,
    FinishReason,
    Message,
    Prediction,
    Request,
)

CHUNK = 128
"""Rows asked for at once, and written at once. A resumed run starts at a multiple of it, so
that the same rows share a batch as in an undisturbed run."""


def predict(
    model: ChatModel,
    examples: Sequence[Example],
    part: str,
    path: Path,
    max_tokens: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Greedy answers to all examples, one Prediction each, in order; texts are also scored.

    Appends to `path` (JSONL); rows of `part` that stand there already are not asked again.
    A row that fails is a Prediction with its error, never an exception.
    """

    def answer(chunk: Sequence[Example]) -> list[Prediction]:
        return answers_to(model, chunk, part, max_tokens)

    return in_chunks(answer, examples, part, path, chunk_of(model), progress)


def answers_to(
    model: ChatModel, examples: Sequence[Example], part: str, max_tokens: int
) -> list[Prediction]:
    """Greedy answers to all examples at once, one Prediction each, in order."""
    requests = [Request(e.messages, max_tokens=max_tokens) for e in examples]
    answers = model.complete(requests)
    found = [_prediction(e, part, a) for e, a in zip(examples, answers, strict=True)]
    return _scored(model, examples, found)


def in_chunks(
    answer: Callable[[Sequence[Example]], list[Prediction]],
    examples: Sequence[Example],
    part: str,
    path: Path,
    size: int = CHUNK,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """`answer` for all examples, `size` at a time; each chunk stands in `path` when it is done.

    Those of `part` that stand there already are not asked for again.
    """
    _mend(path, size)
    done = [p for p in read_predictions(path) if p.part == part]
    for start in range(len(done), len(examples), size):
        chunk = answer(examples[start : start + size])
        append_text(path, _lines(chunk))
        done += chunk
        if progress:
            progress(len(done), len(examples))
    return done


def chunk_of(model: object) -> int:
    """How many rows to ask a model for at once."""
    return innermost(model).rows_at_once if is_elsewhere(model) else CHUNK


def is_elsewhere(model: object) -> bool:
    """Whether a model, behind whatever stands before it, is behind an API."""
    return hasattr(innermost(model), "prices")


def read_predictions(path: Path) -> list[Prediction]:
    """All predictions in a file; a line that was not written to its end is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="\n") as file:  # outputs may hold U+2028 and the like
        return [Prediction.from_json(json.loads(line)) for line in file if line.endswith("\n")]


def score_texts(
    model: ChatModel, examples: Sequence[Example], part: str, path: Path
) -> list[Prediction]:
    """Likelihoods of running texts, without asking for continuations; as `predict` otherwise."""

    def likelihoods(chunk: Sequence[Example]) -> list[Prediction]:
        empty = [Prediction(e.id, part, "", FinishReason.STOP, ZERO_USAGE) for e in chunk]
        return _scored(model, chunk, empty)

    return in_chunks(likelihoods, examples, part, path)


def _scored(
    model: ChatModel, examples: Sequence[Example], found: Sequence[Prediction]
) -> list[Prediction]:
    """The predictions with the likelihood of each example's text, where it is one."""
    texts = [full_text(e) for e in examples]
    if "score" not in model.capabilities or any(text is None for text in texts):
        return list(found)
    whole = [text or "" for text in texts]
    scores = model.score([((Message("text", ""),), text) for text in whole])
    return [
        dataclasses.replace(
            prediction,
            nll=-math.fsum(score.logprobs),
            scored_tokens=len(score.logprobs),
            scored_bytes=len(text.encode()),
        )
        for prediction, score, text in zip(found, scores, whole, strict=True)
    ]


def _mend(path: Path, size: int) -> None:
    """Where the file ends within a line, take the chunk away of which only some was written.

    That is so when the machine itself stopped.
    """
    if not path.exists() or _is_whole(path):
        return
    stored = read_predictions(path)
    last = [p for p in stored if p.part == stored[-1].part] if stored else []
    write_predictions(path, stored[: len(stored) - len(last) % size])


def _is_whole(path: Path) -> bool:
    """Whether a file ends with a line's end, or is empty."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return True
        file.seek(-1, 2)
        return file.read() == b"\n"


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """The inverse of `read_predictions`; the file is the old one or the new one."""
    write_text(path, _lines(predictions))


def _lines(predictions: Sequence[Prediction]) -> str:
    return "".join(json.dumps(p.to_json(), ensure_ascii=False) + "\n" for p in predictions)


def _prediction(example: Example, part: str, answer: Completion) -> Prediction:
    sure = answer.confidence
    return Prediction(
        example.id,
        part,
        None if answer.error else answer.text,
        answer.finish_reason,
        answer.usage,
        answer.latency_s,
        answer.error,
        format_error=answer.format_error,
        facts=None if sure is None else {"confidence": sure},
    )
