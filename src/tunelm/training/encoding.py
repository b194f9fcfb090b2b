"""Rows as tokens; where there are many rows, by several processes.

`python -m tunelm.training.encoding` is one of these: pickles on its standard input, first how rows
become tokens, then rows by the chunk; for each chunk one on its standard output. It is no child of
`multiprocessing`, which would run the caller's own script again in each process.
"""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import Any

from tunelm.config import ModelConfig
from tunelm.errors import DataError, TrainingError, TunelmError
from tunelm.lifeline import end_with_parent
from tunelm.models.loading import Base, load_tokenizer
from tunelm.training.job import TrainingJob, TrainingRow
from tunelm.training.process import cores
from tunelm.training.rows import MOST_PROBLEMS, EncodedRow, stream_rows, stream_texts

ROWS_EACH = 5_000
"""A process that has fewer rows takes longer to start than it saves."""
_MOST_PROCESSES = 8
"""With more, the one that reads and writes has them wait. Each holds 0.1 GB."""
_CHUNK = 256

Answer = tuple[list[EncodedRow], tuple[str, ...]]
"""Of a chunk: its rows as tokens, and what is wrong with rows, in which case there are none."""


@dataclass(frozen=True)
class Rules:
    """How rows become tokens, by the tokenizer of `model`: see `training.rows`."""

    model: ModelConfig
    stops: frozenset[int]
    limit: int
    text: bool

    def encode(self, rows: Iterable[TrainingRow], tokenizer: Any) -> Iterator[EncodedRow]:
        """Row by row. Raises as `training.rows` does."""
        if self.text:
            return stream_texts(rows, tokenizer, self.limit)
        return stream_rows(rows, tokenizer, self.stops, self.limit)


def rules_of(job: TrainingJob, base: Base) -> Rules:
    """Those of a job; of the base, shapes are enough."""
    from tunelm.models.decoding import end_tokens  # imports torch, which the other processes lack

    stops = () if job.text else end_tokens(base.model, base.tokenizer)
    return Rules(job.model, frozenset(stops), most_tokens(job, base.model), job.text)


def most_tokens(job: TrainingJob, model: Any) -> int:
    """The longest row that may be trained on: the job's limit, or the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    return min(job.model.max_length, context or job.model.max_length)


def encode(job: TrainingJob, base: Base, rows: Sequence[TrainingRow]) -> Iterator[EncodedRow]:
    """A job's rows as tokens, one after the other, by as many processes as have enough to do.

    Raises:
        DataError, ModelError: as `training.rows` does.
        TrainingError: one of the processes ended.
    """
    rules, count = rules_of(job, base), min(_MOST_PROCESSES, cores(), len(rows) // ROWS_EACH)
    return rules.encode(rows, base.tokenizer) if count < 2 else shared_out(rules, rows, count)


def shared_out(rules: Rules, rows: Iterable[TrainingRow], count: int) -> Iterator[EncodedRow]:
    """`Rules.encode`, chunks of rows dealt in turn to so many processes; raises as `encode`."""
    problems: list[str] = []
    with _processes(rules, count) as workers:
        for encoded, wrong in _answers(workers, rows):
            problems += wrong
            if len(problems) >= MOST_PROBLEMS:
                break
            if not problems:
                yield from encoded
    if problems:
        raise DataError(problems[:MOST_PROBLEMS])


def _answers(
    workers: Sequence[subprocess.Popen[bytes]], rows: Iterable[TrainingRow]
) -> Iterator[Answer]:
    """Those to all chunks, in their order.

    A process has one chunk at a time and gets the next when its answer was read, so that neither
    side can wait for the other to empty a pipe; and before that answer is given out, so that it
    has something to do meanwhile.
    """
    under_way: deque[subprocess.Popen[bytes]] = deque()
    rows = iter(rows)
    for worker in itertools.cycle(workers):
        chunk = list(itertools.islice(rows, _CHUNK))
        if not chunk:
            break
        answer = _receive(under_way.popleft()) if len(under_way) == len(workers) else None
        _send(worker, chunk)
        under_way.append(worker)
        if answer is not None:
            yield answer
    while under_way:
        yield _receive(under_way.popleft())


@contextmanager
def _processes(rules: Rules, count: int) -> Generator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", __name__]
    environment = {
        **os.environ,
        "TOKENIZERS_PARALLELISM": "false",  # else each starts a thread for each core
        "TRANSFORMERS_VERBOSITY": "error",  # else it says that there is no torch
    }
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            workers.append(
                subprocess.Popen(
                    command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
        for worker in workers:
            _send(worker, rules)
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()


def _send(worker: subprocess.Popen[bytes], what: Any) -> None:
    assert worker.stdin is not None
    try:
        pickle.dump(what, worker.stdin)
        worker.stdin.flush()
    except OSError:
        raise _ended(worker) from None


def _receive(worker: subprocess.Popen[bytes]) -> Answer:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        raise _ended(worker) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _ended(worker: subprocess.Popen[bytes]) -> TrainingError:
    code = worker.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return TrainingError(
        f"one of the processes that make tokens of the rows {how}"
        + (", as a machine does that runs out of memory" if code == -9 else "")
        + ". Nothing was left half written; the same call begins with the tokens again."
    )


class _WithoutTorch(PathFinder):
    """Finds every module but torch.

    With it, Transformers takes four seconds instead of one to load a tokenizer, and 0.4 GB instead
    of 0.1, for what tokenizing has no use for.
    """

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        """As PathFinder does."""
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


def main() -> None:
    """Answer chunks until there are no more."""
    sys.meta_path[sys.meta_path.index(PathFinder)] = _WithoutTorch
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this one hears it, and ends it
    end_with_parent()
    into = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    rules: Rules = pickle.load(sys.stdin.buffer)
    tokenizer: Any = None
    while True:
        try:
            chunk = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            tokenizer = tokenizer or load_tokenizer(rules.model)
            answer: Answer | TunelmError = list(rules.encode(chunk, tokenizer)), ()
        except DataError as error:
            answer = [], error.problems
        except TunelmError as error:
            answer = error
        pickle.dump(answer, into)
        into.flush()


if __name__ == "__main__":
    main()
