"""How good forecasts on this machine were: forecast against measured, over all its runs.

A comparison notes its folder in `runs.txt` when it has written its report. The report of each run
holds every forecast beside what was measured; here they are put together, by quantity and method.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import filelock
import platformdirs

from tunelm.data.shares import Share, share
from tunelm.errors import RunDirError

COVERAGE = 0.8
"""The share of measured values that a forecast's interval is to hold."""
_MEMORY = "peak_memory_bytes"


@dataclass(frozen=True, slots=True)
class Held:
    """One forecast and what was measured of the same run."""

    run: Path
    route: str
    quantity: str
    method: str
    forecast: float
    low: float | None
    high: float | None
    measured: float


@dataclass(frozen=True, slots=True)
class Track:
    """The forecasts of one quantity by one method, held against the truth.

    Attributes:
        n: forecasts with a measured value.
        error: mean of |measured / forecast - 1|; None where every forecast is zero.
        bias: the same with its sign: above zero, more was needed than forecast.
        inside: how many measured values lay within the interval, of those that had one, with
            its 95% interval.
        false_fits: of memory, how often more was taken than the interval's high end; else None.
    """

    quantity: str
    method: str
    n: int
    error: float | None
    bias: float | None
    inside: Share
    false_fits: int | None


def data_dir() -> Path:
    """Where tunelm keeps what this machine has run; TUNELM_DATA moves it."""
    return Path(os.environ.get("TUNELM_DATA") or platformdirs.user_data_dir("tunelm"))


def note_run(run: Path) -> None:
    """Add a run's folder to this machine's list, once."""
    index = data_dir() / "runs.txt"
    index.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(index.with_suffix(".lock")):
        if str(run.resolve()) not in _noted(index):
            with index.open("a", encoding="utf-8") as file:
                file.write(f"{run.resolve()}\n")


def known_runs() -> list[Path]:
    """The folders of this machine's runs that are still there, oldest first."""
    noted = _noted(data_dir() / "runs.txt")
    return [path for path in map(Path, noted) if (path / "report.json").is_file()]


def track_record(folders: Sequence[Path] = ()) -> list[Track]:
    """Forecast against measured, by quantity and method.

    Args:
        folders: runs, or folders with runs in them; none: all runs on this machine.

    Raises:
        RunDirError: a folder that holds no run with a report.
    """
    runs = [run for folder in folders for run in _runs_in(folder)] if folders else known_runs()
    groups: dict[tuple[str, str], list[Held]] = {}
    for run in dict.fromkeys(path.resolve() for path in runs):
        for held in forecasts_of(run):
            groups.setdefault((held.quantity, _kind(held.method)), []).append(held)
    return [_track(*key, groups[key]) for key in sorted(groups)]


def forecasts_of(run: Path) -> Iterator[Held]:
    """Each forecast of a run whose truth was measured."""
    try:
        report = json.loads((run / "report.json").read_text(encoding="utf-8"))
        routes = report["routes"]
    except (OSError, ValueError, KeyError) as error:
        raise RunDirError(f"{run}: its report cannot be read ({error}).") from None
    for route in routes:
        for row in route.get("forecast_errors") or ():
            if row["forecast"] is None or row["measured"] is None:
                continue
            yield Held(
                run,
                route["name"],
                row["name"],
                row["method"],
                row["forecast"],
                row["low"],
                row["high"],
                row["measured"],
            )


def track_rows(found: Sequence[Track]) -> list[dict[str, str]]:
    """The track record as rows of a table."""
    return [
        {
            "quantity": track.quantity,
            "method": track.method,
            "n": str(track.n),
            "mean error": _percent(track.error),
            "bias": _percent(track.bias, "+"),
            f"inside the {COVERAGE:.0%} interval": _inside(track.inside),
            "false fits": "-" if track.false_fits is None else str(track.false_fits),
        }
        for track in found
    ]


def _track(quantity: str, method: str, all_held: Sequence[Held]) -> Track:
    errors = [held.measured / held.forecast - 1 for held in all_held if held.forecast]
    ranged = [
        held.low <= held.measured <= held.high
        for held in all_held
        if held.low is not None and held.high is not None
    ]
    over = [held for held in all_held if held.high is not None and held.measured > held.high]
    return Track(
        quantity,
        method,
        len(all_held),
        fmean(abs(error) for error in errors) if errors else None,
        fmean(errors) if errors else None,
        share(sum(ranged), len(ranged)),
        len(over) if quantity == _MEMORY else None,
    )


def _kind(method: str) -> str:
    """The method without its particulars: `dry run at 512 tokens` is a dry run.

    >>> _kind("probe: 8 steps of 100 and 300 tokens"), _kind("exact")
    ('probe', 'exact')
    """
    return re.split(r"[:;,(]| at | x ", method, maxsplit=1)[0].strip()


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "report.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/report.json"))
    if not found:
        raise RunDirError(
            f"{folder}: no run with a report there. Give a run, a folder of runs, or nothing for "
            "all runs on this machine."
        )
    return found


def _noted(index: Path) -> list[str]:
    return index.read_text(encoding="utf-8").splitlines() if index.is_file() else []


def _percent(value: float | None, sign: str = "") -> str:
    return "unknown" if value is None else f"{value:{sign}.1%}"


def _inside(found: Share) -> str:
    if found.share is None or found.low is None or found.high is None:
        return "no interval"
    return f"{found.share:.0%} of {found.of} ({found.low:.0%} to {found.high:.0%})"
