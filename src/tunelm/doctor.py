"""What this machine can do, and what that means for each route. Never shows a key's value."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tunelm.planning.track import data_dir
from tunelm.rundir import PACKAGES, cache_dir, versions

EXTRAS = {
    "local": ("torch", "transformers", "peft", "safetensors"),
    "prompt": ("dspy", "optuna"),
    "serve": ("fastapi", "python_multipart", "uvicorn"),
    "cloud": ("openai", "tiktoken"),
    "qlora": ("bitsandbytes",),
}
KEYS = ("OPENAI_API_KEY", "HF_TOKEN")


def examine() -> dict[str, Any]:
    """All findings, as JSON-ready data."""
    missing = {
        extra: [name for name in names if importlib.util.find_spec(name) is None]
        for extra, names in EXTRAS.items()
    }
    gpus = find_gpus()
    memory = psutil.virtual_memory()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_free_bytes": memory.available,
        "disk_free_bytes": shutil.disk_usage(".").free,
        "gpus": gpus,
        "versions": {k: v for k, v in versions().items() if k in PACKAGES},
        "extras": {
            extra: {"installed": not names, "missing": names} for extra, names in missing.items()
        },
        "keys_set": {name: bool(os.environ.get(name)) for name in KEYS},
        "caches": [_cache(path) for path in (cache_dir(), hub_cache(), data_dir())],
        "routes": _routes(missing, bool(gpus)),
        "training": None if missing["local"] else _training(),
        "vllm": find_vllm(),
    }


def find_gpus() -> list[dict[str, Any]]:
    """NVIDIA GPUs by nvidia-smi, without importing torch: [{name, memory_bytes}]."""
    try:
        out = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus: list[dict[str, Any]] = []
    for line in out.strip().splitlines():
        name, _, mebibytes = line.rpartition(",")
        size = mebibytes.strip()
        gpus.append(
            {"name": name.strip(), "memory_bytes": int(size) * 2**20 if size.isdigit() else None}
        )
    return gpus


def _training() -> dict[str, dict[str, str]]:
    """What training would take of this machine (see `training.machine`): {value, why} by name."""
    from tunelm.config import ModelConfig
    from tunelm.models.quantized import why_not
    from tunelm.route_settings import LocalSettings
    from tunelm.training import machine

    found = machine.choose(LocalSettings(), ModelConfig())
    problem = why_not(found["device"].value)
    possible = machine.Choice("possible", "") if problem is None else machine.Choice("no", problem)
    return machine.as_json(found | {"quantization": possible})


def find_vllm() -> str | None:
    """The command `vllm`: beside this Python, or on the PATH."""
    beside = Path(sys.executable).with_name("vllm")
    return str(beside) if beside.is_file() else shutil.which("vllm")


def hub_cache() -> Path:
    """Where models from the hub are kept."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def _cache(path: Path) -> dict[str, Any]:
    sizes = (f.stat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())
    return {"path": str(path), "bytes": sum(sizes) if path.exists() else 0}


def _routes(missing: dict[str, list[str]], gpu: bool) -> dict[str, str]:
    def needs(*extras: str) -> str | None:
        absent = [e for e in extras if missing[e]]
        return f"needs: pip install 'tunelm[{','.join(absent)}]'" if absent else None

    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    where = "on the GPU" if gpu else "on Apple's GPU" if apple else "on the CPU: small models"
    return {
        "constant": "ready",
        "baseline": needs("local") or f"ready, {where}",
        "prompt": needs("local", "prompt") or f"ready, {where}",
        "local": needs("local") or f"ready, {where}",
        "cloud": needs("local", "serve", "cloud") or f"ready, {where}; no key is needed",
    }
