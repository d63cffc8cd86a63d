"""UPop (ICML 2023): prune where the accumulated signed mask gradient is largest, and let the pruned masks decay.

As released: one mask vector for the queries, keys and values of an attention (so that scores see its square), one for
the MLP; the weights train, the masks are set by a rule. Gradients of the masks are summed over all steps, standardised
over all attentions and over all MLPs apart, and sorted together; units with the largest sums (along which a smaller
mask lowers the loss) are pruned up to a share p sin(pi (t+1) / 2T) of the total cost at step t, and have the mask
1 - sin(pi (t+1) / 2T); the choice is made anew at every update. Each module keeps its best unit.

Mended: the constant 12 that an attention unit weighs (right for DeiT-S alone) is the unit's real price in the budget's
kind, and the query-key-value bias is cut along with its rows; the released compaction loses the bias of every attention
and trains on from a fresh one, uniform in +-1/sqrt(d) for d inputs. `released_quirks=true` brings back both, and the
released place of the MLP's masks. Left out: the L1 terms, which cannot change the choice.

Ours: the masks sit behind the activation of the MLP, not before it, which for the decaying masks between 0 and 1 is
another function (those of queries, keys and values multiply the same either way); p follows from the budget to be
achieved, and the last choice fills it; with `tied=false` the query-key and the value channels are pruned apart.
"""

from dataclasses import dataclass
from typing import ClassVar

from spp.config import require
from spp.methods.method import MethodConfig


@dataclass(frozen=True, kw_only=True)
class UPopConfig(MethodConfig):
    """Settings of the search."""

    kinds: ClassVar[tuple[str, ...]] = ("budget",)

    name: str = "upop"
    interval: int | None = None
    """Steps between two choices of the pruned units; null: as many as one percent of pruned cost takes on average."""
    tied: bool = True
    """One unit is a channel of queries, keys and values at once; false: query-key and value channels apart."""
    min_units: int = 1
    """Units that every module keeps at least."""
    released_quirks: bool = False
    """An attention unit weighs 12 MLP units, whatever the model; query-key-value biases are drawn anew in the end; the
    masks of an MLP multiply before its activation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.interval is None or self.interval >= 1,
            "interval",
            self.interval,
            "a positive whole number, or null",
            "use null",
        )

    @property
    def masks_first_maps(self) -> bool:
        return self.released_quirks

    @property
    def num_revisions(self) -> int:
        # The place of the masks.
        return int(self.released_quirks)


CONFIG = UPopConfig
