#!/bin/bash
# Ten minutes on one GPU: what a CPU cannot tell of spp. Needs no network: the package of this checkout, torch, timm and
# pyarrow, and for part (b) a folder with CIFAR-10's train.parquet and test.parquet.
#   scripts/gpu_study.sh [--data DIR] [--out results/gpu] [--minutes 10] [--only steps|cifar10|language]
#                        [--tiny]  (seconds on a CPU: shows that it runs, says nothing)
# Said again it goes on where it was: what is in OUT/*.jsonl is not measured again.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
exec env PYTHONPATH="$PWD/src:$PWD/scripts:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m gpu_study "$@"
