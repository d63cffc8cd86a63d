"""A pair: two maps with a shared inner dimension, whose entries are the units (paper, Section 3.1)."""

from dataclasses import dataclass

from spp.structure.cost import Cost


@dataclass(frozen=True)
class Pair:
    """One mask vector of a model.

    Attributes:
        name: `<module>.qk`, `<module>.vo`, or for an MLP the module: "blocks.0.attn.qk", "blocks.0.mlp".
        kind: "qk" (query-key), "vo" (value-projection) or "mlp" (fc1-fc2).
        size: number of units. Attention: the width of one head, a unit being that channel of every head; with
            `per_head` num_heads times that, head after head. MLP: the hidden width.
        params_per_unit: weights and biases that leave with one unit.
        macs_per_unit: multiply-adds per sample that leave with one unit, at the model's own input size. Both
            prices are additive over all pairs of a model, as long as no head leaves; see `spp.dynamics.budget`.
        num_heads: heads of the attention, 1 for an MLP.
        per_head: whether the heads choose their units independently.
        module: dotted name of the attention or MLP module; a pair made by hand need not know it.
        model_cost: cost of the whole model that the pair was found in; None for a pair made by hand.
        params_per_head: of a "vo" pair, the parameters that leave with one head beside its units: its column of
            a relative position bias. A head leaves when all its "vo" units have.
    """

    name: str
    kind: str
    size: int
    params_per_unit: int | float
    macs_per_unit: float
    num_heads: int = 1
    per_head: bool = False
    module: str = ""
    model_cost: Cost | None = None
    params_per_head: int | float = 0

    @property
    def owner(self) -> str:
        """What the "qk" and the "vo" pair of one attention have in common: the name without the kind."""
        return self.name.removesuffix(f".{self.kind}")
