"""Dated prices: what training, hosting and answers cost, each with its source.

Training and hosting stand in `tables/prices.toml`, put together by hand. What answers cost, and
when models shut down, comes from LiteLLM's open price list (`price_list`). Unknown is None,
never zero; a price older than STALE_DAYS is `stale`, and is called so wherever it is shown.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from tunelm.price_list import FIELDS, MILLION, TABLES, PriceList, price_list
from tunelm.types import Estimate

STALE_DAYS = 90
PER_MILLION = "USD per 1M tokens"
TOKEN_MARGIN = 0.1
"""A provider's count of a file's tokens is taken to be within this share of ours."""

_MAKERS = ("openai", "anthropic")
"""Whose models the list names without a provider before them."""
_HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.inference.crusoecloud.com": "crusoe",
    "api.mistral.ai": "mistral",
    "api.openai.com": "openai",
    "api.together.ai": "together",
    "api.together.xyz": "together",
    "api.tokenfactory.nebius.com": "nebius",
    "api.x.ai": "xai",
    "generativelanguage.googleapis.com": "gemini",
}


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider asks for training or hosting. `value` None: looked for and not found.

    `model` is a name or a size class such as "<=16B"; `method` supervised, dpo,
    supervised-full, dpo-full, reinforcement, hosting, gpu, storage or minimum.
    """

    provider: str
    model: str
    method: str
    value: float | None
    unit: str
    source: str
    as_of: date
    verified: bool
    note: str = ""

    def stale(self, today: date) -> bool:
        """Whether it is older than STALE_DAYS."""
        return is_stale(self.as_of, today)

    def describe(self, today: date) -> str:
        """The price in words, with its source and what speaks against it."""
        figure = "unknown" if self.value is None else f"{self.value:g}"
        return f"{figure} {self.unit} ({self.source}, {remarks(self, today)})"


@dataclass(frozen=True, slots=True)
class InferencePrice:
    """US dollars for a million tokens of a model's prompts and answers; None: unknown.

    Prompts of more than `up_to_tokens` tokens cost more; None: the price holds for all.
    """

    provider: str
    model: str
    usd_in: float
    usd_out: float
    usd_cached_in: float | None
    usd_batch_in: float | None
    usd_batch_out: float | None
    up_to_tokens: int | None
    shutdown: date | None
    source: str
    as_of: date
    verified: bool = False

    def stale(self, today: date) -> bool:
        """Whether it is older than STALE_DAYS."""
        return is_stale(self.as_of, today)

    def describe(self, today: date) -> str:
        """The price in words, with its source and what speaks against it."""
        figures = f"{self.usd_in:g} in, {self.usd_out:g} out, {PER_MILLION}"
        if self.up_to_tokens is not None:
            figures += f" for prompts of up to {self.up_to_tokens:,} tokens"
        return f"{figures} ({self.source}, {remarks(self, today)})"


def is_stale(as_of: date, today: date) -> bool:
    """Whether a fact of that day is older than STALE_DAYS.

    >>> is_stale(date(2026, 1, 1), date(2026, 4, 1)), is_stale(date(2026, 1, 1), date(2026, 4, 2))
    (False, True)
    """
    return (today - as_of).days > STALE_DAYS


def remarks(fact: Any, today: date) -> str:
    """The day of a fact with `as_of` and `verified`, and what speaks against it."""
    told = [fact.as_of.isoformat()]
    if is_stale(fact.as_of, today):
        told.append(f"stale: older than {STALE_DAYS} days")
    if not fact.verified:
        told.append("not verified")
    return ", ".join(told)


# --- training and hosting --------------------------------------------------------------------


@functools.cache
def listed_prices() -> tuple[Price, ...]:
    """All that is known of training and hosting, by provider."""
    data = tomllib.loads((TABLES / "prices.toml").read_text(encoding="utf-8"))
    found: list[Price] = []
    for group in data["group"]:
        shared = {key: value for key, value in group.items() if key != "rows"}
        for model, method, *value in group["rows"]:
            found.append(
                Price(**shared, model=model, method=method, value=value[0] if value else None)
            )
    return tuple(found)


def training_price(provider: str, model: str, method: str = "supervised") -> Price | None:
    """What a provider asks for training a model by a method; None where nothing is known.

    A model without a row of its own has that of its size class, if its name tells its size.

    >>> training_price("openai", "gpt-4o-mini").value
    3.0
    >>> training_price("fireworks", "llama-v3p1-8b-instruct", "dpo").value
    1.0
    >>> training_price("openai", "another") is None
    True
    """
    rows = [p for p in listed_prices() if (p.provider, p.method) == (provider, method)]
    base = base_of(model)
    for row in rows:
        if same_model(row.model, base):
            return row
    size = _billions(base)
    for row in rows:
        if row.model == "any" or (size is not None and _in_class(size, row.model)):
            return row
    return None


def base_of(model: str) -> str:
    """What a fine-tune was made from; any other name as it is.

    >>> base_of("ft:gpt-4o-mini-2024-07-18:org:suffix:id:ckpt-step-8"), base_of("gpt-4o")
    ('gpt-4o-mini-2024-07-18', 'gpt-4o')
    """
    return model[3:].partition(":")[0] if model.startswith("ft:") else model


def same_model(one: str, other: str) -> bool:
    """Whether two names are the same, or one is the other with the date of a snapshot.

    >>> same_model("gpt-4o", "gpt-4o-2024-08-06"), same_model("gpt-4o", "gpt-4o-mini")
    (True, False)
    """
    short, long = sorted((one, other), key=len)
    return re.fullmatch(r"(-[\d-]+)?", long.removeprefix(short)) is not None


