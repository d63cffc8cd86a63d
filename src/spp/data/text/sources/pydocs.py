"""The help texts that ship with Python (`help("for")` and the like): some 0.7 million letters on any machine.

They differ a little from version to version of Python, which the fingerprint tells.
"""

from pydoc_data.topics import topics

from spp.data.text.source import SplitName, Text

HELD_OUT = 10
"""Every so many topics one is of the test split, and the one after it of the validation split."""


def open_text(root: str | None) -> Text:
    """The topics in alphabetical order; `root` is not needed."""
    return Text(_pieces)


def _pieces(split: SplitName) -> list[str]:
    places = {"test": (0,), "validation": (1,), "train": range(2, HELD_OUT)}[split]
    return [topics[name] for place, name in enumerate(sorted(topics)) if place % HELD_OUT in places]
