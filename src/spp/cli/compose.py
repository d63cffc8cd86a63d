"""From the user's words to resolved configurations, with Hydra; a wrong word becomes one line."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from spp.cli.composer import ComposedPoint, Composer
from spp.locations import CONF

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

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


def compose_points(words: Sequence[str], multirun: bool) -> list[ComposedPoint]:
    """The points of a sweep.

    Args:
        words: Hydra overrides; with `multirun`, comma-separated choices span a grid.

    Raises:
        ValueError: one line for a word that Hydra cannot use.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        composer = Composer(GlobalHydra.instance().config_loader())
        return compose_each(composer, _split(composer, expand_shorthand(words), multirun))


def compose_each(composer: Composer, points: Iterable[Sequence[str]]) -> list[ComposedPoint]:
    """The points with these overrides, one list for each.

    Raises:
        ValueError: one line for a word that Hydra cannot use.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    composed = []
    for overrides in points:
        try:
            composed.append(composer.point(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(one_line(error, overrides, composer)) from None
    return composed


def parse_word(composer: Composer, word: str) -> "Override":
    """What a word means to Hydra.

    Raises:
        ValueError: one line for a word that breaks Hydra's grammar.
    """
    from hydra.errors import HydraException

    try:
        return composer.parse(word)
    except HydraException as error:
        reason = " ".join(str(error).split("See https")[0].split())
        raise ValueError(
            f"{word}: {reason}; allowed: field=value in Hydra's syntax; quote the value, or close its brackets"
        ) from None


def _split(composer: Composer, words: list[str], multirun: bool) -> list[tuple[str, ...]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    for word in words:
        if word.lstrip("+~").startswith("hydra"):
            raise ValueError(f"{word}: nothing here reads it; allowed: the fields of conf/; remove it")
    overrides = [parse_word(composer, word) for word in words]
    for override in overrides:
        if override.is_sweep_override() and not multirun:
            raise ValueError(
                f"{override.get_key_element()}: {override.get_value_string()} asks for several values; allowed: one "
                "value, or a list in brackets; add -m to sweep over them"
            )
    if not multirun:
        return [tuple(words)]
    brought = [parse_word(composer, word) for word in composer.sweep_of(words)]
    overrides = [*brought, *overrides]
    batches = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [tuple(point) for point in batches[0]]


def one_line(error: Exception, overrides: Sequence[str], composer: Composer, base: "DictConfig | None" = None) -> str:
    """Say what is wrong with one of `overrides`: the field, the value, what is allowed, the remedy.

    `base` is the configuration without the user's values; None: the default one.
    """
    text = str(error) or str(error.__cause__)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    missing_group = re.search(r"Could not find '([^']+)/([^'/]+)'", text)
    if missing_group:
        group, choice = missing_group.groups()
        options = composer.options(group)
        close = difflib.get_close_matches(choice, options, n=1)
        remedy = f"did you mean {group}={close[0]}?" if close else "take one of these"
        return f"{group}: {choice!r} does not exist; allowed: {', '.join(options) or 'none yet'}; {remedy}"
    for override in overrides:
        field = override.lstrip("+~").split("=")[0]
        if f"'{field}'" in lines[0] or f"'{field.split('.')[-1]}'" in lines[0]:
            return _unknown_field(override, field, base or composer.defaults())
    remedy = "see `spp run --help`"
    return f"{overrides[-1] if overrides else 'configuration'}: {lines[0]}; allowed: what conf/ defines; {remedy}"


def _unknown_field(override: str, field: str, base: "DictConfig") -> str:
    from omegaconf import DictConfig, OmegaConf

    parent, _, _ = field.rpartition(".")
    node: Any = OmegaConf.select(base, parent) if parent else base
    while parent and not isinstance(node, DictConfig):
        parent = parent.rpartition(".")[0]
        node = OmegaConf.select(base, parent) if parent else base
    prefix = f"{parent}." if parent else ""
    names = sorted(f"{prefix}{name}" for name in node if name != "hydra")
    close = difflib.get_close_matches(field, names, n=1)
    value = override.partition("=")[2]
    remedy = f"did you mean {close[0]}?" if close else "take one of these"
    return f"{field}: {value!r} cannot be set, there is no such field; allowed: {', '.join(names)}; {remedy}"
