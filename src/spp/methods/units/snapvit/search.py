"""The scores of SnapViT and their factors; see config.py."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.dynamics.budget import Budget, OutOfReachError, join
from spp.dynamics.order import key_per_cost
from spp.dynamics.ordered_units import OrderedUnits
from spp.dynamics.ranking import Ranking
from spp.methods.bundles import Bundles, cost_in, take_gradients
from spp.methods.devices import mean_over_devices, num_devices
from spp.methods.ranking import RankingMethod
from spp.methods.search import RankingSearch, SearchRequest
from spp.methods.units.snapvit.config import NUM_GLOBAL, RATIOS, SnapViTConfig
from spp.methods.units.snapvit.evolution import minimise
from spp.methods.units.snapvit.views import check_embedding, embed, make_views, view_loss
from spp.structure.compact import compact
from spp.structure.cost import evaluation_mode
from spp.structure.find import unit_weights
from spp.structure.masked import MaskedModel

CHUNK_SIZE = 16
"""Images whose views go through the network together; the gradients do not depend on it."""
EVALUATION_SIZE = 64
"""The same of the images themselves."""
HEADS_BEHIND = 0.15
"""Share of the MLP units that are gone before the first head goes (EVAL_*_PRUNING_RATIOS in jobs/ga/*.sh)."""
FIRST_FACTORS = (1.2, 0.8)
"""Of the first block and of the last, before the evolution."""


class SnapViTSearch(RankingSearch):
    """Adds up gradients of the weights of fc1 and W_v, and weighs what they say in the last step."""

    per_cost = False  # members are chosen by `SnapViTMethod.select`

    def __init__(self, config: SnapViTConfig, masked: MaskedModel, request: SearchRequest) -> None:
        super().__init__(masked, request.num_steps)
        check_embedding(masked.model)
        self.config, self.seed = config, request.seed
        self.bundles = Bundles.heads(self.pairs, with_mlp=True)
        self._rows = _rows(masked)
        self._names = sorted({name for name, _ in self._rows.values()})
        self._sums: dict[str, Tensor] = {}
        self._images: list[Tensor] = []
        self._num_seen = 0
        self.factors: Tensor | None = None
        self.fitness: float | None = None

    def before_forward(self) -> None:
        if self._num_seen < self.config.num_samples:
            self._handle = self.masked.model.register_forward_pre_hook(self._keep)

    def after_backward(self) -> None:
        take_gradients(self.masks)
        self.num_steps_taken += 1
        if self._num_seen < self.config.num_samples:
            images = self._seen[: -(-(self.config.num_samples - self._num_seen) // num_devices())]
            self._num_seen += len(images) * num_devices()
            self._add_gradients(images)
            if self.config.num_evaluations:
                self._images.append(images.cpu())
        if self.num_steps_taken == self.num_steps:
            self._weigh()

    def scores(self) -> dict[str, Tensor]:
        """The weighed score of its head for every unit of an attention, its own for every MLP unit.

        Raises:
            ValueError: there was no step.
        """
        if self.factors is None:
            raise ValueError(
                "method.name: snapvit is not allowed in a search of 0 steps; allowed: 1 or more; use magnitude"
            )
        weighed = self.bundles.expand(self._scores() * self.factors)
        pieces = torch.split(weighed, [pair.size for pair in self.pairs])
        return {pair.name: piece.clone() for pair, piece in zip(self.pairs, pieces, strict=True)}

    def summary(self) -> dict[str, Any]:
        """The fitness of the factors that were taken, 1 - cosine; None without an evolution."""
        return {"num_samples": self._num_seen, "fitness": self.fitness}

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_steps_taken": self.num_steps_taken,
            "sums": dict(self._sums),
            "images": list(self._images),
            "num_seen": self._num_seen,
            "factors": self.factors,
            "fitness": self.fitness,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.num_steps_taken, self._num_seen = int(state["num_steps_taken"]), int(state["num_seen"])
        device = next(self.masked.model.parameters()).device
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._images = [images.cpu() for images in state["images"]]
        self.factors = None if state["factors"] is None else state["factors"].cpu()
        self.fitness = state["fitness"]

    def _keep(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self._handle.remove()
        self._seen = args[0].detach()

    def _add_gradients(self, images: Tensor) -> None:
        model = self.masked.model
        weights = [model.get_parameter(name) for name in self._names]
        needed = [weight.requires_grad for weight in weights]
        totals = [torch.zeros_like(weight) for weight in weights]
        with evaluation_mode(model), torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            for chunk in torch.split(images, CHUNK_SIZE):
                views = make_views(chunk, self.config)
                embeddings = embed(model, views.flatten(0, 1)).view(*views.shape[:2], -1)
                # The teacher is the network itself, which stands still.
                loss = view_loss(embeddings, embeddings[:NUM_GLOBAL].detach())
                for total, gradient in zip(totals, torch.autograd.grad(loss, weights), strict=True):
                    total += gradient
            for weight, was_needed in zip(weights, needed, strict=True):
                weight.requires_grad_(was_needed)
        for name, total in zip(self._names, totals, strict=True):
            summed = mean_over_devices(total.double()) * num_devices()
            self._sums[name] = self._sums[name] + summed if name in self._sums else summed

    def _scores(self) -> Tensor:
        """The mean square of the summed gradient over the rows of every bundle, (num_bundles,)."""
        units = []
        for pair in self.pairs:
            if pair.kind == "qk":  # a head's score is that of its values
                units.append(torch.zeros(pair.size, dtype=torch.float64))
            else:
                name, rows = self._rows[pair.name]
                units.append(self._sums[name].cpu()[rows].square().mean(-1).flatten())
        is_scored = torch.cat([torch.full((pair.size,), float(pair.kind != "qk")) for pair in self.pairs]).double()
        return self.bundles.reduce(torch.cat(units)) / self.bundles.reduce(is_scored)

    def _weigh(self) -> None:
        """Look for factors; every process does so by its own images, and they agree on what is best."""
        start = _first_factors(self.bundles)
        self.factors = start[_factor_of(self.bundles)]
        if not self.config.num_evaluations:
            return
        model, scores = self.masked.model, self._scores()
        images = torch.cat(self._images)
        with evaluation_mode(model), torch.no_grad():
            dense = self._embeddings(model, images)
            basis, mean = _principal(dense, self.config.num_components)
            wanted = (dense - mean) @ basis

            def fitness(point: Tensor) -> float:
                weighed = scores * point.abs()[_factor_of(self.bundles)]
                total = torch.zeros((), dtype=torch.float64)
                for ratios in RATIOS:
                    small = compact(model, self.bundles.masks(after_ratios(self.bundles, weighed, ratios, self.config)))
                    found = (self._embeddings(small.eval(), images) - mean) @ basis
                    total += 1 - F.cosine_similarity(wanted, found).mean().cpu()
                return float(mean_over_devices(total)) / len(RATIOS)

            generator = torch.Generator().manual_seed(self.seed)
            best, self.fitness = minimise(fitness, start, self.config.num_evaluations, generator)
        self.factors = best.abs()[_factor_of(self.bundles)]
        self._images = []

    def _embeddings(self, model: nn.Module, images: Tensor) -> Tensor:
        device = next(model.parameters()).device
        parts = [embed(model, part.to(device)) for part in torch.split(images, EVALUATION_SIZE)]
        return torch.cat(parts).float()


class SnapViTMethod(RankingMethod[SnapViTConfig]):
    """Keeps whole heads and MLP units."""

    def build_search(self, config: SnapViTConfig, masked: MaskedModel, request: SearchRequest) -> SnapViTSearch:
        return SnapViTSearch(config, masked, request)

    def select(self, config: SnapViTConfig, path: OrderedUnits, kind: str, size: float) -> dict[str, Tensor]:
        assert isinstance(path, Ranking)
        for field, value, plain in (("multiple_of", path.multiple_of, 1), ("form", path.form, "free")):
            if value != plain:
                raise OutOfReachError(
                    f"budget.{field}: {value} is not allowed with method=snapvit, which drops whole heads and single "
                    f"MLP units; allowed: {plain}; use it"
                )
        bundles = Bundles.heads(path.pairs, with_mlp=True)
        scores = join(path.pairs, path.scores)
        worth = bundles.reduce(scores) / bundles.reduce(torch.ones_like(scores))
        floor = _floor(bundles, worth, config)
        key = _key(bundles, worth, floor, config.scope)
        # As released it is one list, in which the shares are.
        scope = "global" if config.scope == "released" else config.scope
        masks = bundles.fill(key, worth, Budget(kind, size), config.min_units, scope=scope)
        is_kept = torch.cat([masks[pair.name] for pair in path.pairs])
        kept = bundles.reduce(is_kept.double()) > 0
        if not kept[floor].all():
            lowest = cost_in(path.pairs, bundles.masks(floor), kind)
            share = math.ceil(1e4 * lowest / path.dense_total(kind)) / 1e4
            raise OutOfReachError(
                f"budget.values: {size:g} cannot be reached with method.min_head_share={config.min_head_share:g} and "
                f"method.min_mlp_share={config.min_mlp_share:g}; allowed: {math.ceil(lowest)} and more, or {share:g} "
                "and more of the dense model; use one of these, or smaller shares"
            )
        return bundles.masks(kept & (floor | (worth > 0))) if config.released_quirks else masks


def after_ratios(bundles: Bundles, scores: Tensor, ratios: tuple[float, float], config: SnapViTConfig) -> Tensor:
    """The bundles that are left, (num_bundles,) bool, without shares of all MLP units and of all heads.

    Args:
        bundles: heads and MLP units.
        scores: weighed, (num_bundles,).
        ratios: of MLP units, and of heads.
        config: what every block keeps.
    """
    key = torch.where(_floor(bundles, scores, config), torch.inf, scores)
    is_mlp = _is_mlp(bundles)
    left = torch.ones(len(bundles), dtype=torch.bool)
    for family, ratio in zip((is_mlp, ~is_mlp), ratios, strict=True):
        numbers = family.nonzero().flatten()
        left[numbers[key[numbers].argsort(stable=True)[: int(ratio * len(numbers))]]] = False
    return left


def _key(bundles: Bundles, worth: Tensor, floor: Tensor, scope: str) -> Tensor:
    """What bundles are kept by, ascending, (num_bundles,)."""
    key = -worth
    if scope == "global":
        costs = bundles.costs("macs")
        key = key_per_cost(worth, costs / costs.mean())
    elif scope == "released":
        is_mlp = _is_mlp(bundles)
        for family, behind in ((is_mlp, 0.0), (~is_mlp, HEADS_BEHIND)):
            numbers = family.nonzero().flatten()
            order = numbers[torch.where(floor, torch.inf, worth)[numbers].argsort(stable=True)]
            # Share of its family that is gone when a bundle is.
            key[order] = -(torch.arange(1, len(order) + 1).to(key) / len(order) + behind)
    key[floor] = -torch.inf
    return key


def _floor(bundles: Bundles, scores: Tensor, config: SnapViTConfig) -> Tensor:
    """The best bundles of every group, which stay, (num_bundles,) bool; one at least."""
    shares = torch.where(_is_mlp(bundles), config.min_mlp_share, config.min_head_share).double()
    sizes = bundles.sizes[bundles.group_of]
    return bundles.ranks(scores) < (shares * sizes + 1e-9).floor().clamp(min=1)


def _is_mlp(bundles: Bundles) -> Tensor:
    return torch.tensor([group.kind == "mlp" for group in bundles.groups])[bundles.group_of]


def _first_factors(bundles: Bundles) -> Tensor:
    """One for every MLP, then one for every head, falling with depth; float64."""
    mlps = torch.linspace(*FIRST_FACTORS, sum(group.kind == "mlp" for group in bundles.groups), dtype=torch.float64)
    heads = [group.size for group in bundles.groups if group.kind != "mlp"]
    by_attention = torch.linspace(*FIRST_FACTORS, len(heads), dtype=torch.float64)
    return torch.cat([mlps, by_attention.repeat_interleave(torch.tensor(heads))])


def _factor_of(bundles: Bundles) -> Tensor:
    """Which factor a bundle has, (num_bundles,) int64."""
    is_mlp = _is_mlp(bundles)
    group_is_mlp = torch.tensor([group.kind == "mlp" for group in bundles.groups])
    number = torch.where(is_mlp, (group_is_mlp.cumsum(0) - 1)[bundles.group_of], 0)
    number[~is_mlp] = int(group_is_mlp.sum()) + torch.arange(int((~is_mlp).sum()))
    return number


def _principal(embeddings: Tensor, num_components: int) -> tuple[Tensor, Tensor]:
    """Axes (width, components) of the largest variance, and the mean; all as they are where there are no fewer."""
    width = embeddings.shape[1]
    if num_components >= width:
        return torch.eye(width).to(embeddings), embeddings.new_zeros(width)
    mean = embeddings.mean(0)
    _, _, axes = torch.linalg.svd(embeddings - mean, full_matrices=False)
    return axes[:num_components].T, mean


def _rows(masked: MaskedModel) -> dict[str, tuple[str, Tensor]]:
    """By name of a "vo" or "mlp" pair the weight whose rows its units are, and their numbers, (units, rows)."""
    found = {}
    for pair in masked.pairs:
        if pair.kind != "qk":
            part = next(p for p in unit_weights(masked.model, pair) if p.dim == 0 and p.parameter.ndim == 2)
            found[pair.name] = (part.name, part.index)
    return found


METHOD = SnapViTMethod()
