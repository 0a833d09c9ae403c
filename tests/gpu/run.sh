#!/usr/bin/env bash
# Parity and times of the networks on a GPU, in at most 8 minutes: tests/gpu/run.sh [OPTIONS]
#
# Needs a checkout and a Python with torch, numpy and onnx (PYTHON, by default python3); nothing is
# fetched. The report goes to $OUT/gpu.md (by default build/gpu.md); commit it as docs/results/gpu.md.
# Without a GPU: tests/gpu/run.sh --device cpu --layers 18 --width 8 --size 64 --runs 2 --volumes 1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv
fi
exec timeout 480 "${PYTHON:-python3}" -m tests.gpu.report --output "${OUT:-build}/gpu.md" "$@"
