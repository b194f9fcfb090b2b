"""Route `baseline`: a model as it is, told the task's instructions.

The base model is the control that other routes are measured against. With `model` set it is a
model behind an API instead: one more row of the table, on the same test rows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tunelm.config import ModelConfig
from tunelm.models import open_model, remote_base
from tunelm.models.base import ChatModel
from tunelm.models.prompted import PromptedModel
from tunelm.route_settings import BaselineSettings, EndpointSettings
from tunelm.routes.base import ELSEWHERE, FitContext
from tunelm.types import Adapted, Estimate, Example, Plan, Usage

if TYPE_CHECKING:
    from tunelm.models.budget import Prices, Wallet

CHARACTERS_A_TOKEN = 4.0
"""A usual figure for English; the forecast's range takes 2.5 to 6."""
RULE = f"formula: characters / {CHARACTERS_A_TOKEN:g}, a rule of thumb"
LISTING_S = 30.0
"""Longest wait for the list of an endpoint's models."""


class BaselineRoute:
    """A model with the task's instructions and nothing else.

    `wallet` pays for a model behind an API; None: one in which nothing may be spent.
    """

    kind = "baseline"
    needs: tuple[str, ...] = ()

    def __init__(self, settings: BaselineSettings, wallet: Wallet | None = None) -> None:
        self.settings = settings
        self.wallet = wallet

    def plan(self, ctx: FitContext) -> Plan:
        """Nothing is fitted; behind an API, what answering the dev rows will take.

        The test rows are not seen here: each takes about as much as a dev row does.
        """
        endpoint = self._endpoint(ctx.model)
        if endpoint is None:
            return Plan(ctx.name, self.kind, {"seconds_fit": Estimate(0.0, "s", "exact")})
        from tunelm.models.remote import place_of

        address, _, prices = place_of(endpoint)
        forecasts = {
            **forecast_tokens(ctx),
            "seconds": Estimate(None, "s", "unknown: depends on the endpoint; nothing was asked"),
            "peak_memory_bytes": Estimate(None, "bytes", ELSEWHERE),
        }
        forecasts["usd_dev"] = _dollars(forecasts, prices, address.own)
        notes = [
            f"for the {len(ctx.dev)} dev rows; a test row takes about as much as one of them",
            f"the rows of dev and test are sent to {address.url}, and no others",
        ]
        if prices.known:
            notes.append(f"its cost is reckoned by {prices.source}")
        if not address.own or (prices.known and not prices.free):
            notes.append("it may charge: needs --spend, its prices, and budget.max_usd")
        return Plan(ctx.name, self.kind, forecasts, tuple(notes))

    def fit(self, ctx: FitContext) -> Adapted:
        """Nothing to adapt. An endpoint is asked once which models it has, free of charge.

        Raises:
            ConfigError: an address, a key's variable or prices that cannot be right.
            BudgetError: it may cost money, and that was not allowed or cannot be capped.
            ModelError: nothing answers there, or the key is refused.
        """
        folder = ctx.work / "adapted"
        endpoint = self._endpoint(ctx.model)
        if endpoint is None:
            folder.mkdir(exist_ok=True)
            base = {"config": ctx.model.model_dump(mode="json")}
            return Adapted(self.kind, str(folder), base, ctx.task.instructions)
        from tunelm.models.budget import check_allowed
        from tunelm.models.refusal import describe
        from tunelm.models.remote import describe_endpoint, open_address, place_of

        address, variable, prices = place_of(endpoint)
        model = str(endpoint.model)
        check_allowed(address.own, f"{model} at {address.url}", prices, ctx.budget)
        said = describe(model, open_address(address, variable, timeout_s=LISTING_S))
        detail: dict[str, Any] = {
            "endpoint": {**describe_endpoint(endpoint), "says": said},
            "route": ctx.name,
            "measured": {
                "peak_memory": dataclasses.asdict(Estimate(None, "bytes", ELSEWHERE)),
            },
        }
        folder.mkdir(exist_ok=True)
        return Adapted(self.kind, str(folder), {}, ctx.task.instructions, detail)

    def _endpoint(self, base: ModelConfig) -> EndpointSettings | None:
        """Where the model is; None for a base model whose weights are here."""
        if self.settings.model is None and self.settings.base_url is None:
            return remote_base(base)
        return self.settings

    def open(self, adapted: Adapted) -> ChatModel:
        """The model behind its instructions. Nothing is sent before it is asked something.

        Raises BudgetError where the wallet does not allow an endpoint that may charge.
        """
        if "endpoint" not in adapted.detail:
            config = ModelConfig.model_validate(adapted.base["config"])
            return PromptedModel(open_model(config), adapted.system)
        from tunelm.models.remote import open_adapted

        return open_adapted(adapted, self.wallet)


def forecast_tokens(ctx: FitContext) -> dict[str, Estimate]:
    """Tokens in and out for all dev rows, from their characters and the train answers'.

    Of the answers' length nothing is known before; that of the train answers stands for it,
    and the task's limit is the most.
    """
    rows = len(ctx.dev)
    prompt = sum(len(ctx.task.instructions) + _characters(row) for row in ctx.dev)
    answers = [len(row.answers[0]) for row in ctx.train if row.answers]
    answer = rows * sum(answers) / len(answers) if answers else 0.0
    most = float(rows * ctx.task.max_tokens)
    out = min(answer / CHARACTERS_A_TOKEN, most)
    return {
        "prompt_tokens_dev": Estimate(
            round(prompt / CHARACTERS_A_TOKEN),
            "tokens",
            RULE,
            round(prompt / 6),
            round(prompt / 2.5),
        ),
        "completion_tokens_dev": Estimate(
            round(out), "tokens", RULE, round(min(answer / 6, most)), most
        ),
    }


def _characters(row: Example) -> int:
    return sum(len(m.content) for m in row.messages) or len(row.answers[0])  # of a text: all


def _dollars(forecasts: dict[str, Estimate], prices: Prices, own: bool) -> Estimate:
    if not prices.known:
        why = "one's own endpoint, and no price is given" if own else "no price is given"
        return Estimate(None, "USD", f"unknown: {why}")
    tokens = (forecasts["prompt_tokens_dev"], forecasts["completion_tokens_dev"])

    def cost(counts: list[float | None]) -> float | None:
        return prices.cost(Usage(*(None if c is None else round(c) for c in counts)))

    return Estimate(
        cost([t.value for t in tokens]),
        "USD",
        f"{RULE}, x {prices.source}",
        cost([t.low for t in tokens]),
        cost([t.high for t in tokens]),
    )
