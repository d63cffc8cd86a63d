"""What sets members apart beside the columns of their rows: words of the user, else settings that no word tells of."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from spp.plan.graph import Point
from spp.plan.spec import Stage
from spp.record.lineage import Lineage
from spp.record.settings import Settings, SettingsReader, differing_settings

PLACE_WORDS = (
    "paths.store=", "store.", "cluster", "logger", "num_workers=", "num_threads=", "accelerator=",
    "name=", "tags=", "note=",
)  # fmt: skip
"""How words begin that say where and how something runs and what people call it, not what it is."""

UNNAMED_WORDS = (*PLACE_WORDS, "paths.")
"""How words begin that neither the name of a point nor a variant has: also those that say where its inputs are."""

_COLUMN_WORDS = ("seed", "task", "method", "method.preset", "model", "model.name", "data")
"""Fields that a row tells of in a column of its own; so it does of those of the budget, and of the pipeline that goes
with the method."""


class PlannedMember(NamedTuple):
    """A member of a sweep: its point, what the words of the point tell (`variants_of_points`), and what measures it."""

    point: Point
    words: str
    stage: Stage


def variants_of_points(points: Mapping[str, Point]) -> dict[str, str]:
    """What distinguishes each point by its words: those that not all have, sorted; names as given."""
    common = set.intersection(*(set(point.overrides) for point in points.values())) if points else set()
    return {
        name: " ".join(sorted(word for word in point.overrides if word not in common and not _has_column(word, point)))
        for name, point in points.items()
    }


def _has_column(word: str, point: Point) -> bool:
    """Whether the columns of a point's rows tell of a word, or no result depends on it."""
    word = word.lstrip("+~")
    field, _, value = word.partition("=")
    if field == "pipeline":
        return value == point.meta.get("method")
    return field in _COLUMN_WORDS or field.split(".")[0] == "budget" or word.startswith(UNNAMED_WORDS)


def variants_of_members(members: Iterable[PlannedMember]) -> dict[str, str]:
    """The variant of every member, each given once, by the key of its stage.

    1. Members with the same settings have the same words: the fewest that one of them was asked for with, as some say
       what is the default anyway.
    2. Members with the same words and different settings, as of two sweeps between which a default or a stage's version
       has changed, get the settings in which they differ. Seeds and budgets are no settings.
    3. Where a seed then still has a budget twice, the list of budgets that was walked tells its members apart.
    """
    members = list(members)
    settings = _settings_of_points(members)
    words = _fewest_words(members, settings)
    same_words: dict[Hashable, list[PlannedMember]] = {}
    for member in members:
        same_words.setdefault((*_columns(member), words[member.stage.key]), []).append(member)
    variants: dict[str, str] = {}
    for group in same_words.values():
        for key, added in _added_settings(group, settings).items():
            variants[key] = " ".join(part for part in (words[key], added) if part)
    return variants


def _columns(member: PlannedMember) -> tuple[Hashable, ...]:
    """What the columns of a member's row tell of it, but for its seed and budget."""
    names = ("method", "preset", "model", "data")
    return (Lineage.of(member.stage).task, *(member.point.meta.get(name) for name in names))


def _settings_of_points(members: Iterable[PlannedMember]) -> dict[str, Settings]:
    """By member the settings of its point: one that the point's members do not share has all their values, as in 9/7/5.

    What follows from the budget is thus no difference between the members of a point.
    """
    reader = SettingsReader()
    of_point: dict[int, dict[str, Settings]] = {}
    for member in members:
        of_point.setdefault(id(member.point), {})[member.stage.key] = reader.with_inputs(member.stage)
    found: dict[str, Settings] = {}
    for by_key in of_point.values():
        names = dict.fromkeys(name for settings in by_key.values() for name in settings)
        joined = {
            name: "/".join(dict.fromkeys(settings.get(name, "null") for settings in by_key.values())) for name in names
        }
        found |= dict.fromkeys(by_key, joined)
    return found


def _fewest_words(members: Iterable[PlannedMember], settings: Mapping[str, Settings]) -> dict[str, str]:
    """By member the fewest words that a member with the same settings was asked for with."""
    words_of_equals: dict[Hashable, dict[str, str]] = {}
    for member in members:
        key = member.stage.key
        equals = (*_columns(member), frozenset(settings[key].items()))
        words_of_equals.setdefault(equals, {})[key] = member.words
    found: dict[str, str] = {}
    for words in words_of_equals.values():
        found |= dict.fromkeys(words, min(words.values(), key=lambda text: (len(text.split()), text)))
    return found


def _added_settings(members: Sequence[PlannedMember], settings: Mapping[str, Settings]) -> dict[str, str]:
    """What tells members with the same words apart: settings, and the budgets that were walked where these do not."""
    differing = differing_settings({member.stage.key: settings[member.stage.key] for member in members})
    same_settings: dict[str, list[PlannedMember]] = {}
    for member in members:
        same_settings.setdefault(differing[member.stage.key], []).append(member)
    found: dict[str, str] = {}
    for text, group in same_settings.items():
        repeats_budget = len({_seed_and_budget(member.stage) for member in group}) < len(group)
        for member in group:
            walked = f"budget.values={_walked_budgets(member.stage)}" if repeats_budget else ""
            found[member.stage.key] = " ".join(part for part in (text, walked) if part)
    return found


def _seed_and_budget(stage: Stage) -> tuple[Hashable, ...]:
    return Lineage.of(stage).member.config.get("seed"), str(stage.config["budget"])


def _walked_budgets(stage: Stage) -> str:
    budget = Lineage.of(stage).family.config.get("budget", {})
    return f"[{','.join(map(str, budget.get('values', [budget.get('value')])))}]"
