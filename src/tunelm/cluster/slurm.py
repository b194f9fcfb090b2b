"""Slurm's own commands, called and read. No accounting database is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelm.cluster.request import JobRequest, parse_time, time_text
from tunelm.errors import ConfigError, PrerequisiteError, TunelmError

_PAIR = re.compile(r"(\S+?)=(.*?)(?= [A-Za-z:/]+=|$)")
PATIENCE_S = 30
"""Longest wait for one of Slurm's commands."""


class SlurmError(TunelmError):
    """Slurm refused, or could not be asked."""


@dataclass(frozen=True)
class Partition:
    """A partition and what its nodes have. None: no limit, or not known."""

    name: str
    default: bool
    nodes: int
    max_nodes: int | None
    max_minutes: int | None
    gpus_a_node: int
    cpus_a_node: int


@dataclass(frozen=True)
class JobState:
    """What the controller says of a job, or of a task of an array.

    `task` is the task's number, and of those that wait together several ("3-7,9"); None where
    the job is no array. `restarts`: how often it was put back into the queue.
    """

    id: str
    task: str | None
    state: str
    reason: str
    partition: str
    started: str
    ran: str
    limit: str
    restarts: int
    exit_code: str


def installed() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("sbatch") is not None


def partitions() -> list[Partition]:
    """All partitions of the cluster.

    Raises:
        PrerequisiteError: there is no Slurm here.
        SlurmError: the controller does not answer.
    """
    nodes = [_pairs(line) for line in _ask(["scontrol", "show", "node", "-o"])]
    return [_partition(_pairs(line), nodes) for line in _ask(["scontrol", "show", "part", "-o"])]


def _partition(fields: Mapping[str, str], nodes: Sequence[Mapping[str, str]]) -> Partition:
    name = fields["PartitionName"]
    own = [node for node in nodes if name in node.get("Partitions", "").split(",")]
    most, limit = fields.get("MaxNodes", ""), fields.get("MaxTime", "")
    return Partition(
        name=name,
        default=fields.get("Default") == "YES",
        nodes=int(fields.get("TotalNodes", "0")),
        max_nodes=int(most) if most.isdigit() else None,
        max_minutes=parse_time(limit) if limit[:1].isdigit() else None,
        gpus_a_node=max((_gpus(node.get("Gres", "")) for node in own), default=0),
        cpus_a_node=max((int(node.get("CPUTot", "0")) for node in own), default=0),
    )


def _gpus(gres: str) -> int:
    """GPUs in a node's Gres.

    >>> _gpus("gpu:a100:4(S:0-1),shard:8"), _gpus("gpu:2"), _gpus("(null)")
    (4, 2, 0)
    """
    found = re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", gres)
    return sum(int(count) for count in found)


def check_request(request: JobRequest, known: Sequence[Partition]) -> Partition:
    """The partition that the request goes to. Slurm would let the impossible wait for ever.

    Raises ConfigError: no such partition, or more than it has; with what is there.
    """
    names = ", ".join(one.name for one in known)
    found = [
        one
        for one in known
        if (one.name == request.partition if request.partition else one.default)
    ]
    if not found:
        asked = (
            f"no partition {request.partition!r}" if request.partition else "no default partition"
        )
        raise ConfigError(f"{asked}: give --partition. Partitions of this cluster: {names}.")
    (its,) = found[:1]
    if request.gpus > its.gpus_a_node:
        having = {one.name: one.gpus_a_node for one in known if one.gpus_a_node}
        elsewhere = ", ".join(f"{name} has {count}" for name, count in having.items())
        raise ConfigError(
            f"--gpus {request.gpus}: the nodes of partition {its.name} have {its.gpus_a_node}. "
            + (f"GPUs a node: {elsewhere}." if having else "No partition has any.")
        )
    most = its.nodes if its.max_nodes is None else min(its.nodes, its.max_nodes)
    if request.nodes > most:
        raise ConfigError(f"--nodes {request.nodes}: partition {its.name} gives {most} at most.")
    if request.cpus is not None and request.cpus > its.cpus_a_node:
        raise ConfigError(
            f"--cpus {request.cpus}: the nodes of partition {its.name} have {its.cpus_a_node}."
        )
    if its.max_minutes is not None and (request.minutes or 0) > its.max_minutes:
        raise ConfigError(
            f"--time {time_text(request.minutes or 0)}: partition {its.name} gives "
            f"{time_text(its.max_minutes)} at most. A job that reaches its limit is put back "
            "into the queue and goes on, so a shorter time does no harm."
        )
    return its


def submit(script: Path, after: str | None = None) -> str:
    """Hand a script in; the job's id. Raises SlurmError with what Slurm said.

    `after` is a dependency as sbatch takes it. A job for which it cannot come true is cancelled
    rather than left to wait for ever.
    """
    depends = [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
    return _ask(["sbatch", "--parsable", *depends, str(script)])[0].split(";")[0]


def largest_array() -> int | None:
    """How many tasks an array may have here; None where the cluster does not say."""
    for line in _ask(["scontrol", "show", "config"]):
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdigit():
            return int(value)
    return None


def cancel(*jobs: str) -> None:
    """Cancel jobs, or a task of an array (ID_TASK). Raises SlurmError with what Slurm said."""
    _ask(["scancel", *jobs], empty=True)


def states_of(job: str) -> list[JobState]:
    """What the controller knows of a job, of an array by task; nothing where it has forgotten."""
    try:
        lines = _ask(["scontrol", "show", "job", "-o", job])
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return [_state(job, _pairs(line)) for line in lines]


def _state(job: str, fields: Mapping[str, str]) -> JobState:
    return JobState(
        id=job,
        task=fields.get("ArrayTaskId"),
        state=fields.get("JobState", "UNKNOWN"),
        reason=fields.get("Reason", "None"),
        partition=fields.get("Partition", ""),
        started=fields.get("StartTime", "Unknown"),
        ran=fields.get("RunTime", ""),
        limit=fields.get("TimeLimit", ""),
        restarts=int(fields.get("Restarts", "0")),
        exit_code=fields.get("ExitCode", "").split(":")[0],
    )


def _pairs(line: str) -> dict[str, str]:
    """The KEY=VALUE of one of scontrol's lines.

    >>> _pairs("JobId=7 Reason=Resources Comment=a b StdIn=/dev/null")["Comment"]
    'a b'
    """
    return {key: value.strip() for key, value in _PAIR.findall(line)}


def _ask(command: Sequence[str], *, empty: bool = False) -> list[str]:
    """The lines that a command prints."""
    if shutil.which(command[0]) is None:
        raise PrerequisiteError(
            f"there is no Slurm on this machine ({command[0]} is not found). Log in to the "
            "cluster, or see the script: tunelm submit ... --dry-run."
        )
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]} did not answer within {PATIENCE_S} s.") from None
    said = [line for line in done.stderr.splitlines() if "pmix" not in line]
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not (lines or empty):
        raise SlurmError(f"{command[0]}: {'; '.join(said) or 'it said nothing'}.")
    return lines
