"""`python -m tunelm.training.memory_run WORK`: train WORK's job on tensors without contents.

What runs is training's own code: the model's shapes, PEFT's adapter, the steps on the largest
micro batches of the real rows, the optimizer with its states, the evaluation, the proof that it
learned. The tensors are fake (`torch._subclasses.FakeTensorMode`): they have a shape, a type and
a place, and neither contents nor memory. So no weights and no GPU are needed, and a step of a
large model takes a second. WORK/memory.json then holds what `dry_run` returns.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tunelm.errors import TrainingError, TunelmError
from tunelm.models import quantized
from tunelm.models.identity import tokenizer_identity
from tunelm.models.loading import (
    Base,
    choose_device,
    load_tokenizer,
    resolve_base,
    weights_dtype,
)
from tunelm.rundir import write_json
from tunelm.training.adapter import (
    load_shapes,
    make_optimizer,
    make_trainable,
    probe,
    prove_learning,
    trainable,
)
from tunelm.training.batches import all_epochs, lengths_of, micro_batches, supervised_of
from tunelm.training.encoding import most_tokens
from tunelm.training.job import TrainingJob, read_job
from tunelm.training.live import LiveBytes
from tunelm.training.memory import DRY_RUN
from tunelm.training.steps import Stepper, TrainRow, base_of
from tunelm.training.worker import kept, packed


class Point(NamedTuple):
    """One step of a dry run: its last micro batches, and the most bytes alive in it.

    `tokens` are those of the largest micro batch with padding, `supervised` those of its tokens
    that carry loss.
    """

    tokens: int
    supervised: int
    bytes: int


def main(arguments: list[str] | None = None) -> int:
    """Make the dry run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunelm.training.memory_run")
    parser.add_argument("work", type=Path, help="folder with job.json, train.jsonl, dev.jsonl")
    work = parser.parse_args(arguments).work
    try:
        write_json(work / DRY_RUN, dry_run(work))
    except TunelmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def dry_run(work: Path) -> dict[str, Any]:
    """Bytes that training holds alive, by stage.

    Returns:
        `weights`, what the base alone takes; `static`, with the adapter; `points`, the training
        steps that were made, as dicts of `Point`, the smaller first; `stages`, the most of each
        stage; `formula`, what `by_formula` says; `device` and `dtype`. Where fake tensors could
        not follow the model there are no stages, and `failed` says why.

    Raises:
        PrerequisiteError: the base is not on this machine.
        DataError, ConfigError: as training would.
    """
    job, train, dev = read_job(work)
    tokenizer, device = load_tokenizer(job.model), choose_device(job.model.device)
    dtype = weights_dtype(job.model)
    shapes: Any = load_shapes(resolve_base(job.model), job.model.revision)
    shapes.to(dtype)
    base = Base(shapes, tokenizer, device)
    identity = tokenizer_identity(resolve_base(job.model), job.model.revision)
    rows, dev_rows = (kept(work, job, base, part, identity) for part in (train, dev))
    if not rows:
        raise TrainingError("there are no rows to train on.")
    found: dict[str, Any] = {"device": device, "dtype": str(dtype).removeprefix("torch.")}
    found |= {"weights": _bytes(shapes), "formula": by_formula(shapes, job, rows)}
    model: Any = make_trainable(shapes, job.settings, job.seed)
    try:
        with _untraced(), FakeTensorMode(allow_non_fake_inputs=True):
            _without_contents(model, device)
            live = LiveBytes()
            live.count([*model.parameters(), *model.buffers()])
            found["static"] = live.current
            with live:
                stages, points = _train(model, live, job, (tokenizer.pad_token_id, rows, dev_rows))
    except TunelmError:
        raise
    except Exception as error:  # whatever an architecture does that fake tensors cannot
        first = (str(error).splitlines() or ["no reason given"])[0]
        found["failed"] = f"{type(error).__name__}: {first}"
    else:
        found |= {"stages": stages, "points": [point._asdict() for point in points]}
    return _in_four_bits(found, model) if job.settings.method == quantized.METHOD else found


