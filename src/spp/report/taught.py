"""Whether the members of a comparison have learned from a teacher alike; what one of them alone learned is said."""

from collections.abc import Iterable, Mapping
from typing import Any

from spp.record.rows import Row

_WEIGHTS_TRAIN = {"before the cut": ("search", "prune"), "after it": ("finetune",)}
"""Kinds of stages in which weights train, by when they do."""


def unequal_teaching(rows: Mapping[str, Iterable[Row]]) -> tuple[str, ...]:
    """One sentence for each time of training at which not all were taught alike; none where all were.

    Args:
        rows: members by what they are called.
    """
    sentences = []
    for when, kinds in _WEIGHTS_TRAIN.items():
        names: dict[str, list[str]] = {}
        for name, members in rows.items():
            for word in dict.fromkeys(word for row in members for word in _words(row, kinds)):
                names.setdefault(word, []).append(name)
        if len(names) > 1:
            told = "; ".join(f"{', '.join(of)}: {word}" for word, of in names.items())
            sentences.append(f"Not taught alike in the training {when}. {told}.")
    return tuple(sentences)


def _words(row: Row, kinds: Iterable[str]) -> list[str]:
    recipes: Mapping[str, Mapping[str, Any]] = row.get("recipes", {})
    trained = [recipes[kind] for kind in kinds if kind in recipes]
    return [_word(recipe) for recipe in trained if recipe.get("epochs") or recipe.get("steps")]


def _word(recipe: Mapping[str, Any]) -> str:
    weight = recipe.get("distill_weight", 0)
    if not weight:
        return "no teacher"
    teacher = recipe.get("teacher")
    name = "the dense network" if teacher is None else ".".join(filter(None, (teacher["name"], teacher.get("tag"))))
    is_hard = recipe.get("distill_kind") == "hard"
    outputs = "its decision" if is_hard else f"its outputs at temperature {recipe.get('distill_temperature', 1):g}"
    further = {"distill_hidden": "its hidden states", "distill_attention": "its attention weights"}
    parts = [f"{what} by {recipe[field]:g}" for field, what in further.items() if recipe.get(field)]
    return ", ".join([name, f"weight {weight:g}", outputs, *parts])
