"""The space that the user's words span, in Optuna's terms."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader


def read_space(words: Sequence[str], loader: "ConfigLoader") -> tuple[list[str], dict[str, BaseDistribution]]:
    """The words that every point gets, and what Optuna chooses, by the left side of its word.

    Raises:
        ValueError: one line if there is nothing to choose, or a span is empty.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    fixed: list[str] = []
    space: dict[str, BaseDistribution] = {}
    for override in OverridesParser.create(loader).parse_overrides(list(words)):
        if not override.is_sweep_override():
            assert override.input_line is not None
            fixed.append(override.input_line)
            continue
        name = override.get_key_element()
        try:
            space[name] = _distribution(override)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name}: {override.get_value_string()} spans nothing to choose from ({reason}); allowed: "
                "interval(low,high), range(start,stop), choice(a,b); give it two ends"
            ) from None
    if not space:
        raise ValueError(
            "hydra/sweeper: there is nothing to choose; allowed: interval(low,high), range(start,stop), choice(a,b) "
            "as the value of a field; write finetune.lr=tag(log,interval(1e-4,1e-2))"
        )
    return fixed, space


def to_words(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> list[str]:
    """The words of one point."""
    # A choice is kept as the text that Hydra reads; repr keeps every digit of a number.
    return [f"{name}={value if isinstance(value := params[name], str) else repr(value)}" for name in space]


def _distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()
    if override.is_interval_sweep():
        is_log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=is_log)
        return FloatDistribution(value.start, value.end, log=is_log)
    if override.is_range_sweep() and not value.shuffle:
        numbers = [number for number in override.sweep_iterator() if isinstance(number, int)]
        if numbers and value.step > 0:
            return IntDistribution(numbers[0], numbers[-1], step=value.step)
    return CategoricalDistribution(tuple(override.sweep_string_iterator()))
