"""Peak training memory, forecast before anything is trained: no weights, and no GPU.

A dry run (`training.memory_run`) makes training's own steps on tensors without contents and counts
the bytes alive. What it cannot see is added here: the buffers of the kernels, code that is first
used in training, pages that are not full. The constants were measured by benchmarks/memory.py.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunelm.errors import TrainingError
from tunelm.rundir import read_json
from tunelm.types import Estimate

DRY_RUN = "memory.json"
"""The file in a work folder that a dry run writes."""
TIMEOUT_S = 900

UNSEEN_BYTES = 42e6
"""What a CPU holds beside the counted tensors: the mean over the shapes that it was set on."""
BELOW_BYTES, BELOW_SHARE = 15e6, 0.005
ABOVE_BYTES, ABOVE_SHARE = 60e6, 0.02
"""An 80% interval around the forecast: a constant and a share of the counted tensors. It is wider
above, since to be told that a run fits which does not costs more than the other way round."""
FORMULA_LOW, FORMULA_HIGH = 0.6, 1.6
"""The range around a formula; such sheets are off by tens of percent. Not calibrated."""


def dry_run(work: Path) -> dict[str, Any]:
    """Make the dry run of the job in `work`, in a process of its own.

    Args:
        work: a folder that `job.write_job` filled; `memory.json` is written there.

    Returns:
        What `memory_run.dry_run` returns.

    Raises:
        TrainingError: what the process said when it failed.
    """
    return in_process("tunelm.training.memory_run", work, DRY_RUN)


def in_process(module: str, work: Path, result: str) -> dict[str, Any]:
    """Run `python -m MODULE WORK` and return the JSON it leaves in `work`.

    Raises TrainingError with its last line where it fails.
    """
    command = [sys.executable, "-m", module, str(work)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(f"the forecast took longer than {TIMEOUT_S} s and was ended.") from None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise TrainingError(last[0].removeprefix("error: "))
    return read_json(work / result)


def memory_estimate(found: Mapping[str, Any]) -> Estimate:
    """The forecast peak of a dry run, beyond what the libraries themselves hold."""
    if "failed" in found:
        value = found["formula"]
        method = f"formula: weights, states, activations and loss; no dry run ({found['failed']})"
        return Estimate(value, "bytes", method, value * FORMULA_LOW, value * FORMULA_HIGH)
    points = found["points"]
    dry = max(found["stages"].values())
    on_cpu = found["device"] == "cpu"
    value = dry + (UNSEEN_BYTES if on_cpu else 0)
    low = value - BELOW_BYTES - BELOW_SHARE * dry
    high = value + ABOVE_BYTES + ABOVE_SHARE * dry
    tokens = " and ".join(f"{point['tokens']:,}" for point in points[:2])
    method = f"dry run at {tokens} tokens, 80%"
    if not on_cpu:
        method += "; the interval was set on CPUs"
    return Estimate(value, "bytes", method, low, high)