def _in_four_bits(found: dict[str, Any], shapes: Any) -> dict[str, Any]:
    """The same with the blocks' linear layers in NF4, one of which is unpacked at a time."""
    base = base_of(shapes)
    head = base.get_output_embeddings()
    linear = [
        module.weight
        for module in base.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
        if not module.weight.requires_grad
    ]
    each = shapes.dtype.itemsize
    saved = sum(w.numel() for w in linear) * (each - quantized.BITS_PER_WEIGHT / 8)
    less = saved - max(w.numel() for w in linear) * each
    found |= {name: found[name] - saved for name in ("weights", "static") if name in found}
    found["formula"] -= less
    if "stages" in found:
        found["stages"] = {name: size - less for name, size in found["stages"].items()}
        found["points"] = [p | {"bytes": p["bytes"] - less} for p in found["points"]]
    return found


def by_formula(shapes: Any, job: TrainingJob, rows: Sequence[TrainRow]) -> float:
    """Bytes at the peak by the usual sums, for models that a dry run cannot follow.

    The weights; 16 bytes a trained parameter (itself, its gradient and AdamW's two states in
    float32); for each token and layer 9 widths and 4.5 MLP widths of activations (canifinetune's
    formulas.py); 14 bytes a supervised token and vocabulary entry for the loss (unsloth-zoo PR
    947). Of the largest micro batch there may be.
    """
    text = shapes.config.get_text_config()
    width, size = text.hidden_size, shapes.dtype.itemsize
    mlp = getattr(text, "intermediate_size", None) or 4 * width
    heaviest = _steps(rows, job)[1:]
    tokens = max(_tokens(piece) for batch in heaviest for piece in _pieces(batch, job))
    supervised = max(_supervised(piece) for batch in heaviest for piece in _pieces(batch, job))
    if job.settings.method == "full":
        trained, weights = sum(p.numel() for p in shapes.parameters()), 0
    else:
        layers = [m for m in shapes.modules() if getattr(m, "weight", None) is not None]
        flat = [m.weight.shape for m in layers if m.weight.dim() == 2]
        trained = sum(job.settings.r * sum(shape) for shape in flat)
        weights = _bytes(shapes)
    activations = tokens * text.num_hidden_layers * (9 * width + 4.5 * mlp) * size
    return weights + 16 * trained + activations + 14 * supervised * text.vocab_size


