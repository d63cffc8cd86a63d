"""Footnotes: what differs from the paper, one letter for each sentence."""

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_letters
from typing import Any

from spp.record.rows import Row
from spp.record.settings import leaves
from spp.report.published import Published


class Footnotes:
    """Hands out letters: equal sentences have one."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def marks(self, sentences: Iterable[str]) -> str:
        """The letters of the sentences, for `Cell.marks`; "*" once the alphabet is used up."""
        letters = []
        for sentence in sentences:
            if sentence not in self._letters:
                number = len(self._letters)
                self._letters[sentence] = ascii_letters[number] if number < len(ascii_letters) else "*"
            letters.append(self._letters[sentence])
        return "".join(dict.fromkeys(sorted(letters)))

    def legend(self) -> tuple[str, ...]:
        """One line for each letter: "a: finetuned 6 epochs, the paper 300"."""
        return tuple(f"{letter}: {sentence}." for sentence, letter in self._letters.items())


def differences(rows: Sequence[Row], published: Published) -> list[str]:
    """In what members that differ by their seed alone differ from the paper's recipe; nothing for a model it has not.

    Table 6 is SPP's; of other methods the rebuttal tells the epochs. All else in the recipes is compared with the code
    that the method's authors have released, field by field as far as it is known.
    """
    row = rows[0]
    recipe = published.recipe(row["model"])
    if recipe is None:
        return []
    setting = published.setting
    pairs: list[tuple[str, object, object]] = [("data {}", row["data"], recipe.data)]
    if recipe.data == setting.data:
        pairs += [
            ("images of {} pixels", row["data_config"].get("img_size"), setting.img_size),
            ("{} training images", row["num_train"], setting.num_train_images),
        ]
    if row["method"] == "spp":
        pairs += [
            ("update of {} epochs", row["epochs_update"], recipe.update_epochs),
            ("prune stage of {} epochs", row["epochs_prune"], recipe.prune_epochs),
            ("finetuned {} epochs", row["epochs_finetune"], recipe.finetune_epochs),
            ("batch size {}", row["batch_size"], recipe.batch_size),
            ("learning rate {:g}", row["lr"], recipe.lr),
        ]
    elif recipe.data == setting.data:
        for search in published.searches:
            if search.method == row["method"]:
                pairs.append(("searched {} epochs", row["epochs_search"], search.search_epochs))
                pairs.append(("finetuned {} epochs", row["epochs_finetune"], search.finetune_epochs))
    of_paper = [
        f"{text.format(ours)}, the paper {_value(theirs)}"
        for text, ours, theirs in pairs
        if ours is not None and ours != theirs
    ]
    released = published.released_recipes(row["method"]) if recipe.data == setting.data else {}
    return of_paper + _differences_from_code(row.get("recipes", {}), released)


def _differences_from_code(
    ours: Mapping[str, Mapping[str, Any]], released: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """One sentence for each stage whose recipe differs from the released one."""
    sentences = []
    for kind in (kind for kind in released if kind in ours):
        own = dict(leaves(ours[kind]))
        unlike = {name: theirs for name, theirs in leaves(released[kind]) if own.get(name) != theirs}
        if unlike:
            here = ", ".join(f"{kind}.{name}={_word(own.get(name))}" for name in unlike)
            there = ", ".join(_word(theirs) for theirs in unlike.values())
            sentences.append(f"{here}, the released code {there}")
    return sentences


def _word(value: object) -> str:
    """A value as one overrides it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else _value(value)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
