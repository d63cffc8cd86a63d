"""Entry point; see scripts/gpu_study.sh."""

import argparse
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from gpu_study import cifar10, language, steps
from gpu_study.rows import Rows

PARTS = ("steps", "cifar10", "language")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is not there yet, part by part."""
    parser = argparse.ArgumentParser(prog="scripts/gpu_study.sh", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10's train.parquet and test.parquet")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--minutes", type=float, default=10.0, help="nothing new is begun after that")
    parser.add_argument("--only", choices=PARTS, action="append", help="some parts alone")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the numbers say nothing")
    words = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not words.tiny:
        parser.error("no GPU is visible; --tiny shows on a CPU that the study runs")
    parts = words.only or PARTS
    if "cifar10" in parts and words.data is None and not words.tiny:
        parser.error(
            "--data: part cifar10 needs a folder with train.parquet and test.parquet; or leave it out by --only"
        )
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    common = {"device": name, "torch": torch.__version__, "commit": _commit()}
    print(f"{name}, torch {torch.__version__}", flush=True)
    began = time.monotonic()
    # The steps are short and the last part is, too: the rest of the time belongs to the networks that train.
    for part in parts:
        share = {"steps": 0.25, "language": 1.0, "cifar10": 0.9}[part]
        rows = Rows(words.out / f"{part}.jsonl", common, began + 60 * words.minutes * share)
        if part == "steps":
            steps.measure(rows, device, words.tiny)
        elif part == "cifar10":
            cifar10.measure(rows, device, words.data, words.tiny, words.out)
        else:
            language.measure(rows, device, words.tiny)
    print(f"{time.monotonic() - began:.0f} s; rows in {words.out}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
