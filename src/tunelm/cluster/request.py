"""What a job asks a cluster for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunelm.errors import ConfigError

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d{1,2}))?(?::(\d{1,2}))?")
_MEMORY = re.compile(r"(\d+)([KMGT]?)", re.IGNORECASE)


@dataclass(frozen=True)
class JobRequest:
    """What to ask for; None and 0 leave it to the cluster. `minutes` is the time limit."""

    partition: str | None = None
    gpus: int = 0
    nodes: int = 1
    cpus: int | None = None
    memory: str | None = None
    minutes: int | None = None
    account: str | None = None
    qos: str | None = None


def parse_time(text: str) -> int:
    """A time limit as Slurm writes it, in minutes, seconds rounded up.

    Slurm's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
    days-hours:minutes and days-hours:minutes:seconds (sbatch(1), --time).

    >>> parse_time("90"), parse_time("02:30:00"), parse_time("1-12"), parse_time("1-00:30")
    (90, 150, 2160, 1470)

    Raises ConfigError for anything else.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"--time {text!r}: minutes (90), hours:minutes:seconds (02:30:00) or days-hours (1-12) "
            "are expected."
        )
    days, first, second, third = (None if g is None else int(g) for g in found.groups())
    if days is not None:
        seconds = days * 86_400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    elif third is not None:
        seconds = (first or 0) * 3600 + (second or 0) * 60 + third
    else:
        seconds = (first or 0) * 60 + (second or 0)
    if seconds <= 0:
        raise ConfigError(f"--time {text!r}: a time above zero is expected.")
    return -(-seconds // 60)


def time_text(minutes: int) -> str:
    """Minutes as days-hours:minutes:00.

    >>> time_text(90), time_text(2190)
    ('01:30:00', '1-12:30:00')
    """
    days, rest = divmod(minutes, 1440)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock


def gigabytes(memory: str) -> int:
    """Memory as Slurm takes it (megabytes where there is no unit), in whole gigabytes, rounded up.

    >>> gigabytes("16G"), gigabytes("1500M"), gigabytes("64000"), gigabytes("1T")
    (16, 2, 63, 1024)

    Raises ConfigError for anything else.
    """
    found = _MEMORY.fullmatch(check_memory(memory) or "")
    assert found is not None
    power = {"K": 1, "": 2, "M": 2, "G": 3, "T": 4}[found[2].upper()]
    return -(-int(found[1]) * 1024**power // 1024**3)


def check_memory(text: str | None) -> str | None:
    """Memory as Slurm takes it, such as 16G. Raises ConfigError for anything else."""
    if text is not None and not _MEMORY.fullmatch(text):
        raise ConfigError(f"--mem {text!r}: a number with K, M, G or T is expected, such as 16G.")
    return text
