"""The trainable part: a LoRA adapter on a frozen base, made by PEFT, or the whole model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelm.errors import ConfigError, TrainingError
from tunelm.models.identity import CARD, base_folder
from tunelm.route_settings import LocalSettings
from tunelm.rundir import write_text
from tunelm.training.job import WHOLE, TrainingJob

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel


def default_learning_rate(hidden_size: int, settings: LocalSettings) -> float:
    """Ten times full fine-tuning's rate, smaller for wider models.

    The rule is tinker-cookbook's `get_lr` for Llama models: 10 * 5e-5 * (2000 / hidden)^0.781,
    found by sweeps at alpha 32 and about independent of the rank. It is held at 2e-3, since
    in the sweeps published with it nearly all runs that diverged stood at 3e-3. rsLoRA
    multiplies the update by sqrt(r) more than LoRA does, which is taken back here. With LoRA+
    it is the rate of A, divided by the root of the ratio: the rates of A and B then lie on
    both sides of LoRA's. Full fine-tuning takes a tenth.

    >>> round(default_learning_rate(4096, LocalSettings()), 6)
    0.000286
    >>> default_learning_rate(192, LocalSettings())
    0.002
    """
    rate = min(2e-3, 10 * 5e-5 * (2000 / hidden_size) ** 0.781)
    if settings.method == "full":
        return rate / 10
    if settings.method in ("rslora", "rsdora"):
        rate /= math.sqrt(settings.r)
    return rate / math.sqrt(settings.loraplus_ratio or 1)


def peak_rate(model: Any, settings: LocalSettings) -> float:
    """The learning rate after warmup: as set, or the default for this model's width.

    With LoRA+ it is that of A.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    return default_learning_rate(model.config.get_text_config().hidden_size, settings)


def make_trainable(
    model: PreTrainedModel, settings: LocalSettings, seed: int
) -> PeftModel | PreTrainedModel:
    """Freeze `model` and put an untrained adapter on it, or let all of it be trained.

    Trainable weights are float32, whatever the base is stored in.

    Raises:
        ConfigError: `targets` names no layer of this model.
    """
    import torch

    if settings.gradient_checkpointing:
        # by hooks, so that it composes with shards (torch's FSDP2 knows the kind)
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.method == "full":
        torch.manual_seed(seed)
        return model.float().requires_grad_(True)
    from peft import LoraConfig, TaskType, get_peft_model

    targets = settings.targets
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.r,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  # floats work
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=settings.method in ("rslora", "rsdora"),
        use_dora=settings.method in ("dora", "rsdora"),
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


def make_optimizer(model: Any, settings: LocalSettings) -> torch.optim.Optimizer:
    """AdamW on what is trained. Each group's `lr` is its multiple of the learning rate.

    One group with 1; with LoRA+ PEFT's groups: A with 1, B with `loraplus_ratio`. DoRA's
    magnitudes go with B, as PEFT has it; adapted embeddings with A.
    """
    import torch

    if settings.loraplus_ratio is None:
        weights = list(trainable(model).values())
        return torch.optim.AdamW(weights, lr=1.0, weight_decay=settings.weight_decay, fused=True)
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=1.0,
        loraplus_lr_ratio=settings.loraplus_ratio,
        loraplus_weight_decay=settings.weight_decay,
        loraplus_lr_embedding=1.0,
        fused=True,
    )


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


def probe(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """The model's logits (len(ids), vocabulary) after each token of `ids`, in float32."""
    import torch

    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float()


def prove_learning(model: Any, ids: Sequence[int], before: torch.Tensor) -> dict[str, float]:
    """Show that training left something that does something.

    Args:
        model: after training.
        ids: a row of the training data.
        before: `probe` of the same row on the model before training.

    Returns:
        `logits_change`, the largest absolute difference training made to a logit; and for an
        adapter `lora_b_norm` (B starts at zero).

    Raises:
        TrainingError: a weight is NaN or infinite, B is still zero, or no logit changed.
    """
    import torch

    weights = trainable(model)
    broken = [n for n, p in weights.items() if not bool(torch.isfinite(p).all())]
    if broken:
        raise TrainingError(
            f"{len(broken)} of the {len(weights)} trained tensors hold NaN or infinity "
            f"(first: {broken[0]}). Nothing was saved. Lower the learning rate."
        )
    proof = {"logits_change": float((probe(model, ids) - before).abs().max())}
    b = [p for n, p in weights.items() if "lora_B" in n]
    if b:
        proof["lora_b_norm"] = math.sqrt(sum(float(p.detach().float().pow(2).sum()) for p in b))
    if not all(value > 0 for value in proof.values()):
        found = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in proof.items())
        raise TrainingError(
            f"the weights did not move: {found}. Nothing was saved. Raise the learning rate, or "
            "train more steps."
        )
    return proof


def save_trained(
    model: Any, tokenizer: Any, folder: Path, job: TrainingJob, identity: Mapping[str, Any]
) -> None:
    """Write what was trained, and its card, into `folder`.

    An adapter in PEFT's format (safetensors). A whole model - fully fine-tuned, or adapted to
    running text, where people expect one - in Transformers' own format under
    `fine_tuned_model/`; the adapter is merged into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapter = hasattr(model, "peft_config")
    if adapter:
        for config in model.peft_config.values():
            config.base_model_name_or_path = job.model.base
            config.revision = job.model.revision
        # False: "auto" asks the hub whether the vocabulary grew; it never does here
        model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's form, not filled in
    if job.text or not adapter:
        whole = model.merge_and_unload() if adapter else model
        whole.save_pretrained(str(folder / WHOLE))
        tokenizer.save_pretrained(str(folder / WHOLE))
    card = {
        "schema_version": 1,
        "base": json.loads(job.model.model_dump_json()),
        "identity": dict(identity),
        "system": job.system,
        "settings": json.loads(job.settings.model_dump_json()),
        "seed": job.seed,
    }
    write_text(folder / CARD, json.dumps(card, indent=2, ensure_ascii=False))
