"""`vllm serve` as a child process: its command line, its readiness, its end."""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import httpx

from tunelm.config import ModelConfig
from tunelm.doctor import find_vllm
from tunelm.errors import ModelError
from tunelm.lifeline import end_with_parent
from tunelm.models.identity import base_folder
from tunelm.models.loading import resolve_base

BASE = "base"
"""What the child calls the base model."""
READY_S, STOP_S = 900.0, 30.0
"""How long vLLM may take to load and to end."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What `--max-lora-rank` may be (vllm/config/lora.py, 0.32)."""
AT_ONCE = 4
"""Most adapters in one batch of vLLM; each takes GPU memory from the start."""
_WORDS = 4


def refused(adapter: Path) -> str | None:
    """Why vLLM does not take an adapter of tunelm's; None where it does."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("use_dora"):
        return "vLLM takes no DoRA adapters"
    if config["r"] > RANKS[-1]:
        return f"vLLM takes adapters of rank {RANKS[-1]} at most, and this has {config['r']}"
    return None


def rank_for(adapters: Sequence[Path], least: int) -> int:
    """The `--max-lora-rank` for these adapters, and for one of rank `least`."""
    ranks = [json.loads((a / "adapter_config.json").read_text("utf-8"))["r"] for a in adapters]
    return next(rank for rank in RANKS if rank >= max([least, *ranks]))


class VllmProcess:
    """One `vllm serve` on loopback, with a key of its own; it does not outlive this process.

    Args:
        config: the base model, which must be on this machine already.
        limits: options and their values.
        rank: of the largest adapter; None: without adapters.
        max_adapters: most adapters that it keeps in memory.

    Attributes:
        key: which requests must bring, since others on this machine could ask it too.
        stopped: whether `stop` ended it.
    """

    def __init__(
        self, config: ModelConfig, limits: Mapping[str, object], rank: int | None, max_adapters: int
    ) -> None:
        self.key = secrets.token_hex(16)
        self.stopped = False
        self._port = 0
        self._folder = str(base_folder(resolve_base(config), config.revision))
        self._options = [str(part) for option in limits.items() for part in option]
        if rank is not None:
            lora = {"--max-lora-rank": rank, "--max-loras": min(AT_ONCE, max_adapters)}
            lora["--max-cpu-loras"] = max_adapters
            self._options += ["--enable-lora", *(str(part) for o in lora.items() for part in o)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it is ready. Raises ModelError where it does not come to that."""
        command = find_vllm()
        if command is None:
            raise ModelError("vLLM is not installed here: pip install vllm, or --engine light.")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop
        self.stopped = False
        # no generation config: what is not asked for is not done (a top_k from a file, say)
        where = ["--host", "127.0.0.1", "--port", str(self._port), "--served-model-name", BASE]
        self._process = subprocess.Popen(
            [command, "serve", self._folder, *where, "--generation-config", "vllm", *self._options],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
                "VLLM_API_KEY": self.key,
                "VLLM_NO_USAGE_STATS": "1",
            },
            start_new_session=True,
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
        atexit.register(self.stop)
        self._await()

    def stop(self) -> None:
        """End it, and whatever it started."""
        atexit.unregister(self.stop)
        process, self.stopped = self._process, True
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the session that was started above
                process.wait()
        if self._log is not None:
            self._log.close()
            self._log = None

    def last_words(self) -> str:
        """The last lines it wrote."""
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return " / ".join([line.strip()[:300] for line in lines if line.strip()][-_WORDS:])

    def _await(self) -> None:
        end = time.monotonic() + READY_S
        while self.alive:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > end:
                self.stop()
                raise ModelError(f"vLLM was not ready after {READY_S:.0f} s.")
            time.sleep(0.2)
        code = self._process.returncode if self._process else None
        words = self.last_words()
        self.stop()
        raise ModelError(f"vLLM ended with code {code} before it was ready: {words}")
