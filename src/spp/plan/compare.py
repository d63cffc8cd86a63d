"""What makes two stages different ones: the fields in which they and their inputs differ, in the words of a user."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Spec = Mapping[str, Any]
"""A stage as spec.json holds it (`Stage.to_json`)."""

SpecOf = Callable[[str, str], Spec | None]
"""The spec of (kind, key); None where nobody knows it any more."""

NOT_SET = "not set"
"""Stands for the value of a field that only the other stage has."""

_WORDS = {"measure.recipe": "finetune", "budget.value": "budget.values"}
"""Fields that a user sets elsewhere: measuring has the batches of the finetuning, a member one of the budgets."""


@dataclass(frozen=True)
class Difference:
    """One field with its two values; `stages` are the kinds of those that have it, the stage asked about first."""

    field: str
    left: Any
    right: Any
    stages: tuple[str, ...]


def differences(left: Spec, right: Spec, spec_of: SpecOf) -> list[Difference]:
    """The fields in which two stages differ, their own first, then those of their inputs.

    A field that several of the stages share, such as the seed, is there once.
    """
    found: dict[tuple[str, str, str], Difference] = {}
    for kind, field, one, other in _walk(left, right, spec_of, set()):
        word = _word(kind, field)
        name = (word, repr(one), repr(other))
        known = found.get(name)
        stages = (kind,) if known is None else tuple(dict.fromkeys((*known.stages, kind)))
        found[name] = Difference(word, one, other, stages)
    return list(found.values())


def _walk(left: Spec, right: Spec, spec_of: SpecOf, seen: set[tuple[str, str]]) -> Iterator[tuple[str, str, Any, Any]]:
    """Kind of the stage, field and the two values, for the pair and then for their inputs."""
    pair = (left["key"], right["key"])
    if left["key"] == right["key"] or pair in seen:
        return
    seen.add(pair)
    kind = left["kind"]
    for name in ("kind", "version"):
        if left[name] != right[name]:
            yield kind, name, left[name], right[name]
    ours, theirs = flat(left["config"]), flat(right["config"])
    for field in dict.fromkeys((*ours, *theirs)):
        one, other = ours.get(field, NOT_SET), theirs.get(field, NOT_SET)
        if one != other:
            yield kind, field, one, other
    for role in dict.fromkeys((*left["inputs"], *right["inputs"])):
        one, other = left["inputs"].get(role), right["inputs"].get(role)
        if one is None or other is None:
            yield kind, f"inputs.{role}", *(NOT_SET if ref is None else _address(ref) for ref in (one, other))
            continue
        specs = (spec_of(one["kind"], one["key"]), spec_of(other["kind"], other["key"]))
        if one["key"] == other["key"]:
            continue
        if specs[0] is None or specs[1] is None:
            yield kind, f"inputs.{role}", _address(one), _address(other)
        else:
            yield from _walk(specs[0], specs[1], spec_of, seen)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value; an empty dictionary is a value."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _word(kind: str, field: str) -> str:
    """The field as it is set on the command line: finetune.lr for the recipe.lr of a finetune stage."""
    group, _, rest = field.partition(".")
    if group == "recipe":
        return f"{_WORDS.get(f'{kind}.recipe', kind)}.{rest}"
    return _WORDS.get(field, field)


def _address(ref: Mapping[str, str]) -> str:
    return f"{ref['kind']} {ref['key']}"
