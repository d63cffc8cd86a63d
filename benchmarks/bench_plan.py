"""Seconds from a user's words to the merged graph: python benchmarks/bench_plan.py [--points N] [--stages N].

Composes and plans a sweep of N points, one over seeds and one over learning rates that share all but the last
stages, and runs `spp plan` for one point in a process of its own beside a store of N finished stages.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench_status import fill, make_points
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.plan.graph import Plan
from spp.store.store import Store

REPEATS = 3


def sweep(name: str, words: Sequence[str]) -> None:
    """Print how long composing and planning take, once the libraries are loaded."""
    began = time.perf_counter()
    points = compose_points(words, multirun=True)
    composed = time.perf_counter()
    planned = plan_sweep(points)
    ended = time.perf_counter()
    size = f"{len(points)} points, {len(planned.plan.stages)} stages"
    print(f"{name:30s} {size:28s} compose {composed - began:6.2f} s   plan {ended - composed:6.2f} s")


def spp_plan(num_stages: int) -> None:
    """Print how long the command takes, its start included."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Store(folder), Plan.merge(make_points(num_stages)))
        command = [sys.executable, "-m", "spp.cli.main", "plan", f"paths.store={folder}"]
        for _ in range(REPEATS):
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(folder))
            print(f"spp plan of one point, store of {num_stages} stages: {time.perf_counter() - began:.2f} s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--points", type=int, default=1_000)
    parser.add_argument("--stages", type=int, default=10_000)
    arguments = parser.parse_args(argv)
    compose_points([], multirun=False)
    one_member = "budget.values=[0.5]"
    sweep("seeds", [f"seed=range({arguments.points})", one_member])
    rates = ",".join(str(1e-3 + n * 1e-6) for n in range(arguments.points))
    sweep("learning rates of finetune", [f"finetune.lr={rates}", one_member])
    spp_plan(arguments.stages)


if __name__ == "__main__":
    main()
