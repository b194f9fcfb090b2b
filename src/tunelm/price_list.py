"""LiteLLM's open price list: what answers cost and when models shut down, condensed.

A snapshot is bundled (`tables/inference.json`); `update` fetches a newer one, checks it, and puts
it into the cache, from where it is used from then on.
"""

from __future__ import annotations

import functools
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.errors import ConfigError, DataError, PrerequisiteError
from tunelm.rundir import cache_dir, write_text

TABLES = Path(__file__).parent / "tables"
MILLION = 1_000_000
LIST_URL = (
    "https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json"
)
_MOST_BYTES = 64 * 2**20
_MOST_USD = 10_000.0
"""Above this for a million tokens, a figure of the list is taken to be a mistake."""
_FETCH_S = 60.0
FIELDS = ("usd_in", "usd_out", "usd_cached_in", "usd_batch_in", "usd_batch_out", "up_to_tokens")
_KEYS = (
    "input_cost_per_token",
    "output_cost_per_token",
    "cache_read_input_token_cost",
    "input_cost_per_token_batches",
    "output_cost_per_token_batches",
)
_LISTED = {
    "anthropic": "anthropic",
    "azure": "azure",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "cohere_chat": "cohere",
    "crusoe": "crusoe",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "gemini": "gemini",
    "groq": "groq",
    "mistral": "mistral",
    "nebius": "nebius",
    "openai": "openai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "xai": "xai",
}
"""The list's word for a provider -> ours; others are left out."""


@dataclass(frozen=True)
class PriceList:
    """A snapshot of the price list. `models`: provider -> model -> figures, as in the file."""

    as_of: date
    version: str | None
    url: str
    models: Mapping[str, Mapping[str, Sequence[Any]]]

    @property
    def source(self) -> str:
        """The list's name, with its version where that is known."""
        return " ".join(filter(None, ("LiteLLM's price list", self.version)))

    @property
    def size(self) -> int:
        """How many models it has."""
        return sum(map(len, self.models.values()))


def price_list() -> PriceList:
    """The list in use: the bundled one, or the updated one where that is not older.

    Raises DataError when the updated one cannot be read.
    """
    bundled = _read_list(str(TABLES / "inference.json"), 0)
    path = updated_path()
    if not path.exists():
        return bundled
    try:
        updated = _read_list(str(path), path.stat().st_mtime_ns)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path}: no price list. Remove it, or `tunelm prices --update`.") from None
    return updated if updated.as_of >= bundled.as_of else bundled


def updated_path() -> Path:
    """Where `update` writes."""
    return cache_dir() / "prices.json"


@functools.lru_cache(maxsize=4)
def _read_list(path: str, changed: int) -> PriceList:
    """`changed`: when the file last was, so that another content is read again."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    day = date.fromisoformat(data["as_of"])
    return PriceList(day, data["version"], data["url"], dict(data["models"].items()))


def update(source: str = LIST_URL, as_of: date | None = None) -> PriceList:
    """Fetch LiteLLM's list, check it, and use it from now on.

    Args:
        source: an address, or a file that holds the list.
        as_of: the list's day; a file needs it, since it does not say. None: today.

    Raises:
        ConfigError: a file without `as_of`.
        PrerequisiteError: nothing that could be read is there.
        DataError: it is no such list, or not one to be trusted in place of the one in use.
    """
    text = _fetch(source, as_of)
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON ({error}). LiteLLM's list is expected.") from None
    day = as_of or date.today()
    if day > date.today():
        raise DataError(f"{source}: of {day}, a day yet to come. Give its day with --as-of.")
    fresh = condense(raw, day, source)
    _check_against(fresh, price_list(), source)
    updated_path().parent.mkdir(parents=True, exist_ok=True)
    write_text(updated_path(), to_text(fresh))
    return fresh


def condense(raw: object, as_of: date, source: str, version: str | None = None) -> PriceList:
    """What is needed of LiteLLM's list, in dollars for a million tokens.

    A price of zero is taken as unknown: the list has it for models on trial and for those whose
    price was not entered. Raises DataError where it is no such list, or too much of it is wrong.
    """
    if not isinstance(raw, dict):
        raise DataError(f"{source}: not a JSON object. LiteLLM's list of prices is expected.")
    models: dict[str, dict[str, list[Any]]] = {}
    wrong: list[str] = []
    for key, entry in sorted(raw.items()):
        if not isinstance(entry, dict):
            wrong.append(key)
            continue
        provider = _LISTED.get(str(entry.get("litellm_provider")))
        if provider is None or entry.get("mode") not in ("chat", "completion", "responses"):
            continue
        try:
            row = _row(entry)
        except (ValueError, TypeError, OverflowError):
            wrong.append(key)
            continue
        if row:
            prefix = f"{entry['litellm_provider']}/"
            models.setdefault(provider, {}).setdefault(key.removeprefix(prefix), row)
    count = sum(map(len, models.values()))
    if len(wrong) > count / 100:
        raise DataError(
            f"{source}: {len(wrong)} entries cannot be right (such as {wrong[0]!r}), beside "
            f"{count} that can: not LiteLLM's list of prices, or a damaged one."
        )
    return PriceList(as_of, version, source, models)


def to_text(prices: PriceList) -> str:
    """The list as its file has it: a line for each provider's models."""
    head = {
        "about": "condensed from LiteLLM's price list (MIT, Copyright (c) 2023 Berri AI)",
        "as_of": prices.as_of.isoformat(),
        "version": prices.version,
        "url": prices.url,
        "fields": [*FIELDS, "shutdown"],
    }
    rows = [
        f"{json.dumps(provider)}: {json.dumps(models, separators=(',', ':'))}"
        for provider, models in sorted(prices.models.items())
    ]
    return json.dumps(head)[:-1] + ', "models": {\n' + ",\n".join(rows) + "\n}}\n"


