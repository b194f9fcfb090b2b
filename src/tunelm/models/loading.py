"""From a config's `base` to a loaded Transformers model, tokenizer and where they came from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunelm.config import ModelConfig
from tunelm.errors import ConfigError, ModelError, PrerequisiteError
from tunelm.models import remote_base

if TYPE_CHECKING:
    import torch

BUNDLED = {
    "tunelm-nano": Path(__file__).parents[1] / "weights" / "nano",
    "tunelm-nano-small": Path(__file__).parents[1] / "weights" / "nano-small",
}


class Base(NamedTuple):
    """A loaded base model. `device` is a torch device string."""

    model: Any
    tokenizer: Any
    device: str


def require_torch() -> None:
    """Raise PrerequisiteError when the local extra is missing; imports nothing of it."""
    _require("torch", "transformers", "peft")


def _require(*names: str) -> None:
    for name in names:
        if find_spec(name) is None:
            raise PrerequisiteError(
                f"{name} is not installed: local models need the extra 'local':"
                " pip install 'tunelm[local]'"
            )


def resolve_base(config: ModelConfig) -> str:
    """The folder or hub id behind `config.base`.

    Raises ConfigError for a model behind an API, which has no weights here.
    """
    if remote_base(config):
        raise ConfigError(
            f"model.base = {config.base!r} is behind an API and has no weights here. Train it by "
            "the route cloud, or name a folder or a hub id."
        )
    if config.base in BUNDLED:
        return str(BUNDLED[config.base])
    return config.base


def load_tokenizer(config: ModelConfig) -> Any:
    """The model's own tokenizer, with a pad token (its end token where it has none)."""
    _require("transformers")
    from transformers import AutoTokenizer

    with _load_errors(config):
        tokenizer = AutoTokenizer.from_pretrained(
            resolve_base(config), revision=config.revision, token=os.environ.get("HF_TOKEN")
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(config: ModelConfig, quantized: bool = False) -> Base:
    """The model, in evaluation mode on its device, and its tokenizer.

    Args:
        config: which model, where, and in which type.
        quantized: with the linear layers in 4 bits, as QLoRA trains on them (`models.quantized`).

    Raises:
        ModelError: nothing loadable is there.
        PrerequisiteError: an extra is missing, or there is no such device.
    """
    tokenizer = load_tokenizer(config)
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from tunelm.models import quantized as four_bits

    logging.disable_progress_bar()  # ours says what is being done

    device = choose_device(config.device)
    dtype = weights_dtype(config)
    more = four_bits.loading_options(device, dtype) if quantized else {}
    with _load_errors(config):
        model: Any = AutoModelForCausalLM.from_pretrained(
            resolve_base(config),
            revision=config.revision,
            dtype=dtype,
            token=os.environ.get("HF_TOKEN"),
            **more,
        )
    if quantized:
        four_bits.keep_differentiable(model)
    else:
        model = model.to(device)
    return Base(model.eval(), tokenizer, device)


def explained_dtype(config: ModelConfig) -> tuple[torch.dtype, str]:
    """What `load_base` holds the weights in, and why.

    bfloat16 on a GPU that computes in it (NVIDIA's from compute capability 8.0 on: older ones
    only emulate it), else float32. Never float16 by itself: its range is so narrow that gradients
    must be scaled.
    """
    import torch

    if config.dtype != "auto":
        return getattr(torch, config.dtype), "dtype of [model]"
    device = choose_device(config.device)
    if device != "cuda":
        return torch.float32, f"on {device} nothing is gained by less"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "this GPU computes in it"
    return torch.float32, "this GPU has no bfloat16, and float16 overflows"


def describe_base(config: ModelConfig) -> dict[str, Any]:
    """Which model this is: name, hash of its weights, parameters, context in tokens.

    Reads files, loads no weights; of a model behind an API only the name is known. Raises
    ModelError or PrerequisiteError as `load_base` does.
    """
    if remote_base(config):
        unknown = dict.fromkeys(("weights_sha256", "parameters", "context"))
        return {"name": config.base, **unknown}
    require_torch()
    from transformers import AutoConfig

    from tunelm.models.identity import base_folder, base_identity

    with _load_errors(config):
        shape = AutoConfig.from_pretrained(resolve_base(config), revision=config.revision)
    folder = base_folder(resolve_base(config), config.revision)
    return {
        "name": config.base,
        "weights_sha256": base_identity(folder)["weights"],
        "parameters": _count_parameters(folder),
        "context": getattr(shape, "max_position_embeddings", None),
    }


def _count_parameters(folder: Path) -> int | None:
    """Stored parameters, from the safetensors headers; None for other formats."""
    import math

    from safetensors import safe_open

    files = list(folder.glob("model*.safetensors"))
    total = 0
    for path in files:
        with safe_open(path, framework="pt") as weights:
            total += sum(math.prod(weights.get_slice(k).get_shape()) for k in weights.keys())  # noqa: SIM118
    return total or None


def choose_device(wanted: str) -> str:
    """cuda, mps or cpu: what was asked for, or the best there is."""
    import torch

    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    if not present.get(wanted, torch.backends.mps.is_available()):
        raise PrerequisiteError(
            f"model.device = {wanted!r}, but this machine has none. Use 'auto' or 'cpu'."
        )
    return wanted


def weights_dtype(config: ModelConfig) -> torch.dtype:
    """What `load_base` holds the weights in."""
    return explained_dtype(config)[0]


@contextlib.contextmanager
def _load_errors(config: ModelConfig) -> Generator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"model.base = {config.base!r} cannot be loaded: {first} Valid: "
            f"{', '.join(BUNDLED)}, a folder that save_pretrained wrote, or a hub id."
        ) from error
