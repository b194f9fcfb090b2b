"""All that a proposal is made from, in one record, and the facts that its rules ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from tunelm.config import Config
from tunelm.planning.footprint import Load
from tunelm.planning.hosts import Tokens
from tunelm.planning.registry import OpenModel
from tunelm.planning.rules import Facts, words_for
from tunelm.planning.sample import Sample
from tunelm.planning.shortlist import Shortlist, shortlist
from tunelm.planning.wishes import Wishes
from tunelm.route_settings import LocalSettings
from tunelm.types import Estimate

ASSUMED = Load(512, 128, 2)
"""A row's tokens while nobody has shown one: said so wherever it is used."""
ASSUMED_TOKENS = Tokens(384.0, 128.0, 0.0, 0)
LARGE = 1_000_000_000
"""Parameters from which on a model is called large enough for real work in the rule on QLoRA."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a proposal is made from.

    Attributes:
        config: the task, as it will be written down.
        wishes: the constraints.
        said: the options that the user gave; the others are defaults.
        base: what is known of the task's base model; None: it is behind an API.
        today: the day on which ages are reckoned.
        sample: the rows; None: there are none yet.
        scenario: the task in the user's words; "" where nobody said any.
        origin: where the task is from: a task file, a file of rows, a scenario.
        forecasts: of each route.
        learned: of each route tried on slices: rows of a table, and what more rows would bring.
        criteria: what people rate answers by, with the question of each.
        missing: what has to be installed before a comparison; "" where nothing is missing.
    """

    config: Config
    wishes: Wishes
    said: frozenset[str]
    base: OpenModel | None
    today: date
    sample: Sample | None = None
    scenario: str = ""
    origin: str = ""
    forecasts: Mapping[str, Mapping[str, Estimate]] = field(
        default_factory=dict[str, Mapping[str, Estimate]]
    )
    learned: Mapping[str, tuple[tuple[Mapping[str, str], ...], str]] = field(
        default_factory=dict[str, tuple[tuple[Mapping[str, str], ...], str]]
    )
    criteria: tuple[tuple[str, str], ...] = ()
    missing: str = ""

    @property
    def load(self) -> Load:
        """A step of training on the wished machine."""
        return load_of(self.sample, self.wishes, self.config)

    @property
    def tokens(self) -> Tokens:
        """Of an answer, and of all train rows."""
        if self.sample is None:
            return ASSUMED_TOKENS
        sample, rows = self.sample, self.sample.rows["train"]
        return Tokens(sample.prompt.mean, sample.answer.mean, sample.whole.mean * rows, rows)

    @property
    def models(self) -> Shortlist:
        """The base models that the constraints leave."""
        return self.models_on(self.wishes)

    def models_on(self, wishes: Wishes) -> Shortlist:
        """Those that other constraints would leave."""
        text = self.config.task.kind == "text"
        return shortlist(wishes, load_of(self.sample, wishes, self.config), self.passed_over, text)

    @property
    def passed_over(self) -> float:
        """Tokens that training passes over at most, by the settings of the route local."""
        tokens, settings = self.tokens, self.config.routes.get("local")
        if not isinstance(settings, LocalSettings):
            settings = LocalSettings()
        most = tokens.train * settings.epochs
        if settings.max_steps is None or settings.batch_tokens is not None or not tokens.train_rows:
            return most
        mean = tokens.train / tokens.train_rows
        return min(most, settings.max_steps * settings.batch_size * mean)

    def words(self, what: str) -> list[str]:
        """Words in the scenario and instructions that speak for form, knowledge or private."""
        return words_for(what, [self.scenario, self.config.task.instructions])

    @property
    def facts(self) -> Facts:
        """What the rules ask for."""
        task, models = self.config.task, self.models
        corpus = self.config.data.corpus is not None
        of_facts = (corpus and task.kind == "qa") or task.checks == "faq"
        of_form = task.kind == "generation" or task.checks in ("email", "docstring")
        large = any(c.model.parameters >= LARGE for c in models.top)
        return {
            "kind": task.kind,
            "train_rows": 0 if self.sample is None else self.sample.rows["train"],
            "text": task.kind == "text",
            "dialogue": task.kind == "dialogue",
            "corpus": corpus,
            "knowledge": of_facts or bool(self.words("knowledge")),
            "form": of_form or bool(self.words("form")),
            "faq": task.checks == "faq",
            "ruled": task.checks in ("email", "docstring"),
            "private": self.wishes.private,
            "broke": self.wishes.budget_usd == 0,
            "only_qlora": bool(models.only_qlora) and not large,
        }


def load_of(sample: Sample | None, wishes: Wishes, config: Config) -> Load:
    """A step of training on the wished machine, of the rows or of assumed ones.

    Running text is cut into windows, so that no row of it is longer than one.
    """
    each = wishes.hardware.bytes_each
    if sample is None:
        return Load(ASSUMED.longest, ASSUMED.answer, each)
    if config.task.kind == "text":
        window = max(1, min(sample.whole.p99, config.model.max_length))
        return Load(window, window, each)
    return Load(max(1, sample.whole.p99), max(1, sample.answer.p99), each)
