"""Settings of stages by their dotted names, and those in which several differ."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spp.plan.spec import Stage
from spp.record.lineage import FINETUNE, MEASURE

MAX_SETTINGS = 3
"""Of more that differ, as after a change of a recipe, the others are counted."""

Settings = Mapping[str, str]


def leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of a nested config by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{field}", leaf) for field, leaf in leaves(value))
        else:
            yield name, value


class SettingsReader:
    """Reads the settings of stages, each stage once."""

    def __init__(self) -> None:
        self._known: dict[str, Settings] = {}

    def with_inputs(self, stage: Stage) -> Settings:
        """The settings of a stage and of all that it came from; where two stages differ, the later one's counts."""
        if stage.key not in self._known:
            found: dict[str, str] = {}
            for parent in stage.inputs.values():
                found |= self.with_inputs(parent)
            self._known[stage.key] = found | _own_settings(stage)
        return self._known[stage.key]


def _own_settings(stage: Stage) -> dict[str, str]:
    """Settings of one stage but seed and budget: those of the recipe as one overrides them, such as prune.epochs."""
    recipe = FINETUNE if stage.kind == MEASURE else stage.kind
    found = {f"{stage.kind}.version": str(stage.version)}
    for field, value in leaves(stage.config):
        first, _, rest = field.partition(".")
        if first not in ("seed", "budget") and value is not None:
            found[f"{recipe}.{rest}" if first == "recipe" else field] = str(value)
    return found


def differing_settings(settings: Mapping[str, Settings]) -> dict[str, str]:
    """By key the settings that not all have, as words; a few and a number where there are many."""
    shared = set.intersection(*(set(values.items()) for values in settings.values()))
    names = sorted({name for values in settings.values() for name, value in values.items()} - dict(shared).keys())
    return {
        key: _abridged([f"{name}={values.get(name, 'null')}" for name in names]) for key, values in settings.items()
    }


def _abridged(words: Sequence[str]) -> str:
    if len(words) <= MAX_SETTINGS:
        return " ".join(words)
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:4]
    return f"{' '.join(words[: MAX_SETTINGS - 1])} and {len(words) - MAX_SETTINGS + 1} more ({digest})"
