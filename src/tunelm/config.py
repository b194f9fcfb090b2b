"""One TOML file becomes one frozen, checked object. Unknown keys are refused."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from tunelm.errors import ConfigError
from tunelm.route_settings import (
    KINDS,
    Address,
    ClassifierSettings,
    DistillSettings,
    RagSettings,
    RouteSettings,
    Section,
    Usd,
    Variable,
    what_is_made,
)
from tunelm.types import content_hash

TASKS = Path(__file__).parent / "tasks"
"""Where the bundled tasks stand: NAME.toml, with their data beside them."""

BUILTIN = "builtin:"
"""What a data path begins with that names text built when it is needed: builtin:python-docs."""

MIN_TEST_GROUPS = 30


class TaskConfig(Section):
    """What the model should do."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    kind: Literal["qa", "generation", "dialogue", "text", "classification"] = "qa"
    instructions: str = "Answer the question."
    max_tokens: Annotated[int, Field(ge=1)] = 64
    """Most tokens of one answer."""
    labels: tuple[str, ...] = ()
    """The labels of a classification; none given: those of the train rows."""
    checks: Literal["email", "docstring", "faq"] | None = None
    """What an answer is held to beside the metrics of its kind (see tunelm.scoring.checks)."""


class DataConfig(Section):
    """Where the rows are and how they are split."""

    path: Path
    format: str | None = None
    """How the file is written (`jsonl`, `csv`, ...); None: found out from its content."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our field's name (`question`, `answer`, `text`, `label`, `group`) -> the file's."""
    corpus: Path | None = None
    """Text that states the facts in prose, for retrieval."""
    neutral: Path | None = None
    """Text of another kind, on which a text task measures what was forgotten."""
    dev: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.3
    seed: int = 0
    """Salt of the split: another seed, another split."""
    min_test_groups: Annotated[int, Field(ge=1)] = MIN_TEST_GROUPS
    """Fewer test groups than this is an error. Lower it by name to go on all the same."""
    over_long: Literal["error", "drop", "cut"] = "error"
    """A row longer than the model's context: stop, leave it out, or cut its prompt."""


class ModelConfig(Section):
    """The model to adapt."""

    base: str = "tunelm-nano"
    """`tunelm-nano`, a folder, a hub id, `openai/NAME`, `ollama/NAME`, or a name at `base_url`."""
    base_url: Address = None
    """An endpoint that speaks the OpenAI protocol; the base model then answers from there."""
    api_key_env: Variable | None = None
    usd_per_million_in: Usd | None = None
    usd_per_million_out: Usd | None = None
    """As in a route `baseline`, for a base model behind an API."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest prompt plus answer, in tokens; at most the model's own context."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Most answers generated at once."""


class CompareConfig(Section):
    """Which routes, judged how."""

    routes: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "constant",
        "baseline",
        "prompt",
        "local",
        "cloud",
    )
    primary_metric: str = "token_f1"
    select_on: Literal["dev"] = "dev"
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    conversations: Annotated[int, Field(ge=0)] = 240
    """Of a task of dialogues: most conversations with simulated students, on dev and on test."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many answer the rows of a model on this machine, each with a copy of it."""
    forecasts: Path | None = None
    """What `tunelm plan` forecast of the routes: a file, which goes into the run's plans."""


class BudgetConfig(Section):
    """What may be spent."""

    max_usd: Annotated[float, Field(ge=0)] = 0.0
    spend: bool = False
    """Whether anything may be sent to an endpoint that may charge for it."""


