"""One training run from files to files; what `python -m tunelm.training WORK` does."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import importlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tunelm.errors import ConfigError, TrainingError
from tunelm.models import quantized
from tunelm.models.identity import base_identity
from tunelm.models.loading import (
    Base,
    load_base,
    resolve_base,
    weights_dtype,
)
from tunelm.rundir import peak_memory, write_text
from tunelm.training import machine
from tunelm.training.adapter import (
    make_trainable,
    peak_rate,
    probe,
    prove_learning,
    save_trained,
    trainable,
)
from tunelm.training.checkpoints import State
from tunelm.training.encoding import encode, most_tokens, rules_of
from tunelm.training.job import (
    TrainingJob,
    TrainingRow,
    claim,
    read_job,
    replace_folder,
    rows_hash,
)
from tunelm.training.loop import Emit, Loop
from tunelm.training.packing import pack
from tunelm.training.ranks import Ranks, join, whole
from tunelm.training.rows import EncodedRow
from tunelm.training.shards import EncodedShards, encoding_key, stored
from tunelm.training.steps import Stepper, TrainRow

PACKING_TOLERANCE, PACKING_TOLERANCE_HALF = 1e-5, 1e-2
"""Largest relative difference of the loss of packed texts from that of the same texts alone:
rounding, for weights in float32 and in half precision. A model hardly trained mixes its texts
only little, so the first must be small."""

ENCODED = "encoded"
"""The folder in `work` with the rows as tokens."""

_M_MMAP_THRESHOLD, MAPPED_FROM = -3, 2**19

Scorer = Callable[[Any, Any, TrainingJob, Sequence[TrainingRow]], float]
"""Called with (model, tokenizer, job, dev rows); answers with a number, larger is better."""


def run(
    work: Path, scorer: Scorer | None = None, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Train what `work` describes, go on where a killed run left off, or return the result.

    Started by torchrun, it trains with the other processes that were (see `ranks`).

    Returns:
        What then also stands in `work/result.json`; the adapter is in `work/adapter`. Of several
        processes only the first has it.

    Raises:
        TrainingError: the files changed since training began; NaN; nothing learned; stopped.
        DataError: rows that are broken, too long, or whose mask cannot be proven.
        ModelError, PrerequisiteError, ConfigError: as the base and the targets have it.
    """
    job, train, dev = read_job(work)
    claim(work, job, (train, dev))
    result_file = work / "result.json"
    if result_file.is_file() and (work / "adapter").is_dir():
        return json.loads(result_file.read_text(encoding="utf-8"))
    return _run(work, (job, train, dev), scorer, stop)


def _run(
    work: Path,
    given: tuple[TrainingJob, Sequence[TrainingRow], Sequence[TrainingRow]],
    scorer: Scorer | None,
    stop: Callable[[], bool],
) -> dict[str, Any]:
    job, train, dev = given
    give_back_at_once()
    held = _held_after_imports()
    choices = machine.choose(job.settings, job.model)
    ranks = join(choices["device"].value, job.settings.sharding)
    base = _load(job, ranks)
    identity = base_identity(resolve_base(job.model), job.model.revision)
    claim(work, job, (train, dev), identity)
    if not ranks.first:  # finds them made
        ranks.wait()
    encoded_train, encoded_dev = (kept(work, job, base, rows, identity) for rows in (train, dev))
    if ranks.first:
        ranks.wait()
    if not encoded_train:
        raise TrainingError("there are no rows to train on.")
    model: Any = make_trainable(base.model, job.settings, job.seed)
    ids = encoded_train[0].ids
    before = probe(model, ids)
    stepper = _stepper(job, base, model, choices)
    rows, packing = packed(stepper, encoded_train, job, most_tokens(job, base.model))
    if ranks.sharded:  # the model is still in main memory
        choices = machine.untried(choices)
    else:
        choices = machine.rehearse(stepper, rows, job, choices)
    stepper = dataclasses.replace(stepper, ranks=ranks)
    with _events(work, ranks) as emit:

        def keep(step: int, epoch: int) -> None:
            folder = work / "epochs" / f"step-{step}"
            trained = _gathered(model, job, ranks)
            if ranks.first:
                _save(trained, base.tokenizer, folder, job, identity)
            emit({"event": "kept", "step": step, "epoch": epoch, "folder": f"epochs/{folder.name}"})

        score = None if scorer is None else lambda: scorer(model, base.tokenizer, job, dev)
        keeper = keep if job.keep_epochs else None
        state = Loop(stepper, rows, encoded_dev, job, work, emit, stop, score, keeper).run()
        trained = _gathered(model, job, ranks)
        if not ranks.first:
            return {}
        proof = prove_learning(trained, ids, before)
        _save(trained, base.tokenizer, work / "adapter", job, identity)
        result = _result(work, job, state, model, proof) | {
            "packing": packing,
            "machine": machine.as_json(choices),
            "train_rows": len(train),
            "dev_rows": len(dev),
            "rss_before_model": held,
            "processes": ranks.count,
        }
        write_text(work / "result.json", json.dumps(result, indent=2))
        emit({"event": "done", "step": state.step})
    return result


@contextlib.contextmanager
def _events(work: Path, ranks: Ranks) -> Generator[Emit]:
    """What appends an event to the work folder's log; of several processes the first does."""
    if not ranks.first:
        yield lambda event: None
        return
    with (work / "events.jsonl").open("a", encoding="utf-8", buffering=1) as events:
        if events.tell():
            events.write("\n")  # the last line may be half written
        yield lambda event: print(
            json.dumps({"time": round(time.time(), 3), **event}), file=events, flush=True
        )


