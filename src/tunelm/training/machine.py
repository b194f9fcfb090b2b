"""What training uses of the machine it runs on, and why; tried on a real step before a run.

On a processor there is nothing to choose. On an NVIDIA GPU: bfloat16, the attention that is
installed, compiled layers where a run is long enough. What is chosen by itself gives way, with
the reason, where the trial fails or has another loss; what the task file asks for does not.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError, PrerequisiteError, TrainingError
from tunelm.models import quantized
from tunelm.models.loading import choose_device, explained_dtype
from tunelm.route_settings import LocalSettings
from tunelm.training.batches import epoch_batches, heaviest, lengths_of, steps_by_epoch
from tunelm.training.job import TrainingJob
from tunelm.training.steps import Stepper, TrainRow, base_of

COMPILE_FROM_S = 600.0
"""Seconds of steps from which compiling pays: it costs about a minute, and a quarter more speed is
what torchtune reports of it (README, Llama 3.2 3B on an A100: 7075 to 8998 tokens/s)."""
AGREES, AGREES_HALF = 1e-4, 1e-2
"""Largest relative difference of a trial's loss, in float32 and in half precision."""
FLASH = "flash_attention_2"


class Choice(NamedTuple):
    """What is used of several possibilities, and why in a few words."""

    value: str
    why: str


Choices = dict[str, Choice]


def choose(settings: LocalSettings, config: ModelConfig) -> Choices:
    """What is used on this machine, as far as it can be told before the model is loaded.

    Returns:
        `device`, `weights` (their type), `quantization`, `compute` (the type of the arithmetic),
        `float32_matmul`, `optimizer`, `attention` and `compile`. The last two are what will be
        tried by `rehearse`.

    Raises:
        PrerequisiteError: there is no such device, the extra `local` is missing, or the task file
            asks for what is not installed.
    """
    device = choose_device(config.device)
    dtype, why = explained_dtype(config)
    weights = str(dtype).removeprefix("torch.")
    mixed = device == "cuda" and dtype.itemsize < 4
    four = settings.method == quantized.METHOD
    if four and (problem := quantized.why_not(device)) is not None:
        raise PrerequisiteError(f'method = "{quantized.METHOD}": {problem}.')
    return {
        "device": Choice(device, "asked for" if config.device != "auto" else "the best there is"),
        "weights": Choice(weights, why),
        "quantization": Choice("nf4", "method = qlora")
        if four
        else Choice("none", "not asked for"),
        "compute": Choice("bfloat16", "autocast; what is trained is kept in float32")
        if mixed
        else Choice(weights, "as the weights"),
        "float32_matmul": Choice("float32", "TF32 would keep 10 of 23 bits"),
        "optimizer": Choice("fused AdamW", "one kernel for all that is trained"),
        "attention": _attention(settings, mixed),
        "compile": _compile(settings, device),
    }


def rehearse(
    stepper: Stepper, rows: Sequence[TrainRow], job: TrainingJob, choices: Choices
) -> Choices:
    """Try the choices on the heaviest micro batch there will be, and set the model up so.

    Nothing of it is kept: no gradient, and random numbers go on as if it had not been. On a
    processor nothing is tried unless the task file asks for something.

    Args:
        stepper: the `training.steps.Stepper` of the run.
        rows: what is trained on.
        job: the run.
        choices: what `choose` found.

    Returns:
        What is used.

    Raises:
        TrainingError: a step does not fit into the GPU's memory.
        ConfigError: what the task file asks for does not work with this model here.
    """
    settings, model = job.settings, base_of(stepper.model)
    own = Choice(model.config._attn_implementation, "what Transformers takes for this model")
    found = dict(choices)
    if found["attention"].value not in (FLASH, own.value):
        found["attention"] = own
    asked = settings.attention == FLASH or settings.compile == "on"
    if found["device"].value != "cuda" and not asked:
        return found
    lengths: list[int] = lengths_of(rows).tolist()
    batch = [rows[i] for i in heaviest(lengths, settings, job.seed, job.micro_tokens)]
    trial = _Trial(stepper, batch)
    with _undisturbed(stepper.model):
        seconds = trial.first() / stepper.padded_tokens(batch) * _tokens(lengths, job)
        if found["attention"].value == FLASH:
            use = Way(
                "attention",
                lambda: _use_attention(model, FLASH),
                lambda: _use_attention(model, own.value),
                own,
            )
            found["attention"] = trial.attempt(found["attention"], use, settings.attention == FLASH)
        if (
            found["compile"].value == "on"
            and settings.compile == "auto"
            and (seconds < COMPILE_FROM_S)
        ):
            why = f"about {seconds:.0f} s of steps are too few to pay for it"
            found["compile"] = Choice("off", why)
        elif found["compile"].value == "on":
            use = Way(
                "compile",
                lambda: compile_blocks(model),
                lambda: uncompile_blocks(model),
                Choice("off", ""),
            )
            found["compile"] = trial.attempt(found["compile"], use, settings.compile == "on")
    return found


def untried(choices: Choices) -> Choices:
    """What is used where nothing can be tried, since the model's weights will be sharded."""
    plain = {"attention": "sdpa", "compile": "off"}
    why = "of a sharded model nothing is tried before"
    return choices | {name: Choice(value, why) for name, value in plain.items()}


