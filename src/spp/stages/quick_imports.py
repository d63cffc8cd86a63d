"""Imports without the garbage collector, which otherwise spends a third of the time that they take."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import in here what is large.

    Modules come to stay: while they do, the collector goes again and again through a million objects, and finds nothing
    to free.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
