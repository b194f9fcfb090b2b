#!/usr/bin/env bash
# What tunelm does with an NVIDIA GPU, measured in ten minutes: see benchmarks/gpu.py.
#
#   benchmarks/gpu.sh            the Python of .venv, or $PYTHON
#   benchmarks/gpu.sh --only 1   the first shape alone
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || command -v python3)}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
  echo "no NVIDIA GPU that PyTorch can use: nothing to measure." >&2
  echo "To see that the script itself works: $python benchmarks/gpu.py --tiny" >&2
  exit 1
fi
exec "$python" benchmarks/gpu.py "$@"
