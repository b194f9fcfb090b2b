"""What a study searches: the methods, their settings, and where each search begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunelm.config import ModelConfig
from tunelm.models.loading import require_torch, resolve_base
from tunelm.route_settings import LocalSettings
from tunelm.training.adapter import default_learning_rate

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Variant:
    """A method, with what it has beside rank, alpha, targets and learning rate."""

    method: Literal["lora", "rslora", "dora", "rsdora"]
    loraplus: bool = False
    neftune: bool = False


RIVAL = "lora"
"""The method to beat: with its learning rate tuned, plain LoRA equals or beats most variants
(arXiv 2602.04998, arXiv 2601.22708)."""

VARIANTS = {
    RIVAL: Variant("lora"),
    "rslora": Variant("rslora"),
    "dora": Variant("dora"),
    "lora+": Variant("lora", loraplus=True),
    "rsdora+": Variant("rsdora", loraplus=True, neftune=True),
}
"""In the order in which they are dealt trials. `rsdora+` is all together (arXiv 2410.16088)."""

ALL_LINEAR = "all-linear"
RANKS = (4, 8, 16, 32, 64)
ALPHAS = (8.0, 16.0, 32.0, 64.0)
RATES = (0.125, 4.0)
"""The learning rate as a multiple of the method's default for this model and rank. In the
sweeps behind that default the best rate was mostly within a factor of three of it, and what
stood far above it diverged."""
RATIOS = (2.0, 4.0, 8.0, 16.0)
NOISES = (5.0, 10.0, 15.0)
"""Those of the NEFTune paper."""

START: Mapping[str, Any] = {
    "r": 16,
    "alpha": 32.0,
    "targets": ALL_LINEAR,
    "rate": 1.0,
    "loraplus_ratio": 4.0,
    "neftune_alpha": 5.0,
}
"""The first trial of each method: its defaults, so that a search never ends below them."""


@dataclass(frozen=True)
class Shape:
    """What the space depends on in a base model: its width, and layers to adapt.

    `few` are the layers that PEFT adapts by default in this architecture (of most only the
    attention's query and value); None where it has no default.
    """

    width: int
    few: tuple[str, ...] | None


def shape_of(model: ModelConfig) -> Shape:
    """The shape of a base, from its configuration; no weights are read.

    Raises PrerequisiteError without the extra `local`.
    """
    require_torch()
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(resolve_base(model), revision=model.revision)
    few = KNOWN.get(str(config.model_type))
    return Shape(int(config.get_text_config().hidden_size), tuple(few) if few else None)


def distributions(variant: Variant, shape: Shape) -> dict[str, BaseDistribution]:
    """What is drawn for a trial of this method, by name. Needs Optuna."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    targets = [ALL_LINEAR, *([",".join(shape.few)] if shape.few else [])]
    found: dict[str, BaseDistribution] = {
        "rate": FloatDistribution(*RATES, log=True),
        "r": CategoricalDistribution(RANKS),
        "alpha": CategoricalDistribution(ALPHAS),
        "targets": CategoricalDistribution(targets),
    }
    if variant.loraplus:
        found["loraplus_ratio"] = CategoricalDistribution(RATIOS)
    if variant.neftune:
        found["neftune_alpha"] = CategoricalDistribution(NOISES)
    return found


def settings_of(
    variant: Variant, params: Mapping[str, Any], given: LocalSettings, shape: Shape
) -> LocalSettings:
    """The settings of a trial: `given` with what was drawn; the learning rate to three digits."""
    targets: str | Sequence[str] = params["targets"]
    if targets != ALL_LINEAR:
        targets = tuple(str(targets).split(","))
    chosen = given.model_copy(
        update={
            "method": variant.method,
            "r": params["r"],
            "alpha": params["alpha"],
            "targets": targets,
            "loraplus_ratio": params.get("loraplus_ratio"),
            "neftune_alpha": params.get("neftune_alpha"),
        }
    )
    rate = params["rate"] * default_learning_rate(shape.width, chosen)
    return chosen.model_copy(update={"learning_rate": float(f"{rate:.3g}")})
