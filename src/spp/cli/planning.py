"""From composed configurations to the merged plan of a sweep."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from spp.cli.composer import ComposedPoint
from spp.data.registry import fingerprint
from spp.locations import PIPELINES
from spp.methods.registry import read_method
from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan, Point
from spp.plan.setup import Setup, read_setup
from spp.record.variants import UNNAMED_WORDS

IMAGENET_TEST_IMAGES = 50_000


@dataclass(frozen=True)
class Planned:
    """A sweep that could be run: its graph, the checked setup of every point by name, and where it would run."""

    plan: Plan
    setups: dict[str, Setup]
    cluster: ClusterConfig
    store: Path


def plan_sweep(composed: Sequence[ComposedPoint]) -> Planned:
    """Chain the stages of every point and merge them.

    Raises:
        ValueError: if a configuration is wrong; one line.
    """
    gpus = visible_gpus()
    # Looked up once in a plan, and again in the next one: the files may be others by then.
    identify = cache(fingerprint)
    planned = [_read_point(point, identify, gpus) for point in composed]
    first = composed[0].cfg
    cluster = planned[0][1].cluster
    for point, (_, setup) in zip(composed, planned, strict=True):
        if setup.cluster != cluster or point.cfg["paths"]["store"] != first["paths"]["store"]:
            field = "paths.store" if setup.cluster == cluster else "cluster"
            words = [word for word in point.overrides if word not in composed[0].overrides]
            raise ValueError(
                f"{field}: {' '.join(words)!r} makes it another one than the first point has; allowed: the same for "
                "all points of a sweep; say it once, without a choice"
            )
    if first["accelerator"] == "gpu" and cluster.name != "slurm" and not gpus:
        raise ValueError("accelerator: 'gpu' is not here; allowed: cpu, auto; use auto")
    return Planned(
        plan=Plan.merge(point for point, _ in planned),
        setups={point.name: setup for point, setup in planned},
        cluster=cluster,
        store=Path(first["paths"]["store"]),
    )


def _read_point(
    composed: ComposedPoint, identify: Callable[..., dict[str, Any]], gpus: Sequence[str]
) -> tuple[Point, Setup]:
    cfg, name = composed.cfg, point_name(composed.overrides)
    if not isinstance(cfg.get("paths"), dict) or not cfg["paths"].get("store"):
        raise ValueError("paths.store: it is empty; allowed: a folder; use paths.store=store")
    # The machine that submits may have none: then only the user's word tells.
    default_gpus = 1 if cfg.get("accelerator") == "gpu" or (cfg.get("accelerator") != "cpu" and gpus) else 0
    setup = read_setup(cfg, read_method, identify, default_gpus)
    stages = _load_pipeline(str(cfg["pipeline"]["file"])).stages(setup)
    has_own_model = any(word.startswith("model.name=") for word in composed.overrides)
    meta = {
        "pipeline": cfg["pipeline"]["name"],
        "method": cfg["method"]["name"],
        "preset": cfg["method"].get("preset"),
        "model": setup.model.name if has_own_model else composed.model,
        "data": _data_name(setup),
        "seed": setup.seed,
        "config": cfg,
    }
    return Point(name=name, overrides=composed.overrides, stages=tuple(stages), meta=meta), setup


def with_points(plan: Plan, sweep: str) -> Plan:
    """The plan with stages that know to which point their W&B run belongs: the first that asks for them."""
    specs, points = plan.to_json(), plan.points_to_json()
    told = {}
    for index, point in enumerate(points):
        meta = {name: value for name, value in point["meta"].items() if name != "config"}
        own = {"name": point["name"], "sweep": sweep, "index": index, "overrides": point["overrides"], "meta": meta}
        told[point["name"]] = own
    for spec in specs:
        runtime = spec["runtime"]
        point = told[plan.points_of(spec["key"])[0]]
        spec["runtime"] = {**runtime, "wandb": {**runtime.get("wandb", {}), "point": point}}
    return Plan.from_json(specs, points)


def _data_name(setup: Setup) -> str:
    """What reports call the data set: of all folders of images, published numbers are of ImageNet-1k."""
    splits = setup.data.fingerprint["splits"]
    is_imagenet = setup.data.name == "imagefolder" and splits["test"] == IMAGENET_TEST_IMAGES
    return "imagenet" if is_imagenet else setup.data.name


def point_name(overrides: Sequence[str]) -> str:
    """The overrides that make a point what it is; they also tell a reader how to run it again."""
    return " ".join(word for word in overrides if not word.lstrip("+~").startswith(UNNAMED_WORDS)) or "default"


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


@cache
def _load_pipeline(file: str) -> ModuleType:
    path = PIPELINES / file
    if path.parent != PIPELINES or path.suffix != ".py" or not path.is_file():
        options = ", ".join(sorted(other.name for other in PIPELINES.glob("*.py")))
        raise ValueError(f"pipeline.file: {file!r} does not exist; allowed: {options}; take one of these")
    spec = importlib.util.spec_from_file_location(f"spp_pipeline_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
