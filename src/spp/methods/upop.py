"""UPop (ICML 2023): prune where the accumulated signed mask gradient is largest, and let the pruned masks decay.

As released: one mask vector for the queries, keys and values of an attention (so that scores see its square), one for
the MLP; the weights train, the masks are set by a rule. Gradients of the masks are summed over all steps, standardised
over all attentions and over all MLPs apart, and sorted together; units with the largest sums (along which a smaller
mask lowers the loss) are pruned up to a share p sin(pi (t+1) / 2T) of the total cost at step t, and have the mask
1 - sin(pi (t+1) / 2T); the choice is made anew at every update. Each module keeps its best unit.

Mended: the constant 12 that an attention unit weighs (right for DeiT-S alone) is the unit's real price in the budget's
kind, and the query-key-value bias is cut along with its rows; the released compaction loses the bias of every attention
and trains on from a fresh one, uniform in +-1/sqrt(d) for d inputs. `released_quirks=true` brings back both. Left out:
the L1 terms, which cannot change the choice.

Ours: the masks sit behind the activation of the MLP, not before it; p follows from the budget to be achieved, and the
last choice fills it; with `tied=false` the query-key and the value channels are pruned apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spp.config import Config, require

if TYPE_CHECKING:
    from torch import nn

    from spp.dynamics.budget import Budget
    from spp.methods._search import BudgetSearch
    from spp.structure.masked import MaskedModel


@dataclass(frozen=True, kw_only=True)
class UPopConfig(Config):
    """Settings of the search."""

    name: str = "upop"
    """Name of the method."""
    interval: int | None = None
    """Steps between two choices of the pruned units; null: as many as one percent of pruned cost takes on average."""
    tied: bool = True
    """One unit is a channel of queries, keys and values at once; false: query-key and value channels apart."""
    min_units: int = 1
    """Units that every module keeps at least."""
    released_quirks: bool = False
    """An attention unit weighs 12 MLP units, whatever the model; query-key-value biases are drawn anew in the end."""

    def __post_init__(self) -> None:
        require(
            self.interval is None or self.interval >= 1,
            "interval",
            self.interval,
            "a positive whole number, or null",
            "use null",
        )
        require(self.min_units >= 0, "min_units", self.min_units, "0 or more", "use 1")

    def search(self) -> dict[str, Any]:
        """The settings that shape the search."""
        return self.plain()


METHOD_CONFIG = UPopConfig


def build_search(config: UPopConfig, masked: "MaskedModel", num_steps: int, budget: "Budget") -> "BudgetSearch":
    """The search for one budget.

    Raises:
        ValueError: the budget cannot be reached, or the units cannot be tied.
    """
    from spp.methods._upop import UPopSearch

    return UPopSearch(config, masked, num_steps, budget)


def finish_member(config: UPopConfig, small: "nn.Module", seed: int) -> dict[str, Any]:
    """The released loss of biases, where asked for; see `registry.finish_member`."""
    if config.released_quirks:
        from spp.methods._upop import draw_biases_anew

        draw_biases_anew(small, seed)
    return {}