def _train(
    model: Any, live: LiveBytes, job: TrainingJob, given: tuple[int, Sequence[Any], Sequence[Any]]
) -> tuple[dict[str, int], list[Point]]:
    """What `worker.run` does, with few of the steps; the peaks of its stages."""
    pad_id, encoded, dev = given
    stages: dict[str, int] = {}

    def staged(name: str, run: Callable[[], Any]) -> Any:
        live.mark()
        made = run()
        stages[name] = max(stages.get(name, 0), live.peak)
        return made

    before = staged("probe", lambda: probe(model, encoded[0].ids))
    mixed = weights_dtype(job.model).itemsize < 4
    stepper = Stepper(model, pad_id, job.micro_tokens, mixed, job.settings.neftune_alpha)
    rows, _ = staged("probe", lambda: packed(stepper, encoded, job, most_tokens(job, model)))
    heaviest = _heaviest(_pieces(dev, job)) if dev else []
    for batch in heaviest:
        staged("evaluate", lambda batch=batch: stepper.evaluate(batch))
    weights = list(trainable(model).values())
    optimizer = make_optimizer(model, job.settings)
    model.train()
    points: list[Point] = []
    steps = _steps(rows, job)
    for batch in [steps[0], *steps]:  # the first makes the optimizer's states, and is not counted
        live.mark()
        stepper.backward(batch)
        torch.nn.utils.clip_grad_norm_(weights, job.settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        largest = max(_pieces(batch, job), key=_tokens)
        points.append(Point(_tokens(largest), _supervised(largest), live.peak))
    del points[0]
    stages["train"] = max(point.bytes for point in points)
    for batch in heaviest:
        staged("evaluate", lambda batch=batch: stepper.evaluate(batch))
    # a checkpoint is written from copies
    staged("save", lambda: [torch.empty_like(weight) for weight in weights])
    del optimizer
    staged("probe", lambda: prove_learning(model, encoded[0].ids, before))
    return stages, points


def _steps(rows: Sequence[TrainRow], job: TrainingJob) -> list[list[TrainRow]]:
    """Batches to make a step with: a small one, then those with the heaviest micro batches."""
    lengths, supervised = lengths_of(rows), supervised_of(rows)
    small: list[_Sized] = []
    heavy: list[list[_Sized]] = []
    least = most = 0
    for batches in all_epochs(lengths, job.settings, job.seed):
        for numbers in batches:
            batch = [_Sized(i, int(lengths[i]), range(supervised[i])) for i in numbers]
            pieces = _pieces(batch, job)
            size = max(map(_tokens, pieces))
            if not small or size < least:
                small, least = batch, size
            most = max(most, size)
            heavy = _heaviest([*heavy, *_joined(pieces)])
    if least > 0.7 * most:  # two points of a line must stand apart
        small = sorted(small, key=lambda row: row.length)[: max(1, len(small) // 2)]
    return [[rows[row.at] for row in batch] for batch in (small, *heavy)]


class _Sized(NamedTuple):
    """What of a row is needed to weigh it: there may be too many to hold them."""

    at: int
    length: int
    supervised: Sequence[int]


_Row = TypeVar("_Row", bound=TrainRow | _Sized)


def _pieces(rows: Sequence[_Row], job: TrainingJob) -> list[list[_Row]]:
    """The micro batches that a `Stepper` computes these rows in."""
    lengths = [row.length for row in rows]
    found = micro_batches(range(len(rows)), lengths, job.micro_tokens)
    return [[rows[i] for i in piece] for piece in found]


def _joined(pieces: list[list[_Row]]) -> list[list[_Row]]:
    """Neighbouring micro batches of one batch: the logits of one live on into the next."""
    if len(pieces) == 1:
        return pieces
    return [[*a, *b] for a, b in itertools.pairwise(pieces)]


def _heaviest(batches: Sequence[list[_Row]]) -> list[list[_Row]]:
    """The batch with the most tokens, and the one with the most supervised tokens."""
    chosen = [max(batches, key=_tokens), max(batches, key=_supervised)]
    return chosen[:1] if chosen[0] is chosen[1] else chosen


def _tokens(rows: Sequence[TrainRow | _Sized]) -> int:
    return len(rows) * max(row.length for row in rows)


def _supervised(rows: Sequence[TrainRow | _Sized]) -> int:
    return sum(len(row.supervised) for row in rows)


def _bytes(model: Any) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _without_contents(model: Any, device: str) -> None:
    """Put a fake tensor in the place of each parameter and buffer; tied ones stay tied.

    PEFT cannot make an adapter of fake tensors, so this comes after.
    """
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in list(held.items()):
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    if isinstance(tensor, torch.nn.Parameter):
                        empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = empty
                held[name] = made[id(tensor)]


@contextmanager
def _untraced() -> Generator[None]:
    """Within, Transformers takes fake tensors for real ones.

    It holds them for a sign of an export, and then makes attention masks that training, which
    needs none, does not make.
    """
    from transformers.utils import import_utils

    before = import_utils.is_fake_tensor
    import_utils.is_fake_tensor = lambda x: False
    try:
        yield
    finally:
        import_utils.is_fake_tensor = before


if __name__ == "__main__":
    sys.exit(main())
