"""A real Slurm cluster of one node for the tests: controller, worker, no database, no munge.

And what the tests of it share: jobs submitted through the command line, and waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
from click.testing import CliRunner, Result

from tunelm.cli import cli
from tunelm.cluster.jobs import job_of
from tunelm.lifeline import end_with_parent

LONGEST_S = 400
UNPACKED = Path(__file__).parents[1] / "build" / "slurm"
PACKAGES = (
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "munge", "libmunge2"),
    *("libhwloc15", "liblua5.1-0", "libjson-c5", "libhttp-parser2.9", "libyaml-0-2"),
)
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={worker}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
MinJobAge=86400
KillWait=5
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=04:00:00 State=UP PriorityTier=1
PartitionName=high Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


class Cluster:
    """Started in `folder`; `stop` ends it. Raises OSError where it does not come up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        root = os.geteuid() == 0
        self.config = folder / "slurm.conf"
        plugins = _plugins()
        self.config.write_text(
            CONFIG.format(
                host=self.host,
                controller=free_port(),
                worker=free_port(),
                user="root" if root else os.environ.get("USER", "nobody"),
                proctrack="linuxproc" if root else "pgid",
                plugins=plugins,
                folder=folder,
                cpus=os.cpu_count(),
            ),
            encoding="utf-8",
        )
        os.environ["SLURM_CONF"] = str(self.config)
        self.controller = _started(["slurmctld", "-c", "-D", "-f", str(self.config)])
        self.start_node()

    def start_node(self) -> None:
        """Start the node's worker, and wait until the controller takes jobs for it."""
        step = next(iter(UNPACKED.rglob("slurmstepd*")), None)
        own = ["-d", str(step)] if step is not None else []
        self.worker = _started(
            ["slurmd", "-c", "-D", "-f", str(self.config), "-N", self.host, *own]
        )
        self._wait()

    def kill_node(self) -> None:
        """The node dies: its worker and all that it ran are gone in an instant."""
        # a job's processes are the worker's grandchildren by way of a daemon of their own
        gone = [*psutil.Process(self.worker.pid).children(recursive=True)]
        gone += [p for p in psutil.process_iter() if self._runs_here(p)]
        above = [one for p in gone for one in p.parents()]  # its environment cannot be read
        gone += [p for p in set(above) if p.name().startswith("slurmstepd")]
        gone.append(psutil.Process(self.worker.pid))
        end_at_once(gone)
        self.worker.wait(timeout=20)
        down = ["scontrol", "update", f"NodeName={self.host}", "State=DOWN", "Reason=it died"]
        subprocess.run(down, check=True)

    def _runs_here(self, process: psutil.Process) -> bool:
        """Whether a process is one of a job of this cluster, or the daemon that started it."""
        try:
            own = process.environ()
        except psutil.Error:
            return False
        return own.get("SLURM_CONF") == str(self.config) and "SLURM_JOB_ID" in own

    def _wait(self) -> None:
        for _ in range(120):
            said = subprocess.run(
                ["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False
            )
            if "idle" in said.stdout:
                return
            time.sleep(0.5)
        self.stop()
        raise OSError((self.folder / "slurmctld.log").read_text(encoding="utf-8")[-2000:])

    def now(self, job: str) -> None:
        """Let a requeued job run at once; Slurm would let it rest for two minutes."""
        for _ in range(150):
            state = subprocess.run(
                ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=True
            ).stdout
            if "JobState=PENDING" in state:
                time.sleep(2)  # in the second of its end the worker refuses the next turn
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
                return
            time.sleep(0.2)
        raise AssertionError(f"job {job} was not put back into the queue: {state}")

    def preempt(self, folder: Path) -> None:
        """A job of higher priority that takes all cores for a second."""
        script = folder / "urgent.sh"
        script.write_text("#!/bin/bash\nsleep 1\n", encoding="utf-8")
        urgent = ["sbatch", "-p", "high", "-c", str(cores()), "-o", "/dev/null", str(script)]
        subprocess.run(urgent, check=True, capture_output=True)

    def stop(self) -> None:
        """End the daemons and what they started."""
        subprocess.run(["scancel", "-u", _user()], capture_output=True, check=False)
        for process in (self.worker, self.controller):
            process.terminate()
        for process in (self.worker, self.controller):
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:  # it waits for a job that is slow to end
                process.kill()
                process.wait()


def end_at_once(processes: list[psutil.Process]) -> None:
    """Kill them so that none sees another one's end."""
    for deed in (psutil.Process.suspend, psutil.Process.kill):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                deed(process)


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_as_daemon,
    )


