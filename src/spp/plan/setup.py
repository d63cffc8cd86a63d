"""A resolved configuration as typed parts, and the stages that pipelines chain from them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from spp.config import Config, require
from spp.plan.cluster import DEFAULT, ClusterConfig
from spp.plan.config import (
    BudgetConfig,
    DataConfig,
    LoggerConfig,
    ModelConfig,
    PruneConfig,
    RecipeConfig,
    RuntimeConfig,
    SearchConfig,
    UpdateConfig,
)
from spp.plan.spec import Stage
from spp.plan.walk import time_share_at

STAGE_VERSIONS = {"dense": 1, "update": 2, "search": 1, "prune": 1, "finetune": 1}
"""Raised by hand whenever a stage's code starts to give other results for the same config."""

_DATA_RUNTIME = ("root", "download", "format", "on_error")
TOP_LEVEL = (
    "accelerator", "budget", "cluster", "data", "dense", "finetune", "logger", "method",
    "model", "num_threads", "num_workers", "paths", "pipeline", "prune", "rest_of_walk", "search", "seed", "update",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a pipeline may use, checked."""

    model: ModelConfig
    data: DataConfig
    dense: RecipeConfig
    update: UpdateConfig
    search: SearchConfig
    prune: PruneConfig
    finetune: RecipeConfig
    rest_of_walk: bool
    method: Config
    budget: BudgetConfig
    runtime: RuntimeConfig
    cluster: ClusterConfig
    default_gpus: int
    seed: int

    def stage(
        self,
        kind: str,
        *,
        label: str,
        inputs: Mapping[str, Stage] | None = None,
        **config: Config | Mapping[str, Any] | float | str,
    ) -> Stage:
        """One stage of a pipeline: `config` is what its key hashes, next to the keys of its inputs."""
        plain = {name: value.plain() if isinstance(value, Config) else value for name, value in config.items()}
        runtime, resources = self._placement_of(kind)
        return Stage(
            kind=kind,
            config=plain,
            inputs=dict(inputs or {}),
            version=STAGE_VERSIONS[kind],
            label=label,
            runtime=runtime,
            resources=resources,
        )

    def _placement_of(self, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """How and with what the stages of a kind run."""
        if kind not in self._placements:
            resources = self.cluster.resources_of(kind, self.default_gpus)
            runtime = replace(self.runtime, devices=resources.num_tasks_per_node, num_nodes=resources.num_nodes)
            self._placements[kind] = runtime.plain(), resources.plain()
        return self._placements[kind]

    @cached_property
    def _placements(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        return {}

    def share_epochs(self) -> tuple[SearchConfig, PruneConfig]:
        """The recipes of search and walk for a method that may need less than `search.epochs` for its search.

        What is left over goes to the walk or, where there is none, to the finetuning (`finetune_of`): all methods have
        equal epochs in all. Where the weights stand still the labels are clean, as in `update`: a loss that asks for
        less confidence would score the units by what they do to that.
        """
        needed = self.search.epochs - self._unspent_epochs
        search = replace(self.search, epochs=needed, warmup_epochs=min(self.search.warmup_epochs, needed))
        if not getattr(self.method, "TRAINS_WEIGHTS", True):
            search = replace(search, label_smoothing=0, mixup=0, cutmix=0)
        more = self._unspent_epochs if self.prune.epochs > 0 else 0
        return search, replace(self.prune, epochs=self.prune.epochs + more)

    @property
    def _unspent_epochs(self) -> int:
        """Epochs of `search` that the method's search does not need."""
        limit: int | None = getattr(self.method, "MAX_SEARCH_EPOCHS", None)
        return 0 if limit is None else max(0, self.search.epochs - limit)

    def joint_epochs(self) -> SearchConfig:
        """The recipe of a search that is the walk at the same time: it has the epochs of both."""
        return replace(self.search, epochs=self.search.epochs + self.prune.epochs)

    def finetune_of(self, size: float, walk: PruneConfig) -> RecipeConfig:
        """The finetuning of the member that a walk to all budgets takes at `size`.

        Without a walk it also has what the search has left over, unless nothing is trained at all. With `rest_of_walk`
        it has, in whole epochs, what comes of the walk after the member is taken: the weights of every member then
        train for as many epochs as those of the smallest.
        """
        if walk.epochs == 0:
            more = self._unspent_epochs if self.finetune.epochs > 0 else 0
            return replace(self.finetune, epochs=self.finetune.epochs + more)
        if not self.rest_of_walk:
            return self.finetune
        smallest = min(self.budget.values)
        way = (1 - size) / (1 - smallest) if smallest < 1 else 1.0
        rest = round((1 - time_share_at(walk.shape, way)) * walk.epochs)
        return replace(self.finetune, epochs=self.finetune.epochs + rest)

    def dense_network(self) -> Stage:
        """The dense network that every method starts from; given weights depend on no recipe and no seed."""
        model = replace(self.model, per_head=False)  # how it will be masked is none of its concern
        if self.model.weights == "train":
            return self.stage("dense", label="dense", model=model, data=self.data, recipe=self.dense, seed=self.seed)
        return self.stage("dense", label="dense", model=model, data=self.data)


def sha256_of(file: Path) -> str:
    """Hash of a checkpoint.

    Raises:
        ValueError: if it is no file.
    """
    if not file.is_file():
        raise ValueError(
            f"model.weights: {str(file)!r} is no file; allowed: train, pretrained, or the path of a checkpoint; "
            "check the path"
        )
    state = file.stat()
    return _sha256(file, state.st_size, state.st_mtime_ns)


@cache
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """Hash of a file as it was when it had this size and this time of change: a sweep asks again for each point."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_names(cfg: Mapping[str, Any]) -> None:
    """Refuse what no part of the program would read, and notice what is missing."""
    for name, value in cfg.items():
        if name not in TOP_LEVEL:
            raise ValueError(f"{name}: {value!r} is an unknown field; allowed: {', '.join(TOP_LEVEL)}; remove it")
    for name in TOP_LEVEL:
        if cfg.get(name) is None:
            raise ValueError(f"{name}: None is not allowed; allowed: what conf/ has; leave it as it is there")


def read_setup(
    cfg: Mapping[str, Any],
    read_method: Callable[[dict[str, Any]], Config],
    fingerprint: Callable[..., dict[str, Any]],
    default_gpus: int,
) -> Setup:
    """Check a resolved configuration and turn it into a Setup.

    Args:
        cfg: the composed configuration as plain dicts and lists.
        read_method: builds the method's own config from the group `method`.
        fingerprint: identifies the data set's files, see spp.data.registry.fingerprint.
        default_gpus: GPUs of a stage whose resources leave their number open.

    Raises:
        ValueError: one line that names the field, the value, what is allowed and the remedy.
    """
    _check_names(cfg)
    data = dict(cfg["data"])
    root, download, data_format, on_error = (data.pop(name, None) for name in _DATA_RUNTIME)
    if "fingerprint" in data:
        raise ValueError("data.fingerprint: it is found when planning; allowed: nothing; remove it")
    data_config = DataConfig.read(data, "data")
    model = ModelConfig.read(cfg["model"], "model")
    weights_file = None
    if model.weights not in ("train", "pretrained"):
        weights_file = Path(model.weights).absolute()
        model = replace(model, weights=f"sha256:{sha256_of(weights_file)}")
    cluster = ClusterConfig.read(cfg["cluster"], "cluster")
    for kind in cluster.resources:
        kinds = (DEFAULT, *STAGE_VERSIONS)
        require(kind in kinds, "cluster.resources", kind, ", ".join(kinds), "take one of these")
    runtime = RuntimeConfig.read(
        {
            "data_root": root and str(Path(root).absolute()),
            "download": download,
            "data_format": data_format,
            "data_on_error": on_error or "fail",
            "weights_file": weights_file and str(weights_file),
            "num_workers": cfg["num_workers"],
            "num_threads": cfg["num_threads"],
            "accelerator": cfg["accelerator"],
            "checkpoint_minutes": cluster.checkpoint_minutes,
            "wandb": LoggerConfig.read(cfg["logger"], "logger").plain(),
            "cache": str(Path(cfg["paths"]["store"], "cache").absolute()),
        },
        "",
    )
    seed = cfg["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not allowed; allowed: an integer from 0 to 2^32 - 1; use seed=0")
    budget, rest_of_walk = BudgetConfig.read(cfg["budget"], "budget"), cfg["rest_of_walk"]
    require(isinstance(rest_of_walk, bool), "rest_of_walk", rest_of_walk, "true, false", "use false")
    largest, allowed = max(budget.values), "fractions, with rest_of_walk=true"
    require(not rest_of_walk or largest <= 1, "budget.values", largest, allowed, "use rest_of_walk=false")
    method = read_method(dict(cfg["method"]))
    if getattr(method, "needs_heads", False):
        model = replace(model, per_head=True)
    setup = Setup(
        model=model,
        data=data_config,
        dense=RecipeConfig.read(cfg["dense"], "dense"),
        update=UpdateConfig.read(cfg["update"], "update"),
        search=SearchConfig.read(cfg["search"], "search"),
        prune=PruneConfig.read(cfg["prune"], "prune"),
        finetune=RecipeConfig.read(cfg["finetune"], "finetune"),
        rest_of_walk=rest_of_walk,
        method=method,
        budget=budget,
        runtime=runtime,
        cluster=cluster,
        default_gpus=default_gpus,
        seed=seed,
    )
    identity = fingerprint(
        data_config.name,
        root,
        num_train=data_config.num_train,
        download=runtime.download,
        format=runtime.data_format,
        on_error=runtime.data_on_error,
        cache=runtime.cache,
    )
    return replace(setup, data=replace(data_config, fingerprint=identity))
