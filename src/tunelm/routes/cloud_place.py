"""Where a fine-tuning job goes, with what settings and at what price: known before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.config import BudgetConfig, ModelConfig
from tunelm.errors import BudgetError, ConfigError
from tunelm.models.address import Address, key_variable, parse_address
from tunelm.models.budget import Prices, check_allowed
from tunelm.prices import (
    PER_MILLION,
    Price,
    estimate_training,
    inference_price,
    training_price,
    usual_epochs,
)
from tunelm.providers import Provider, find
from tunelm.route_settings import CloudSettings, LocalSettings
from tunelm.types import Estimate

LOCAL = "local"
"""The provider that is `tunelm serve`, started here for the job."""
NO_LIST_PRICE = (
    "the price list says nothing of one's own machine; price_as names whose to show instead"
)
_GIVEN = "the price given"


@dataclass(frozen=True)
class Place:
    """A provider with everything that a job there needs.

    `address` is None for `local`, whose server is not started yet. `training` is the price of
    training, None where none is known; `listed` says that prices are somebody else's, shown for
    comparison only.
    """

    provider: Provider
    address: Address | None
    variable: str | None
    model: str
    hyperparameters: Mapping[str, int | float | str]
    training: Price | None
    answers: Prices
    listed: str | None = None

    @property
    def own(self) -> bool:
        """Whether it is on this very machine."""
        return self.address is None or self.address.own

    @property
    def backend(self) -> str:
        """What results are labelled with: the provider's name, or the address of another one."""
        if self.address is None:
            return LOCAL
        known = not self.provider.name.startswith("http")
        return self.provider.name if known else self.address.url.partition("//")[2].split("/")[0]

    @property
    def where(self) -> str:
        """The model and the provider in words."""
        return f"{self.model} at {self.provider.title}"

    @property
    def charges(self) -> bool:
        """Whether money can be spent there."""
        free_training = self.training is None or self.training.value == 0
        free = free_training and (self.answers.free or not self.answers.known)
        return self.listed is None and not (self.own and free)

    def epochs(self) -> int | None:
        """Passes over the rows; None: the provider decides."""
        epochs = self.hyperparameters.get("n_epochs")
        return epochs if isinstance(epochs, int) else None

    def cost_of_training(self, tokens: int | None) -> float | None:
        """Dollars for so many trained tokens; None: unknown."""
        if tokens is None or self.training is None or self.training.value is None:
            return None
        return tokens * self.training.value / 1e6


def place_of(settings: CloudSettings, model: ModelConfig) -> Place:
    """The provider that the settings name, its address, settings and prices, checked.

    Raises ConfigError with what is missing or not valid. Nothing is sent.
    """
    if settings.provider == LOCAL and settings.base_url is None:
        return _local(settings, model)
    named = settings.provider if settings.provider != LOCAL else str(settings.base_url)
    provider = find(named)
    address = parse_address(provider.address(settings.base_url))
    if address.each:
        raise ConfigError(f"base_url = {address.url!r}: a job of fine-tuning has one provider.")
    if settings.model is None:
        raise ConfigError(
            f"provider {provider.name} needs the model to tune: set model in the route's section. "
            "What is known to be tunable: tunelm models."
        )
    if settings.price_as is not None:
        raise ConfigError(
            f"price_as is for provider {LOCAL!r}, whose jobs have no price. What {provider.name} "
            "charges: usd_per_million_train, usd_per_million_in and usd_per_million_out."
        )
    return Place(
        provider=provider,
        address=address,
        variable=key_variable(settings.api_key_env or provider.key_env, address),
        model=settings.model,
        hyperparameters=_hyperparameters(settings, provider, 3, "auto"),
        training=_training(settings, provider, address.own),
        answers=_answers(settings, provider, address.own),
    )


def check_money(place: Place, budget: BudgetConfig, training: Estimate) -> None:
    """Refuse a job that may cost money which was not allowed, or that cannot be capped.

    Raises BudgetError: what was got, and what to set.
    """
    if place.listed is not None:
        return
    check_allowed(place.own, place.where, place.answers, budget)
    if not place.charges:
        return
    if training.value is None:
        raise BudgetError(
            f"what training {place.where} costs is not known, so no cap could be kept: "
            f"{training.method.removeprefix('unknown: ')}. Set usd_per_million_train of its route."
        )
    if training.high and not budget.spend:
        raise BudgetError(
            f"training {place.where} would cost about ${training.value:.2f}, and nothing may be "
            "spent. Allow it with --spend (budget.spend = true)."
        )


