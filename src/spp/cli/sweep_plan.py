"""From composed configurations to the merged plan of a sweep."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from spp.cli.cached_composer import ComposedPoint
from spp.cli.pipelines import Pipeline, find_pipeline, prunes_weights, weight_pipeline
from spp.cli.store_place import check_trust
from spp.cli.words import shell_word
from spp.config import require
from spp.data.registry import (
    display_name,
    find_harness,
    find_text,
    fingerprint,
    fixed_augment,
    num_train_samples,
    read_data,
    registered,
)
from spp.factory import environment_fields
from spp.methods.registry import config_class, method_names, read_method
from spp.methods.weights.registry import read_weight_method, weight_config_class, weight_method_names
from spp.models.registry import read_model, read_teacher
from spp.plan.about import ABOUT_FIELDS, AboutConfig
from spp.plan.batches import check_batches
from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan, Point
from spp.plan.keys import canonical_json
from spp.plan.one_shot import CalibrationConfig, OneShotReaders, OneShotSetup, read_one_shot
from spp.plan.reading import Readers, check_fields, read_setup
from spp.plan.setup import PointSetup
from spp.record.variants import UNNAMED_WORDS
from spp.sparsity.config import SparsityConfig
from spp.tasks.registry import read_task
from spp.text import visible

_OTHER_MODEL = ("model.name=", "model.factory=")
"""How words begin that make the model another one than the chosen file says."""

_PLACES = ("paths.", "data.root", "model.weights", "teacher.weights", "store.trust")
"""Fields whose value is read from the environment when planning: where files lie is no secret."""

_OWN_CODE = ("task", "model", "data")
"""Groups whose `kwargs` may go to a factory of the user's."""


@dataclass(frozen=True)
class Planned:
    """A sweep that could be run: its graph, the checked setup of every point by name, and where it would run.

    `trusted` is whose files of the store may run: user or group.
    """

    plan: Plan
    setups: dict[str, PointSetup]
    cluster: ClusterConfig
    store: Path
    trusted: str = "user"
    lacking: tuple[str, ...] = ()
    """Names of the data sets that are not here, of which only the registered manifest is known."""
    about: AboutConfig = field(default_factory=AboutConfig)
    from_environment: tuple[str, ...] = ()
    """Fields of one's own code whose value a worker reads from the environment, as words."""


def plan_sweep(composed: Sequence[ComposedPoint], *, may_lack_data: bool = False) -> Planned:
    """Chain the stages of every point and merge them.

    Args:
        composed: the points.
        may_lack_data: of data whose folder is not here take the registered manifest, so that costs can be seen.

    Raises:
        ValueError: if a configuration is wrong; one line.
    """
    gpus = visible_gpus()
    groups = [point.cfg["data"] for point in composed if may_lack_data and isinstance(point.cfg["data"], dict)]
    lookup = _Fingerprints({str(group.get("name")): group.get("manifest") for group in groups})
    readers = Readers(
        task=read_task,
        model=read_model,
        teacher=read_teacher,
        data=read_data,
        fingerprint=lookup,
        fixed_augment=fixed_augment,
    )
    planned = [_read_point(point, readers, gpus) for point in composed]
    first = composed[0].cfg
    cluster = planned[0][1].cluster
    for point, (_, setup) in zip(composed, planned, strict=True):
        if setup.cluster != cluster or point.cfg["paths"]["store"] != first["paths"]["store"]:
            field = "paths.store" if setup.cluster == cluster else "cluster"
            words = [word for word in point.overrides if word not in composed[0].overrides]
            stores = ",".join(dict.fromkeys(str(point.cfg["paths"]["store"]) for point in composed))
            as_text = f", or type {shell_word(field, stores)} if it is one path" if field == "paths.store" else ""
            raise ValueError(
                f"{field}: {' '.join(words)!r} makes it another one than the first point has; allowed: the same for "
                f"all points of a sweep; say it once, without a choice{as_text}"
            )
    if first["accelerator"] == "gpu" and cluster.name != "slurm" and not gpus:
        raise ValueError("accelerator: 'gpu' is not here; allowed: cpu, auto; use auto")
    _check_place(Path(first["paths"]["store"]).absolute(), cluster)
    return Planned(
        plan=Plan.merge(point for point, _ in planned),
        setups={point.name: setup for point, setup in planned},
        cluster=cluster,
        store=Path(first["paths"]["store"]),
        lacking=tuple(lookup.lacking),
        about=_read_about(composed),
        trusted=check_trust(first["store"].get("trust") if isinstance(first["store"], dict) else first["store"]),
        from_environment=tuple(dict.fromkeys(word for point in composed for word in _read_by_workers(point))),
    )


