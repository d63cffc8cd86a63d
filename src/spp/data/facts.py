"""What networks and tasks must know of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The form of a data set's samples.

    Attributes:
        name: of the data set.
        samples: what its samples are called, in the plural.
        inputs: arguments that a network's constructor needs for them: of images img_size and in_chans.
        num_classes: number of classes; None where samples have none.
        class_names: their names, where they are known.
        are_texts: whether samples are tokens of texts, to which no noise can be added.
        parts: of the test set, those that are measured by themselves; the first is what the headline is of.
        preprocessing: how raw samples become inputs, for those who use a network elsewhere; empty where unknown.
    """

    name: str
    samples: str = "samples"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    are_texts: bool = False
    parts: tuple[str, ...] = ("",)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
