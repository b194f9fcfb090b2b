"""The run directory: where every stage writes what it made, and reads what was made before.

Writes are atomic, one process writes at a time, and nothing that exists is overwritten: a
second run in the same place is refused, or resumes the first.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import platformdirs
import psutil

from tunelm.config import Config
from tunelm.errors import RunDirError, TunelmError

SCHEMA_VERSION = 1
PACKAGES = ("torch", "transformers", "peft", "dspy", "sacrebleu", "rouge-score", "numpy", "scipy")


class RunDir:
    """A run directory being written; use it as a context manager.

    A new one that is refused before its rows are split leaves nothing.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.config = config
        self._lock = filelock.FileLock(path / ".lock")
        self._new = self._made = False
        """Whether this object wrote the first config.json; whether it made the folder."""

    @classmethod
    def start(cls, path: Path, config: Config, resume: bool = False) -> RunDir:
        """Create a run directory, or take one up again.

        A resumed run must have the same task, data and model; routes may be added or changed,
        and a changed route's folder is emptied. Raises RunDirError when the directory exists
        (and `resume` is off), holds something else, differs, or is being written.
        """
        known = path / "config.json"
        begun = path.is_dir() and not known.exists() and _only_begun(path)
        if path.exists() and not known.exists() and not begun:
            raise RunDirError(f"{path}: exists and is not a run directory. Choose another --out.")
        if known.exists() and not resume:
            raise RunDirError(
                f"{path}: already holds a run, which is never overwritten. Three ways out: "
                "--resume goes on with it, another --out starts afresh, or remove the folder."
            )
        if resume and not known.exists() and not begun:
            raise RunDirError(f"{path}: no run to resume there (no config.json).")
        run = cls(path, config)
        run._new, run._made = not known.exists(), not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        run._acquire()
        try:
            run._adopt() if known.exists() else run._write_config({})
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def look_into(cls, path: Path, config: Config) -> RunDir:
        """A run directory as others write it: no lock, and nothing is written.

        Raises RunDirError where there is no run of the same task, data and model.
        """
        if not (path / "config.json").is_file():
            raise RunDirError(f"{path}: no run there (no config.json).")
        run = cls(path, config)
        run._require_same()
        return run

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        refused = kind is not None and issubclass(kind, TunelmError)
        withdrawn = refused and self._new and not (self.path / "split.json").exists()
        if withdrawn:  # so that the corrected command can have the same --out
            (self.path / "config.json").unlink(missing_ok=True)
        self.close()
        if withdrawn and self._made:
            (self.path / ".lock").unlink(missing_ok=True)
            with suppress(OSError):  # somebody put something there
                self.path.rmdir()

    def close(self) -> None:
        """Let go of the lock."""
        (self.path / "owner.json").unlink(missing_ok=True)
        self._lock.release()

    def route(self, name: str, seed: int) -> Path:
        """The folder of one route and seed, made if need be."""
        folder = self.path / "routes" / name / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def event(self, **fields: Any) -> None:
        """Append a line to events.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), **fields}, ensure_ascii=False) + "\n"
        append_text(self.path / "events.jsonl", line)

    def note_base(self, base: Mapping[str, Any]) -> None:
        """Record which base model this run is made with; refuse another on resume."""
        stored = read_json(self.path / "config.json")
        before = stored.get("base")
        if before is not None and before != dict(base):
            raise RunDirError(
                f"{self.path}: was made with another base model: {before} then, {dict(base)} now. "
                "Start a new run with another --out."
            )
        if before is None:
            write_json(self.path / "config.json", {**stored, "base": dict(base)})

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            owner = read_json(self.path / "owner.json", {})
            who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
            raise RunDirError(
                f"{self.path}: is being written by {who}. Wait for it, or stop it."
            ) from None
        write_json(self.path / "owner.json", {"pid": os.getpid(), "host": socket.gethostname()})

    def _adopt(self) -> None:
        stored = self._require_same()
        for name, digest in stored["digests"]["routes"].items():
            if name in self.config.routes and digest != self.config.route_digest(name):
                shutil.rmtree(self.path / "routes" / name, ignore_errors=True)
        self._write_config(stored)

    def _require_same(self) -> dict[str, Any]:
        """What config.json holds. Raises RunDirError where that is another task."""
        stored = read_json(self.path / "config.json")
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise RunDirError(
                f"{self.path}: written with schema version {stored.get('schema_version')}, this "
                f"tunelm reads {SCHEMA_VERSION}. Start a new run."
            )
        if stored["digests"]["shared"] != self.config.shared_digest():
            then, now = stored["shared"], self.config.shared()
            keys = sorted(
                k for k in _flat(now) | _flat(then) if _flat(now).get(k) != _flat(then).get(k)
            )
            raise RunDirError(
                f"{self.path}: cannot resume, the routes would not be comparable: "
                f"{', '.join(keys)} differ. Start a new run with another --out."
            )
        return stored

    def _write_config(self, stored: Mapping[str, Any]) -> None:
        config = self.config
        routes = dict(stored.get("digests", {}).get("routes", {}))
        routes |= {name: config.route_digest(name) for name in config.compare.routes}
        write_json(
            self.path / "config.json",
            {
                "schema_version": SCHEMA_VERSION,
                "created": stored.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
                "tunelm": metadata.version("tunelm"),
                "config": _merged_config(stored, config),
                "shared": config.shared(),
                "digests": {"shared": config.shared_digest(), "routes": routes},
                "versions": versions(),
                "host": host(),
                "base": stored.get("base"),
            },
        )


def _only_begun(path: Path) -> bool:
    """Whether a folder holds no more than a run that was killed before its first file."""
    names = {p.name for p in path.iterdir()}
    return all(n in (".lock", "owner.json", "slurm") or n.endswith(".tmp") for n in names)


def _merged_config(stored: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """This run's config with the routes that earlier calls added to the same directory."""
    new = json.loads(config.model_dump_json())
    old = stored.get("config")
    if old:
        names = [*old["compare"]["routes"], *new["compare"]["routes"]]
        new["compare"]["routes"] = list(dict.fromkeys(names))
        new["routes"] = old["routes"] | new["routes"]
    return new


