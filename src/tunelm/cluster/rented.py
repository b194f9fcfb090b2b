"""The main job as a SkyPilot task, for those who rent GPUs: `sky jobs launch FILE`."""

from __future__ import annotations

import hashlib
import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunelm.cluster.request import JobRequest

KEPT = "/kept"
"""Where the rented machine has the bucket."""
INSTALL = "pip install 'tunelm[all]'"


@dataclass(frozen=True)
class Rented:
    """What a rented machine runs: `command` in a copy of the folder that SkyPilot is started in.

    `run` is the run directory as it would be here: its name is kept there, and the bucket has a
    name made of it.
    """

    name: str
    command: tuple[str, ...]
    run: Path
    setup: tuple[str, ...] = ()


def skypilot_yaml(work: Rented, request: JobRequest, card: str | None) -> str:
    """The whole file.

    A mounted bucket takes neither appended lines nor renamed folders (SkyPilot, "Cloud Buckets",
    MOUNT), of which a run directory is made: so the run lies on the machine's own disk, and
    `tunelm.cluster.keep` keeps it in the bucket. SkyPilot's managed jobs recover from a preemption
    by running the same lines on another machine, where it is taken out again.
    """
    lines = [f"name: {work.name}", "resources:"]
    if card:
        lines.append(f"  accelerators: {card}:{request.gpus}")
    if request.cpus:
        lines.append(f"  cpus: {request.cpus}+")
    if request.memory:
        lines.append(f"  memory: {_gigabytes(request.memory)}+")
    keep = f"python -m tunelm.cluster.keep {KEPT} ~/runs/{shlex.quote(work.run.name)}"
    lines += [
        "  use_spot: true",
        "workdir: .  # uploaded: the task file, and the files it names, lie in it",
        "file_mounts:",
        f"  {KEPT}:",
        f"    name: {bucket_name(work)}",
        "    mode: MOUNT",
        "setup: |",
        *_indented(work.setup or (INSTALL,)),
        "run: |",
        *_indented([f"{keep} -- {shlex.join(work.command)}"]),
    ]
    return "\n".join(lines) + "\n"


def bucket_name(work: Rented) -> str:
    """One bucket a run. Names are shared by all customers of a cloud, and have a narrow alphabet.

    Lower-case letters, digits and hyphens, 63 characters at most, are allowed by all of them.
    """
    where = f"{platform.node()}:{work.run}"
    mark = hashlib.sha256(where.encode()).hexdigest()[:10]
    plain = re.sub(r"[^a-z0-9]+", "-", work.name.lower()).strip("-")
    return f"{plain[:50].rstrip('-')}-{mark}"


def _gigabytes(memory: str) -> int:
    """Memory as sbatch takes it (megabytes where there is no unit), in whole gigabytes.

    >>> _gigabytes("16G"), _gigabytes("1500M"), _gigabytes("64000"), _gigabytes("1T")
    (16, 2, 63, 1024)
    """
    unit = memory[-1].upper()
    number = int(memory.rstrip("KMGTkmgt"))
    in_mb = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}.get(unit, 1)
    return max(1, -int(-number * in_mb // 1024))


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
