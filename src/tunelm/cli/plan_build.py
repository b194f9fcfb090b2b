"""How `tunelm plan` gets from what was asked to a folder with a proposal."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tunelm.config import TEXT_KINDS, Config, ModelConfig, load_config, parse_config
from tunelm.data.split import Split
from tunelm.errors import ConfigError, PrerequisiteError, RunDirError, TunelmError
from tunelm.models import remote_base
from tunelm.models.identity import base_folder
from tunelm.models.loading import load_tokenizer, resolve_base
from tunelm.models.render import encode_prompt
from tunelm.pipeline import Progress, reader_for, require_metric, with_built_data
from tunelm.planning.assumptions import MONTHS, VOLUME, Assumptions
from tunelm.planning.forecasts import forecast_route, write_forecasts
from tunelm.planning.hardware import hardware
from tunelm.planning.known import Known, load_of
from tunelm.planning.proposal import Proposal, propose
from tunelm.planning.registry import OpenModel, find_model
from tunelm.planning.rules import advise, kind_said
from tunelm.planning.sample import Measure, Sample, kind_of, take_sample
from tunelm.planning.task_file import task_file
from tunelm.planning.wishes import Wishes, check_base, check_config
from tunelm.report.proposal_page import APPENDIX, PAGE, appendix_page, proposal_page
from tunelm.report.review.criteria import criteria_for
from tunelm.routes import make_route
from tunelm.routes.base import EVERY
from tunelm.rundir import write_text
from tunelm.tutor.teaching import INSTRUCTIONS
from tunelm.types import Estimate, Example, Message

FORECASTS = "forecasts.json"
NO_ROWS = "rows.jsonl"
"""Where a plan without rows expects them, beside its task file."""
_ROUTES: Mapping[str, tuple[str, ...]] = {
    "control": ("constant", "baseline"),
    "classifier": ("classifier",),
    "nearest": ("nearest",),
    "rule": ("rule",),
    "prompt": ("prompt",),
    "rag": ("rag",),
    "local": ("local",),
    "hybrid": ("hybrid",),
}
"""The kinds of route that carry a recommended way out on this machine."""
_INSTRUCTIONS = {
    "classification": "Give the label of the text, and nothing else.",
    "generation": "Do what is asked, and write nothing else.",
    "dialogue": INSTRUCTIONS["adaptive"],
    "text": "",
}


@dataclass(frozen=True)
class Asked:
    """What was asked on the command line; None or empty: not given."""

    task: str | None
    data: Path | None
    scenario: str
    out: Path | None
    gpu: str | None
    memory: float | None
    budget: float | None
    requests_a_month: float | None
    months: float | None
    latency: float | None
    private: bool
    licence: str
    language: str
    base: str | None
    probe: bool
    learn: bool

    @property
    def said(self) -> frozenset[str]:
        """The names of what was given."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        defaults = {"licence": "any", "language": "en"}
        return frozenset(n for n, v in values.items() if v and v != defaults.get(n))


