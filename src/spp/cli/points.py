"""From the user's words to the configurations of the points that they ask for."""

from collections.abc import Iterable, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from spp.cli.cached_composer import ComposedPoint, Composer
from spp.cli.config_loader import CONFIG_NAME, hydra_application
from spp.cli.words import check_num_points, expand, one_line, parse_word, shell_word, split_search_path

# What Hydra raises for words that fit its grammar and nothing else is not always an error of its own.
COMPOSITION_ERRORS = (
    HydraException, OmegaConfBaseException, ArithmeticError, AssertionError, AttributeError, LookupError,
    RecursionError, TypeError,
)  # fmt: skip


def compose_points(words: Sequence[str], multirun: bool, config_dirs: Sequence[str] = ()) -> list[ComposedPoint]:
    """The points of a sweep.

    Args:
        words: Hydra overrides; with `multirun`, comma-separated choices span a grid.
        config_dirs: folders of the user with more choices for the groups of conf/.

    Raises:
        ValueError: one line for a word that Hydra cannot use.
    """
    words, more_dirs = split_search_path(words)
    with hydra_application([*config_dirs, *more_dirs]) as hydra:
        composer = Composer(hydra.config_loader, CONFIG_NAME)
        expanded = expand(words, multirun)
        try:
            points = _split(composer, expanded, multirun)
        except COMPOSITION_ERRORS as error:
            raise ValueError(one_line(error, expanded, composer)) from None
        return compose_each(composer, points)


def compose_each(composer: Composer, points: Iterable[Sequence[str]]) -> list[ComposedPoint]:
    """The points with these overrides, one list for each.

    Raises:
        ValueError: one line for a word that Hydra cannot use.
    """
    composed = []
    for overrides in points:
        try:
            composed.append(composer.point(overrides))
        except COMPOSITION_ERRORS as error:
            raise ValueError(one_line(error, overrides, composer)) from None
    return composed


def _split(composer: Composer, words: list[str], multirun: bool) -> list[tuple[str, ...]]:
    """The words of each point."""
    for word in words:
        if word.lstrip("+~").startswith("hydra"):
            raise ValueError(f"{word}: nothing here reads it; allowed: the fields of conf/; remove it")
    overrides = [parse_word(composer, word) for word in words]
    for override in overrides:
        if override.is_sweep_override() and not multirun:
            name, text = override.get_key_element(), override.get_value_string()
            raise ValueError(
                f"{name}: {text} asks for several values; allowed: one value, or a list in brackets; add -m to sweep "
                f"over them, or type {shell_word(name, text)} if it is one text"
            )
        if override.is_interval_sweep():
            raise ValueError(
                f"{override.get_key_element()}: {override.get_value_string()} is no list of values; allowed: a,b,c, "
                "choice(a,b), range(start,stop,step); add hydra/sweeper=spp_optuna to search an interval"
            )
    if not multirun:
        return [tuple(words)]
    check_num_points(overrides)
    brought = [parse_word(composer, word) for word in composer.sweep_of(words)]
    overrides = [*brought, *overrides]
    batches = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    if not batches or not batches[0]:
        swept = " ".join(word for word in words if parse_word(composer, word).is_sweep_override())
        raise ValueError(f"{swept}: it spans no point; allowed: at least one value; name one, or leave it out")
    return [tuple(point) for point in batches[0]]
