"""How Hydra is set up here: where it looks for YAML files, and what it adds to them.

A default is stated once, in the dataclass that declares the field. YAML files hold what differs from it, and the loader
fills in the rest, so that any field can be set on the command line without Hydra's plus.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from spp.config import Config
from spp.data.config import DataConfig
from spp.locations import CONF
from spp.methods.registry import config_class, method_names
from spp.methods.weights.registry import weight_config_class, weight_method_names
from spp.models.config import ModelConfig
from spp.plan.one_shot import CalibrationConfig
from spp.plan.recipes import RECIPES
from spp.sparsity.config import SparsityConfig
from spp.tasks.config import TaskConfig

CONFIG_NAME = "config"
"""The root of every configuration, conf/config.yaml."""

_FOUND_WHEN_PLANNING = ("fingerprint", "source")
"""Fields that are in the dataclasses and not for users to set."""


class FieldsLoader(ConfigLoaderImpl):
    """Hydra's loader, with every field of recipes, method, task, model and data that their YAML files leave out."""

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        # Before Hydra closes the configuration for unknown fields, and before the user's values come.
        cfg = super()._compose_config_from_defaults_list(defaults, repo)
        for name in RECIPES:
            cfg.setdefault(name, {})
        for name, declared in _declared(cfg).items():
            node = cfg.get(name)
            if isinstance(node, DictConfig):
                # Not by merging, in which a default would win over a `???` of the YAML file.
                written = list(node.keys())
                node.update({field: value for field, value in _fields(declared).items() if field not in written})
        return cfg


def _declared(cfg: DictConfig) -> dict[str, type[Config]]:
    """The dataclass of each group that has one."""
    declared: dict[str, type[Config]] = {
        **RECIPES,
        "task": TaskConfig,
        "model": ModelConfig,
        "data": DataConfig,
        "sparsity": SparsityConfig,
        "calibration": CalibrationConfig,
    }
    method = OmegaConf.select(cfg, "method.name")
    if method in method_names():
        declared["method"] = config_class(method)
    elif method in weight_method_names():
        declared["method"] = weight_config_class(method)
    return declared


def _fields(declared: type[Config]) -> dict[str, Any]:
    """Every field for users with its default; `???`, Hydra's word for what must be set, where there is none."""
    fields = {**dict.fromkeys(declared.required(), "???"), **declared.defaults()}
    return {name: value for name, value in fields.items() if name not in _FOUND_WHEN_PLANNING}


@contextmanager
def hydra_application(config_dirs: Sequence[str] = ()) -> Iterator[Hydra]:
    """Hydra with the configuration of spp, and with that of the user's own folders, which are looked into after it.

    Args:
        config_dirs: folders, or what hydra.searchpath takes beside them (pkg://..., file://...).

    Raises:
        ValueError: if one of the folders is not there.
    """
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    hydra = Hydra(task_name="spp", config_loader=FieldsLoader(_search_path(config_dirs)))
    GlobalHydra.instance().initialize(hydra)
    try:
        yield hydra
    finally:
        GlobalHydra.instance().clear()


def _search_path(config_dirs: Sequence[str]) -> ConfigSearchPath:
    path: ConfigSearchPath = create_config_search_path(str(CONF))
    for folder in config_dirs:
        is_folder = "://" not in folder
        if is_folder and not Path(folder).is_dir():
            raise ValueError(
                f"--config-dir: {folder!r} is no folder; allowed: folders with groups as in conf/; check the path"
            )
        where = str(Path(folder).absolute()) if is_folder else folder
        path.prepend("user", where, SearchPathQuery(provider="schema"))
    return path
