"""The machine a plan is for: what it holds, how fast it reads that, and who says so."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from tunelm.errors import ConfigError
from tunelm.planning.machines import Listed, find_machine
from tunelm.price_list import TABLES

FIND_OUT = "find out"
NO_GPU = "none"


@dataclass(frozen=True, slots=True)
class Card:
    """What the table of cards says of a machine. `bandwidth` in bytes a second; None: unknown."""

    name: str
    gpu: bool
    memory_bytes: float
    bandwidth: float | None
    source: str
    as_of: date
    verified: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """A machine. `memory_bytes` is the GPU's where there is one, else the main memory.

    `listed` holds its rents where it is one of the price table; `how` says who says so.
    """

    name: str
    gpu: bool
    memory_bytes: float
    how: str
    bandwidth: float | None = None
    cores: int | None = None
    listed: Listed | None = None

    @property
    def bytes_each(self) -> int:
        """Of a parameter: bfloat16 on a GPU, float32 on processors (model.dtype = "auto")."""
        return 2 if self.gpu else 4


@functools.cache
def cards() -> Mapping[str, Card]:
    """The cards of the table, by the price table's names."""
    data = tomllib.loads((TABLES / "cards.toml").read_text(encoding="utf-8"))
    found: dict[str, Card] = {}
    for group in data["group"]:
        shared = {key: value for key, value in group.items() if key != "rows"}
        for name, gigabytes, *speed in group["rows"]:
            bandwidth = speed[0] * 1e9 if speed else None
            found[name] = Card(
                name=name, memory_bytes=gigabytes * 1e9, bandwidth=bandwidth, **shared
            )
    return found


def hardware(gpu: str | None, memory_gb: float | None, facts: Mapping[str, Any]) -> Hardware:
    """The machine a plan is for.

    Args:
        gpu: the name of a machine of the price table, `none`, or `find out`; None: `find out`,
            or `none` where `memory_gb` is given.
        memory_gb: gigabytes (10^9 bytes) that it has, or that may be used of it.
        facts: this machine, as `tunelm.doctor.examine` finds it.

    Raises:
        ConfigError: a machine that is not in the price table, or no size of memory.
    """
    if memory_gb is not None and memory_gb <= 0:
        raise ConfigError(f"--memory {memory_gb:g}: gigabytes above 0 are expected, such as 24.")
    wanted = (gpu or "").strip().lower()
    if wanted == FIND_OUT or (gpu is None and memory_gb is None):
        return _capped(_found(facts), memory_gb)
    if wanted == NO_GPU:
        if memory_gb is None:
            return _processor(facts)
        return Hardware(f"{memory_gb:g} GB without a GPU", False, memory_gb * 1e9, "you")
    if gpu is None and memory_gb is not None:
        return Hardware(f"a GPU with {memory_gb:g} GB", True, memory_gb * 1e9, "you")
    return _capped(_named(gpu or ""), memory_gb)


def _named(name: str) -> Hardware:
    listed = find_machine(
        name,
        "give --memory (gigabytes of the GPU) alone; or "
        f"--gpu '{FIND_OUT}' for this machine, --gpu {NO_GPU} for processors.",
    )
    card = cards()[listed.name]
    how = f"{card.source}, {card.as_of}{'' if card.verified else ', not verified'}"
    return Hardware(listed.name, card.gpu, card.memory_bytes, how, card.bandwidth, None, listed)


def _found(facts: Mapping[str, Any]) -> Hardware:
    gpus: Sequence[Mapping[str, Any]] = facts["gpus"]
    known = [g for g in gpus if g["memory_bytes"]]
    if not known:
        return _processor(facts, "no GPU was found")
    best = max(known, key=lambda g: g["memory_bytes"])
    name = f"this machine's {best['name']}"
    try:
        card = cards()[find_machine(best["name"]).name]
    except ConfigError:
        return Hardware(name, True, best["memory_bytes"], "found by nvidia-smi")
    return Hardware(name, True, best["memory_bytes"], "found by nvidia-smi", card.bandwidth)


def _processor(facts: Mapping[str, Any], why: str = "by your wish") -> Hardware:
    cores = facts["cores"]
    name = f"this machine's {cores} processor cores"
    return Hardware(name, False, facts["memory_bytes"], f"found; {why}", cores=cores)


def _capped(machine: Hardware, memory_gb: float | None) -> Hardware:
    if memory_gb is None or memory_gb * 1e9 >= machine.memory_bytes:
        return machine
    name = f"{machine.name}, {memory_gb:g} GB of it"
    return replace(machine, name=name, memory_bytes=memory_gb * 1e9, how=f"{machine.how}; you")
