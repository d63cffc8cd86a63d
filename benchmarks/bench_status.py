"""Seconds that `status` and `plan` spend on a store: python benchmarks/bench_status.py [--root DIR] [--stages N].

Makes a store with N finished, running, failed and open stages in a temporary folder below DIR (give one on the
network file system to measure that), times a sweep of 300 of its stages and one of all of them, and removes it.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from spp.cli.network_sizes import NetworkSizes
from spp.cli.specs import Specs
from spp.methods.registry import search_cost
from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.process import this_process
from spp.schedule.estimate import Estimator
from spp.schedule.status import plan_status, sweep_status
from spp.store.atomic import append_line
from spp.store.claim import Holder
from spp.store.store import Store

RECIPE = {f"setting_{n}": n / 7 for n in range(30)}
SMALL_SWEEP = 300
NUM_ARTIFACTS = 3
"""Of a finished stage: their sizes are looked at."""

REPEATS = 5


def make_points(num_stages: int) -> list[Point]:
    """Points of four stages each (a shared dense one, update, prune, finetune) with about `num_stages` in all."""
    dense = Stage("dense", {"recipe": RECIPE}, label="dense")
    points = []
    for n in range(num_stages // 3):
        update = Stage("update", {"seed": n, "recipe": RECIPE}, {"dense": dense}, label=f"update seed={n}")
        prune = Stage("prune", {"budget": 0.5}, {"path": update}, label=f"prune seed={n}")
        finetune = Stage("finetune", {"recipe": RECIPE}, {"family": prune}, label=f"finetune seed={n}")
        points.append(Point(f"seed={n}", (f"seed={n}",), (finetune,), {"seed": n}))
    return points


def fill(store: Store, plan: Plan) -> None:
    """Put files as real work leaves them: of ten stages seven done, one running, one failed, one open."""
    artifacts = {f"member-{size}.bin": {"size": 1, "sha256": "0" * 64} for size in range(NUM_ARTIFACTS)}
    done = {"seconds": 60.0, "code_hash": "0" * 64, "finished_at": "", "artifacts": artifacts}
    holder = json.dumps(asdict(Holder(this_process(), "", 0, time.time())))
    progress = {"done": 3, "total": 10, "unit": "epoch", "message": "", "time": time.time()}
    for n, stage in enumerate(plan.stages.values()):
        folder = store.stage_dir(stage.kind, stage.key)
        folder.mkdir(parents=True)
        files = {"spec.json": json.dumps(stage.to_json()), "metrics.jsonl": "", "provenance.json": "{}"}
        if n % 10 < 7:
            (folder / "artifacts").mkdir()
            files |= {f"artifacts/{name}": "x" for name in artifacts}
            files |= {"DONE": json.dumps(done), "summary.json": '{"seconds": 60.0, "gpu_seconds": 60.0}'}
        elif n % 10 == 7:
            files |= {"claim-1": holder, "progress.json": json.dumps(progress)}
        elif n % 10 == 8:
            files |= {"FAILED": json.dumps({"error": "e", "traceback": "e", "host": "h", "pid": 1, "time": ""})}
        for name, text in files.items():
            (folder / name).write_text(text)
    for kind in ("dense", "update", "prune", "finetune"):
        append_line(store.root / "stages" / kind / "recent.jsonl", {"seconds": 60.0, "gpu_seconds": 60.0})


def estimate(store: Store, plan: Plan) -> None:
    """Expect times, as `spp status` does, which asks for no network's size."""
    Estimator(store, Specs(store, {}).of, NetworkSizes().size_of, search_cost).estimate(plan.stages.values())


def report(name: str, action: Callable[[], object]) -> None:
    """Print the median and the longest of some runs of `action`."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    print(f"{name:55s} median {statistics.median(seconds):7.3f} s   max {max(seconds):7.3f} s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, help="folder on the file system to measure")
    parser.add_argument("--stages", type=int, default=10_000)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=arguments.root) as folder:
        store = Store(folder)
        points = make_points(arguments.stages)
        everything = Plan.merge(points)
        fill(store, everything)
        small = Plan.merge(points[: SMALL_SWEEP // 3])
        store.write_plan("small", small)
        store.write_plan("everything", everything)
        print(f"store of {len(everything.stages)} stages")
        report(f"status of a sweep of {len(small.stages)} stages", lambda: sweep_status(store, "small"))
        report(f"status of a sweep of {len(everything.stages)} stages", lambda: sweep_status(store, "everything"))
        report(f"plan: merge {len(everything.stages)} stages", lambda: Plan.merge(make_points(arguments.stages)))
        report(f"plan: states of {len(everything.stages)} stages", lambda: plan_status(store, everything))
        report(f"plan: estimates of {len(everything.stages)} stages", lambda: estimate(store, everything))
        report("newest sweep", store.latest)
        report("stages by the start of a key", lambda: store.find_stages("0123"))


if __name__ == "__main__":
    main()
