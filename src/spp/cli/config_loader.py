"""How Hydra is set up here: where it looks for YAML files, and what it adds to them.

A default is stated once, in the dataclass that declares the field. YAML files hold what differs from it, and the loader
fills in the rest, so that any field can be set on the command line without Hydra's plus.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from spp.models.config import ModelConfig, TeacherConfig
from spp.plan.config import BudgetConfig
from spp.plan.one_shot import CalibrationConfig, ZeroShotConfig
from spp.plan.recipes import RECIPES
from spp.sparsity.config import SparsityConfig
from spp.tasks.config import TaskConfig

CONFIG_NAME = "config"
"""The root of every configuration, conf/config.yaml."""

_PRESET_FIELD = "spp_preset"
"""Resolver of a recipe's field that the presets of a method may set: ${spp_preset:RECIPE,FIELD}."""

_FOUND_WHEN_PLANNING = ("fingerprint", "source")
"""Fields that are in the dataclasses and not for users to set."""


class FieldsLoader(ConfigLoaderImpl):
    """Hydra's loader, with every field of the groups of `_declared` that their YAML files leave out."""

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
                fields = {**_fields(declared), **_fields_of_presets(cfg, name)}
                node.update({field: value for field, value in fields.items() if field not in written})
        return cfg


def _declared(cfg: DictConfig) -> dict[str, type[Config]]:
    """The dataclass of each group that has one."""
    declared: dict[str, type[Config]] = {
        **RECIPES,
        "task": TaskConfig,
        "model": ModelConfig,
        "teacher": TeacherConfig,
        "data": DataConfig,
        "budget": BudgetConfig,
        "sparsity": SparsityConfig,
        "calibration": CalibrationConfig,
        "zero_shot": ZeroShotConfig,
    }
    method = OmegaConf.select(cfg, "method.name")
    if method in method_names():
        declared["method"] = config_class(method)
    elif method in weight_method_names():
        declared["method"] = weight_config_class(method)
    return declared


def _preset_recipes(cfg: DictConfig) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """By preset and recipe the fields that the presets of the method set."""
    name = OmegaConf.select(cfg, "method.name")
    return config_class(name).preset_recipes if name in method_names() else {}


def _fields_of_presets(cfg: DictConfig, recipe: str) -> dict[str, str]:
    """The fields of a recipe that depend on the preset of the method, which is known once the user's values are."""
    by_preset = (recipes.get(recipe, {}) for recipes in _preset_recipes(cfg).values())
    return {field: f"${{{_PRESET_FIELD}:{recipe},{field}}}" for fields in by_preset for field in fields}


def _value_of_preset(recipe: str, field: str, *, _root_: DictConfig) -> Any:
    """What the preset that the user has chosen says of a field of a recipe, else the field's own default."""
    preset = str(OmegaConf.select(_root_, "method.preset"))
    of_preset = _preset_recipes(_root_).get(preset, {}).get(recipe, {})
    return of_preset.get(field, _fields(RECIPES[recipe])[field])


OmegaConf.register_new_resolver(_PRESET_FIELD, _value_of_preset, replace=True)


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
