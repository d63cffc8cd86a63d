"""A resolved configuration as typed parts, and the stages that pipelines chain from them."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spp.config import Config
from spp.plan.config import (
    BudgetConfig,
    DataConfig,
    ModelConfig,
    PruneConfig,
    RecipeConfig,
    RuntimeConfig,
    UpdateConfig,
)
from spp.plan.spec import Stage

STAGE_VERSIONS = {"dense": 1, "update": 1, "prune": 1, "finetune": 1}
"""Raised by hand whenever a stage's code starts to give other results for the same config."""

_DATA_RUNTIME = ("root", "download")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Everything a pipeline may use, checked."""

    model: ModelConfig
    data: DataConfig
    dense: RecipeConfig
    update: UpdateConfig
    prune: PruneConfig
    finetune: RecipeConfig
    method: Config
    budget: BudgetConfig
    runtime: RuntimeConfig
    resources: Mapping[str, Any]
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
        return Stage(
            kind=kind,
            config=plain,
            inputs=dict(inputs or {}),
            version=STAGE_VERSIONS[kind],
            label=label,
            runtime=self.runtime.plain(),
            resources=self.resources,
        )

    def dense_network(self) -> Stage:
        """The dense network that every method starts from; given weights depend on no recipe and no seed."""
        model, data = self.model, self.data
        if model.weights == "train":
            return self.stage("dense", label="dense", model=model, data=data, recipe=self.dense, seed=self.seed)
        if model.weights == "pretrained":
            return self.stage("dense", label="dense", model=model, data=data)
        sha256 = _sha256(Path(model.weights))
        return self.stage("dense", label="dense", model=model, data=data, weights_sha256=sha256)


def _sha256(file: Path) -> str:
    if not file.is_file():
        raise ValueError(
            f"model.weights: {str(file)!r} is no file; allowed: train, pretrained, or the path of a checkpoint; "
            "check the path"
        )
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_setup(
    cfg: Mapping[str, Any],
    read_method: Callable[[dict[str, Any]], Config],
    fingerprint: Callable[..., dict[str, Any]],
    resources: Mapping[str, Any],
) -> Setup:
    """Check a resolved configuration and turn it into a Setup.

    Args:
        cfg: the composed configuration as plain dicts and lists.
        read_method: builds the method's own config from the group `method`.
        fingerprint: identifies the data set's files, see spp.data.registry.fingerprint.
        resources: what each stage asks of a scheduler, such as {"gpus": 1}.

    Raises:
        ValueError: one line that names the field, the value, what is allowed and the remedy.
    """
    data = dict(cfg["data"])
    root, download = (data.pop(name, None) for name in _DATA_RUNTIME)
    data_config = DataConfig.read(data, "data")
    store = cfg["paths"]["store"]
    runtime = RuntimeConfig.read(
        {
            "data_root": root,
            "download": bool(download),
            "num_workers": cfg["num_workers"],
            "accelerator": cfg["accelerator"],
            "devices": cfg["devices"],
            "wandb": dict(cfg["logger"]),
            "cache": f"{store}/cache",
        },
        "runtime",
    )
    if not isinstance(cfg["seed"], int) or cfg["seed"] < 0:
        raise ValueError(f"seed: {cfg['seed']!r} is not allowed; allowed: an integer of 0 or more; use seed=0")
    setup = Setup(
        model=ModelConfig.read(cfg["model"], "model"),
        data=data_config,
        dense=RecipeConfig.read(cfg["dense"], "dense"),
        update=UpdateConfig.read(cfg["update"], "update"),
        prune=PruneConfig.read(cfg["prune"], "prune"),
        finetune=RecipeConfig.read(cfg["finetune"], "finetune"),
        method=read_method(dict(cfg["method"])),
        budget=BudgetConfig.read(cfg["budget"], "budget"),
        runtime=runtime,
        resources=resources,
        seed=cfg["seed"],
    )
    identity = fingerprint(
        data_config.name, root, num_train=data_config.num_train, download=bool(download), cache=runtime.cache
    )
    return replace(setup, data=replace(data_config, fingerprint=identity))
