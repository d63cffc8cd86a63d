"""Which store a command works on, and what a path means that a user types as the value of a field."""

import os
from collections.abc import Sequence
from pathlib import Path

STORE_FIELD = "paths.store"


def store_root(words: Sequence[str]) -> Path:
    """The store that `words` or the environment name."""
    for word in words:
        if word.startswith(f"{STORE_FIELD}="):
            return Path(typed_path(word.partition("=")[2]))
    return Path(os.environ.get("SPP_STORE", "store"))


def typed_path(text: str) -> str:
    """The path that `text` means: without the quotes that Hydra wants around some values, and with ~/ as the home."""
    if is_quoted(text):
        quote = text[0]
        text = text[1:-1].replace(f"\\{quote}", quote)
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def is_quoted(text: str) -> bool:
    """Whether Hydra takes the text for a quoted string."""
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
