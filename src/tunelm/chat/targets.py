"""What a conversation is held with: a model, a run, or a task of dialogues with its problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from tunelm.config import TASKS, Config, load_config
from tunelm.errors import ConfigError, DataError
from tunelm.models.base import ChatModel
from tunelm.models.budget import Wallet
from tunelm.models.prompted import PromptedModel
from tunelm.rundir import read_json
from tunelm.tutor.dialogues import Problem, read_dialogues
from tunelm.tutor.teaching import INSTRUCTIONS

DIALOGUE = "dialogue"
"""The kind of task whose model is a teacher."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A target that was opened.

    Attributes:
        label: what opens it again, from any folder.
        tutor: whether it is there to teach.
        problems: what it can talk about; none for a plain model.
        notes: what could not be had of it.
    """

    model: ChatModel
    label: str
    tutor: bool = False
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


def open_target(target: str, wallet: Wallet | None = None) -> Opened:
    """Open a TARGET as `tunelm.load` does, or the base model of a task of dialogues.

    Args:
        target: what `tunelm.load` takes; a bundled task's name, or a task file.
        wallet: what pays for a model whose endpoint charges.

    Raises:
        ConfigError: nothing of the kind is there, or the task is of another kind.
        DataError: the task's dialogues are broken.
        ModelError: the model cannot be loaded.
    """
    if (task := task_of(target)) is not None:
        problems = problems_in(task.data.path)
        return Opened(_base_of(task, wallet), label_of(target), True, problems)
    from tunelm.target import load

    data = _dialogues_of_run(Path(target))
    model = load(target, wallet)
    if data is None:
        return Opened(model, label_of(target))
    try:
        return Opened(model, label_of(target), True, problems_in(data))
    except DataError as error:
        note = f"the run's problems are not to be had: {error}"
        return Opened(model, label_of(target), True, notes=(note,))


def label_of(target: str) -> str:
    """What opens a target again from another folder: of what is on disk the whole path."""
    return str(Path(target).resolve()) if Path(target).exists() else target


def task_of(target: str) -> Config | None:
    """The task of dialogues that a target names; None where it names no task.

    Raises ConfigError for a task of another kind.
    """
    path = Path(target)
    bundled = not path.exists() and (TASKS / f"{target}.toml").is_file()
    if not bundled and path.suffix != ".toml":
        return None
    config = load_config(target)
    if config.task.kind != DIALOGUE:
        raise ConfigError(
            f"{target}: a task of kind {config.task.kind!r}. A conversation takes a task of kind"
            f" {DIALOGUE!r}, a run, or a model, such as {config.model.base}."
        )
    return config


def problems_in(path: Path) -> tuple[Problem, ...]:
    """The problems of a file of dialogues, each once, the subjects taking turns.

    Raises DataError as `read_dialogues`.
    """
    found = {dialogue.problem.text: dialogue.problem for dialogue in read_dialogues(path)}
    subjects: dict[str, list[Problem]] = {}
    for problem in found.values():
        subjects.setdefault(problem.subject, []).append(problem)
    mixed = chain.from_iterable(zip_longest(*subjects.values()))
    return tuple(problem for problem in mixed if problem is not None)


def pick_problem(wanted: str, problems: Sequence[Problem]) -> Problem | str:
    """The problem of a number (from 1), or the text itself.

    Raises ConfigError for a number there is no problem for, or an empty text.
    """
    text = wanted.strip()
    if not text:
        raise ConfigError("the problem is empty: say what the conversation is to be about")
    if not text.isdecimal() or not problems:
        return text
    if not 1 <= int(text) <= len(problems):
        raise ConfigError(f"there is no problem {text}: give 1 to {len(problems)}, or a text")
    return problems[int(text) - 1]


def _base_of(task: Config, wallet: Wallet | None) -> ChatModel:
    """The task's model, with its instructions where they are none of a style's."""
    from tunelm.models import open_model

    model, own = open_model(task.model, wallet=wallet), task.task.instructions
    return model if own in INSTRUCTIONS.values() else PromptedModel(model, own)


def _dialogues_of_run(path: Path) -> Path | None:
    """The data of a run, or of RUN/ROUTE, whose task is one of dialogues."""
    from tunelm.target import find_run

    if (found := find_run(path)) is None:
        return None
    config = read_json(found[0] / "config.json")["config"]
    return Path(config["data"]["path"]) if config["task"]["kind"] == DIALOGUE else None