def _load(job: TrainingJob, ranks: Ranks) -> Base:
    """The base on the device of this process; where it is to be sharded, in main memory."""
    if not ranks.sharded:
        return load_base(job.model, job.settings.method == quantized.METHOD)
    dtype = str(weights_dtype(job.model)).removeprefix("torch.")
    return load_base(job.model.model_copy(update={"device": "cpu", "dtype": dtype}))


def _gathered(model: Any, job: TrainingJob, ranks: Ranks) -> Any:
    """The trained model, whole, in the first process; of a sharded one a copy in main memory.

    All processes must call this together.
    """
    if not ranks.sharded:
        return model
    weights: dict[str, Any] = {}
    for name, parameter in trainable(model).items():
        gathered = whole(parameter.detach())
        if ranks.first:
            weights[name] = gathered.cpu()
    if not ranks.first:
        return None
    fresh: Any = make_trainable(_load(job, ranks).model, job.settings, job.seed)
    fresh.load_state_dict(weights, strict=False)
    return fresh


def _stepper(job: TrainingJob, base: Base, model: Any, choices: machine.Choices) -> Stepper:
    mixed = choices["weights"].value != "float32"  # full fine-tuning makes float32 of them
    noise = job.settings.neftune_alpha
    return Stepper(model, base.tokenizer.pad_token_id, job.micro_tokens, mixed, noise)


def load_scorer(name: str) -> Scorer:
    """The function that `module:function` names.

    Raises:
        ConfigError: there is none.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--scorer {name!r}: expected module:function ({error}).") from None


def _save(
    model: Any, tokenizer: Any, folder: Path, job: TrainingJob, identity: Mapping[str, Any]
) -> None:
    """Write what is trained so far to `folder`, whole or not at all."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_trained(model, tokenizer, part, job, identity)
    replace_folder(part, folder)


def kept(
    work: Path,
    job: TrainingJob,
    base: Base,
    rows: Sequence[TrainingRow],
    identity: Mapping[str, Any],
) -> EncodedShards:
    """`encode`d rows, written to and read from `work/encoded`.

    Of the model its shapes are enough; `identity` has the hashes of the tokenizer and its template.
    Raises TrainingError where they cannot be written, and as `encode` does.
    """
    rules = rules_of(job, base)
    key = encoding_key(identity, rules.stops, rules.limit, rules.text, rows_hash(rows))
    return stored(work / ENCODED, key, lambda: encode(job, base, rows))


def packed(
    stepper: Stepper, rows: Sequence[EncodedRow], job: TrainingJob, limit: int
) -> tuple[Sequence[TrainRow], str | None]:
    """Texts packed into rows of the context's length, where this model keeps them apart.

    Returns the rows to train on, and what was done in words; chats are never packed.
    """
    if not job.text:
        return rows, None
    full = pack(rows, limit)
    crowded = full.most_crowded
    if len(crowded.rows) == 1:
        return rows, "nothing to pack: no two texts fit into one row"
    try:
        together = stepper.evaluate([crowded]).loss
    except (TypeError, ValueError, RuntimeError) as error:
        return rows, f"off: this architecture takes no mask for packed texts ({error})"
    apart = stepper.evaluate(crowded.rows).loss
    tolerance = PACKING_TOLERANCE_HALF if stepper.mixed else PACKING_TOLERANCE
    if abs(together - apart) > tolerance * max(1.0, apart):
        return rows, f"off: packed texts see each other here (loss {together:.5f}, not {apart:.5f})"
    return full, f"{len(rows)} texts in {len(full)} rows, apart (loss {together:.5f}, {apart:.5f})"


def give_back_at_once() -> None:
    """Have glibc map each tensor of half a MiB and more by itself: freeing it gives it back.

    Otherwise it takes what is below 32 MiB from the heap, where torch's aligned requests do not
    fit into the holes that equal ones left: half of the heap is then holes.
    """
    if sys.platform == "linux":
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if set_option is not None:
            set_option(_M_MMAP_THRESHOLD, MAPPED_FROM)


def _held_after_imports() -> int:
    """Bytes this process holds resident once the libraries are there, and no model is yet.

    What training itself needs is its peak less this.
    """
    for name in ("peft", "transformers.models.auto.modeling_auto"):
        importlib.import_module(name)
    return psutil.Process().memory_info().rss


def _result(
    work: Path,
    job: TrainingJob,
    state: State,
    model: Any,
    proof: dict[str, float],
) -> dict[str, Any]:
    """What is kept of a run. Unknown is None: a machine without a GPU has no GPU memory."""
    import torch

    facts = dataclasses.asdict(state)
    for name in ("position", "bad_evaluations", "best_dev_loss"):
        del facts[name]
    on_gpu = model.device.type == "cuda"
    weights = (work / "adapter").rglob("*.safetensors")
    return {
        **facts,
        "trainable_parameters": sum(p.numel() for p in trainable(model).values()),
        "learning_rate": peak_rate(model, job.settings),
        "tokens_per_second": state.tokens / state.step_seconds if state.step_seconds else None,
        "peak_rss_bytes": peak_memory(),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "peak_gpu_reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
        "adapter_bytes": sum(path.stat().st_size for path in weights),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "proof": proof,
    }
