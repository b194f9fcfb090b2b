"""The trials of a study: dealt to the methods in turn, proposed by Optuna, pruned on dev loss.

Each method has a search of its own, by the tree-structured Parzen estimator, over its own
trials: one that all share would give more trials to what did well first. The files are the
only memory: Optuna is told of the finished trials anew before each one, and its sampler is
seeded by the trial's number, so that a study that was killed goes on with the trials it would
have had.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock

from tunelm.errors import PrerequisiteError, RunDirError, StoppedError, TrainingError
from tunelm.evaluate import evaluate
from tunelm.models.labels import answering
from tunelm.pipeline import dev_score
from tunelm.route_settings import LocalSettings
from tunelm.routes.base import FitContext
from tunelm.routes.local import LocalRoute
from tunelm.rundir import read_json, write_json
from tunelm.scoring.continuation import as_continuation
from tunelm.study.space import START, VARIANTS, Shape, distributions, settings_of
from tunelm.training.process import follow
from tunelm.types import Adapted

if TYPE_CHECKING:
    import optuna

RANDOM_TRIALS = 4
"""Trials of a method before its search begins to learn from them; the first is no draw."""
JUDGES = 2
"""Finished trials of a method before a further one of it can be pruned."""
FIRST_EPOCHS = 1
"""Epochs after which no trial is pruned: the first says little."""


@dataclass(frozen=True)
class Setting:
    """What all trials of a study share. `ctx.work` is the study's folder, in the run's."""

    ctx: FitContext
    given: LocalSettings
    shape: Shape

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.ctx.work.parent


@dataclass(frozen=True)
class Trial:
    """One trial. `score`: the primary metric on dev, failed rows as wrong, more being better.

    `losses` is the dev loss after each epoch, in nats a token. `parameters` and `peak_memory`
    (bytes) are unknown of a trial that did not come to its end.
    """

    number: int
    method: str
    params: Mapping[str, Any]
    settings: LocalSettings
    state: Literal["done", "pruned", "failed"]
    reason: str | None
    score: float | None
    losses: Mapping[int, float]
    steps: int
    seconds: float
    parameters: int | None = None
    peak_memory: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict, for JSON."""
        settings = json.loads(self.settings.model_dump_json())
        return {**dataclasses.asdict(self), "settings": settings}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trial:
        """The inverse of `to_json`."""
        losses = {int(epoch): loss for epoch, loss in data["losses"].items()}
        settings = LocalSettings.model_validate(data["settings"])
        fields: dict[str, Any] = {**data, "losses": losses, "settings": settings}
        return cls(**fields)


class PrunedError(Exception):
    """A trial is worse than the others of its method were at this point."""


