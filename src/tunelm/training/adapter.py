"""The trainable part: a LoRA adapter on a frozen base, made by PEFT."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelm.config import LocalSettings
from tunelm.errors import ConfigError, TrainingError
from tunelm.models.identity import CARD, base_folder
from tunelm.rundir import write_text
from tunelm.training.job import TrainingJob

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def default_learning_rate(hidden_size: int, settings: LocalSettings) -> float:
    """Ten times full fine-tuning's rate, smaller for wider models.

    The rule is tinker-cookbook's `get_lr` for Llama models: 10 * 5e-5 * (2000 / hidden)^0.781,
    found by sweeps at alpha 32 and about independent of the rank. It is held at 2e-3, since
    in the sweeps published with it nearly all runs that diverged stood at 3e-3. rsLoRA
    multiplies the update by sqrt(r) more than LoRA does, which is taken back here.

    >>> round(default_learning_rate(4096, LocalSettings()), 6)
    0.000286
    >>> default_learning_rate(192, LocalSettings())
    0.002
    """
    rate = min(2e-3, 10 * 5e-5 * (2000 / hidden_size) ** 0.781)
    return rate / math.sqrt(settings.r) if settings.method == "rslora" else rate


def peak_rate(model: PeftModel, settings: LocalSettings) -> float:
    """The learning rate after warmup: as set, or the default for this model's width."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    config: Any = model.config
    return default_learning_rate(config.get_text_config().hidden_size, settings)


def add_adapter(model: PreTrainedModel, settings: LocalSettings, seed: int) -> PeftModel:
    """Freeze `model` and put an untrained adapter on it; trainable weights are float32.

    Raises:
        ConfigError: `targets` names no layer of this model.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    targets = settings.targets
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.r,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # floats work
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
    )
    torch.manual_seed(seed)
    try:
        adapted: Any = get_peft_model(model, config)
    except ValueError as error:
        layers = sorted(
            {n.rpartition(".")[2] for n, m in model.named_modules() if hasattr(m, "weight")}
        )
        raise ConfigError(
            f"targets = {settings.targets!r}: {error} Layers of this model: {', '.join(layers)}."
        ) from None
    return adapted


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_shapes(base: str | Path, revision: str | None) -> PreTrainedModel:
    """The model without its weights (on the meta device), to count on; nothing is downloaded.

    Raises:
        PrerequisiteError: the base is neither a folder nor in the local hub cache.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = base_folder(base, revision)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def prove_learning(model: PeftModel, ids: tuple[int, ...]) -> dict[str, float]:
    """Show that the adapter holds something and does something.

    Returns:
        `lora_b_norm` (B starts at zero) and `logits_change`, the largest absolute difference
        it makes to the logits after any token of `ids`.

    Raises:
        TrainingError: a weight is NaN or infinite, B is still zero, or no logit changed.
    """
    import torch

    weights = trainable(model)
    broken = [n for n, p in weights.items() if not bool(torch.isfinite(p).all())]
    if broken:
        raise TrainingError(
            f"{len(broken)} of the adapter's {len(weights)} tensors hold NaN or infinity "
            f"(first: {broken[0]}). Nothing was saved. Lower the learning rate."
        )
    norm = math.sqrt(
        sum(float(p.detach().float().pow(2).sum()) for n, p in weights.items() if "lora_B" in n)
    )
    model.eval()
    row = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        after = model(input_ids=row).logits.float()
        with model.disable_adapter():
            before = model(input_ids=row).logits.float()
    change = float((after - before).abs().max())
    if not (norm > 0 and change > 0):
        raise TrainingError(
            f"the adapter did not move: the norm of B is {norm}, the largest change of a logit "
            f"{change}. Nothing was saved. Raise the learning rate, or train more steps."
        )
    return {"lora_b_norm": norm, "logits_change": change}


def save_adapter(
    model: PeftModel, folder: Path, job: TrainingJob, identity: Mapping[str, Any]
) -> None:
    """Write the adapter in PEFT's format (safetensors), and its card, into `folder`."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = job.model.base
        config.revision = job.model.revision
    # False: "auto" asks the hub whether the vocabulary grew; it never does here
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's form, not filled in
    card = {
        "schema_version": 1,
        "base": json.loads(job.model.model_dump_json()),
        "identity": dict(identity),
        "system": job.system,
        "settings": json.loads(job.settings.model_dump_json()),
        "seed": job.seed,
    }
    write_text(folder / CARD, json.dumps(card, indent=2, ensure_ascii=False))