def _read_about(composed: Sequence[ComposedPoint]) -> AboutConfig:
    """What the words say about the sweep as a whole.

    Raises:
        ValueError: if they are not allowed, or differ from point to point.
    """
    told = [{name: point.cfg.get(name) for name in ABOUT_FIELDS} for point in composed]
    for name in ABOUT_FIELDS:
        other = next((one[name] for one in told if one[name] != told[0][name]), told[0][name])
        if other != told[0][name]:
            raise ValueError(
                f"{name}: {other!r} is said of some points alone; allowed: one for the whole sweep; say {name}=... once"
            )
    return AboutConfig.read({**told[0], "tags": told[0]["tags"] or []}, "")


class _Fingerprints:
    """Fingerprints, each looked up once in a plan, and again in the next one: the files may be others by then."""

    def __init__(self, manifests: Mapping[str, Any]) -> None:
        """manifests: what is registered, by name of the data set, of data that need not be here."""
        self._manifests = manifests
        self._known: dict[str, dict[str, Any]] = {}
        self.lacking: dict[str, None] = {}

    def __call__(self, data: Any, runtime: dict[str, Any]) -> dict[str, Any]:
        question = canonical_json([data.plain(), runtime])
        if question not in self._known:
            self._known[question] = self._look_up(data, runtime)
        return self._known[question]

    def _look_up(self, data: Any, runtime: dict[str, Any]) -> dict[str, Any]:
        manifest = self._manifests.get(str(data.name))
        root = runtime.get("root")
        if data.factory is None and isinstance(manifest, Mapping) and not (root and _is_something(Path(root))):
            self.lacking[str(data.name)] = None
            return registered(data, runtime, manifest)
        return fingerprint(data, runtime)


def _is_something(root: Path) -> bool:
    """Whether there is a folder, or a file in its place or in that of one above it, which is to be refused."""
    return root.is_dir() or any(place.is_file() for place in (root, *root.parents))


def _read_point(composed: ComposedPoint, readers: Readers, gpus: Sequence[str]) -> tuple[Point, PointSetup]:
    check_fields(composed.cfg)
    cfg, name = _without_secrets(composed), point_name(composed.overrides)
    _check_paths(cfg["paths"])
    root = cfg["data"].get("root") if isinstance(cfg["data"], dict) else None
    if root is not None and not isinstance(root, str):
        raise ValueError(f"data.root: {root!r} is not allowed; allowed: the path of a folder; use data.root=./{root}")
    # The machine that submits may have none: then only the user's word tells.
    default_gpus = 1 if cfg["accelerator"] == "gpu" or (cfg["accelerator"] != "cpu" and gpus) else 0
    readers = replace(readers, model=partial(read_model, cache=str(Path(cfg["paths"]["store"], "cache").absolute())))
    pipeline, setup = _read_setup(cfg, readers, default_gpus)
    if isinstance(setup, OneShotSetup):
        _refuse_budget(composed.overrides, setup.method.name)
    check_batches(setup, num_train_samples(setup.data))
    is_other_model = any(word.lstrip("+").startswith(_OTHER_MODEL) for word in composed.overrides)
    meta = {
        "pipeline": pipeline.name,
        "method": cfg["method"]["name"],
        "preset": cfg["method"].get("preset"),
        "task": str(cfg["task"].get("factory") or cfg["task"].get("name")),
        "model": setup.model.label if is_other_model else composed.model,
        "data": display_name(setup.data),
        "seed": setup.seed,
        "config": composed.written,
    }
    return Point(name=name, overrides=composed.overrides, stages=tuple(pipeline.stages(setup)), meta=meta), setup


def _read_setup(cfg: dict[str, Any], readers: Readers, default_gpus: int) -> tuple[Pipeline, PointSetup]:
    """The pipeline that a configuration asks for, and what it works with."""
    if prunes_weights(cfg.get("pipeline"), cfg["method"].get("name")):
        pipeline = weight_pipeline()
        sparsity = partial(SparsityConfig.read, where="sparsity")
        more = OneShotReaders(sparsity=sparsity, calibration=_read_calibration, zero_shot=find_harness)
        method = read_weight_method(_weight_settings(cfg["method"]))
        return pipeline, read_one_shot(cfg, method, pipeline.recipes, readers, more, default_gpus)
    tasks = cfg["zero_shot"].get("tasks")
    allowed = "none where whole units go; only members of the pipeline one_shot are asked"
    require(not tasks, "zero_shot.tasks", tasks, allowed, "leave it out")
    unit_method = read_method(dict(cfg["method"]))
    pipeline = find_pipeline(cfg.get("pipeline"), unit_method)
    return pipeline, read_setup(cfg, unit_method, pipeline.recipes, readers, default_gpus)


def _refuse_budget(words: Sequence[str], method: str) -> None:
    """Refuse a size that would be passed over: of single weights the share that goes is asked for otherwise."""
    for word in words:
        field, _, value = word.lstrip("+~").partition("=")
        if field.split(".")[0] == "budget":
            raise ValueError(
                f"{field}: {value!r} is not allowed with method={method}, which prunes single weights; allowed: "
                "sparsity.sparsity, the share removed, or sparsity.keep and sparsity.of; use sparsity.sparsity=0.5"
            )


