"""Who takes fine-tuning jobs in the OpenAI protocol, what each takes, and until when.

The table is `tables/providers.toml`: dated, with sources. What is not known is None. Any other
endpoint can be named by its address; then nothing is known of it, and nothing is refused.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from tunelm.errors import ConfigError
from tunelm.price_list import TABLES
from tunelm.prices import base_of, is_stale, remarks, same_model, shutdown_date

NOTICE_DAYS = 60
"""A fine-tune that ends sooner than this is made only for one who names the day."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """A model that a provider fine-tunes.

    `base_ends` and `tunes_end`: from that day on the base model, or what was fine-tuned from
    it, does not answer; None: no day is known.
    """

    name: str
    methods: tuple[str, ...]
    source: str
    as_of: date
    verified: bool
    base_ends: date | None = None
    tunes_end: date | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider of fine-tuning. None: not known.

    Attributes:
        name: as settings name it; of any other endpoint, its address.
        title: as people name it.
        base_url: where it is, with RESOURCE or REGION to fill in; None: started by tunelm.
        key_env: the environment variable that holds the key; None: none is needed, or known.
        protocol: whether it speaks the OpenAI fine-tuning protocol; if not, `why_not`.
        methods: what of supervised, dpo and reinforcement it trains by; empty: not known.
        min_examples: fewest rows of a training file.
        max_file_bytes: most bytes of a file.
        hyperparameters: name -> least and most value (None: no bound); a least of 0 means above
            0. Empty: not known.
        pause: whether a job can be paused and resumed.
        checkpoints: whether checkpoints of a job are listed.
        metadata: whether jobs keep metadata and are found by it.
        serves: whether a fine-tune answers under its name once its job has succeeded; if not,
            it must be deployed first.
        jobs_end: from that day on no new job is taken.
        models: those known to be tunable.
        notes: what else one must know.
        source: where this was read, with its day (`as_of`) and whether it was the vendor's own
            page (`verified`).
    """

    name: str
    title: str
    protocol: bool
    base_url: str | None = None
    key_env: str | None = None
    why_not: str = ""
    methods: tuple[str, ...] = ()
    min_examples: int | None = None
    max_file_bytes: int | None = None
    hyperparameters: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    pause: bool | None = None
    checkpoints: bool | None = None
    metadata: bool | None = None
    serves: bool | None = None
    jobs_end: date | None = None
    models: tuple[Tunable, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""
    as_of: date | None = None
    verified: bool = False

    def tunable(self, model: str) -> Tunable | None:
        """What is known of fine-tuning a model, or a fine-tune of it; None where nothing is."""
        base = base_of(model)
        return next((t for t in self.models if same_model(t.name, base)), None)

    def ends(self, model: str) -> tuple[date, str] | None:
        """From when on a fine-tune of `model` does not answer, and who says so; None: unknown.

        Raises DataError when an updated price list cannot be read.
        """
        found = self.tunable(model)
        if found and (day := found.tunes_end or found.base_ends):
            return day, found.source
        listed = shutdown_date(base_of(model), self.name)
        return None if listed is None else (listed, "LiteLLM's price list")

    def address(self, base_url: str | None = None) -> str | None:
        """Where to send requests: the `base_url` given, else its own.

        Raises ConfigError where its own has a part to fill in and none was given.
        """
        gap = re.search(r"RESOURCE|REGION", self.base_url or "")
        if gap and base_url is None:
            raise ConfigError(
                f"{self.name}: set base_url to {self.base_url}, with your own {gap[0].lower()} "
                f"for {gap[0]}."
            )
        return base_url or self.base_url

    def check_hyperparameters(self, given: Mapping[str, float | str]) -> None:
        """Refuse hyperparameters that it would refuse; "auto" passes.

        Raises ConfigError: what was got, and what is valid.
        """
        known = self.hyperparameters
        for name, value in given.items() if known else ():
            if name not in known:
                raise ConfigError(
                    f"{self.name} has no hyperparameter {name!r}. Valid: {', '.join(known)}."
                )
            least, most = known[name]
            if isinstance(value, str):
                fits = value == "auto"
            else:
                fits = value > 0 and least <= value and (most is None or value <= most)
            if not fits:
                above = f"at least {least:g}" if least else "above 0"
                to = "" if most is None else f", at most {most:g}"
                raise ConfigError(f"{self.name}: {name} = {value!r}. Valid: auto, or {above}{to}.")


@functools.cache
def presets() -> Mapping[str, Provider]:
    """The providers that can be named, by name."""
    data = tomllib.loads((TABLES / "providers.toml").read_text(encoding="utf-8"))
    return {name: _provider(name, fields) for name, fields in data.items()}


def find(provider: str) -> Provider:
    """The provider of that name, or the one behind an address.

    Raises ConfigError with the closest name.
    """
    if provider in presets():
        return presets()[provider]
    if provider.startswith(("http://", "https://")):
        url = provider.rstrip("/")
        for preset in presets().values():
            form = re.sub(r"RESOURCE|REGION", r"[\\w-]+", re.escape(preset.base_url or ""))
            if re.fullmatch(form, url):
                return replace(preset, base_url=url)
        return Provider(url, url, protocol=True, base_url=url)
    raise ConfigError(
        f"no provider {provider!r}.{_closest(provider, list(presets()))} Valid: "
        f"{', '.join(presets())}, or the address of an endpoint that speaks the OpenAI protocol."
    )


def check(
    provider: str,
    model: str,
    today: date,
    accept_shutdown: date | None = None,
    method: str = "supervised",
) -> tuple[str, ...]:
    """Refuse a fine-tuning job that cannot be, or that would hardly be worth it.

    A fine-tune that ends within NOTICE_DAYS is refused unless `accept_shutdown` is the very day
    on which it ends: then that day has been read.

    Returns:
        What one must know before spending, a line each.

    Raises:
        ConfigError: an unknown provider, one that does not speak the protocol or lacks the
            method, one that takes no job any more, a model that is gone or soon will be.
        DataError: an updated price list cannot be read.
    """
    found = find(provider)
    if not found.protocol:
        raise ConfigError(
            f"{found.name}: {found.why_not}. Providers that speak the OpenAI fine-tuning "
            f"protocol: {', '.join(p.name for p in presets().values() if p.protocol)}."
        )
    tunable = found.tunable(model)
    if found.jobs_end and found.jobs_end <= today:
        raise ConfigError(
            f"{found.name} takes no new fine-tuning job since {found.jobs_end} "
            f"({_dated(found, today)}). Another provider: tunelm models."
        )
    notes = [f"{found.name}: {note}" for note in found.notes]
    if found.jobs_end:
        notes.append(f"{found.name} takes no new job from {found.jobs_end} on")
    if end := found.ends(model):
        notes.append(_check_end(found.name, model, *end, today, accept_shutdown))
    methods = tunable.methods if tunable else found.methods
    if methods and method not in methods:
        where = f"{model} at {found.name}" if tunable else found.name
        raise ConfigError(f"{where} trains by {', '.join(methods)}, not by {method}.")
    if found.models and tunable is None:
        near = _closest(base_of(model), [t.name for t in found.models])
        notes.append(f"{model} is not among the models {found.name} is known to fine-tune.{near}")
    for fact in (found, tunable):
        if fact and fact.as_of and (is_stale(fact.as_of, today) or not fact.verified):
            notes.append(f"what is known of {fact.name} is from {_dated(fact, today)}")
    return tuple(notes)


def _check_end(
    provider: str, model: str, end: date, source: str, today: date, accepted: date | None
) -> str:
    left = (end - today).days
    if left <= 0:
        raise ConfigError(
            f"{model} at {provider} ended on {end} ({source}), with all that was fine-tuned from "
            "it. Choose another model: tunelm models."
        )
    if left <= NOTICE_DAYS and accepted != end:
        got = f" (got {accepted})" if accepted else ""
        raise ConfigError(
            f"what is fine-tuned from {model} at {provider} ends on {end}, in {left} days "
            f"({source}). To train it all the same: --accept-shutdown {end}{got}."
        )
    return f"what is fine-tuned from {model} at {provider} ends on {end}, in {left} days"


def _dated(fact: Any, today: date) -> str:
    return f"{fact.source}, {remarks(fact, today)}"


def _closest(got: str, valid: list[str]) -> str:
    near = difflib.get_close_matches(got, valid, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def _provider(name: str, fields: Mapping[str, Any]) -> Provider:
    limits = {
        key: (float(bounds[0]), float(bounds[1]) if len(bounds) > 1 else None)
        for key, bounds in fields.get("hyperparameters", {}).items()
    }
    models: list[Tunable] = []
    for group in fields.get("models", ()):
        shared = {k: v for k, v in group.items() if k not in ("names", "methods")}
        models += [Tunable(n, tuple(group["methods"]), **shared) for n in group["names"]]
    made: dict[str, Any] = {
        "hyperparameters": limits,
        "models": tuple(models),
        "methods": tuple(fields["methods"]),
        "notes": tuple(fields.get("notes", ())),
    }
    return Provider(name, **{**fields, **made})
