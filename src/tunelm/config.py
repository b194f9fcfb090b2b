"""One TOML file becomes one frozen, checked object. Unknown keys are refused."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from tunelm.errors import ConfigError
from tunelm.types import content_hash

TASKS = Path(__file__).parent / "tasks"
"""Where the bundled tasks stand: NAME.toml, with their data beside them."""

BUILTIN = "builtin:"
"""What a data path begins with that names text built when it is needed: builtin:python-docs."""

MIN_TEST_GROUPS = 30


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _holds_no_secret(value: str | None) -> str | None:
    if value and ("@" in value or "?" in value):
        raise ValueError("an address without user name, password and query is expected")
    return value


_Address = Annotated[str | None, AfterValidator(_holds_no_secret)]
_Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]
_Usd = Annotated[float, Field(ge=0)]


class TaskConfig(_Section):
    """What the model should do."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    kind: Literal["qa", "generation", "text"] = "qa"
    instructions: str = "Answer the question."
    max_tokens: Annotated[int, Field(ge=1)] = 64
    """Most tokens of one answer."""


class DataConfig(_Section):
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


class ModelConfig(_Section):
    """The model to adapt."""

    base: str = "tunelm-nano"
    """`tunelm-nano`, a folder, or a hub id."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    max_length: Annotated[int, Field(ge=16)] = 1024
    """Longest prompt plus answer, in tokens; at most the model's own context."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Most answers generated at once."""


class CompareConfig(_Section):
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


class BudgetConfig(_Section):
    """What may be spent."""

    max_usd: Annotated[float, Field(ge=0)] = 0.0
    spend: bool = False
    """Whether anything may be sent to an endpoint that may charge for it."""


class ConstantSettings(_Section):
    """A control: the one train answer that fits the other train answers best."""

    kind: Literal["constant"] = "constant"


class BaselineSettings(_Section):
    """A model as it is, with the task's instructions: the base, or one behind an API."""

    kind: Literal["baseline"] = "baseline"
    model: str | None = None
    """None: the base model. Else the name of a model at `base_url`."""
    base_url: _Address = None
    """An endpoint that speaks the OpenAI protocol, such as http://127.0.0.1:11434/v1."""
    api_key_env: _Variable | None = None
    """The environment variable that holds the key, which itself never stands in a file.

    None: OPENAI_API_KEY for OpenAI itself, and no key for any other endpoint."""
    usd_per_million_in: _Usd | None = None
    usd_per_million_out: _Usd | None = None
    """What the endpoint charges for a million tokens; 0 where it is one's own."""


class PromptSettings(_Section):
    """Demonstrations chosen by DSPy."""

    kind: Literal["prompt"] = "prompt"
    strategy: Literal["labeled", "random-search"] = "random-search"
    demos: Annotated[int, Field(ge=1)] = 4
    """Most demonstrations in the prompt."""
    candidates: Annotated[int, Field(ge=1)] = 6
    """Programs tried by random search, beside zero-shot and plain few-shot."""
    threads: Annotated[int, Field(ge=1)] = 16
    """Concurrent calls, run as batches by a local model."""


class CloudSettings(_Section):
    """A job at a provider that speaks the OpenAI fine-tuning protocol; by default our own server.

    Where a setting is None, `local` trains as the route `local` does, without early stopping.
    """

    kind: Literal["cloud"] = "cloud"
    provider: str = "local"
    """`local`: `tunelm serve`, started for the job; or a provider that tunelm knows."""
    base_url: _Address = None
    """Where the provider is, or another endpoint that speaks the protocol."""
    model: str | None = None
    """The model to tune there; None: the base model, which only `local` has."""
    deployment: str | None = None
    """What the fine-tune answers as, where the provider wants it deployed first."""
    api_key_env: _Variable | None = None
    """The environment variable that holds the key; None: the provider's usual one."""
    n_epochs: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """None: 8 with `local`, 3 elsewhere."""
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] | None = None
    """None: 8 with `local`, "auto" elsewhere."""
    learning_rate_multiplier: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"
    suffix: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] | None = None
    """Part of the fine-tune's name; None: the task's name."""
    usd_per_million_train: _Usd | None = None
    usd_per_million_in: _Usd | None = None
    usd_per_million_out: _Usd | None = None
    """What the provider charges; None: what the price list says."""
    price_as: Annotated[str, Field(pattern=r"^[^/]+/.+$")] | None = None
    """PROVIDER/MODEL whose list price is multiplied by the tokens that `local` counted."""
    accept_shutdown: date | None = None
    """The day on which the fine-tune will end, to train it all the same."""
    poll_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds between two looks at the job; None: 0.5 on this machine, 10 elsewhere."""
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    """Longest wait for the job; None: as long as it takes."""


class LocalSettings(_Section):
    """LoRA by PEFT, or full fine-tuning, on this machine."""

    kind: Literal["local"] = "local"
    method: Literal["lora", "rslora", "dora", "full"] = "lora"
    r: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """None: ten times what full fine-tuning of a model this wide would take."""
    epochs: Annotated[float, Field(gt=0)] = 8
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Rows a step; ignored when batch_tokens is set."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens a step, instead of rows."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    grad_clip: Annotated[float, Field(gt=0)] = 1.0
    stop_on: Literal["dev_loss", "metric", "none"] = "dev_loss"
    """What early stopping looks at: dev loss, the task's metric by generation, or nothing."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Evaluations (one an epoch) without improvement before stopping."""
    shuffle_answers: bool = False
    """A control: train on answers dealt out to the wrong questions."""


RouteSettings = Annotated[
    ConstantSettings | BaselineSettings | PromptSettings | CloudSettings | LocalSettings,
    Field(discriminator="kind"),
]

KINDS: dict[str, type[_Section]] = {
    "constant": ConstantSettings,
    "baseline": BaselineSettings,
    "prompt": PromptSettings,
    "cloud": CloudSettings,
    "local": LocalSettings,
}


TEXT_KINDS = ("baseline", "local")
"""The kinds of route that can be adapted to, or scored on, running text."""

_TEXT_DEFAULTS = {"routes": TEXT_KINDS, "primary_metric": "bits_per_byte"}


class Config(_Section):
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

        Texts have no answers, so a text task has other routes and another metric by default.
        """
        if not isinstance(data, dict):
            return data
        task, compare = data.get("task"), data.get("compare", {})
        if isinstance(task, dict) and task.get("kind") == "text" and isinstance(compare, dict):
            data = {
                **data,
                "task": {"instructions": "", **task},
                "compare": {**_TEXT_DEFAULTS, **compare},
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
        shared["compare"] = {"primary_metric": whole["compare"]["primary_metric"]}
        return shared

    def route_digest(self, name: str) -> str:
        """Of one route's own settings."""
        return content_hash(json.loads(self.routes[name].model_dump_json()))


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
    return config.model_copy(update={"data": config.data.model_copy(update=paths)})


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
    if len(loc) == 1:
        return list(Config.model_fields)
    if loc[0] == "routes":
        section = data.get("routes", {}).get(loc[1], {})
        return list(KINDS[section.get("kind", loc[1])].model_fields)
    annotation = Config.model_fields[loc[0]].annotation
    return list(annotation.model_fields) if isinstance(annotation, type) else []


def _closest(got: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(got, valid, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