def _as_daemon() -> None:
    """It hears Ctrl-C, to which what begins in the background is deaf, and so would the jobs be.

    And it does not outlive its parent, however that ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def bring_up(folder: Path) -> Cluster:
    """A cluster of the Slurm on this machine, or of Debian's packages unpacked into build/.

    Raises OSError where there is neither, or it does not come up.
    """
    if shutil.which("slurmctld") is None and not _unpack():
        raise OSError("no Slurm here, and Debian's packages cannot be fetched")
    return Cluster(folder)


def running(folder: Path) -> Iterator[Cluster]:
    """For a fixture: a cluster, and the environment as it was before; skips where none comes up."""
    before = dict(os.environ)
    try:
        found = bring_up(folder)
    except OSError as error:
        pytest.skip(f"no cluster comes up here: {error}")
    yield found
    found.stop()
    os.environ.clear()
    os.environ.update(before)


def tunelm(*words: object) -> Result:
    """The command line."""
    return CliRunner().invoke(cli, [str(word) for word in words])


def submit(task: Path, run: Path, *more: object) -> str:
    """Submit a task; the job's id."""
    result = tunelm("submit", task, "--out", run, "--time", "30", *more)
    assert result.exit_code == 0, result.output
    return job_of(run).id


def wait_for(run: Path, *states: str, seconds: float = LONGEST_S) -> Any:
    """A run's last job once it is in one of these states."""

    def reached() -> Any:
        job = job_of(run)
        state = job.state.state if job.state else ""
        if state in ("FAILED", "CANCELLED") and state not in states:
            raise AssertionError(f"{job.said}\n{_log(run)}")
        return job if state in states else None

    return until(reached, lambda: f"{job_of(run).states}\n{_log(run)}", seconds)


def until(
    found: Callable[[], Any], told: Callable[[], str] = str, seconds: float = LONGEST_S
) -> Any:
    """What `found` gives once that is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError(told())


def wait_for_training(
    run: Path, folder: str = "routes/local/seed-0", seconds: float = LONGEST_S
) -> None:
    """Until a few steps are done."""
    events = run / folder / "training" / "events.jsonl"
    until(
        lambda: events.is_file() and events.read_text("utf-8").count('"step"') >= 3,
        lambda: _log(run),
        seconds,
    )


def cores() -> int:
    """Those of the node: a job that has them all runs alone."""
    return os.cpu_count() or 1


def scores(run: Path) -> dict[str, Any]:
    """The scores of each route."""
    report = json.loads((run / "report.json").read_text("utf-8"))
    return {route["name"]: route["scores"] for route in report["routes"]}


def _log(run: Path) -> str:
    logs = sorted((run / "slurm").glob("*.log"))
    return "\n".join(f"{log.name}:\n{log.read_text('utf-8')[-2000:]}" for log in logs)


def _unpack() -> bool:
    """Debian's packages under build/slurm, on PATH; nothing is installed."""
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(UNPACKED / "lock"):  # tests of two files may get here at once
        _fetch()
    folders = [UNPACKED / "usr" / "bin", UNPACKED / "usr" / "sbin"]
    os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    libraries = {str(p.parent) for p in UNPACKED.rglob("*.so*")}
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(sorted(libraries))
    return shutil.which("slurmctld") is not None


def _fetch() -> None:
    tools = shutil.which("apt-get") and shutil.which("dpkg")
    if not tools or any(UNPACKED.rglob("slurmctld")):
        return
    for name in PACKAGES:
        subprocess.run(
            ["apt-get", "download", name], cwd=UNPACKED, capture_output=True, check=False
        )
    for package in UNPACKED.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(UNPACKED)], check=False)


def _plugins() -> Path:
    for root in (UNPACKED, Path("/")):
        found = next(iter((root / "usr" / "lib").rglob("select_cons_tres.so")), None)
        if found is not None:
            return found.parent
    raise OSError("Slurm's plugins are not found")


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
