"""From composed configurations to the merged plan of a sweep."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from spp.data.registry import fingerprint
from spp.locations import PIPELINES
from spp.methods.registry import read_method
from spp.plan.graph import Plan, Point
from spp.plan.setup import Setup, read_setup

# What only says where and how something runs does not belong into the name of a point.
_NOT_IN_NAMES = ("paths.", "cluster", "logger", "num_workers=", "accelerator=", "devices=")


@dataclass(frozen=True)
class Planned:
    """A sweep that could be run: its graph, the checked setup of every point, and where it would run."""

    plan: Plan
    setups: tuple[Setup, ...]
    cluster: dict[str, Any]
    store: Path


def plan_sweep(points: Sequence[tuple[tuple[str, ...], dict[str, Any]]]) -> Planned:
    """Chain the stages of every point and merge them.

    Args:
        points: overrides and resolved configuration of each, see `compose_points`.

    Raises:
        ValueError: if a configuration is wrong; one line.
    """
    planned = [_read_point(overrides, cfg) for overrides, cfg in points]
    first = points[0][1]
    return Planned(
        plan=Plan.merge(point for point, _ in planned),
        setups=tuple(setup for _, setup in planned),
        cluster=first["cluster"],
        store=Path(first["paths"]["store"]),
    )


def _read_point(overrides: tuple[str, ...], cfg: dict[str, Any]) -> tuple[Point, Setup]:
    name = _point_name(overrides)
    cfg["logger"]["group"] = name
    num_gpus = cfg["devices"] if cfg["accelerator"] != "cpu" and visible_gpus() else 0
    setup = read_setup(cfg, read_method, fingerprint, resources={"gpus": num_gpus})
    stages = _load_pipeline(cfg["pipeline"]["file"]).stages(setup)
    meta = {
        "pipeline": cfg["pipeline"]["name"],
        "method": cfg["method"]["name"],
        "preset": cfg["method"].get("preset"),
        "model": _choice(overrides, "model", "vit_micro"),
        "data": setup.data.name,
        "seed": setup.seed,
        "config": cfg,
    }
    return Point(name=name, overrides=overrides, stages=tuple(stages), meta=meta), setup


def _choice(overrides: Sequence[str], group: str, otherwise: str) -> str:
    chosen = [word.partition("=")[2] for word in overrides if word.startswith(f"{group}=")]
    return chosen[-1] if chosen else otherwise


def _point_name(overrides: Sequence[str]) -> str:
    """The overrides that make a point what it is; they also tell a reader how to run it again."""
    return " ".join(word for word in overrides if not word.startswith(_NOT_IN_NAMES)) or "default"


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def _load_pipeline(file: str) -> ModuleType:
    path = PIPELINES / file
    if not path.is_file():
        options = ", ".join(sorted(other.name for other in PIPELINES.glob("*.py")))
        raise ValueError(f"pipeline.file: {file!r} does not exist; allowed: {options}; take one of these")
    spec = importlib.util.spec_from_file_location(f"spp_pipeline_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