def require_optuna() -> None:
    """Raise PrerequisiteError without the extra `study`; else keep Optuna quiet."""
    try:
        import optuna
    except ImportError:
        raise PrerequisiteError(
            "a study needs optuna, which is not installed: pip install 'tunelm[study]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def search(setting: Setting, count: int) -> list[Trial]:
    """Run trials until there are `count`; those that are finished are read back.

    Raises:
        TrainingError: every trial failed; with the first one's reason.
    """
    trials: list[Trial] = []
    for number in range(count):
        trials.append(run_trial(setting, number, count, trials))
    require_some(trials)
    return trials


def require_some(trials: Sequence[Trial]) -> None:
    """Raise TrainingError where every trial failed, with the first one's reason."""
    if all(trial.state == "failed" for trial in trials):
        raise TrainingError(f"all {len(trials)} trials failed. The first: {trials[0].reason}")


def run_trial(setting: Setting, number: int, count: int, earlier: Sequence[Trial]) -> Trial:
    """One trial: drawn, trained and scored on dev, as far as that has not been done before."""
    folder = folder_of_trial(setting.ctx.work, number)
    with alone(folder):
        if (folder / "trial.json").exists():
            return read_trial(folder)
        method = method_of(number)
        drawn = read_json(folder / "drawn.json", {}).get("params")
        asked = ask(method, setting, [t for t in earlier if t.method == method], drawn)
        write_json(folder / "drawn.json", {"method": method, "params": asked.params})
        return carry_out(setting, number, count, asked.params, asked)


def method_of(number: int) -> str:
    """The method of a trial: they are dealt in turn."""
    return list(VARIANTS)[number % len(VARIANTS)]


def folder_of_trial(study: Path, number: int) -> Path:
    """Where a trial writes, and nobody else."""
    return study / "trials" / f"{number:03d}"


@contextmanager
def alone(folder: Path) -> Generator[None]:
    """Hold a trial's folder, made if need be. Raises RunDirError where another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunDirError(f"{folder}: another process is at this trial.") from None
    try:
        yield
    finally:
        lock.release()


def read_trial(folder: Path) -> Trial:
    """A finished trial."""
    _clear(folder)
    return Trial.from_json(read_json(folder / "trial.json"))


def carry_out(
    setting: Setting,
    number: int,
    count: int,
    params: Mapping[str, Any],
    asked: optuna.Trial | None = None,
) -> Trial:
    """Train a trial with what was drawn, and score it. Only one that was `asked` is pruned."""
    folder, method = folder_of_trial(setting.ctx.work, number), method_of(number)
    settings = settings_of(VARIANTS[method], params, setting.given, setting.shape)
    watch = Watch(folder, asked)
    label = f"trial {number + 1} of {count}, {method}"
    found: dict[str, Any] = {"state": "done", "reason": None, "score": None}
    try:
        adapted = fit(setting, settings, folder, setting.ctx.seed, label, watch)
        found["score"] = score(setting, settings, adapted, folder, label)
        found |= facts(adapted)
        if found["score"] is None:
            found |= {"state": "failed", "reason": "no dev row could be scored"}
    except PrunedError as pruned:
        found |= {"state": "pruned", "reason": str(pruned)}
    except StoppedError:
        raise
    except TrainingError as error:
        found |= {"state": "failed", "reason": str(error)}
    watch.look()
    trial = Trial(number, method, dict(params), settings, **found, **watch.told())
    write_json(folder / "trial.json", trial.to_json())
    _clear(folder)
    return trial


def ask(
    method: str, setting: Setting, before: Sequence[Trial], drawn: Mapping[str, Any] | None
) -> optuna.Trial:
    """The next trial of a method, after the trials of it `before`; with `drawn` where given.

    A trial that failed counts as worse than all that did not, so that what diverges is avoided.
    """
    import optuna

    space = distributions(VARIANTS[method], setting.shape)
    seed = _seed(setting, method, len(before))
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=seed),
        pruner=optuna.pruners.MedianPruner(JUDGES, n_warmup_steps=FIRST_EPOCHS),
    )
    for trial in before:
        done = trial.state == "done"
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.PRUNED,
                value=trial.score if done else None,
                params=dict(trial.params),
                distributions=space,
                intermediate_values={}
                if trial.state == "failed"
                else {epoch: -loss for epoch, loss in trial.losses.items()},
            )
        )
    if drawn is None and not before:
        drawn = {name: START[name] for name in space}
    if drawn is not None:
        study.enqueue_trial(dict(drawn))
    return study.ask(space)


def draw(method: str, setting: Setting, place: int) -> dict[str, Any]:
    """What the trial at a place of its method's is given that learns nothing from others.

    Of the first RANDOM_TRIALS of a method it is what `ask` gives, which draws those at random too.
    """
    import optuna

    space = distributions(VARIANTS[method], setting.shape)
    if place == 0:
        return {name: START[name] for name in space}
    sampler = optuna.samplers.RandomSampler(seed=_seed(setting, method, place))
    return optuna.create_study(sampler=sampler).ask(space).params


def _seed(setting: Setting, method: str, place: int) -> int:
    return setting.ctx.seed * 1_000 + place * len(VARIANTS) + list(VARIANTS).index(method)


class Watch:
    """Follows the events of a trial's training: dev loss by epoch, and whether to prune."""

    def __init__(self, folder: Path, asked: optuna.Trial | None = None) -> None:
        self.losses: dict[int, float] = {}
        self.steps, self.seconds = 0, 0.0
        self._new = follow(folder / "training" / "events.jsonl", whole=True)
        self._asked = asked

    def look(self) -> bool:
        """Take in what was told since. Returns whether the trial is to be pruned."""
        prune = False
        for event in next(self._new):
            if event.get("event") == "step":
                self.steps, self.seconds = int(event["step"]), float(event["seconds"])
            # after a kill an epoch may stand there twice, the same both times
            fresh = event.get("event") == "evaluation" and event["epoch"] not in self.losses
            if fresh and event["dev_loss"] is not None:
                self.losses[int(event["epoch"])] = float(event["dev_loss"])
                if self._asked is not None:
                    self._asked.report(-float(event["dev_loss"]), int(event["epoch"]))
                    prune = prune or self._asked.should_prune()
        return prune

    def told(self) -> dict[str, Any]:
        """How far the training came: the fields of a Trial."""
        return {"losses": self.losses, "steps": self.steps, "seconds": self.seconds}


def fit(
    setting: Setting,
    settings: LocalSettings,
    folder: Path,
    seed: int,
    label: str,
    watch: Watch | None = None,
) -> Adapted:
    """Train in `folder` with these settings. Raises PrunedError where `watch` says so."""
    folder.mkdir(parents=True, exist_ok=True)

    def shown(what: str, done: int, total: int) -> None:
        setting.ctx.progress(f"{what} ({label})", done, total)
        if watch is not None and watch.look():
            raise PrunedError(f"dev loss above the median of its method at step {done} of {total}")

    ctx = dataclasses.replace(setting.ctx, work=folder, seed=seed, progress=shown)
    return LocalRoute(settings).fit(ctx)


def score(
    setting: Setting, settings: LocalSettings, adapted: Adapted, folder: Path, label: str
) -> float | None:
    """Answer the dev rows into `folder`; the primary metric, as `pipeline.dev_score` has it."""
    ctx = setting.ctx
    model = answering(LocalRoute(settings).open(adapted), ctx.task, setting.run)
    dev = {"dev": [as_continuation(row) for row in ctx.dev]}

    def shown(what: str, done: int, total: int) -> None:
        ctx.progress(f"{what} ({label})", done, total)

    evaluate(model, dev, folder, ctx.task, shown)
    return dev_score(folder, ctx.metric)


def facts(adapted: Adapted) -> dict[str, Any]:
    """What a finished training says of its size."""
    return {
        "parameters": int(adapted.detail["trainable_parameters"]),
        "peak_memory": adapted.detail["measured"]["peak_memory"]["value"],
    }


def _clear(folder: Path) -> None:
    """A finished trial's scores are kept; its weights are not: the best are trained again."""
    for name in ("training", "adapted"):
        shutil.rmtree(folder / name, ignore_errors=True)
