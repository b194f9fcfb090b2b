"""A base model in 4 bits, for QLoRA (arXiv 2305.14314), by bitsandbytes.

The linear layers of the blocks are stored as NF4, with the scales of each 64 weights quantized
again ("double quantization"); they are computed with in the type that the rest of the model has.
Embeddings, norms and the output layer stay as they are.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from tunelm.errors import PrerequisiteError
from tunelm.models.identity import CARD

BITS_PER_WEIGHT = 4.127
"""Of NF4 with double quantization: 4, and 0.127 for the scales (QLoRA, section 3)."""
METHOD = "qlora"
UNQUANTIZED = "%s was trained on its base in 4 bits and answers on the unquantized one (%s)"
"""A warning: such answers differ a little from those that training saw."""


def why_not(device: str) -> str | None:
    """Why no model can be held in 4 bits on this device; None where it can."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed: pip install 'tunelm[qlora]'"
    return None if device in ("cuda", "cpu") else f"bitsandbytes does not compute on {device}"


def loading_options(device: str, dtype: Any) -> dict[str, Any]:
    """What `from_pretrained` is told beside the usual.

    Raises:
        PrerequisiteError: not on this machine.
    """
    if (problem := why_not(device)) is not None:
        raise PrerequisiteError(f'method = "{METHOD}": {problem}. Or take method = "lora".')
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def keep_differentiable(model: Any) -> None:
    """Keep the layers in the form that gradients pass through.

    On processors with AVX512-BF16 bitsandbytes repacks a layer when it first answers without
    gradient, for an operator that has none: training after an evaluation would then learn from
    wrong gradients, with a warning alone (read in bitsandbytes 0.50.2, nn/modules.py).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def trained_on(adapter: Path) -> bool:
    """Whether an adapter's card says that its base was in 4 bits."""
    path = adapter / CARD
    if not path.is_file():
        return False
    card = json.loads(path.read_text(encoding="utf-8"))
    return card.get("settings", {}).get("method") == METHOD