def make_plan(asked: Asked, progress: Progress) -> tuple[Proposal, Path]:
    """Write the folder of a plan; the proposal, and the folder.

    Raises:
        ConfigError: wishes that are wrong, or that contradict each other.
        DataError: rows that cannot be used.
        RunDirError: the folder exists.
    """
    today = date.today()
    wishes = _wishes(asked)
    config, origin = _config(asked)
    folder = asked.out or Path("plans") / config.task.name
    if folder.exists():
        raise RunDirError(
            f"{folder}: exists, and a plan is never overwritten. Choose another --out, or remove "
            "the folder."
        )
    check_config(config, wishes, today)
    base = None if remote_base(config.model) else find_model(config.model.base)
    built = with_built_data(config)
    missing = _missing(built)
    none_yet = asked.task is None and asked.data is None and bool(asked.scenario)
    sample, split = (None, None) if none_yet else _rows(built, base)
    check_base(config.model.base, base, wishes, load_of(sample, wishes, built), today)
    criteria = tuple(
        (c.name, c.question) for c in criteria_for(config.task.kind, config.task.checks)
    )
    known = Known(
        config, wishes, asked.said, base, today, sample, asked.scenario, origin,
        criteria=criteria, missing=missing,
    )  # fmt: skip
    config = _with_routes(config, known, sample)
    folder.mkdir(parents=True)
    try:
        return _write(folder, dataclasses.replace(known, config=config), split, asked, progress)
    except BaseException:  # half a plan would be taken for one, and bar the way to another
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(
    folder: Path, known: Known, split: Split | None, asked: Asked, progress: Progress
) -> tuple[Proposal, Path]:
    """Write all files of a plan into its new folder."""
    written = _write_task(folder, known)
    if split is not None:
        learned = _learned(written, split, folder, progress) if asked.learn else {}
        forecasts = _forecasts(with_built_data(written), split, asked.probe, progress)
        for name, found in learned.items():
            forecasts.setdefault(name, {})["score"] = found.forecast
        write_forecasts(folder / FORECASTS, written, forecasts)
        told = {name: (found.rows, found.needed) for name, found in learned.items()}
        known = dataclasses.replace(known, forecasts=forecasts, learned=told)
    proposal = propose(known)
    proposal["task"] |= {"file": str(folder / "task.toml"), "run": f"runs/{known.config.task.name}"}
    write_text(folder / PAGE, proposal_page(proposal))
    write_text(folder / APPENDIX, appendix_page(proposal))
    return proposal, folder


def _missing(config: Config) -> str:
    """What has to be installed before the plan can be carried out; a plan does without it."""
    try:
        require_metric(config)
    except PrerequisiteError as error:
        return str(error)
    return ""


# --- what was asked ---------------------------------------------------------------------------


def _wishes(asked: Asked) -> Wishes:
    from tunelm.doctor import examine

    volume = VOLUME if asked.requests_a_month is None else asked.requests_a_month
    months = MONTHS if asked.months is None else asked.months
    Assumptions(volume=volume, months=months)  # says what is wrong with them
    if not re.fullmatch(r"[a-z]{2,3}", asked.language):
        raise ConfigError(
            f"--language {asked.language!r}: an ISO code is expected, such as en, de or zh."
        )
    return Wishes(
        hardware(asked.gpu, asked.memory, examine()),
        volume,
        months,
        asked.budget,
        asked.private,
        asked.latency,
        asked.licence,
        asked.language,
    )


def _config(asked: Asked) -> tuple[Config, str]:
    """The task, and where it is from. Without any rows its data.path does not exist."""
    if asked.task is not None and asked.data is not None:
        raise ConfigError("give TASK or --data, not both: a task file names its own data.")
    base = asked.base
    if asked.task is not None or (asked.data is None and not asked.scenario):
        overrides = [] if base is None else [f"model.base={json.dumps(base)}"]
        task = asked.task or "edu-qa"
        return load_config(task, overrides), f"the task {task}"
    model = {"base": base or "tunelm-nano"}
    if asked.data is not None:
        kind, name = kind_of(asked.data), _name(asked.data.stem)
        origin = f"rows in {asked.data.name}, whose kind was told from them"
    else:
        kind, name = kind_said(asked.scenario), _name(asked.scenario)
        origin = "a scenario without rows, whose kind was told from its words"
    task = {"name": name, "kind": kind}
    if kind in _INSTRUCTIONS:
        task["instructions"] = _INSTRUCTIONS[kind]
    path = asked.data.resolve() if asked.data else NO_ROWS
    data: dict[str, Any] = {"task": task, "data": {"path": str(path)}, "model": model}
    return parse_config(data, (asked.out or Path("plans") / name).resolve(), origin), origin


def _name(text: str) -> str:
    """A task's name from any text.

    >>> _name("Polite replies, to customers of a small shop!")
    'polite-replies-to-customers'
    """
    words = re.findall(r"[a-z0-9]+", text.lower())[:4]
    return "-".join(words) or "task"


# --- rows and routes --------------------------------------------------------------------------


