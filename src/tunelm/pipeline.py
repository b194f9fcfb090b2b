"""The program, from top to bottom: rows, split, routes, predictions, scores, report.

rows on disk - read - clean - split -+- train, dev -> Route.fit -> Adapted - Route.open --+
                                     +- test (sealed) - predict - score - report <--------+
"""

from __future__ import annotations

import dataclasses
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunelm.config import BUILTIN, Config, load_config
from tunelm.data.prepare import Length, Reader, prepare
from tunelm.data.read import read_rows
from tunelm.data.split import Split
from tunelm.errors import ConfigError, TunelmError
from tunelm.evaluate import Teaching, evaluate, time_answers
from tunelm.judging.carried_out import strategy_judge
from tunelm.models import remote_base
from tunelm.models.base import innermost
from tunelm.models.budget import Wallet
from tunelm.models.labels import answering, note_labels
from tunelm.models.loading import describe_base, load_tokenizer
from tunelm.models.render import encode_prompt
from tunelm.planning.forecasts import read_forecasts, with_forecasts
from tunelm.planning.track import note_run
from tunelm.predict import score_texts
from tunelm.report.build import write_report
from tunelm.report.read import EVALUATED, NEUTRAL, TALKS_FILE
from tunelm.routes import KINDS, make_route
from tunelm.routes.base import EVERY, FitContext, Route, Upstream, no_progress
from tunelm.rundir import RunDir, default_out, peak_memory, read_json, write_json, write_text
from tunelm.scoring.checks import require_checks
from tunelm.scoring.continuation import as_continuation
from tunelm.scoring.dialogue_metrics import TALKS
from tunelm.scoring.metrics import get_metric, metric_to_fit, metrics_for
from tunelm.shards import Shared, answer_in_processes, can_share
from tunelm.tutor.talks import talks_of
from tunelm.tutor.teaching import read_turns
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
    read_forecasts(config)  # before anything is written
    folder = Path(out) if out else default_out(config.task.name)
    with RunDir.start(folder, config, resume) as run:
        base = describe_base(config.model)
        run.note_base(base)
        length, limit = token_counter(config, base["context"])
        split = prepare(config.data, run.path, length, limit, reader=reader_for(config.task.kind))
        note_labels(run, split)
        teaching = note_teaching(run, split)
        wallet = Wallet(config.budget, run.path / "spending.jsonl")
        for name in in_order(config):
            route = make_route(config.routes[name], wallet)
            for seed in seeds_of(config, name):
                run_route(route, run, split, name, seed, progress, teaching)
        report = write_report(run.path)
        try:
            note_run(run.path)
        except OSError as error:  # a home that cannot be written is no reason to fail
            run.event(stage="not noted", reason=str(error))
        return report


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
    """What can be said of the metrics before anything is trained.

    Raises:
        ConfigError: the primary metric is unknown, or none of this kind of task.
        PrerequisiteError: the task's checks need what is not installed.
    """
    name, kind = config.compare.primary_metric, config.task.kind
    get_metric(name)
    valid = metrics_for(kind, checks=config.task.checks)
    if name not in valid:
        raise ConfigError(
            f"compare.primary_metric = {name!r} is no metric of a task of kind {kind!r}. "
            f"Valid: {', '.join(valid)}."
        )
    require_checks(config.task.checks)


def reader_for(kind: str) -> Reader:
    """What makes rows of a file of this kind of task."""
    return read_turns if kind == "dialogue" else read_rows


