"""What is known of a member beside its network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spp.deploy.card import MeasuredValue
from spp.structure.cost import Cost


@dataclass(frozen=True, kw_only=True)
class MemberFacts:
    """What is known of a member beside its network.

    Attributes:
        class_names: in the order of the outputs; None where they are not known.
        preprocessing: how images become inputs, in timm's words (input_size, mean, std, interpolation, crop_pct).
        factory: my.module:make_model where the dense network is one's own; None for timm's.
        factory_kwargs: its arguments.
        factory_folder: where its file lies, if Python does not know; the written folder does not say it.
        licence: of the weights that it was cut from, where known.
        dense: cost of the network that it was cut from, where known.
        measured: what it was measured to do, for the card.
        origin: further entries of origin.json: keys of stages, the command, the budget, whose weights.
        tokenizer_files: what makes tokens of texts, by name of the file.
    """

    class_names: Sequence[str] | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    factory: str | None = None
    factory_kwargs: Mapping[str, Any] = field(default_factory=dict)
    factory_folder: str | None = None
    licence: str | None = None
    dense: Cost | None = None
    measured: Sequence[MeasuredValue] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)