def _row(entry: Mapping[str, Any]) -> list[Any]:
    """One model's figures, without the unknown ones at the end.

    Raises ValueError, TypeError or OverflowError for what is no price or no day.
    """
    row: list[Any] = [_per_million(entry.get(key)) for key in _KEYS]
    steps = (re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key) for key in entry)
    row.append(min((int(step[1]) * 1000 for step in steps if step), default=None))
    ends = entry.get("deprecation_date")
    row.append(None if ends is None else date.fromisoformat(ends).isoformat())
    while row and row[-1] is None:
        row.pop()
    return row


def _per_million(value: Any) -> float | None:
    if value is None or value == 0:
        return None
    usd = round(float(value) * MILLION, 6)
    if isinstance(value, bool | str) or not math.isfinite(usd) or not 0 < usd <= _MOST_USD:
        raise ValueError(value)
    return usd


def _check_against(fresh: PriceList, current: PriceList, source: str) -> None:
    """Raises DataError for a list that is older, has lost its models, or is in another unit."""
    if fresh.as_of < current.as_of:
        raise DataError(
            f"{source}: of {fresh.as_of}, and the list in use is of {current.as_of}. Give its day "
            "with --as-of if it is newer than that."
        )
    if fresh.size < current.size / 2:
        raise DataError(
            f"{source}: {fresh.size} models, and the list in use has {current.size}. Not taken: "
            "it seems to be cut short."
        )
    ratios = [
        row[0] / old[0]
        for provider, models in fresh.models.items()
        for model, row in models.items()
        if row[0] and (old := current.models.get(provider, {}).get(model)) and old[0]
    ]
    if ratios and not 0.1 < statistics.median(ratios) < 10:
        raise DataError(
            f"{source}: half of its prices are {statistics.median(ratios):.3g} times or more those "
            "of the list in use. Not taken: it seems to be in another unit."
        )


def _fetch(source: str, as_of: date | None) -> str:
    """The text at an address or in a file."""
    if not source.startswith(("http://", "https://")):
        path = Path(source)
        if not path.is_file():
            raise PrerequisiteError(f"{source}: no such file. Give a file, or an http(s) address.")
        if as_of is None:
            raise ConfigError(f"{source}: a file does not say of which day it is: give --as-of.")
        return path.read_bytes().decode("utf-8", "replace")
    import httpx

    try:
        with httpx.stream("GET", source, timeout=_FETCH_S) as reply:
            if reply.status_code != 200:
                raise PrerequisiteError(f"{source}: HTTP {reply.status_code}, expected 200.")
            content = bytearray()
            for part in reply.iter_bytes():
                content += part
                if len(content) > _MOST_BYTES:
                    raise DataError(f"{source}: more than {_MOST_BYTES >> 20} MB. Not taken.")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PrerequisiteError(
            f"{source}: not reached ({error}). The list in use stays; a downloaded file can be "
            "given instead: tunelm prices --update FILE --as-of DAY."
        ) from None
    return bytes(content).decode("utf-8", "replace")