def note_teaching(run: RunDir, split: Split) -> Teaching:
    """What a task of dialogues is judged by beside its rows: nothing, for other tasks.

    The conversations on dev and test stand in the run's TALKS_FILE, the judge of strategies is
    trained on its train rows. Raises ConfigError where the primary metric is of conversations and
    there are none.
    """
    its = run.config
    if its.task.kind != "dialogue":
        return Teaching()
    parts = {f"{n}{TALKS}": talks_of(split.part(n), its.compare.conversations) for n in EVALUATED}
    if get_metric(its.compare.primary_metric).of_conversations and not all(parts.values()):
        raise ConfigError(
            f"{its.compare.primary_metric} needs conversations with simulated students, and there "
            'is no problem to hold them about: give rows "solutions" and "wrong" answers and '
            'compare.conversations above 0, or set compare.primary_metric = "turn_f1".'
        )
    rows = [{"part": n, "example": e.to_json()} for n, talks in parts.items() for e in talks]
    write_text(
        run.path / TALKS_FILE, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    )
    talks = {name: found for name, found in parts.items() if found}
    return Teaching(talks, strategy_judge(run.path, split.train))


def in_order(config: Config) -> list[str]:
    """The routes to run, each after those it needs. Raises ConfigError where one is missing."""
    needed = {name: needed_by(config, name) for name in config.compare.routes}
    ordered: list[str] = []
    while len(ordered) < len(needed):
        ready = [n for n, names in needed.items() if n not in ordered and names <= set(ordered)]
        if not ready:
            stuck = ", ".join(n for n in needed if n not in ordered)
            raise ConfigError(f"compare.routes: {stuck} build on each other.")
        ordered.append(ready[0])
    return ordered


def needed_by(config: Config, name: str) -> set[str]:
    """The routes whose results a route builds on. Raises ConfigError where one is missing."""
    kinds = {other: config.routes[other].kind for other in config.compare.routes}
    found: set[str] = set()
    for kind in make_route(config.routes[name]).needs:
        if kind == EVERY:
            found |= {n for n in kinds if not is_control(config, n) and not _needs_every(config, n)}
            continue
        names = [other for other in kinds if kind in (other, kinds[other])]
        if not names:
            raise ConfigError(f"route {name!r} builds on {kind!r}: add it to compare.routes.")
        found.add(names[0])
    return found - {name}


def _needs_every(config: Config, name: str) -> bool:
    return EVERY in make_route(config.routes[name]).needs


def seeds_of(config: Config, name: str) -> tuple[int, ...]:
    """The seeds a route is run with: one where the seed changes nothing."""
    seeds = config.compare.seeds
    return seeds if KINDS[config.routes[name].kind].seeded else seeds[:1]


def run_route(
    route: Route,
    run: RunDir,
    split: Split,
    name: str,
    seed: int,
    progress: Progress,
    teaching: Teaching,
) -> None:
    """Plan, fit, open and evaluate one route, as far as that has not been done before.

    A TunelmError ends this route, not the run: it stands in fit.json with its reason.
    """
    folder = run.route(name, seed)
    if read_json(folder / "fit.json", {}).get("status") == "done":
        return
    run.event(route=name, seed=seed, stage="start")
    try:
        record = fit_and_evaluate(route, run, split, name, seed, progress, teaching)
    except TunelmError as error:
        record = {"status": "failed", "reason": str(error), "seconds": None}
        record |= {"usage": {}, "evaluate_usage": {}, "measured": {}}
    record |= {"kind": route.kind, "control": is_control(run.config, name)}
    write_json(folder / "fit.json", record)
    run.event(route=name, seed=seed, stage=record["status"], reason=record.get("reason"))
    gc.collect()


