"""The user's words before Hydra reads them, and what is said about those that it cannot use."""

import difflib
import re
import shlex
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from spp.cli.cached_composer import Composer
from spp.cli.store_place import is_quoted, typed_path

_BUDGET_SHORTHAND = re.compile(r"^budget=(\w+):(.+)$", re.DOTALL)
# Open dictionaries: whatever is written replaces them as a whole, and new entries need no plus.
_OPEN = r"(?:(?:model|teacher|data|task)\.kwargs|\w+\.augment|cluster\.resources(?:\.\w+)?)"
_OPEN_WHOLE = re.compile(rf"^({_OPEN})=(\{{.*\}})$", re.DOTALL)
_OPEN_ENTRY = re.compile(rf"^{_OPEN}\.\w+=")
_STEPS = re.compile(r"^\+{0,2}(update|search)\.steps=(?!null$)")
_FACTORY = re.compile(r"^\+{0,2}(model|data)\.factory=")
_DATA = re.compile(r"^data=(\w+)$")
_TASKS = {
    **dict.fromkeys(("digit_scenes", "openmoji", "coco", "flickr30k", "captions"), "retrieval"),
    "stsb": "regression",
}
"""What data are for that no other task can use; of others the task is classification unless the user says it."""
_PATH = re.compile(r"^(\+{0,2}(?:paths\.store|paths\.data|data\.root|model\.weights))=(.+)$", re.DOTALL)
_TEXT = re.compile(r"^\+{0,2}(name|note)=(.+)$", re.DOTALL)
MAX_POINTS = 100_000
"""Of a sweep; a plan of so many takes minutes."""
_SEARCH_PATH = re.compile(r"^\+{0,2}hydra\.searchpath=(.*)$", re.DOTALL)


def expand(words: Sequence[str], multirun: bool = False) -> list[str]:
    """Write out what is short for several words.

    `budget=macs:[0.5]` is a group and its values; a factory of one's own implies the group `own`, data that are for one
    task imply that; steps of a search stand in place of its epochs; a dictionary that is replaced or gets a new entry
    needs more than one word of Hydra's; a path, a name and a note are taken as they are typed, whatever their letters
    mean to Hydra, but for choices where they are asked for (`multirun`).
    """
    expanded: list[str] = []
    for word in (_as_typed(word, multirun) for word in words):
        if match := _BUDGET_SHORTHAND.match(word):
            expanded += [f"budget={match[1]}", f"budget.values={match[2]}"]
        elif match := _OPEN_WHOLE.match(word):
            expanded += [f"~{match[1]}", f"+{match[1]}={match[2]}"]
        elif _OPEN_ENTRY.match(word):
            expanded.append(f"++{word}")
        else:
            expanded.append(word)
    groups = dict.fromkeys(match[1] for word in words if (match := _FACTORY.match(word)))
    implied = [f"{group}=own" for group in groups if not any(word.startswith(f"{group}=") for word in words)]
    named = next((match[1] for word in words if (match := _DATA.match(word))), None)
    if named in _TASKS and not any(word.startswith("task") for word in words):
        implied.append(f"task={_TASKS[named]}")
    by_steps = dict.fromkeys(match[1] for word in words if (match := _STEPS.match(word)))
    given = {word.lstrip("+").partition("=")[0] for word in words}
    expanded += [f"{recipe}.epochs=0" for recipe in by_steps if f"{recipe}.epochs" not in given]
    return [*implied, *expanded]


def _as_typed(word: str, multirun: bool) -> str:
    """The word, with its value in quotes where Hydra would take it for something else than this path or text."""
    if match := _TEXT.match(word):
        # What people write there has commas and colons, and is never a choice.
        return word if is_quoted(match[2]) or match[2] == "null" else f"{match[1]}={_quoted(match[2])}"
    match = _PATH.match(word)
    if match is None or "${" in match[2]:
        return word
    name, text = match.groups()
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
        is_choice = override.is_sweep_override() and multirun
        is_same = is_choice or is_quoted(text) or override.value() in (text, None)
    except HydraException:
        is_same = False
    path = typed_path(text)
    return word if is_same and not text.startswith("~") else f"{name}={_quoted(path)}"


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def shell_word(name: str, text: str) -> str:
    """What to paste into a shell so that a field gets exactly this text."""
    return shlex.quote(f"{name}={QuotedString(text, Quote.double).with_quotes()}")


def split_search_path(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without hydra.searchpath=[...], and the folders that it names.

    Raises:
        ValueError: one line, if it is no list of folders.
    """
    folders: list[str] = []
    for word in words:
        if match := _SEARCH_PATH.match(word):
            try:
                (override,) = OverridesParser.create().parse_overrides([word])
                value = override.value()
            except HydraException:
                value = None
            if not isinstance(value, list) or not all(isinstance(folder, str) for folder in value):
                raise ValueError(
                    f"hydra.searchpath: {match[1]!r} is not allowed; allowed: a list of folders, as in [DIR,DIR]; "
                    "use --config-dir DIR"
                )
            folders += value
    return [word for word in words if not _SEARCH_PATH.match(word)], folders


def parse_word(composer: Composer, word: str) -> Override:
    """What a word means to Hydra.

    Raises:
        ValueError: one line for a word that breaks Hydra's grammar.
    """
    try:
        return composer.parse(word)
    except HydraException as error:
        reason = " ".join(str(error).split("See https")[0].split())
        name, equals, text = word.partition("=")
        remedy = f"close its brackets, or type {shell_word(name, text)} if it is a text" if equals else "add =value"
        raise ValueError(f"{word}: {reason}; allowed: field=value in Hydra's syntax; {remedy}") from None


def check_num_points(overrides: Sequence[Override]) -> None:
    """Refuse ranges that span more points than anybody can run, before they are written out.

    Raises:
        ValueError: one line.
    """
    ranges = [override for override in overrides if override.is_range_sweep()]
    num_points = 1.0
    for override in ranges:
        span: Any = override.value()
        num_points *= max(1.0, (span.stop - span.start) / span.step) if span.step else 1.0
    if num_points > MAX_POINTS:
        swept = " ".join(f"{override.get_key_element()}={override.get_value_string()}" for override in ranges)
        raise ValueError(
            f"{swept}: {num_points:.0f} points are too many; allowed: up to {MAX_POINTS}; give a shorter range"
        )


def one_line(error: Exception, overrides: Sequence[str], composer: Composer, base: DictConfig | None = None) -> str:
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
        if group == "recipe" and not any(word.lstrip("+").startswith("recipe=") for word in overrides):
            remedy = f"it goes with data={choice}: name another, or write recipe/{choice}.yaml"
        return f"{group}: {choice!r} does not exist; allowed: {', '.join(options) or 'none yet'}; {remedy}"
    for override in overrides:
        field = override.lstrip("+~").split("=")[0]
        if f"'{field}'" in lines[0] or f"'{field.split('.')[-1]}'" in lines[0]:
            return _unknown_field(override, field, base or composer.defaults())
    guilty = next((word for word in overrides if word in text), "configuration")
    return f"{guilty}: {' '.join(lines) or type(error).__name__}; allowed: what conf/ defines; see `spp run --help`"


def _unknown_field(override: str, field: str, base: DictConfig) -> str:
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
