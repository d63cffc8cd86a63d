"""Which store a command works on, and what a path means that a user types as the value of a field."""

import os
from collections.abc import Sequence
from pathlib import Path

from spp.store.trust import TRUST

TRUST_WORD = "store.trust="
STORE_FIELD = "paths.store"


def store_root(words: Sequence[str]) -> Path:
    """The store that `words` or the environment name."""
    for word in words:
        if word.startswith(f"{STORE_FIELD}="):
            return Path(typed_path(word.partition("=")[2]))
    return Path(os.environ.get("SPP_STORE", "store"))


def trusted(words: Sequence[str]) -> str:
    """Whose files of the store may run, by `words` or the environment: the user's own, or also those of a group.

    Raises:
        ValueError: one line, for what is neither.
    """
    told = [word.removeprefix(TRUST_WORD) for word in words if word.startswith(TRUST_WORD)]
    return check_trust(told[-1] if told else os.environ.get("SPP_STORE_TRUST", "user"))


def check_trust(value: object) -> str:
    """`value`, if it is a value of store.trust. Raises ValueError, in one line, if it is not."""
    if value not in TRUST:
        raise ValueError(f"store.trust: {value!r} is not allowed; allowed: {', '.join(TRUST)}; use user")
    return str(value)


def typed_path(text: str) -> str:
    """The path that `text` means: without the quotes that Hydra wants around some values, and with ~/ as the home."""
    if is_quoted(text):
        quote = text[0]
        text = text[1:-1].replace(f"\\{quote}", quote)
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def is_quoted(text: str) -> bool:
    """Whether Hydra takes the text for a quoted string."""
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