def _weight_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a method for single weights, without those that only its namesake for units has, at their defaults.

    They are there because the settings of the one for units are filled in wherever a name stands for both.
    """
    name = values.get("name")
    if name not in method_names() or name not in weight_method_names():
        return dict(values)
    of_units, own = config_class(str(name)).defaults(), weight_config_class(str(name)).defaults()
    return {field: value for field, value in values.items() if field in own or value != of_units.get(field)}


def _read_calibration(config: CalibrationConfig, root: str | None, data: str) -> tuple[CalibrationConfig, str | None]:
    folder, identity = find_text(str(config.name), root, data)
    return replace(config, fingerprint=identity), folder


def _without_secrets(composed: ComposedPoint) -> dict[str, Any]:
    """The configuration, in which what the environment gives to one's own code stays a reference, for it may be secret.

    Raises:
        ValueError: if any other value from the environment would be written into the store.
    """
    cfg, written = dict(composed.cfg), composed.written
    for group in _OWN_CODE:
        values = cfg[group]
        if isinstance(values, dict) and values.get("factory"):
            cfg[group] = {**values, "kwargs": written[group]["kwargs"]}
    resources = written["cluster"].get("resources") if isinstance(written["cluster"], dict) else None
    for kind, asked in resources.items() if isinstance(resources, dict) else ():
        lines = asked.get("setup") if isinstance(asked, dict) else None
        if environment_fields({"setup": lines}):
            raise ValueError(
                f"cluster.resources.{kind}.setup: {lines!r} would write a value of the environment into the store; "
                "allowed: lines of a shell, which reads it on the node; write $NAME for ${oc.env:NAME}"
            )
    for name, reference in environment_fields(written):
        if not name.startswith(_PLACES) and isinstance(_value_at(cfg, name), str) and _value_at(cfg, name) != reference:
            raise ValueError(
                f"{name}: {reference!r} would write a value of the environment, which may be secret, into the store; "
                "allowed: that for paths, and for the kwargs of your own code, where it is not written; write the "
                "value itself"
            )
    return cfg


def _value_at(values: Any, field: str) -> Any:
    """The value under a dotted name as `environment_fields` tells it."""
    for part in re.split(r"\.|(?=\[)", field):
        values = values[int(part[1:-1])] if part.startswith("[") else values[part]
    return values


def _read_by_workers(composed: ComposedPoint) -> list[str]:
    return [
        f"{group}.{field}={text}"
        for group in _OWN_CODE
        if isinstance(composed.cfg[group], dict) and composed.cfg[group].get("factory")
        for field, text in environment_fields({"kwargs": composed.written[group]["kwargs"]})
    ]


def _check_paths(paths: Any) -> None:
    if not isinstance(paths, dict) or not paths.get("store"):
        raise ValueError("paths.store: it is empty; allowed: a folder; use paths.store=store")
    for name, path in paths.items():
        if not isinstance(path, str) or visible(path) != path or "\n" in path:
            raise ValueError(
                f"paths.{name}: {path!r} is not allowed; allowed: the path of a folder, in letters that can be shown; "
                f"use paths.{name}={name}"
            )


def _check_place(store: Path, cluster: ClusterConfig) -> None:
    """Refuse a store in which the workers of a cluster would not find what they need."""
    wrong = os.pathsep if cluster.name != "debug" and os.pathsep in str(store) else None
    if cluster.name == "slurm" and (pattern := re.search("%[jtAa]", str(store))):
        wrong = pattern[0]
    if wrong is not None:
        raise ValueError(
            f"paths.store: {str(store)!r} has {wrong!r}, which means something else to cluster={cluster.name}; "
            "allowed: paths without; use another folder, or a link to it"
        )


def with_points(plan: Plan, sweep: str, tags: Sequence[str] = ()) -> Plan:
    """The plan with stages that know to which point their W&B run belongs: the first that asks for them."""
    specs, points = plan.to_json(), plan.points_to_json()
    described = {}
    for index, point in enumerate(points):
        meta = {name: value for name, value in point["meta"].items() if name != "config"}
        about = {"name": point["name"], "sweep": sweep, "index": index, "overrides": point["overrides"], "meta": meta}
        about |= {"tags": list(tags)} if tags else {}
        described[point["name"]] = about
    for spec in specs:
        runtime = spec["runtime"]
        point = described[plan.points_of(spec["key"])[0]]
        spec["runtime"] = {**runtime, "wandb": {**runtime.get("wandb", {}), "point": point}}
    return Plan.from_json(specs, points)


def point_name(overrides: Sequence[str]) -> str:
    """The overrides that make a point what it is; they also tell a reader how to run it again."""
    return " ".join(word for word in overrides if not word.lstrip("+~").startswith(UNNAMED_WORDS)) or "default"


def visible_gpus() -> list[str]:
    """Ids of the GPUs that this process may use."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))