def as_json(choices: Choices) -> dict[str, dict[str, str]]:
    """The choices for `result.json` and `tunelm doctor --json`."""
    return {name: choice._asdict() for name, choice in choices.items()}


def compile_blocks(model: Any) -> None:
    """Compile each block of a Transformers model in place; names and weights stay as they are.

    All blocks share one compiled code, so that this takes a fraction of compiling the whole; it is
    compiled for any length.

    Raises:
        ModelError: the model does not say what its blocks are.
    """
    names: set[str] = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise ModelError(f"{type(model).__name__} does not say what its blocks are")
    for block in blocks:
        block.compile(dynamic=True)


def uncompile_blocks(model: Any) -> None:
    """Undo `compile_blocks`."""
    for module in model.modules():
        module._compiled_call_impl = None  # torch has no public way back


class Way(NamedTuple):
    """How something is put to use and taken back, and what is used then."""

    name: str
    use: Callable[[], None]
    undo: Callable[[], None]
    otherwise: Choice


class _Trial:
    """One micro batch, computed in several ways that must agree."""

    def __init__(self, stepper: Stepper, rows: Sequence[TrainRow]) -> None:
        self._stepper, self._rows = stepper, rows
        self._loss = math.nan

    def first(self) -> float:
        """Compute it as the model is; the seconds of the second time.

        Raises:
            TrainingError: it does not fit into memory.
        """
        try:
            self._loss = self._run()[0]
            return self._run()[1]
        except torch.OutOfMemoryError:
            tokens, size = self._stepper.padded_tokens(self._rows), _gpu_memory()
            raise TrainingError(
                f"a step of {tokens:,} tokens ({len(self._rows)} rows of at most "
                f"{max(row.length for row in self._rows):,}) does not fit into this GPU's {size}. "
                "Nothing was trained. Lower batch_size or batch_tokens of the route or max_length "
                f'of [model], or take method = "{quantized.METHOD}".'
            ) from None

    def attempt(self, wanted: Choice, way: Way, asked: bool) -> Choice:
        """Put a way to use if the step works with it and has the same loss.

        Raises:
            ConfigError: it does not, and the task file asks for it.
        """
        try:
            way.use()
            loss = self._run()[0]
            agrees = AGREES_HALF if self._stepper.mixed else AGREES
            if abs(loss - self._loss) > agrees * max(1.0, self._loss):
                raise ModelError(f"the loss is {loss:.5f} with it, and {self._loss:.5f} without")
        except Exception as error:  # kernels and compilers fail in any way
            way.undo()
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if asked:
                raise ConfigError(
                    f'{way.name} = "{wanted.value}" was tried on a step and does not work here: '
                    f'{why} Take {way.name} = "auto".'
                ) from None
            said = f"{wanted.value} was tried: {why}"
            return Choice(way.otherwise.value, f"{way.otherwise.why}; {said}".lstrip("; "))
        return wanted

    def _run(self) -> tuple[float, float]:
        """The loss without dropout and noise; the seconds of a gradient."""
        loss = self._stepper.evaluate(self._rows).loss
        began = time.perf_counter()
        self._stepper.backward(self._rows)  # reads the loss at its end, which waits for a GPU
        seconds = time.perf_counter() - began
        self._stepper.model.zero_grad(set_to_none=True)
        return loss, seconds


@contextmanager
def _undisturbed(model: Any) -> Generator[None]:
    """Within, the model is in training mode; afterwards it, the random numbers and the record of
    the GPU's peak memory are as before.
    """  # noqa: D205
    training = model.training
    on_gpu = model.device.type == "cuda"
    model.train()
    try:
        with torch.random.fork_rng(devices=[model.device] if on_gpu else []):
            yield
    finally:
        model.zero_grad(set_to_none=True)
        model.train(training)
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def _tokens(lengths: Sequence[int], job: TrainingJob) -> float:
    """Tokens of the whole run, without padding."""
    steps = sum(steps_by_epoch(lengths, job.settings, job.seed))
    return sum(lengths) * steps / len(epoch_batches(lengths, job.settings, job.seed, 0))


def _use_attention(model: Any, name: str) -> None:
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise ModelError(f"{type(model).__name__} cannot change its attention")


def _attention(settings: LocalSettings, mixed: bool) -> Choice:
    if settings.attention == "sdpa":
        return Choice("sdpa", "asked for")
    from transformers.utils.import_utils import is_flash_attn_2_available

    problem = None
    if not mixed:
        problem = "FlashAttention computes in half precision, on NVIDIA GPUs alone"
    elif not is_flash_attn_2_available():
        problem = "flash-attn 2 is not installed"
    if problem is None:
        return Choice(FLASH, "flash-attn 2 is installed; rows end to end, without padding")
    if settings.attention == FLASH:
        raise PrerequisiteError(f'attention = "{FLASH}": {problem}. Take attention = "auto".')
    return Choice("sdpa", problem)


def _compile(settings: LocalSettings, device: str) -> Choice:
    if settings.compile != "auto":
        return Choice(settings.compile, "asked for")
    if device != "cuda":
        return Choice("off", "only tried on NVIDIA GPUs unless asked for")
    if importlib.util.find_spec("triton") is None:
        return Choice("off", "Triton, which it needs on a GPU, is not installed")
    return Choice("on", f"where the steps take {COMPILE_FROM_S:.0f} s and more")


def _gpu_memory() -> str:
    size = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return f"{size / 2**30:.0f} GiB" if size else "memory"
