"""Seconds of `spp report all`: python benchmarks/bench_report.py [--members N] [--format F] [--keep DIR].

Makes a store of N finished members in a temporary folder (two models, five methods, seeds and budgets, a path for every
search of SPP, and as many learning rates of the finetuning as it takes), and runs the command in its own process.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.store.store import Store

MODELS = {"vit_micro": "digits", "vit_cifar": "cifar10"}
SIZES_OF_DATA = {"digits": (5.24e6, 302_154, 297), "cifar10": (182.8e6, 2_693_578, 10_000)}
"""macs and params of the model on a data set, and the number of its test images."""
METHODS = {"spp": "update", "taylor": "search", "magnitude": "search", "random": "search", "vit_slim": "search"}
SEEDS = range(5)
BUDGETS = (0.7, 0.5, 0.4, 0.3, 0.2)
NUM_LAYERS, SIZES = 6, {"qk": 16, "vo": 16, "mlp": 256}
NUM_STEPS, NUM_SAMPLES = 400, 100


def make_points(num_members: int) -> Iterator[Point]:
    """Points of five members each."""
    num_rates = math.ceil(num_members / (len(MODELS) * len(METHODS) * len(SEEDS) * len(BUDGETS)))
    for model, data in MODELS.items():
        for method in METHODS:
            for seed in SEEDS:
                for number in range(num_rates):
                    yield make_point(model, data, method, seed, 1e-3 * (1 + number))


def make_point(model: str, data: str, method: str, seed: int, lr: float) -> Point:
    """One point: dense, search, walk and a member per budget, as the pipelines make them."""
    task, data_config = {"name": "classification"}, {"name": data, "img_size": 32}
    shared: dict[str, Any] = {"task": task, "model": {"name": model}, "data": data_config, "seed": seed}
    recipe = {"batch_size": 64, "lr": lr}
    preset = "priced" if method == "spp" else None
    settings = {"name": method, "preset": preset, "kappa": None, "lam": None}
    dense = Stage("dense", {**shared}, label="dense")
    search = Stage(METHODS[method], {**shared, "method": settings}, {"dense": dense}, label="search")
    family = Stage("prune", {**shared, "budget": list(BUDGETS)}, {"dense": dense, "path": search}, label="family")
    measured = {"task": task, "data": data_config, "recipe": {"batch_size": 64, "augment": {}}}
    reference = Stage("measure", measured, {"member": dense})
    members = []
    for value in BUDGETS:
        budget = {"kind": "macs", "value": value}
        member = Stage("finetune", {**shared, "recipe": recipe, "budget": budget}, {"family": family})
        members.append(Stage("measure", {**measured, "budget": budget}, {"member": member, "reference": reference}))
    words = (f"method={method}", f"model={model}", f"data={data}", f"seed={seed}", f"finetune.lr={lr}")
    meta = {"method": method, "preset": preset, "model": model, "data": data, "seed": seed, "config": {}}
    return Point(" ".join(words), words, tuple(members), meta)


def fill(store: Store, plan: Plan) -> None:
    """Put the files of finished stages."""
    random = np.random.default_rng(0)
    for stage in plan.stages.values():
        folder = store.stage_dir(stage.kind, stage.key)
        (folder / "artifacts").mkdir(parents=True)
        (folder / "DONE").write_text("{}")
        (folder / "provenance.json").write_text('{"git": {"commit": "0000000"}}')
        (folder / "summary.json").write_text(json.dumps(summary(stage, random)))
        if stage.kind == "update":
            write_path(folder / "artifacts", random)


def summary(stage: Stage, random: np.random.Generator) -> Mapping[str, Any]:
    """What a finished stage says of itself."""
    cost = {"epochs": 5, "seconds": 60.0, "gpu_seconds": 60.0, "device": "NVIDIA A100-SXM4-80GB"}
    if stage.kind != "measure":
        return {**cost, "members": list(BUDGETS)}
    macs, params, num_test = SIZES_OF_DATA[stage.config["data"]["name"]]
    value = float(80 + 5 * random.random())
    top1 = {"value": value, "unit": "%", "better": "higher", "count": num_test, "of": "images", "label": "top-1"}
    metrics = {"test": {"top1": top1}, "val": {"top1": top1}}
    common = {**cost, "task": "classification", "headline": "top1"}
    if "budget" not in stage.config:
        return {**common, "macs": macs, "params": params, "metrics": metrics}
    share = stage.config["budget"]["value"]
    sizes = {"macs": share * macs, "params": share * params, "dense": {"macs": macs, "params": params}}
    metrics = {**metrics, "before": {"top1": top1}}
    return {**common, **sizes, "budget": stage.config["budget"], "metrics": metrics}


def write_path(folder: Path, random: np.random.Generator) -> None:
    """A path in which every unit enters at some time and stays."""
    pairs = [
        {"name": f"blocks.{n}.{kind}", "kind": kind, "size": size, "macs_per_unit": 1e4, "params_per_unit": 100}
        for n in range(NUM_LAYERS)
        for kind, size in SIZES.items()
    ]
    steps = np.linspace(0, NUM_STEPS, NUM_SAMPLES).astype(np.int64)
    tensors: dict[str, Any] = {"trace/steps": steps}
    for pair in pairs:
        entry = NUM_STEPS * random.random(pair["size"])
        tensors[f"entry/{pair['name']}"], tensors[f"V/{pair['name']}"] = entry, NUM_STEPS - entry
        gamma = np.maximum(steps[:, None] - entry, 0) / NUM_STEPS
        tensors[f"trace/gamma/{pair['name']}"] = gamma.astype(np.float32)
    meta = {"preset": "priced", "hyper": {"lam": 0.4}, "num_steps_taken": NUM_STEPS, "costs_in_dynamics": True}
    save_file(tensors, folder / "path.safetensors", {"spp": json.dumps({"pairs": pairs, "meta": meta})})


def measure(root: Path, only_format: str | None) -> None:
    """Run the command and print what it took."""
    words = [sys.executable, "-m", "spp.cli.main", "report", "all", f"paths.store={root}", "--out", str(root / "out")]
    words += ["--format", only_format] if only_format else []
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    num_files = sum(file.is_file() for file in (root / "out").rglob("*"))
    print(f"spp report all, format {only_format or 'all'}: {wall_s:.1f} s, {cpu_s:.1f} s of CPU, {num_files} files")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--members", type=int, default=2_000)
    parser.add_argument("--format", help="one format instead of all")
    parser.add_argument("--keep", type=Path, help="an empty folder for the store, which then stays")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.keep or Path(folder)
        plan = Plan.merge(make_points(arguments.members))
        fill(Store(root), plan)
        Store(root).write_plan("bench", plan)
        print(f"store of {sum(len(point.stages) for point in plan.points)} members, {len(plan.stages)} stages")
        measure(root, arguments.format)


if __name__ == "__main__":
    main()
