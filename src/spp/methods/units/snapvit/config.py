"""SnapViT (2025): squared gradients of a self-supervised loss score the units, an evolution strategy weighs the scores.

As released (WalterSimoncini/SnapViT, commit 2ed5f79): of each of 1,000 training images, without labels, 2 global crops
(of .25 to 1 of its area) and 10 local ones (.05 to .25), all at the full size. A frozen copy of the network is the
teacher; embeddings (before the classifier) have length 1, and the loss is the sum of -softmax(t) log softmax(s) over
the 22 pairs of a global crop t and another crop s. Gradients add up over all images. An MLP unit scores the mean of
the squared sum over its row of fc1, a head that over its rows of W_v. Every block's MLP and every head has a factor, at
first falling from 1.2 to .8 with depth; xNES (Glasmachers et al. 2010) looks at 50 choices, takes their absolute
values, and keeps the one that is best by the mean over four pruned networks of 1 - cosine to the dense embeddings, in
their first 192 principal components. These have lost .15, .35, .55, .65 of the MLP units and 0, .2, .4, .5 of the
heads, each by a list over all blocks, in which the best twentieth of a block's MLP units and fifth of its heads stay.

Mended: each crop has a box of its own. The released transforms see the copies of an image as one batch and draw one box
for it: the two global crops of an image are the same, and so are the ten local ones. A unit without a gradient stays if
the budget pays for it; the released code takes every score of 0 for a unit that is pruned. `released_quirks=true`
brings back both.

Ours: one budget in the place of two ratios, by equal shares of heads and MLP units, by one list, or along the pairs of
ratios that the released scripts end in (`scope`). The crops are cut out of what the recipe hands over
(`search.augment`). With `views=noise`, for images too small for crops, each view is the image with noise. The evolution
looks at the images that the gradients came from, not at the test set. The weights of a member are cut, and repaired by
`repair` as those of every method; `repair=snapvit_prune` and `repair=snapvit_inference` are the released repairs, a
sweep of SparseGPT over the columns of proj and fc2 (sweeps.py).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from spp.config import require
from spp.methods.method import SearchCost
from spp.methods.ranking import RankingConfig

VIEWS = ("crops", "noise")
NUM_GLOBAL, NUM_LOCAL = 2, 10
"""Crops of every image."""
RATIOS = ((0.15, 0.0), (0.35, 0.2), (0.55, 0.4), (0.65, 0.5))
"""MLP units and heads that the networks have lost which the evolution looks at (jobs/ga/dino.sh)."""


@dataclass(frozen=True, kw_only=True)
class SnapViTConfig(RankingConfig):
    """Settings of the search and of the selection."""

    trains_weights: ClassVar[bool] = False
    max_search_epochs: ClassVar[int | None] = 1
    has_own_floors: ClassVar[bool] = True
    selection_fields: ClassVar[tuple[str, ...]] = (
        "scope",
        "min_units",
        "min_head_share",
        "min_mlp_share",
        "released_quirks",
    )

    scopes: ClassVar[tuple[str, ...]] = ("family", "global", "released")

    name: str = "snapvit"
    num_samples: int = 1000
    """Training images that the gradients come from, and that the evolution looks at."""
    views: str = "crops"
    """crops (2 global, 10 local) or noise (12 noisy copies)."""
    noise: float = 0.4
    """Standard deviation of the noise; views=noise."""
    num_evaluations: int = 50
    """Choices of factors that the evolution looks at; 0: the factors stay where they begin."""
    num_components: int = 192
    """Principal components of the embeddings that the evolution compares; all where there are fewer."""
    scope: str = "family"
    """family (equal shares of heads and MLP units), global (one cost-aware list) or released (of the heads .15 of them
    less than of the MLP units, as in jobs/ga/*.sh)."""
    min_head_share: float = 0.2
    """Share of its heads, rounded down, that every attention keeps."""
    min_mlp_share: float = 0.05
    """Share of its units, rounded down, that every MLP keeps."""
    released_quirks: bool = False
    """All global crops of an image are one, and all local ones; units without a gradient go at every budget."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_samples >= 1, "num_samples", self.num_samples, "1 or more", "use 1000")
        require(self.views in VIEWS, "views", self.views, ", ".join(VIEWS), "use crops")
        require(self.noise > 0, "noise", self.noise, "a positive number", "use 0.4")
        require(self.num_evaluations >= 0, "num_evaluations", self.num_evaluations, "0 or more", "use 50")
        require(self.num_components >= 1, "num_components", self.num_components, "1 or more", "use 192")
        for name in ("min_head_share", "min_mlp_share"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "a number in [0, 1)", "leave it out")

    @property
    def needs_heads(self) -> bool:
        return True

    def search_cost(self, num_steps: int, batch_size: int) -> SearchCost:
        """That of the steps; of all views, forward and backward; and of the pruned networks, MLPs being two thirds."""
        num_seen = min(self.num_samples, num_steps * batch_size)
        views = 3 * (NUM_GLOBAL + NUM_LOCAL)
        pruned = self.num_evaluations * sum(1 - (2 * mlp + heads) / 3 for mlp, heads in RATIOS)
        cost = super().search_cost(num_steps, batch_size)
        return replace(cost, further_passes=num_seen * (views + pruned))

    def search_settings(self, kind: str) -> dict[str, Any]:
        """The quirks draw the crops, too."""
        quirks = {"released_quirks": True} if self.released_quirks else {}
        return {**super().search_settings(kind), **quirks}


CONFIG = SnapViTConfig
