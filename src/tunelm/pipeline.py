"""The program, from top to bottom: rows, split, routes, predictions, scores, report.

rows on disk - read - clean - split -+- train, dev -> Route.fit -> Adapted - Route.open --+
                                     +- test (sealed) - predict - score - report <--------+
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import BUILTIN, Config, load_config
from tunelm.data.prepare import Length, prepare
from tunelm.data.split import Split
from tunelm.errors import ConfigError, TunelmError
from tunelm.evaluate import evaluate, time_answers
from tunelm.models.budget import Wallet
from tunelm.models.loading import describe_base, load_tokenizer
from tunelm.models.render import encode_prompt
from tunelm.predict import score_texts
from tunelm.report.build import write_report
from tunelm.report.read import NEUTRAL
from tunelm.routes import KINDS, make_route
from tunelm.routes.base import FitContext, Route, no_progress
from tunelm.rundir import RunDir, default_out, peak_memory, read_json, write_json
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.metrics import get_metric, metrics_for
from tunelm.types import Adapted, Estimate, Example, Message, content_hash

Progress = Callable[[str, int, int], None]


def compare(
    task: str | Path | Config = "edu-qa",
    out: str | Path | None = None,
    *,
    resume: bool = False,
    overrides: Sequence[str] = (),
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Adapt the model by every route of the task, and report which to ship.

    Args:
        task: a task file, the name of a bundled task, or a Config.
        out: the run directory; `runs/TASK-TIME` when None.
        resume: go on with the run in `out`.
        overrides: `section.key=value` settings on top of the task file.
        progress: called with (what, done, total).

    Returns:
        The report, as in `report.json`.

    Raises:
        TunelmError: bad config or data, or a run directory that cannot be used. A route that
            fails is a row of the report instead.
    """
    config = task if isinstance(task, Config) else load_config(task, overrides)
    config = with_built_data(config)
    require_metric(config)
    folder = Path(out) if out else default_out(config.task.name)
    with RunDir.start(folder, config, resume) as run:
        base = describe_base(config.model)
        run.note_base(base)
        length, limit = token_counter(config, base["context"])
        split = prepare(config.data, run.path, length, limit)
        wallet = Wallet(config.budget, run.path / "spending.jsonl")
        for name in in_order(config):
            route = make_route(config.routes[name], wallet)
            for seed in seeds_of(config, name):
                run_route(route, run, split, name, seed, progress)
        return write_report(run.path)


def with_built_data(config: Config) -> Config:
    """The config with the file that a path such as builtin:python-docs stands for.

    Raises ConfigError for an unknown one.
    """
    name = str(config.data.path)
    if not name.startswith(BUILTIN):
        return config
    if name != f"{BUILTIN}python-docs":
        raise ConfigError(f"data.path = {name!r}: there is only {BUILTIN}python-docs.")
    from tunelm.data.python_docs import build_python_docs

    built = config.data.model_copy(update={"path": build_python_docs()})
    return config.model_copy(update={"data": built})


def require_metric(config: Config) -> None:
    """Raise ConfigError where the primary metric is unknown, or none of this kind of task."""
    name, kind = config.compare.primary_metric, config.task.kind
    get_metric(name)
    if name not in metrics_for(kind):
        raise ConfigError(
            f"compare.primary_metric = {name!r} is no metric of a task of kind {kind!r}. "
            f"Valid: {', '.join(metrics_for(kind))}."
        )


def in_order(config: Config) -> list[str]:
    """The routes to run, each after those it needs. Raises ConfigError where one is missing."""
    names = list(config.compare.routes)
    kinds = {config.routes[n].kind: n for n in names}
    for name in names:
        for needed in make_route(config.routes[name]).needs:
            if needed not in kinds:
                raise ConfigError(f"route {name!r} builds on {needed!r}: add it to compare.routes.")
    return sorted(names, key=lambda n: len(make_route(config.routes[n]).needs))


def seeds_of(config: Config, name: str) -> tuple[int, ...]:
    """The seeds a route is run with: one where the seed changes nothing."""
    seeds = config.compare.seeds
    return seeds if KINDS[config.routes[name].kind].seeded else seeds[:1]


def run_route(
    route: Route, run: RunDir, split: Split, name: str, seed: int, progress: Progress
) -> None:
    """Plan, fit, open and evaluate one route, as far as that has not been done before.

    A TunelmError ends this route, not the run: it stands in fit.json with its reason.
    """
    folder = run.route(name, seed)
    if read_json(folder / "fit.json", {}).get("status") == "done":
        return
    run.event(route=name, seed=seed, stage="start")
    try:
        record = fit_and_evaluate(route, run, split, name, seed, progress)
    except TunelmError as error:
        record = {"status": "failed", "reason": str(error), "seconds": None}
        record |= {"usage": {}, "evaluate_usage": {}, "measured": {}}
    record |= {"kind": route.kind, "control": is_control(run.config, name)}
    write_json(folder / "fit.json", record)
    run.event(route=name, seed=seed, stage=record["status"], reason=record.get("reason"))
    gc.collect()


