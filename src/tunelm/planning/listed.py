"""Whose prices hold for a route: its endpoint's, or a provider's in place of this machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from urllib.parse import urlsplit

from tunelm.errors import ConfigError
from tunelm.planning.costs import TokenPrices
from tunelm.planning.facts import ENDPOINT
from tunelm.planning.machines import hosting_price
from tunelm.price_list import price_list
from tunelm.prices import (
    InferencePrice,
    Price,
    base_of,
    inference_price,
    price_at,
    shutdown_date,
    training_price,
)
from tunelm.providers import presets

LEAST_PREFIX = {"openai": 1024, "azure": 1024, "anthropic": 1024}
"""Tokens that a prefix needs to be cached. OpenAI: https://openai.com/index/api-prompt-caching
(from 1,024 tokens on, in steps of 128); Anthropic's documentation says the same of most models,
and 2,048 of the small ones. The price list does not say it of any."""
_GIVEN = "the prices given"


@dataclass(frozen=True, slots=True)
class Listing:
    """Who answers, and what is asked for it; `why` says what is not known."""

    where: str
    model: str | None
    prices: TokenPrices | None = None
    why: str = ""
    usd_train: float | None = None
    hosting: Price | None = None
    as_if: str | None = None
    ends: date | None = None
    ends_source: str = ""
    training: Price | None = None


def hosted(
    endpoint: Mapping[str, Any], made: date, provider: str | None, usd_train: float | None
) -> Listing:
    """What an endpoint of a run charges; prices of the list are looked up anew.

    Args:
        endpoint: as a route's detail has it: model, prices, and mostly base_url.
        made: the day of the run, whose prices hold where the list has no newer ones.
        provider: that fine-tuned the model; None where nobody did.
        usd_train: for a million tokens of that.
    """
    model, recorded = str(endpoint["model"]), endpoint["prices"]
    listed = _listed(endpoint, provider)
    if recorded["usd_in"] is None:
        found = tokens_of(listed) if listed else None
    elif listed is not None and recorded.get("source") != _GIVEN:
        found = tokens_of(listed)
    else:
        source = str(recorded.get("source", _GIVEN))
        given = "the prices given in the task file" if source == _GIVEN else source
        found = TokenPrices(recorded["usd_in"], recorded["usd_out"], given, made)
        if listed and (listed.usd_in, listed.usd_out) == (found.usd_in, found.usd_out):
            found = replace(tokens_of(listed), source=f"{given}; the rest from {listed.source}")
    why = "" if found else f"no price of {model} is known"
    hosting, trained = None, None
    if provider and usd_train is not None:
        trained = training_price(provider, base_of(str(endpoint.get("fine_tuned_model") or model)))
        trained = trained if trained and trained.value == usd_train else None
    if provider and provider in presets() and presets()[provider].serves is False:
        hosting = hosting_price(provider, base_of(model), None)
    return Listing(ENDPOINT, model, found, why, usd_train, hosting, training=trained)


def shutdown_of(listing: Listing, endpoint: Mapping[str, Any], provider: str | None) -> Listing:
    """The same with the day on which the model shuts down, as far as it is known."""
    model = str(endpoint.get("fine_tuned_model") or listing.model)
    if provider and provider in presets() and (found := presets()[provider].ends(model)):
        return replace(listing, ends=found[0], ends_source=found[1])
    listed = _listed(endpoint, provider)
    if listed is not None and (day := shutdown_date(listed.model, listed.provider)):
        return replace(listing, ends=day, ends_source=listed.source)
    return listing


def as_if_hosted(name: str, tuned: bool) -> Listing:
    """List prices of PROVIDER/MODEL in place of this machine; of its fine-tune where `tuned`.

    A fine-tune that is billed by its deployment costs no tokens on top where the list has no
    price of them. Raises ConfigError where nothing is listed under that name.
    """
    provider, _, model = name.partition("/")
    plain = inference_price(model, provider) if model else None
    trained = training_price(provider, model) if model else None
    if plain is None and (trained is None or not tuned):
        raise ConfigError(f"--price-as {name!r}: no price of it is listed.{_near(provider, model)}")
    ends, source = _end_of(provider, model, tuned)
    base = Listing(
        ENDPOINT, name, tokens_of(plain) if plain else None, as_if=name, ends=ends,
        ends_source=source,
    )  # fmt: skip
    if not tuned:
        return replace(base, why="" if plain else f"no price of {name}'s answers is listed")
    return _tuned(base, provider, model, trained)


def _end_of(provider: str, model: str, tuned: bool) -> tuple[date | None, str]:
    """The day on which a model, or what is tuned from it, shuts down, and who says so."""
    preset = presets().get(provider)
    if preset and tuned and (found := preset.ends(model)):
        return found
    tunable = preset.tunable(model) if preset else None
    if tunable and tunable.base_ends:
        return tunable.base_ends, tunable.source
    day = shutdown_date(model, provider)
    return day, price_list().source if day else ""


def _tuned(base: Listing, provider: str, model: str, trained: Price | None) -> Listing:
    names = (model, trained.model if trained else model)
    own = next((p for n in names if (p := inference_price(f"ft:{n}", provider))), None)
    deployed = hosting_price(provider, model, None)
    serves = provider in presets() and presets()[provider].serves is True
    hosting = None if serves else deployed
    if own is not None:
        prices = tokens_of(own)
    elif hosting is not None and hosting.value is not None:
        prices = TokenPrices(
            0.0, 0.0, f"tokens are in the price of the deployment: {hosting.source}", hosting.as_of
        )
    else:
        prices = None
    why = "" if prices else f"no price of a fine-tune of {model} at {provider} is listed"
    usd = trained.value if trained and trained.unit == "USD per 1M tokens" else None
    return replace(base, prices=prices, why=why, usd_train=usd, hosting=hosting, training=trained)


def tokens_of(price: InferencePrice) -> TokenPrices:
    """A price of the list, with the rule of its provider's cache."""
    return TokenPrices(
        price.usd_in,
        price.usd_out,
        f"{price.provider}/{price.model} in {price.source}",
        price.as_of,
        price.usd_cached_in,
        price.usd_batch_in,
        price.usd_batch_out,
        LEAST_PREFIX.get(price.provider),
    )


def _listed(endpoint: Mapping[str, Any], provider: str | None) -> InferencePrice | None:
    """The list's price of what an endpoint answers with: of a fine-tune by its own name."""
    host = urlsplit(str(endpoint.get("base_url") or "")).hostname or ""
    for name in (endpoint.get("fine_tuned_model"), endpoint.get("model")):
        if name and (found := price_at(host, str(name))):
            return found
        if name and provider in presets() and (found := inference_price(str(name), provider)):
            return found
    return None


def _near(provider: str, model: str) -> str:
    models = price_list().models
    if provider not in models:
        return f" Valid: PROVIDER/MODEL with one of {', '.join(sorted(models))}."
    near = difflib.get_close_matches(model, list(models[provider]), n=3, cutoff=0.4)
    return f" Closest: {', '.join(f'{provider}/{n}' for n in near)}." if near else ""
