"""What a plan has to keep to, as the user said it; and wishes that cannot all be met."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from tunelm.config import Config
from tunelm.errors import ConfigError
from tunelm.models import remote_base
from tunelm.models.address import parse_address
from tunelm.planning.costs import months_until
from tunelm.planning.footprint import Load, largest_batch, seconds_per_answer, training
from tunelm.planning.hardware import Hardware
from tunelm.planning.registry import PERMISSIVE, OpenModel, size_of
from tunelm.prices import shutdown_date

ANY = "any"


@dataclass(frozen=True, slots=True)
class Wishes:
    """The constraints; None is not said.

    Attributes:
        hardware: the machine that trains and answers.
        volume: requests a month.
        months: the horizon, over which one-off costs are spread.
        budget_usd: most that may be spent, a month and once, each.
        private: whether no row may go to an endpoint that is not one's own.
        latency_s: longest time of a whole answer.
        licence: permissive or any.
        language: ISO code of the rows' language.
    """

    hardware: Hardware
    volume: float
    months: float
    budget_usd: float | None = None
    private: bool = False
    latency_s: float | None = None
    licence: str = ANY
    language: str = "en"

    def __post_init__(self) -> None:
        """Raises ConfigError for what no plan can keep to."""
        for flag, value in (("--budget", self.budget_usd), ("--latency", self.latency_s)):
            least = 0 if flag == "--budget" else 1e-9
            if value is not None and not least <= value < 1e12:
                expected = "US dollars from 0 on" if least == 0 else "seconds above 0"
                raise ConfigError(f"{flag} {value:g}: {expected} are expected.")


def check_base(name: str, model: OpenModel | None, wishes: Wishes, load: Load, today: date) -> None:
    """Refuse a base model that the constraints rule out, and name the one that does.

    Args:
        name: as the user or the task file gives it.
        model: what is known of it; None: it is behind an API.
        wishes: the constraints.
        load: the rows.
        today: for models that shut down.
    """
    if model is None:
        _check_hosted(f"the base model {name}", name, wishes, today)
        return
    machine = wishes.hardware
    if largest_batch(model, "lora", load, machine.memory_bytes) is None:
        tight = largest_batch(model, "qlora", load, machine.memory_bytes)
        more = ' In 4 bits (method = "qlora" of the route local) it would fit.' if tight else ""
        raise ConfigError(
            f"--base {name} ({size_of(model.parameters)} parameters) does not fit {machine.name}: "
            f"LoRA with a row a step takes up to {_one_row(model, load):.1f} GB by formula, and "
            f"the memory is {machine.memory_bytes / 1e9:.1f} GB.{more} Give more memory, another "
            "machine (--gpu) or a smaller model (tunelm models --registry)."
        )
    if wishes.licence == PERMISSIVE and model.licence_class not in (PERMISSIVE, "unknown"):
        raise ConfigError(
            f"--base {name} is under {model.licence}, and --licence permissive rules that out. "
            "Give --licence any, or another base (tunelm models --registry)."
        )
    check_latency(name, model, wishes, load)


def check_latency(name: str, model: OpenModel, wishes: Wishes, load: Load) -> None:
    """Refuse a latency that the machine's memory is too slow for, where its speed is known."""
    machine = wishes.hardware
    if wishes.latency_s is None or machine.bandwidth is None:
        return
    least = seconds_per_answer(model, load, machine.bandwidth)
    if least > wishes.latency_s:
        raise ConfigError(
            f"--latency {wishes.latency_s:g} s cannot be met by {name} on {machine.name}: an "
            f"answer of {load.answer} tokens reads {size_of(model.parameters)} parameters "
            f"{load.answer} times, which takes {least:.3g} s at least. Allow more time, shorter "
            "answers (task.max_tokens), a smaller model or a faster machine."
        )


def check_config(config: Config, wishes: Wishes, today: date) -> None:
    """Refuse routes of a task file that go to a host where the constraints say none may.

    Raises ConfigError naming the route and the constraint.
    """
    for name in config.compare.routes:
        settings = config.routes[name]
        where: str | None = None
        if settings.kind == "cloud" and settings.provider != "local":
            where = settings.provider
        elif settings.kind == "baseline" and settings.base_url is not None:
            where = settings.base_url
        elif settings.kind == "prompt" and settings.proposer is not None:
            where = settings.proposer.base_url
        elif settings.kind == "distill" and settings.teacher is not None:
            where = settings.teacher.base_url
        if where is not None and not (where.startswith("http") and parse_address(where).own):
            _check_hosted(f"route {name!r}, at {where},", "", wishes, today)
    if (endpoint := remote_base(config.model)) and not parse_address(endpoint.base_url).own:
        _check_hosted(f"the base model {config.model.base}", config.model.base, wishes, today)


def _check_hosted(what: str, model: str, wishes: Wishes, today: date) -> None:
    if wishes.private:
        raise ConfigError(
            f"--private and {what} contradict each other: its rows would be sent to a host. Drop "
            "--private, or take a model that runs on your own machine."
        )
    if wishes.budget_usd == 0:
        raise ConfigError(
            f"--budget 0 and {what} contradict each other: a host charges for every token. Give a "
            "budget, or take a model that runs on your own machine."
        )
    end = shutdown_date(model.partition("/")[2], model.partition("/")[0]) if model else None
    if end is not None and months_until(end, today) <= 0:
        raise ConfigError(f"{what} shut down on {end}. Choose another: tunelm prices.")


def _one_row(model: OpenModel, load: Load) -> float:
    return (training(model, "lora", load, 1).memory.high or 0.0) / 1e9