def _rows(config: Config, base: OpenModel | None) -> tuple[Sample, Split]:
    """The rows, counted by the base's tokenizer; by tunelm-nano's where that is not here."""
    counted, limit = config.model, 0
    try:
        if base is None:
            raise PrerequisiteError("a host counts by itself")
        # looked for on this machine alone: nothing is downloaded for a plan
        base_folder(resolve_base(config.model), config.model.revision)
    except PrerequisiteError:
        counted = ModelConfig(max_length=config.model.max_length)
    if base is not None and config.task.kind != "text":
        limit = min(config.model.max_length, base.context)
    measure = _measure(config.model_copy(update={"model": counted}))
    data = config.data.model_copy(update={"min_test_groups": 1})
    lenient = config.model_copy(update={"data": data})
    return take_sample(lenient, reader_for(config.task.kind), measure, limit, counted.base)


def _measure(config: Config) -> Measure:
    """Tokens of prompt and answer, as training counts them."""
    tokenizer = load_tokenizer(config.model)
    head = (Message("system", config.task.instructions),) if config.task.instructions else ()

    def measure(example: Example) -> tuple[int, int]:
        answer = len(tokenizer.encode(example.answers[0], add_special_tokens=False)) + 1
        if not example.messages:
            return 0, answer
        return len(encode_prompt(tokenizer, head + example.messages)), answer

    return measure


def _with_routes(config: Config, known: Known, sample: Sample | None) -> Config:
    """The config with the recommended routes that can run here, and the task's own."""
    ways = advise(known.facts).ways
    names = [kind for way in ways for kind in _ROUTES.get(way, ())]
    own = config.compare.routes if "routes" in config.compare.model_fields_set else ()
    if config.task.kind == "text":
        names = [name for name in names if name in TEXT_KINDS]
    if known.base is None:  # a model behind an API has no weights here
        names = [name for name in names if name not in ("local", "hybrid")]
    wanted = tuple(dict.fromkeys([*names, *own]))
    whole = config.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    sections: dict[str, dict[str, Any]] = whole["routes"]
    whole["routes"] = {n: s for n, s in sections.items() if s != {"kind": n}}
    if "rule" in wanted:
        whole["routes"].setdefault("rule", {"kind": "rule", "rule": config.task.checks})
    whole["compare"] = {**whole.get("compare", {}), "routes": list(wanted)}
    if sample is not None and sample.groups["test"] < config.data.min_test_groups:
        whole["data"]["min_test_groups"] = sample.groups["test"]
    return parse_config(whole, Path(), "the plan")


# --- what is written --------------------------------------------------------------------------


def _write_task(folder: Path, known: Known) -> Config:
    """Write task.toml; the config as it is read back from it."""
    config, top = known.config, known.models.top
    notes = [
        f"Written by `tunelm plan` on {known.today}: proposal.md beside it says why.",
        f"For real work: model.base = {json.dumps(top[0].model.name)}"
        if top
        else "No model of the registry fits the constraints: see proposal.md, section 2.",
    ]
    if known.sample is None:
        notes.append(f"IT DOES NOT RUN YET: put your rows into {NO_ROWS} beside this file, a JSON")
        notes.append(
            'object a line with "question" and "answer" (docs/formats.md has other forms).'
        )
        data = config.data.model_copy(update={"path": Path(NO_ROWS)})
        config = config.model_copy(update={"data": data})
    extra = {"forecasts": FORECASTS} if known.sample is not None else {}
    write_text(folder / "task.toml", task_file(config, notes, extra))
    return load_config(folder / "task.toml")


def _learned(config: Config, split: Split, folder: Path, progress: Progress) -> Mapping[str, Any]:
    from tunelm.planning.learn import learn

    return learn(config, split, folder / "learn", (), progress)


def _forecasts(
    config: Config, split: Split, probe: bool, progress: Progress
) -> dict[str, dict[str, Estimate]]:
    found: dict[str, dict[str, Estimate]] = {}
    names = config.compare.routes
    for place, name in enumerate(names):
        progress(f"forecasts ({name})", place, len(names))
        try:
            found[name] = dict(forecast_route(config, name, split, probe=probe))
        except TunelmError as error:
            needs = make_route(config.routes[name]).needs
            builds_on = ["other routes" if kind == EVERY else kind for kind in needs]
            why = f"known after {', '.join(builds_on)}" if builds_on else str(error)
            found[name] = {"seconds": Estimate(None, "s", f"unknown: {why}")}
    progress("forecasts", len(names), len(names))
    return found
