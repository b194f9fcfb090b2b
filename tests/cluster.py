"""A real Slurm cluster of one node for the tests: controller, worker, no database, no munge."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

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
                controller=_free_port(),
                worker=_free_port(),
                user="root" if root else os.environ.get("USER", "nobody"),
                proctrack="linuxproc" if root else "pgid",
                plugins=plugins,
                folder=folder,
                cpus=os.cpu_count(),
            ),
            encoding="utf-8",
        )
        os.environ["SLURM_CONF"] = str(self.config)
        step = next(iter(UNPACKED.rglob("slurmstepd*")), None)
        daemon = ["slurmd", "-c", "-D", "-f", str(self.config), "-N", self.host]
        self.running = [
            subprocess.Popen(
                [*command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=_hears_ctrl_c,
            )
            for command in (
                ["slurmctld", "-c", "-D", "-f", str(self.config)],
                daemon if step is None else [*daemon, "-d", str(step)],
            )
        ]
        self._wait()

    def _wait(self) -> None:
        for _ in range(60):
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
        for _ in range(100):
            state = subprocess.run(
                ["scontrol", "show", "job", "-o", job], capture_output=True, text=True, check=True
            ).stdout
            if "JobState=PENDING" in state:
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
                return
            time.sleep(0.2)
        raise AssertionError(f"job {job} was not put back into the queue: {state}")

    def stop(self) -> None:
        """End the daemons and what they started."""
        subprocess.run(["scancel", "-u", _user()], capture_output=True, check=False)
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            process.wait(timeout=20)


def _hears_ctrl_c() -> None:
    """What was started in the background is deaf to it, and so would the jobs be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_cluster(folder: Path) -> Cluster:
    """A cluster of the Slurm on this machine, or of Debian's packages unpacked into build/.

    Skips the test where there is neither.
    """
    if shutil.which("slurmctld") is None and not _unpack():
        pytest.skip("no Slurm here, and Debian's packages cannot be fetched")
    try:
        return Cluster(folder)
    except OSError as error:
        pytest.skip(f"Slurm does not come up here: {error}")


def _unpack() -> bool:
    """Debian's packages under build/slurm, on PATH; nothing is installed."""
    if not any(UNPACKED.rglob("slurmctld")):
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            return False
        UNPACKED.mkdir(parents=True, exist_ok=True)
        for name in PACKAGES:
            subprocess.run(
                ["apt-get", "download", name], cwd=UNPACKED, capture_output=True, check=False
            )
        for package in UNPACKED.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(UNPACKED)], check=False)
    folders = [UNPACKED / "usr" / "bin", UNPACKED / "usr" / "sbin"]
    os.environ["PATH"] = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    libraries = {str(p.parent) for p in UNPACKED.rglob("*.so*")}
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(sorted(libraries))
    return shutil.which("slurmctld") is not None


def _plugins() -> Path:
    for root in (UNPACKED, Path("/")):
        found = next(iter((root / "usr" / "lib").rglob("select_cons_tres.so")), None)
        if found is not None:
            return found.parent
    raise OSError("Slurm's plugins are not found")


def _user() -> str:
    return "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
