"""Which store a command works on."""

import os
from collections.abc import Sequence
from pathlib import Path


def store_root(words: Sequence[str]) -> Path:
    """The store that `words` or the environment name."""
    for word in words:
        if word.startswith("paths.store="):
            return Path(word.partition("=")[2])
    return Path(os.environ.get("SPP_STORE", "store"))