def price_training(place: Place, rows: list[int] | None, why_not: str, margin: float) -> Estimate:
    """What training on rows of so many tokens costs, in USD."""
    if place.training is None and place.address is None:
        return Estimate(None, "USD", f"unknown: {NO_LIST_PRICE}")
    return estimate_training(
        rows, place.epochs(), place.training, date.today(), margin=margin, reason=why_not
    )


def local_settings(place: Place, rows: int) -> LocalSettings:
    """What the server trains these hyperparameters with, as settings of the route `local`."""
    given = place.hyperparameters
    epochs, batch = given["n_epochs"], given["batch_size"]
    return LocalSettings(
        epochs=usual_epochs(rows) if isinstance(epochs, str) else epochs,
        batch_size=8 if isinstance(batch, str) else int(batch),
        stop_on="none",
    )


def served_name(model: ModelConfig) -> str:
    """The name under which `tunelm serve` has the base."""
    return Path(model.base).resolve().name if Path(model.base).is_dir() else model.base


def _local(settings: CloudSettings, model: ModelConfig) -> Place:
    if settings.model is not None:
        raise ConfigError(
            f"provider {LOCAL!r} tunes the base model, model.base = {model.base!r}; got model = "
            f"{settings.model!r}. Leave model out, or name another provider."
        )
    provider = find(LOCAL)
    listed = settings.price_as
    return Place(
        provider=provider,
        address=None,
        variable=None,
        model=served_name(model),
        hyperparameters=_hyperparameters(settings, provider, 8, 8),
        training=None if listed is None else _listed_training(listed),
        answers=Prices() if listed is None else _of_fine_tune(*_named(listed), stale=True),
        listed=listed,
    )


def _hyperparameters(
    settings: CloudSettings, provider: Provider, epochs: int, batch: int | str
) -> dict[str, int | float | str]:
    """What is sent: without what the provider does not know, if it is left to the provider."""
    given: dict[str, int | float | str] = {
        "n_epochs": settings.n_epochs or epochs,
        "batch_size": settings.batch_size or batch,
        "learning_rate_multiplier": settings.learning_rate_multiplier,
    }
    known = provider.hyperparameters
    given = {k: v for k, v in given.items() if not known or k in known or v != "auto"}
    provider.check_hyperparameters(given)
    return given


def _training(settings: CloudSettings, provider: Provider, own: bool) -> Price | None:
    model, today = str(settings.model), date.today()
    if settings.usd_per_million_train is not None:
        return _price(provider, model, settings.usd_per_million_train, today)
    found = None if own else training_price(provider.name, model)
    # a cap must not rest on a price of long ago
    return None if found is None or found.stale(today) else found


def _price(provider: Provider, model: str, usd: float, today: date) -> Price:
    return Price(
        *(provider.name, model, "supervised", usd, PER_MILLION),
        source=_GIVEN,
        as_of=today,
        verified=True,
    )


def _answers(settings: CloudSettings, provider: Provider, own: bool) -> Prices:
    given = Prices(settings.usd_per_million_in, settings.usd_per_million_out)
    if given.known or own:
        return given
    return _of_fine_tune(provider.name, str(settings.model), stale=False)


def _listed_training(name: str) -> Price:
    found = training_price(*_named(name))
    if found is None or found.value is None or found.unit != PER_MILLION:
        raise ConfigError(
            f"price_as = {name!r}: no price of training by the token is known of it. Valid: "
            "PROVIDER/MODEL such as 'openai/gpt-4o-mini'; tunelm prices shows what is known."
        )
    return found


def _named(name: str) -> tuple[str, str]:
    provider, _, model = name.partition("/")
    return provider, model


def _of_fine_tune(provider: str, model: str, stale: bool) -> Prices:
    """What a fine-tune's answers cost by the price list; unknown where it is `stale`, if asked."""
    trained, today = training_price(provider, model), date.today()
    names = (model, trained.model if trained else model)  # an alias, and the snapshot behind it
    for name in names:
        found = inference_price(f"ft:{name}", provider)
        if found is not None and (stale or not found.stale(today)):
            return Prices(found.usd_in, found.usd_out, found.describe(today))
    return Prices()


def prices_as_json(place: Place) -> dict[str, Any]:
    """The prices per million tokens, as the report reads them."""
    today = date.today()
    training = place.training
    told = [] if training is None else [f"training at {training.describe(today)}"]
    if place.answers.known:
        told.append(f"answers at {place.answers.source}")
    return {
        "usd_train": training.value if training else None,
        "usd_in": place.answers.usd_in,
        "usd_out": place.answers.usd_out,
        "listed": place.listed,
        "source": "; ".join(told),
    }
