"""Hydra's composition, done once per choice of config groups.

Composing takes tens of milliseconds, nearly all of it for finding and merging the files of the chosen groups. The
points of a sweep mostly differ in values, which Hydra itself applies at the very end, to the merged result: here to
a copy of it.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException


@dataclass(frozen=True)
class ComposedPoint:
    """One point: the user's overrides, the configuration as plain dicts and lists, and the choice of its model.

    A field that has to be set and is not holds `???`; whoever reads it says so.
    """

    overrides: tuple[str, ...]
    cfg: dict[str, Any]
    model: str
    written: dict[str, Any]
    """`cfg` as it may be kept: what comes from the environment, which may be a secret, stays `${oc.env:NAME}`."""


@dataclass(frozen=True)
class _Merged:
    """What one choice of groups gives, pickled, because unpickling copies six times as fast as copy.deepcopy.

    `cfg` is the DictConfig; `settled` maps to plain values the top-level fields that refer to nothing else; `sweep` has
    the choices that the groups bring along (hydra.sweeper.params).
    """

    cfg: bytes
    settled: bytes
    model: str | None
    sweep: dict[str, str]


class Composer:
    """Composes the configurations that `loader` finds; equal to what Hydra composes, and quick for many."""

    def __init__(self, loader: ConfigLoader, config_name: str) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        self._config_name = config_name
        self._parser = OverridesParser.create(loader)
        self._parsed: dict[str, Override] = {}
        self._is_group = cache(loader.repository.group_exists)
        self._merged = cache(self._merge)

    def parse(self, word: str) -> Override:
        """An override, read once. Raises HydraException for one that breaks Hydra's grammar."""
        if word not in self._parsed:
            (self._parsed[word],) = self._parser.parse_overrides([word])
        return self._parsed[word]

    def point(self, overrides: Sequence[str]) -> ComposedPoint:
        """The resolved configuration under `overrides`.

        Raises HydraException or OmegaConfBaseException as composing with Hydra does.
        """
        choices = tuple(word for word in overrides if self._chooses_group(word))
        merged = self._merged(choices)
        cfg: DictConfig = pickle.loads(merged.cfg)
        values = [self.parse(word) for word in overrides if not self._chooses_group(word)]
        ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        if merged.model is None:
            raise ConfigKeyError("The group 'model' is not there.")
        settled = pickle.loads(merged.settled)
        for override in values:
            settled.pop(override.key_or_group.partition(".")[0], None)
        resolved = _resolve(cfg, settled)
        return ComposedPoint(tuple(overrides), resolved, merged.model, _as_written(cfg, settled, resolved))

    def sweep_of(self, words: Sequence[str]) -> list[str]:
        """The choices that the groups named in `words` bring along (hydra.sweeper.params), unless `words` make them."""
        choices = (word for word in words if self._chooses_group(word) and not self.parse(word).is_sweep_override())
        own = {self.parse(word).get_key_element().lstrip("+~") for word in words}
        return [f"{key}={value}" for key, value in self._merged(tuple(choices)).sweep.items() if key not in own]

    def defaults(self) -> DictConfig:
        """The configuration without any override, unresolved."""
        cfg: DictConfig = pickle.loads(self._merged(()).cfg)
        return cfg

    def options(self, group: str) -> list[str]:
        """What a config group offers."""
        return sorted(self._loader.get_group_options(group))

    def _chooses_group(self, word: str) -> bool:
        # As in Hydra's defaults list, where a dictionary is a value even under the name of a group.
        override = self.parse(word)
        return self._is_group(override.key_or_group) and not isinstance(override.value(), dict)

    def _merge(self, choices: tuple[str, ...]) -> _Merged:
        cfg = self._loader.load_configuration(self._config_name, list(choices), RunMode.RUN, from_shell=False)
        model = cfg.hydra.runtime.choices.get("model")
        sweep = dict(cfg.hydra.sweeper.get("params") or {})
        with open_dict(cfg):
            del cfg["hydra"]
        plain = OmegaConf.to_container(cfg)
        assert isinstance(plain, dict)
        settled = {name: value for name, value in plain.items() if not _refers(value)}
        return _Merged(pickle.dumps(cfg), pickle.dumps(settled), model, sweep)


def _refers(value: Any) -> bool:
    """Whether a plain, unresolved value holds an interpolation."""
    if isinstance(value, dict):
        return any(_refers(item) for item in value.values())
    if isinstance(value, list):
        return any(_refers(item) for item in value)
    return isinstance(value, str) and "${" in value


def _as_written(cfg: DictConfig, settled: Mapping[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration, in which every reference to the environment, also an indirect one, stays as it is."""
    unsettled = [name for name in resolved if name not in settled]
    plain = {name: _unresolved(cfg, name) for name in unsettled}
    if not _reads_environment(plain):
        return resolved
    kept = OmegaConf.create({**settled, **{name: _escaped(value) for name, value in plain.items()}})
    values = {name: kept[name] for name in unsettled if resolved[name] != "???"}
    return {
        **resolved,
        **{
            name: OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
            for name, value in values.items()
        },
    }


def _unresolved(cfg: DictConfig, name: str) -> Any:
    node: Any = cfg._get_node(name)
    return OmegaConf.to_container(node) if isinstance(node, Container) else node._value()


def _reads_environment(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_reads_environment, value.values()))
    if isinstance(value, list):
        return any(map(_reads_environment, value))
    return isinstance(value, str) and "${oc.env:" in value


def _escaped(value: Any) -> Any:
    """A value whose references to the environment are text."""
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("${oc.env:", "\\${oc.env:") if isinstance(value, str) else value


def _resolve(cfg: DictConfig, settled: dict[str, Any]) -> dict[str, Any]:
    """The whole of `cfg` as plain dicts and lists, where that of the fields in `settled` is known."""
    resolved: dict[str, Any] = {}
    try:
        for name in map(str, cfg):
            is_missing = name not in settled and OmegaConf.is_missing(cfg, name)
            value = "???" if is_missing else settled[name] if name in settled else cfg[name]
            resolved[name] = OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
    except OmegaConfBaseException:
        # Raises again, with the words that everybody gets.
        OmegaConf.to_container(cfg, resolve=True)
        raise
    return resolved