def default_out(task: str) -> Path:
    """`runs/TASK-TIME` under the current folder."""
    return Path("runs") / f"{task}-{datetime.now():%Y%m%d-%H%M%S}"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:  # a full disk, whose errors name no file
        partial.unlink(missing_ok=True)
        error.filename = str(path)
        raise


def append_text(path: Path, text: str) -> None:
    """Add to a file in one go: a process that is killed, or a full disk, leaves all or nothing."""
    data = text.encode()
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            whole = file.write(data) == len(data)
        except OSError as error:
            error.filename = str(path)
            raise
        if not whole:
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def write_json(path: Path, data: object) -> None:
    """Write JSON atomically, indented; NaN is refused, unknown is null."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    write_text(path, text + "\n")


def read_json(path: Path, default: Any = None) -> Any:
    """The JSON in a file, or `default` where there is no file and a default was given."""
    if default is not None and not path.exists():
        return default
    return json.loads(path.read_text(encoding="utf-8"))


def cache_dir() -> Path:
    """Where tunelm keeps what outlives a run; TUNELM_CACHE moves it."""
    return Path(os.environ.get("TUNELM_CACHE") or platformdirs.user_cache_dir("tunelm"))


def count_test_look(test_hash: str) -> int:
    """How often this machine has started a run with this test set, this time included."""
    path = cache_dir() / "test_looks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        looks = read_json(path, {})
        looks[test_hash] = looks.get(test_hash, 0) + 1
        write_json(path, looks)
    return looks[test_hash]


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on; None: not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def peak_memory() -> int:
    """Most memory this process ever held resident, in bytes.

    On Linux from /proc: `ru_maxrss` of a process that another one started begins at the
    starter's own peak (execve keeps it), so a small child of a large parent would look large.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return int(psutil.Process().memory_info().peak_wset)  # pyright: ignore
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def host() -> dict[str, Any]:
    """This machine, in a few facts; the GPU only if torch is loaded already."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else None
    return {
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": gpu,
    }


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