def fit_and_evaluate(
    route: Route, run: RunDir, split: Split, name: str, seed: int, progress: Progress
) -> dict[str, Any]:
    """One route from its plan to its scores; the content of fit.json."""
    folder, config = run.route(name, seed), run.config

    def shown(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}", done, total)

    ctx = FitContext(
        name=name,
        task=config.task,
        model=config.model,
        metric=config.compare.primary_metric,
        train=split.train,
        dev=split.dev,
        work=folder,
        seed=seed,
        corpus=config.data.corpus,
        budget=config.budget,
        upstream=upstream_of(route, run, seed),
        progress=shown,
    )
    if not (folder / "plan.json").exists():
        write_json(folder / "plan.json", route.plan(ctx).to_json())
    adapted, seconds = fit_once(route, ctx)
    model = route.open(adapted)
    parts = {name: [as_continuation(e) for e in split.part(name)] for name in ("dev", "test")}
    write_json(folder / "prompt.json", {"messages": sent_messages(model, parts["test"][0])})
    measured = {**_estimates(adapted), "seconds_fit": seconds}
    timed, timing = time_answers(model, parts["dev"], config.task.max_tokens)
    measured |= timed
    usage = evaluate(model, parts, folder, config.task, shown) | {"timing": timing}
    score_texts(model, neutral_texts(config), NEUTRAL, folder / "predictions.jsonl")
    shared = "measured: peak of the comparing process so far, all routes in it"
    measured.setdefault("peak_memory", Estimate(peak_memory(), "bytes", shared))
    return {
        "status": "done",
        "reason": None,
        "seconds": seconds.value,
        "usage": {k: dataclasses.asdict(u) for k, u in adapted.usage.items()},
        "evaluate_usage": {k: dataclasses.asdict(u) for k, u in usage.items()},
        "measured": {k: dataclasses.asdict(e) for k, e in measured.items()},
        "notes": list(getattr(model, "notes", ())),
    }


def neutral_texts(config: Config) -> list[Example]:
    """What a text task's routes are scored on to see what was forgotten, a paragraph a row."""
    if config.task.kind != "text" or config.data.neutral is None:
        return []
    path = config.data.neutral
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"data.neutral = {str(path)!r} cannot be read: {error}.") from None
    paragraphs = [p.strip() for p in text.split("\n\n")]
    long_enough = dict.fromkeys(p for p in paragraphs if len(p) >= 100)
    rows = [Example(content_hash(p), (), (p,), content_hash(p)) for p in long_enough]
    return [as_continuation(row) for row in rows]


def fit_once(route: Route, ctx: FitContext) -> tuple[Adapted, Estimate]:
    """What `fit` made and how long it took, read back where it was finished before."""
    done = ctx.work / "adapted.json"
    timing = ctx.work / "seconds_fit.json"
    if not (done.exists() and timing.exists()):
        before = read_json(timing, {}).get("value") or 0.0
        began = time.perf_counter()
        try:
            adapted = route.fit(ctx)
        finally:  # time spent before a kill or a failure was spent all the same
            seconds = before + time.perf_counter() - began
            write_json(timing, dataclasses.asdict(Estimate(seconds, "s", "measured")))
        write_json(done, adapted.to_json())
    adapted = Adapted.from_json(read_json(done), str(ctx.work / "adapted"))
    return adapted, Estimate(**read_json(timing))


def upstream_of(route: Route, run: RunDir, seed: int) -> dict[str, Adapted]:
    """What the routes that this one needs have made. Raises ConfigError where one failed."""
    made: dict[str, Adapted] = {}
    for kind in route.needs:
        name = next(n for n, s in run.config.routes.items() if s.kind == kind)
        folder = run.path / "routes" / name / f"seed-{seed}"
        if not (folder / "adapted.json").exists():
            raise ConfigError(f"builds on {name!r}, which did not finish.")
        made[kind] = Adapted.from_json(read_json(folder / "adapted.json"), str(folder / "adapted"))
    return made


def is_control(config: Config, name: str) -> bool:
    """Whether a route is there to catch a fooling metric rather than to be shipped."""
    settings = config.routes[name]
    return settings.kind == "constant" or (settings.kind == "local" and settings.shuffle_answers)


def token_counter(config: Config, context: int | None) -> tuple[Length, int]:
    """(tokens of a row's prompt and answer, the most that fit) by the model's own tokenizer."""
    tokenizer = load_tokenizer(config.model)
    if config.task.kind == "text":  # long ones are cut into windows, and nothing of them is lost
        return (lambda _: 0), 0
    head = (Message("system", config.task.instructions),) if config.task.instructions else ()

    def length(example: Example) -> int:
        prompt = len(encode_prompt(tokenizer, head + example.messages))
        answer = tokenizer.encode(example.answers[0], add_special_tokens=False)
        return prompt + len(answer) + 1

    return length, min(config.model.max_length, context or config.model.max_length)


def sent_messages(model: Any, example: Example) -> list[dict[str, str]]:
    """The exact messages a route sends for an example."""
    render = getattr(model, "render", None)
    messages = render(example.messages) if render else example.messages
    return [dataclasses.asdict(m) for m in messages]


def _estimates(adapted: Adapted) -> dict[str, Estimate]:
    """Measurements a route put into its detail, as {"measured": {name: Estimate fields}}."""
    return {k: Estimate(**v) for k, v in dict(adapted.detail.get("measured", {})).items()}