TEXT_KINDS = ("baseline", "local")
"""The kinds of route that can be adapted to, or scored on, running text."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"routes": TEXT_KINDS, "primary_metric": "bits_per_byte"},
    "classification": {"primary_metric": "accuracy"},
    "dialogue": {"primary_metric": "solved_unaided"},
}
"""The `compare` section of kinds of task that differ from the usual ones."""


class Config(Section):
    """A whole task file."""

    task: TaskConfig
    data: DataConfig
    model: ModelConfig = ModelConfig()
    compare: CompareConfig = CompareConfig()
    routes: Mapping[str, RouteSettings] = Field(default_factory=dict)
    budget: BudgetConfig = BudgetConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        """A route's section may leave out `kind`: it is then the section's name.

        Texts have no answers, so a text task has other routes and another metric by default; a
        classification and dialogues have another metric.
        """
        if not isinstance(data, dict):
            return data
        task, compare = data.get("task"), data.get("compare", {})
        kind = task.get("kind") if isinstance(task, dict) else None
        if kind in _DEFAULTS and isinstance(compare, dict):
            own = {"instructions": ""} if kind == "text" else {}
            data = {
                **data,
                "task": {**own, **(task or {})},
                "compare": {**_DEFAULTS[kind], **compare},
            }
        given: dict[str, Any] = dict(data.get("routes") or {})
        names = dict.fromkeys([*data.get("compare", {}).get("routes", ()), *given])
        if "compare" not in data or "routes" not in data["compare"]:
            names = dict.fromkeys([*CompareConfig().routes, *given])
        sections: dict[str, Any] = {}
        for name in names:
            section = given.get(name, {})
            sections[name] = {"kind": name, **section} if isinstance(section, dict) else section
        return {**data, "routes": sections}

    @model_validator(mode="after")
    def _fits_the_kind(self) -> Config:
        if self.task.kind == "dialogue" and "instructions" not in self.task.model_fields_set:
            raise ValueError(
                "a task of dialogues needs task.instructions: how the teacher is to teach "
                "(docs/tutor.md has three)"
            )
        if self.task.kind != "text":
            return self
        if self.task.instructions:
            raise ValueError("a text task has no instructions: the model goes on from the text")
        for name in self.compare.routes:
            if self.routes[name].kind not in TEXT_KINDS:
                raise ValueError(
                    f"route {name!r} is of kind {self.routes[name].kind!r}; a text task takes "
                    f"{' and '.join(TEXT_KINDS)}"
                )
        return self

    def shared_digest(self) -> str:
        """Of everything all routes depend on; a resumed run must have the same."""
        return content_hash(self.shared())

    def shared(self) -> dict[str, Any]:
        """The keys behind `shared_digest`, as JSON."""
        whole = json.loads(self.model_dump_json())
        shared = {key: whole[key] for key in ("task", "data", "model")}
        names = ["primary_metric"] + ["conversations"] * (self.task.kind == "dialogue")
        shared["compare"] = {name: whole["compare"][name] for name in names}
        return shared

    def route_digest(self, name: str) -> str:
        """Of one route's own settings, and for a hybrid of the prompt route it begins with."""
        own = what_is_made(json.loads(self.routes[name].model_dump_json()))
        if own["kind"] != "hybrid":
            return content_hash(own)
        prompts = [s for s in self.routes.values() if s.kind == "prompt"]
        return content_hash([own, *(json.loads(s.model_dump_json()) for s in prompts[:1])])


