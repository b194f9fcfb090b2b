"""Route `baseline`: the base model as it is, told the task's instructions."""

from __future__ import annotations

from tunelm.config import BaselineSettings, ModelConfig
from tunelm.models import open_model
from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.routes.base import FitContext
from tunelm.types import Adapted, Estimate, Plan


class BaselineRoute:
    """The control that every other route is measured against."""

    kind = "baseline"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: BaselineSettings) -> None:
        self.settings = settings

    def plan(self, ctx: FitContext) -> Plan:
        """Nothing is fitted, so nothing is needed."""
        return Plan(ctx.name, self.kind, {"seconds_fit": Estimate(0.0, "s", "exact")})

    def fit(self, ctx: FitContext) -> Adapted:
        """Nothing to do: the instructions are the task's own."""
        folder = ctx.work / "adapted"
        folder.mkdir(exist_ok=True)
        base = {"config": ctx.model.model_dump(mode="json")}
        return Adapted(self.kind, str(folder), base, ctx.task.instructions)

    def open(self, adapted: Adapted) -> ChatModel:
        """The base model behind its instructions."""
        return PromptedModel(
            open_model(ModelConfig.model_validate(adapted.base["config"])), adapted.system
        )
