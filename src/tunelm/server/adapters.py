"""A base model with an adapter on it, beside the same base without: weights are shared."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import torch

from tunelm.errors import ModelError

MERGED_BYTES = 1 << 30
"""Most memory that the adapters' own copies of weights may take together."""


def merges(model: Any, adapters: int) -> bool:
    """Whether adapters are added to copies of the weights, which makes each step faster.

    Only where that changes nothing but the rounding of float32, and where the copies are small.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    return model.dtype == torch.float32 and size * adapters <= MERGED_BYTES


def put_on(model: Any, adapter: Path, merged: bool) -> Any:
    """The model with an adapter; `model` itself stays as it is.

    The new one has modules of its own and shares the weights that the adapter leaves alone.

    Raises:
        ModelError: the adapter cannot be read, or its weights found no place in the model, so
            that it would answer as if there were no adapter.
    """
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict
    from safetensors import safe_open

    shared = [*model.parameters(), *model.buffers()]
    own = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    try:
        with warnings.catch_warnings():  # what it warns of is looked at below
            warnings.simplefilter("ignore")
            wrapped = PeftModel.from_pretrained(own, str(adapter)).eval()
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
            stored = set(file.keys())
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(f"{adapter}: this adapter cannot be loaded: {first}") from error
    used = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if lost := sorted(stored ^ used):
        raise ModelError(
            f"{adapter}: {len(lost)} of the adapter's weights have no place in this model, the "
            f"first: {lost[0]}. It would answer as if there were no adapter."
        )
    return _merge(wrapped) if merged else wrapped.get_base_model()


def _merge(wrapped: Any) -> Any:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            layer: Any = module.get_base_layer()
            own = layer.weight.detach().clone()  # merging writes into it
            layer.weight = torch.nn.Parameter(own, requires_grad=False)
    return wrapped.merge_and_unload()
