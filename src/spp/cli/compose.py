"""From the user's words to resolved configurations, with Hydra; a wrong word becomes one line."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spp.locations import CONF

_BUDGET_SHORTHAND = re.compile(r"^budget=(\w+):(.+)$", re.DOTALL)
# Open dictionaries: whatever is written replaces them as a whole, and new entries need no plus.
_OPEN_WHOLE = re.compile(r"^(model\.kwargs|\w+\.augment|cluster\.resources(?:\.\w+)?)=(\{.*\})$", re.DOTALL)
_OPEN_ENTRY = re.compile(r"^(?:model\.kwargs|\w+\.augment|cluster\.resources(?:\.\w+)?)\.\w+=")


def expand_shorthand(words: Sequence[str]) -> list[str]:
    """Write out `budget=macs:[0.5]`, and what Hydra needs for a dictionary that is replaced or gets a new entry."""
    expanded: list[str] = []
    for word in words:
        if match := _BUDGET_SHORTHAND.match(word):
            expanded += [f"budget={match[1]}", f"budget.values={match[2]}"]
        elif match := _OPEN_WHOLE.match(word):
            expanded += [f"~{match[1]}", f"+{match[1]}={match[2]}"]
        elif _OPEN_ENTRY.match(word):
            expanded.append(f"++{word}")
        else:
            expanded.append(word)
    return expanded


@dataclass(frozen=True)
class ComposedPoint:
    """One point: the user's overrides, the configuration as plain dicts and lists, and the choice of its model."""

    overrides: tuple[str, ...]
    cfg: dict[str, Any]
    model: str


def compose_points(words: Sequence[str], multirun: bool) -> list[ComposedPoint]:
    """The points of a sweep.

    Args:
        words: Hydra overrides; with `multirun`, comma-separated choices span a grid.

    Raises:
        ValueError: one line for a word that Hydra cannot use.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        points = []
        for overrides in _split(expand_shorthand(words), multirun):
            try:
                cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
                model = cfg.hydra.runtime.choices["model"]
                with open_dict(cfg):
                    del cfg["hydra"]
                resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise ValueError(_one_line(error, overrides, compose)) from None
            assert isinstance(resolved, dict)
            points.append(ComposedPoint(overrides, {str(name): value for name, value in resolved.items()}, model))
    return points


def _split(words: list[str], multirun: bool) -> list[tuple[str, ...]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    overrides = []
    for word in words:
        if word.lstrip("+~").startswith("hydra"):
            raise ValueError(f"{word}: nothing here reads it; allowed: the fields of conf/; remove it")
        try:
            overrides.append(parser.parse_override(word))
        except HydraException as error:
            reason = " ".join(str(error).split("See https")[0].split())
            raise ValueError(
                f"{word}: {reason}; allowed: field=value in Hydra's syntax; quote the value, or close its brackets"
            ) from None
    for override in overrides:
        if override.is_sweep_override() and not multirun:
            raise ValueError(
                f"{override.get_key_element()}: {override.get_value_string()} asks for several values; allowed: one "
                "value, or a list in brackets; add -m to sweep over them"
            )
    if not multirun:
        return [tuple(words)]
    batches = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [tuple(point) for point in batches[0]]


def _one_line(error: Exception, overrides: Sequence[str], compose: Any) -> str:
    """Say what is wrong with one of `overrides`: the field, the value, what is allowed, the remedy."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing_group = re.search(r"Could not find '([^']+?)/([^'/]+)'", str(error))
    if missing_group:
        group, choice = missing_group.groups()
        options = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        close = difflib.get_close_matches(choice, options, n=1)
        remedy = f"did you mean {group}={close[0]}?" if close else "take one of these"
        return f"{group}: {choice!r} does not exist; allowed: {', '.join(options) or 'none yet'}; {remedy}"
    for override in overrides:
        field = override.lstrip("+~").split("=")[0]
        if f"'{field}'" in lines[0] or f"'{field.split('.')[-1]}'" in lines[0]:
            return _unknown_field(override, field, compose)
    remedy = "see `spp run --help`"
    return f"{overrides[-1] if overrides else 'configuration'}: {lines[0]}; allowed: what conf/ defines; {remedy}"


def _unknown_field(override: str, field: str, compose: Any) -> str:
    from omegaconf import DictConfig, OmegaConf

    parent, _, _ = field.rpartition(".")
    base = compose("config")
    node = OmegaConf.select(base, parent) if parent else base
    while parent and not isinstance(node, DictConfig):
        parent = parent.rpartition(".")[0]
        node = OmegaConf.select(base, parent) if parent else base
    prefix = f"{parent}." if parent else ""
    names = sorted(f"{prefix}{name}" for name in node)
    close = difflib.get_close_matches(field, names, n=1)
    value = override.partition("=")[2]
    remedy = f"did you mean {close[0]}?" if close else "take one of these"
    return f"{field}: {value!r} cannot be set, there is no such field; allowed: {', '.join(names)}; {remedy}"
