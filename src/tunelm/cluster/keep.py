"""A run on a machine that can vanish: `python -m tunelm.cluster.keep BUCKET RUN -- COMMAND`.

A mounted bucket takes new files that are written from one end to the other, and nothing else. So
the run lies on the machine's own disk; every few minutes all its processes stand still for a moment
while it is put into one archive, which goes to the bucket. A machine that has no such run begins
with the newest archive that came there whole: the run as it was at one moment, and so one that can
be resumed as after any other end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import psutil

from tunelm import room
from tunelm.lifeline import end_with_parent

EVERY_S = 600.0
WHOLE = "run"
"""Folder of the bucket with the plain files of a run that came to its end."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command as long as it takes; returns its exit code, that of its signal plus 128."""
    parser = argparse.ArgumentParser(
        prog="python -m tunelm.cluster.keep",
        description="Run COMMAND --out RUN, and keep RUN in BUCKET; go on with what is kept there.",
        epilog="example: python -m tunelm.cluster.keep /kept ~/runs/one -- tunelm compare t.toml",
    )
    parser.add_argument("bucket", type=Path, help="a folder that outlives this machine")
    parser.add_argument("run", type=Path, help="the run directory, on a disk of this machine")
    parser.add_argument("command", nargs="+", help="what makes the run directory")
    parser.add_argument(
        "--every", type=float, default=EVERY_S, metavar="SECONDS", help="%(default)g by default"
    )
    given = parser.parse_args(arguments)
    if not given.bucket.is_dir():
        parser.error(f"{given.bucket} is no folder: what is made here would be lost.")
    run: Path = given.run.absolute()
    take_out(given.bucket, run)
    resume = ["--resume"] if (run / "config.json").is_file() else []
    try:
        process = subprocess.Popen(
            [*given.command, "--out", str(run), *resume],
            start_new_session=True,  # it hears a signal once: from here
            preexec_fn=end_with_parent,
        )
    except OSError as error:
        parser.error(f"{given.command[0]} cannot be started: {error.strerror}.")
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, lambda *_: process.send_signal(signal.SIGINT))
    code = _wait(process, given.bucket, run, given.every)
    if code == 0:
        return 0 if _done(lay_out, given.bucket, run) else room.EXIT_CODE
    _done(put_away, given.bucket, run)
    return code if code > 0 else 128 - code


def _wait(process: subprocess.Popen[bytes], bucket: Path, run: Path, every_s: float) -> int:
    while True:
        try:
            return process.wait(every_s)
        except subprocess.TimeoutExpired:
            _done(put_away, bucket, run, process.pid)


def _done(deed: Callable[..., None], bucket: Path, run: Path, *more: object) -> bool:
    """Whether it was done. A disk or a bucket that refuses does not end the work: it is said."""
    try:
        deed(bucket, run, *more)
    except OSError as error:
        print(f"not kept in {bucket}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def take_out(bucket: Path, run: Path) -> None:
    """Put a run where it was, unless it is there already: from the newest whole archive.

    A run that came to its end lies in the bucket as plain files; it is taken from them.
    """
    if run.exists():
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    new = run.with_name(f".{run.name}.new")
    if not any(_extracted(archive, new) for archive in _archives(bucket)[::-1]):
        if not (bucket / WHOLE).is_dir():
            return
        shutil.rmtree(new, ignore_errors=True)
        _copy(bucket / WHOLE, new)
    os.replace(new, run)
    print(f"taken out of {bucket}, to go on: {run}", flush=True)


def put_away(bucket: Path, run: Path, pid: int | None = None) -> None:
    """Put the run into the bucket as the next archive; those before it are removed.

    `pid` is the process that makes it, which stands still with all its children until the archive
    is on this disk. A second file tells the size of one that is in the bucket whole.

    Raises OSError: no room, or no bucket.
    """
    if not (run / "config.json").is_file():
        return  # nothing that could be resumed
    local = run.with_name(f".{run.name}.tar")
    try:
        with _still(pid), tarfile.open(local, "w") as tar:
            tar.add(run, arcname=".")
        before = list(bucket.glob("state-*.tar"))
        number = max((int(path.stem.partition("-")[2]) for path in before), default=0) + 1
        archive = bucket / f"state-{number:06d}.tar"
        shutil.copyfile(local, archive)
        seal = {"schema_version": 1, "bytes": local.stat().st_size}
        archive.with_suffix(".json").write_text(json.dumps(seal), encoding="utf-8")
    finally:
        local.unlink(missing_ok=True)
    _remove(before)


def lay_out(bucket: Path, run: Path) -> None:
    """Put a run that came to its end into the bucket as plain files. Raises OSError."""
    _copy(run, bucket / WHOLE)
    _remove(bucket.glob("state-*.tar"))


def _archives(bucket: Path) -> list[Path]:
    """Those that came there whole, oldest first."""
    found: list[Path] = []
    for seal in sorted(bucket.glob("state-*.json")):
        archive = seal.with_suffix(".tar")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if archive.stat().st_size == json.loads(seal.read_text(encoding="utf-8"))["bytes"]:
                found.append(archive)
    return found


def _extracted(archive: Path, to: Path) -> bool:
    """Whether it could be taken apart, into a folder that holds nothing else."""
    shutil.rmtree(to, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(to, filter="data")
    except tarfile.TarError as error:
        print(f"{archive} cannot be read: {error}", file=sys.stderr, flush=True)
        return False
    return True


def _remove(archives: Iterable[Path]) -> None:
    for archive in list(archives):
        archive.with_suffix(".json").unlink(missing_ok=True)
        archive.unlink(missing_ok=True)


def _copy(folder: Path, to: Path) -> None:
    """File by file, without dates and rights, which a bucket does not take."""
    to.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*")):
        target = to / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, target)


@contextlib.contextmanager
def _still(pid: int | None) -> Generator[None]:
    """Let a process and all that it started stand still."""
    stopped: dict[int, psutil.Process] = {}
    try:
        while new := [one for one in _family(pid) if one.pid not in stopped]:
            for process in new:  # one that stands still starts no more: this comes to an end
                stopped[process.pid] = process
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
        yield
    finally:
        for process in stopped.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def _family(pid: int | None) -> list[psutil.Process]:
    if pid is None:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    return []


if __name__ == "__main__":
    sys.exit(main())