def fit_and_evaluate(
    route: Route,
    run: RunDir,
    split: Split,
    name: str,
    seed: int,
    progress: Progress,
    teaching: Teaching,
) -> dict[str, Any]:
    """One route from its plan to its scores; the content of fit.json."""
    folder, config = run.route(name, seed), run.config

    def shown(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}", done, total)

    ctx = FitContext(
        name=name,
        task=config.task,
        model=config.model,
        metric=metric_to_fit(config.compare.primary_metric),
        train=split.train,
        dev=split.dev,
        work=folder,
        seed=seed,
        corpus=config.data.corpus,
        budget=config.budget,
        upstream=upstream_of(route, run, name, seed),
        progress=shown,
    )
    if not (folder / "plan.json").exists():
        plan = with_forecasts(route.plan(ctx), config)
        write_json(folder / "plan.json", plan.to_json())
    adapted, seconds = fit_once(route, ctx)
    parts = {name: [as_continuation(e) for e in split.part(name)] for name in EVALUATED}
    shared = None
    if can_share(route.kind, adapted, folder, config.compare.processes):
        whole = {**parts, **teaching.talks}
        shared = answer_in_processes(folder, whole, config.compare.processes, shown)
    model = answering(route.open(adapted), config.task, run.path)
    write_json(folder / "prompt.json", {"messages": sent_messages(model, parts["test"][0])})
    measured = {**_estimates(adapted), "seconds_fit": seconds}
    timed, timing = time_answers(model, parts["dev"], config.task.max_tokens)
    measured |= timed
    usage = evaluate(model, parts, folder, config.task, shown, teaching) | {"timing": timing}
    score_texts(model, neutral_texts(config), NEUTRAL, folder / "predictions.jsonl")
    peak = "measured: peak of the comparing process so far, all routes in it"
    measured.setdefault("peak_memory", Estimate(peak_memory(), "bytes", peak))
    return {
        "status": "done",
        "reason": None,
        "seconds": seconds.value,
        "usage": {k: dataclasses.asdict(u) for k, u in adapted.usage.items()},
        "evaluate_usage": {k: dataclasses.asdict(u) for k, u in usage.items()},
        "measured": {k: dataclasses.asdict(e) for k, e in measured.items()},
        "notes": notes_of(adapted, model, shared),
        "processes": shared and shared.to_json(),
        "endpoints": getattr(innermost(model), "endpoints", None),
    }


def notes_of(adapted: Adapted, model: Any, shared: Shared | None) -> list[str]:
    """What a reader of the results must know, each thing once."""
    found = (*adapted.detail.get("notes", ()), *getattr(model, "notes", ()))
    return list(dict.fromkeys((*found, *(shared.notes if shared else ()))))


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


def upstream_of(route: Route, run: RunDir, name: str, seed: int) -> dict[str, Upstream]:
    """What the routes that this one needs have made.

    Raises ConfigError where one that it needs by its kind failed; of EVERY those that finished.
    """
    made: dict[str, Upstream] = {}
    for other in sorted(needed_by(run.config, name), key=run.config.compare.routes.index):
        own_seed = seed if seed in seeds_of(run.config, other) else seeds_of(run.config, other)[0]
        folder = run.path / "routes" / other / f"seed-{own_seed}"
        if read_json(folder / "fit.json", {}).get("status") != "done":
            if EVERY in route.needs:
                continue
            raise ConfigError(f"builds on {other!r}, which did not finish.")
        adapted = Adapted.from_json(read_json(folder / "adapted.json"), str(folder / "adapted"))
        score = dev_score(folder, run.config.compare.primary_metric)
        made[other] = Upstream(run.config.routes[other], adapted, score)
    return made


def dev_score(folder: Path, metric: str) -> float | None:
    """The metric on dev of one route under one seed, failed rows as wrong, more being better."""
    parts = read_json(folder / "scores.json", {}).get("parts", {})
    part = parts.get(f"dev{TALKS}" if get_metric(metric).of_conversations else "dev", {})
    value = part.get("metrics", {}).get(metric)
    if value is None:
        return None
    if get_metric(metric).lower_is_better:
        return -value
    return value * (part["n"] - part["outcomes"]["failed"]) / part["n"]


def is_control(config: Config, name: str) -> bool:
    """Whether a route is there to catch a fooling metric rather than to be shipped."""
    settings = config.routes[name]
    return settings.kind == "constant" or (settings.kind == "local" and settings.shuffle_answers)


def token_counter(config: Config, context: int | None) -> tuple[Length, int]:
    """(tokens of a row's prompt and answer, the most that fit) by the model's own tokenizer.

    A limit of 0 checks nothing.
    """
    # long texts are cut into windows, and nothing of them is lost; an endpoint counts by itself
    if config.task.kind == "text" or remote_base(config.model):
        return (lambda _: 0), 0
    tokenizer = load_tokenizer(config.model)
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
