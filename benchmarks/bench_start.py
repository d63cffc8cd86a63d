"""What every command takes to start: python benchmarks/bench_start.py [--repeats N].

Runs each command of `spp` in a process of its own on a small finished store, asks for what costs no work (a status, a
table of what is there, or --help), and prints the median of the wall time and how many modules were imported.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COUNTING = """
import sys
from spp.cli.main import main
try:
    main(sys.argv[1:])
finally:
    heavy = [name for name in ("torch", "hydra", "pytorch_lightning", "matplotlib", "wandb") if name in sys.modules]
    print(len(sys.modules), ",".join(heavy) or "-", file=sys.stderr)
"""
READING = ("list", "status", "table", "logs", "path", "gc", "verify", "report family")
"""Commands that answer from the store."""


def timed(words: Sequence[str], folder: Path) -> tuple[float, str, str]:
    """Seconds, number of modules, and which of the heavy ones."""
    environment = {**os.environ, "MPLBACKEND": "agg"}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    modules, heavy = done.stderr.splitlines()[-1].split()
    return seconds, modules, heavy


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args(argv).repeats
    from spp.cli.parsers import build_parsers

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = [sys.executable, "-m", "spp.cli.main", "run", "debug=fast", "logger=off", "paths.store=store"]
        subprocess.run(run, cwd=folder, check=True, capture_output=True)
        asked: list[list[str]] = [["--help"], ["plan", "paths.store=store"]]
        asked += [[*words.split(), "paths.store=store"] for words in READING if words.split()[0] in build_parsers()]
        asked += [[command, "--help"] for command in build_parsers()]
        for words in asked:
            runs = [timed(words, folder) for _ in range(repeats)]
            seconds = statistics.median(run[0] for run in runs)
            print(f"spp {' '.join(words):40s} {seconds:6.2f} s  {runs[0][1]:>5s} modules  {runs[0][2]}", flush=True)


if __name__ == "__main__":
    main()
