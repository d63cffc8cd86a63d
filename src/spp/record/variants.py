"""What sets members apart beside the columns of their rows: words of the user, else settings that no word tells of."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from spp.plan.graph import Point
from spp.plan.spec import Stage

PLACE_WORDS = ("paths.store=", "cluster", "logger", "num_workers=", "num_threads=", "accelerator=")
"""How words begin that say where and how something runs, not what."""

UNNAMED_WORDS = (*PLACE_WORDS, "paths.")
"""How words begin that neither the name of a point nor a variant has: also those that say where its inputs are."""

MOST_SETTINGS = 3
"""Of more that differ, as after a change of a recipe, the others are counted."""

_OWN_COLUMNS = ("seed", "method", "method.preset", "model", "model.name", "data")
"""Words that a row tells of in a column of its own; so it does of those of the budget, and of the pipeline that goes
with the method."""


def variants(points: Mapping[str, Point]) -> dict[str, str]:
    """What distinguishes each point by its words: those that not all have, sorted; names as given."""
    common = set.intersection(*(set(point.overrides) for point in points.values())) if points else set()
    return {
        name: " ".join(sorted(word for word in point.overrides if word not in common and not _is_told(word, point)))
        for name, point in points.items()
    }


def told_apart(members: Iterable[tuple[Point, str, Stage]]) -> dict[str, str]:
    """The variant of every member by its key, from its point, the variant of its words and its finetune stage.

    Words do not tell members apart whose settings are all the same, as where one says what is the default anyway.
    Members that words do not tell apart get the settings in which they differ, as of two sweeps with the same words
    between which a default or a stage's version has changed. Seeds and budgets are no settings, nor is what follows
    from the budget within a point; the list of budgets that was walked is one only where a seed has a budget twice.
    """
    members, flat = list(members), cache(_flat)
    settings = _of_points(
        {stage.key: _settings(stage, flat) for _, _, stage in members},
        {stage.key: id(point) for point, _, stage in members},
    )
    words_of = _fewest_words(members, settings)
    setups: dict[tuple[Any, ...], dict[str, Stage]] = {}
    for point, _, stage in members:
        setups.setdefault((*_place(point), words_of[stage.key]), {})[stage.key] = stage
    found: dict[str, str] = {}
    for (*_, words), stages in setups.items():
        apart = differences({key: settings[key] for key in stages})
        groups: dict[str, list[str]] = {}
        for key, text in apart.items():
            groups.setdefault(text, []).append(key)
        for text, keys in groups.items():
            cells = {(stages[key].config.get("seed"), str(stages[key].config.get("budget"))) for key in keys}
            for key in keys:
                walked = f"budget.values={_budgets(stages[key])}" if len(cells) < len(keys) else ""
                found[key] = " ".join(part for part in (words, text, walked) if part)
    return found


def _place(point: Point) -> tuple[Any, ...]:
    return tuple(point.meta.get(name) for name in ("method", "preset", "model", "data"))


def _fewest_words(
    members: Iterable[tuple[Point, str, Stage]], settings: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The words of every member by its key: the fewest that a member with the same settings has."""
    alike: dict[tuple[Any, ...], dict[str, str]] = {}
    for point, words, stage in members:
        alike.setdefault((*_place(point), frozenset(settings[stage.key].items())), {})[stage.key] = words
    found: dict[str, str] = {}
    for same in alike.values():
        fewest = min(same.values(), key=lambda words: (len(words.split()), words))
        found |= dict.fromkeys(same, fewest)
    return found


def _is_told(word: str, point: Point) -> bool:
    """Whether the columns of a point's rows tell of a word, or no result depends on it."""
    word = word.lstrip("+~")
    field, _, value = word.partition("=")
    if field == "pipeline":
        return value == point.meta.get("method")
    return field in _OWN_COLUMNS or field.split(".")[0] == "budget" or word.startswith(UNNAMED_WORDS)


def _settings(stage: Stage, flat: Callable[[Stage], Mapping[str, str]]) -> dict[str, str]:
    """The settings of a stage and of all that it came from; where two stages differ, the later one's counts."""
    found: dict[str, str] = {}
    for parent in stage.inputs.values():
        found |= _settings(parent, flat)
    return {**found, **flat(stage)}


def _of_points(settings: Mapping[str, Mapping[str, str]], point_of: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The settings of every member's point: one that its members do not share has all their values, as in 9/7/5."""
    points: dict[int, list[Mapping[str, str]]] = {}
    for key, values in settings.items():
        points.setdefault(point_of[key], []).append(values)
    joined = {
        point: {
            name: "/".join(dict.fromkeys(values.get(name, "null") for values in members))
            for name in {name for values in members for name in values}
        }
        for point, members in points.items()
    }
    return {key: joined[point_of[key]] for key in settings}


def _flat(stage: Stage) -> dict[str, str]:
    """Settings by name: those of the recipe as one overrides them, such as prune.epochs."""
    found = {f"{stage.kind}.version": str(stage.version)}
    for field, value in leaves(stage.config):
        first, _, rest = field.partition(".")
        if first not in ("seed", "budget") and value is not None:
            found[f"{stage.kind}.{rest}" if first == "recipe" else field] = str(value)
    return found


def leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of a nested config by their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{field}", leaf) for field, leaf in leaves(value))
        else:
            yield name, value


def differences(settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By key the settings that not all have, as words; a few and a number where there are many."""
    shared = set.intersection(*(set(values.items()) for values in settings.values()))
    names = sorted({name for values in settings.values() for name, value in values.items()} - dict(shared).keys())
    return {key: _words([f"{name}={values.get(name, 'null')}" for name in names]) for key, values in settings.items()}


def _words(words: Sequence[str]) -> str:
    if len(words) <= MOST_SETTINGS:
        return " ".join(words)
    name = hashlib.sha256(" ".join(words).encode()).hexdigest()[:4]
    return f"{' '.join(words[: MOST_SETTINGS - 1])} and {len(words) - MOST_SETTINGS + 1} more ({name})"


def _budgets(stage: Stage) -> str:
    budget = stage.inputs["family"].config.get("budget", {})
    return f"[{','.join(map(str, budget.get('values', [budget.get('value')])))}]"
