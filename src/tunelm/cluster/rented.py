"""The main job as a SkyPilot task, for those who rent GPUs: `sky jobs launch FILE`."""

from __future__ import annotations

import platform
import re
import shlex

from tunelm.cluster.request import JobRequest, gigabytes
from tunelm.cluster.script import Work
from tunelm.types import content_hash

KEPT = "/kept"
"""Where the rented machine has the bucket."""
INSTALL = "pip install 'tunelm[all]'"


def skypilot_yaml(work: Work, request: JobRequest, card: str | None) -> str:
    """The whole file; `work.folder` is the one that SkyPilot is started in, and uploads.

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
        lines.append(f"  memory: {gigabytes(request.memory)}+")
    keep = f"python -m tunelm.cluster.keep {KEPT} ~/runs/{shlex.quote(work.run.name)}"
    lines += [
        "  use_spot: true",
        "workdir: .  # uploaded: the task file, and the files it names, lie in it",
        "file_mounts:",
        f"  {KEPT}:",
        f"    name: {bucket_name(work)}",
        "    mode: MOUNT",
        "setup: |",
        *(f"  {line}" for line in work.setup or (INSTALL,)),
        "run: |",
        f"  {keep} -- {shlex.join(work.command)}",
    ]
    return "\n".join(lines) + "\n"


def bucket_name(work: Work) -> str:
    """One bucket a run. Names are shared by all customers of a cloud, and have a narrow alphabet.

    Lower-case letters, digits and hyphens, 63 characters at most, are allowed by all of them.
    """
    mark = content_hash([platform.node(), str(work.run)])[:10]
    plain = re.sub(r"[^a-z0-9]+", "-", work.name.lower()).strip("-")
    return f"{plain[:50].rstrip('-')}-{mark}"