def load_config(task: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a task file, or a bundled task by its name.

    `overrides` are `section.key=value` strings; the value is TOML, or else taken as text.
    Raises ConfigError with the file, the key, and the closest valid key.
    """
    path = task_path(task)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}.") from None
    for override in overrides:
        _apply_override(data, override)
    return parse_config(data, base=path.parent, source=str(path))


def parse_config(data: Mapping[str, Any], base: Path, source: str = "config") -> Config:
    """Check a config given as a dict; relative data paths are taken from `base`."""
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error, source, data))) from None
    for name in config.compare.routes:
        if name not in config.routes:
            raise ConfigError(f"{source}: compare.routes names {name!r}, which has no section.")
    named = (("path", config.data.path), ("corpus", config.data.corpus))
    paths = {
        key: (base / value).resolve()
        for key, value in (*named, ("neutral", config.data.neutral))
        if value is not None and not str(value).startswith(BUILTIN)
    }
    routes = {name: _resolved(settings, base) for name, settings in config.routes.items()}
    data_section = config.data.model_copy(update=paths)
    compare = config.compare
    if compare.forecasts is not None:
        compare = compare.model_copy(update={"forecasts": (base / compare.forecasts).resolve()})
    return config.model_copy(update={"data": data_section, "compare": compare, "routes": routes})


def _resolved(settings: RouteSettings, base: Path) -> RouteSettings:
    """The settings with a relative path taken from the task file's folder."""
    if isinstance(settings, DistillSettings) and settings.unlabelled is not None:
        return settings.model_copy(update={"unlabelled": (base / settings.unlabelled).resolve()})
    if isinstance(settings, ClassifierSettings) and (base / settings.features).is_dir():
        return settings.model_copy(update={"features": str((base / settings.features).resolve())})
    if isinstance(settings, RagSettings) and (base / settings.retriever).is_dir():
        return settings.model_copy(update={"retriever": str((base / settings.retriever).resolve())})
    return settings


def task_path(task: str | Path) -> Path:
    """The file of a task: a path to a TOML file, or the name of a bundled one."""
    path = Path(task)
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"{path}: no such task file. `tunelm compare` alone runs edu-qa.")
        return path
    bundled = TASKS / f"{task}.toml"
    if bundled.is_file():
        return bundled
    names = sorted(p.stem for p in TASKS.glob("*.toml"))
    raise ConfigError(
        f"no task {str(task)!r}: give a .toml file or a bundled task ({', '.join(names)})."
        f"{_closest(str(task), names)}"
    )


def _apply_override(data: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {override!r}: expected section.key=value.")
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    section = data
    for key in keys[:-1]:
        section = section.setdefault(key, {})
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override!r}: {key!r} is not a section.")
    section[keys[-1]] = value


def _explain(error: ValidationError, source: str, data: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for item in error.errors():
        # which of several forms of a value was tried is no key of the file
        forms = ("function-", "literal[", "constrained-")
        loc = [str(part) for part in item["loc"] if not str(part).startswith(forms)]
        if len(loc) > 2 and loc[0] == "routes" and loc[2] in KINDS:
            del loc[2]  # the union's tag is no key of the file
        where = ".".join(loc)
        if not loc:  # two sections that do not fit together
            lines.append(f"{source}: {item['msg'].removeprefix('Value error, ')}.")
            continue
        if item["type"] == "extra_forbidden":
            valid = _valid_keys(loc, data)
            lines.append(
                f"{source}: unknown key {where!r}.{_closest(loc[-1], valid)}"
                f" Valid here: {', '.join(valid)}."
            )
        elif item["type"] == "missing":
            lines.append(f"{source}: {where!r} is missing.")
        elif item["type"] == "union_tag_invalid":
            got = item.get("ctx", {}).get("tag", "?")
            lines.append(
                f"{source}: {where}: unknown route kind {got!r}.{_closest(str(got), list(KINDS))}"
                f" Valid: {', '.join(KINDS)}."
            )
        else:
            # a key in the wrong place must not be shown
            secret = loc[-1] in ("base_url", "api_key_env")
            got = "..." if secret else repr(item["input"])
            lines.append(f"{source}: {where} = {got}: {item['msg']}.")
    return lines


def _valid_keys(loc: list[str], data: Mapping[str, Any]) -> list[str]:
    """The keys of the section that the last of `loc` stands in; [] where it has no fixed ones."""
    section: type[BaseModel] | None = Config
    rest = loc[:-1]
    if loc[0] == "routes" and len(loc) > 2:
        kind = data.get("routes", {}).get(loc[1], {}).get("kind", loc[1])
        section, rest = KINDS[kind], loc[2:-1]
    for key in rest:
        if key.isdigit():  # a place in a list of sections
            continue
        field = section.model_fields.get(key) if section else None
        section = _section_in(field.annotation) if field else None
    return list(section.model_fields) if section else []


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `EndpointSettings | None`."""
    parts = (annotation, *get_args(annotation))
    return next((p for p in parts if isinstance(p, type) and issubclass(p, BaseModel)), None)


def _closest(got: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(got, valid, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