def _billions(model: str) -> float | None:
    """The size that a model's name tells, in billions of parameters."""
    found = re.search(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", model.lower())
    if found is None:
        return None
    size = float(found[2]) * int(found[1] or 1)
    return size / 1000 if found[3] == "m" else size


def _in_class(size: float, name: str) -> bool:
    bounds = re.fullmatch(r"(<=|>)([\d.]+)B|([\d.]+)B-([\d.]+)B", name)
    if bounds is None:
        return False
    if bounds[1]:
        return (size <= float(bounds[2])) == (bounds[1] == "<=")
    return float(bounds[3]) <= size <= float(bounds[4])


def estimate_training(
    rows_tokens: Sequence[int] | None,
    n_epochs: int | None,
    price: Price | None,
    today: date,
    *,
    limit: int | None = None,
    margin: float = TOKEN_MARGIN,
    reason: str = "the tokens were not counted",
) -> Estimate:
    """Forecast what training on these rows costs, in USD.

    Args:
        rows_tokens: tokens of each row; None: not known.
        n_epochs: passes over them; None: left to the provider, and then from 1 to 25.
        price: as from `training_price`.
        today: for whether the price is stale.
        limit: tokens of a row beyond these are not billed.
        margin: how far the provider's own count may be from `rows_tokens`, as a share.
        reason: why the tokens are not known.
    """
    if rows_tokens is None:
        return Estimate(None, "USD", f"unknown: {reason}")
    if price is None:
        return Estimate(None, "USD", "unknown: no price of this training is known")
    if price.value is None or price.unit != PER_MILLION:
        return Estimate(None, "USD", f"unknown: {price.describe(today)}")
    tokens = sum(min(count, limit) if limit else count for count in rows_tokens)
    usual = usual_epochs(len(rows_tokens)) if n_epochs is None else n_epochs
    least, most = (1, 25) if n_epochs is None else (n_epochs, n_epochs)
    once = tokens * price.value / MILLION
    chosen = "" if n_epochs is not None else " (as is usual; the provider chooses)"
    return Estimate(
        once * usual,
        "USD",
        f"formula: {tokens:,} tokens x {usual} epochs{chosen} x {price.describe(today)}",
        once * least * (1 - margin),
        once * most * (1 + margin),
    )


def usual_epochs(examples: int) -> int:
    """Epochs where they are left to OpenAI, by the rule of thumb its cookbook gives.

    Three; more where they make fewer than 100 examples, fewer where more than 25,000.

    >>> [usual_epochs(n) for n in (0, 10, 50, 1000, 20_000, 100_000)]
    [3, 10, 3, 3, 1, 1]
    """
    if 0 < examples * 3 < 100:
        return min(25, 100 // examples)
    return max(1, min(3, 25_000 // examples)) if examples else 3


# --- what answers cost -----------------------------------------------------------------------


def inference_price(model: str, provider: str | None = None) -> InferencePrice | None:
    """What a model's answers cost; None where nothing is known.

    `model` may name the provider, as in `azure/gpt-4o`; without one, a model of OpenAI's or
    Anthropic's own is meant. A fine-tune (`ft:...`) has its own price.

    Raises DataError when the updated list cannot be read.
    """
    prices = price_list()
    found = _find(prices, model, provider)
    return None if found is None else _price(prices, *found)


def shutdown_date(model: str, provider: str | None = None) -> date | None:
    """When a model shuts down, by the price list; None where no day is known.

    Raises DataError when the updated list cannot be read.
    """
    prices = price_list()
    for name in (model, base_of(model)):  # a fine-tune ends with its base
        found = _find(prices, name, provider)
        if found and (day := _shutdown(prices.models[found[0]][found[1]])):
            return day
    return None


def price_at(host: str, model: str) -> InferencePrice | None:
    """What a model's answers cost at an endpoint; None for a host whose provider is not known.

    Clouds where deployments are named at will (Azure, Bedrock) are not known.

    Raises DataError when the updated list cannot be read.
    """
    return inference_price(model, _HOSTS[host]) if host in _HOSTS else None


def matching(text: str) -> list[InferencePrice]:
    """The prices of all models with `text` in their names, by provider and name."""
    prices = price_list()
    wanted = text.lower()
    pairs = ((p, m) for p, models in prices.models.items() for m in models)
    found = (_price(prices, p, m) for p, m in pairs if wanted in f"{p}/{m}".lower())
    return [price for price in found if price is not None]


def _find(prices: PriceList, model: str, provider: str | None) -> tuple[str, str] | None:
    """(provider, name in the list)."""
    if model.startswith("ft:"):
        model = f"ft:{base_of(model)}"
    first, slash, rest = model.partition("/")
    if provider is None and slash and first in prices.models:
        provider, model = first, rest
    for candidate in _MAKERS if provider is None else (provider,):
        if model in prices.models.get(candidate, {}):
            return candidate, model
    return None


def _price(prices: PriceList, provider: str, model: str) -> InferencePrice | None:
    row = prices.models[provider][model]
    figures = dict.fromkeys(FIELDS) | dict(zip(FIELDS, row, strict=False))
    if figures["usd_in"] is None or figures["usd_out"] is None:
        return None
    return InferencePrice(
        provider,
        model,
        **figures,  # pyright: ignore[reportArgumentType]
        shutdown=_shutdown(row),
        source=prices.source,
        as_of=prices.as_of,
    )


def _shutdown(row: Sequence[Any]) -> date | None:
    return date.fromisoformat(row[len(FIELDS)]) if len(row) > len(FIELDS) else None


def to_json(price: Price | InferencePrice, today: date) -> dict[str, Any]:
    """A price as JSON, with `stale`."""
    fields = dataclasses.asdict(price)
    days = {key: value.isoformat() for key, value in fields.items() if isinstance(value, date)}
    return {**fields, **days, "stale": price.stale(today)}
