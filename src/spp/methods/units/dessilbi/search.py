"""The search of DessiLBI; see config.py for what is released, what is mended and what is ours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spp.dynamics.budget import split
from spp.methods.ranking import RankingMethod
from spp.methods.search import RankingSearch, SearchRequest
from spp.methods.units.dessilbi.config import DessiLBIConfig
from spp.structure.find import unit_weights
from spp.structure.masked import MaskedModel

TIME_CONSTANT = 1 / 20
"""Share of the search within which Gamma follows the weights."""
LARGEST_RATE = 0.5
"""Rate per step at which Gamma follows the weights at most; it overshoots from 1 on."""


@dataclass(eq=False)
class _Part:
    """One matrix and the groups in it.

    Attributes:
        weight: the matrix.
        dim: its dimension along which units lie.
        unit_of: number of the unit of every slice along that dimension; one past the last for slices of no unit.
        value: V, of the shape of the matrix, float32.
    """

    weight: nn.Parameter
    dim: int
    unit_of: Tensor
    value: Tensor

    def spread(self, by_unit: Tensor) -> Tensor:
        """One number per unit (and one for no unit) as a factor of the matrix."""
        factor = by_unit[self.unit_of].to(self.value.dtype)
        return factor[:, None] if self.dim == 0 else factor

    def squares(self, matrix: Tensor, num_units: int) -> Tensor:
        """Sum of squares of every unit's slices, (num_units,) float64."""
        by_slice = matrix.square().sum(1 - self.dim, dtype=torch.float64)
        return by_slice.new_zeros(num_units + 1).index_add_(0, self.unit_of, by_slice)[:-1]

    def to(self, device: torch.device) -> None:
        """Move what belongs to the matrix to where it is."""
        self.unit_of, self.value = self.unit_of.to(device), self.value.to(device)


class DessiLBISearch(RankingSearch):
    """The path of V and Gamma next to the training of the weights.

    Attributes:
        lr: step size of V.
        lam: norm at which a group enters.
        entry: steps until a unit's group entered, inf if it has not, (num_units,) float64.
        norm: norm of V of every unit's group, (num_units,) float64.
    """

    per_cost = False

    def __init__(self, config: DessiLBIConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.parts = self._parts()
        num_units = sum(pair.size for pair in self.pairs)
        device = next(iter(self.parts.values())).weight.device
        self.entry = torch.full((num_units,), torch.inf, dtype=torch.float64, device=device)
        self.norm = torch.zeros_like(self.entry)
        self._sizes = torch.zeros_like(self.entry)
        for part in self.parts.values():
            self._sizes += part.squares(torch.ones_like(part.value), num_units)
        rate = min(LARGEST_RATE, 1 / (TIME_CONSTANT * max(1, num_steps)))
        self.lr = config.lr or rate * config.mu / config.kappa
        median = float(self._weight_norms().median())
        self.lam = config.lam or config.horizon * max(1, num_steps) * self.lr / config.mu * median

    @torch.no_grad()
    def after_backward(self) -> None:
        self._follow_device()
        factor = self._gamma_factor()
        squares = torch.zeros_like(self.norm)
        for part in self.parts.values():
            apart = part.weight.float() - part.spread(factor) * part.value
            apart *= part.spread(self._is_unit())
            if part.weight.grad is not None:
                part.weight.grad.add_(apart, alpha=1 / self.config.mu)
            part.value.add_(apart, alpha=self.lr / self.config.mu)
            squares += part.squares(part.value, len(squares))
        for mask in self.masks.values():
            mask.grad = None
        before, self.norm = self.norm, self._norm(squares)
        enters = self.entry.isinf() & (self.norm > self.lam)
        fraction = (self.lam - before) / (self.norm - before)
        self.entry = torch.where(enters, self.num_steps_taken + fraction, self.entry)
        self.num_steps_taken += 1

    @torch.no_grad()
    def scores(self) -> dict[str, Tensor]:
        """Steps taken over the time of entry; released: norm of the weights less the first whole step."""
        self._follow_device()
        weights = self._weight_norms()
        if self.config.released_quirks:
            score = weights - torch.where(self.entry.isinf(), float(self.num_steps), self.entry.floor())
        else:
            to_go = (self.lam - self.norm) * self.config.mu / (self.lr * weights)
            time = torch.where(self.entry.isinf(), self.num_steps_taken + to_go, self.entry)
            score = max(1, self.num_steps_taken) / time
        return split(self.pairs, score.cpu())

    def metrics(self) -> dict[str, float]:
        """Share of the groups of each family in the support, or ever in it."""
        entered = split(self.pairs, self.entry.isfinite().cpu())
        families = {
            name: [entered[pair.name] for pair in self.pairs if (pair.kind == "mlp") == is_mlp]
            for name, is_mlp in (("attention", False), ("mlp", True))
        }
        return {f"entered_{name}": float(torch.cat(of).double().mean()) for name, of in families.items() if of}

    def state_dict(self) -> dict[str, Any]:
        return {
            "value": {name: part.value.clone() for name, part in self.parts.items()},
            "entry": self.entry.clone(),
            "norm": self.norm.clone(),
            "lr": self.lr,
            "lam": self.lam,
            "num_steps_taken": self.num_steps_taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.value.copy_(state["value"][name])
        self.entry.copy_(state["entry"])
        self.norm.copy_(state["norm"])
        self.lr, self.lam = float(state["lr"]), float(state["lam"])
        self.num_steps_taken = int(state["num_steps_taken"])

    def gamma(self) -> Iterator[tuple[str, Tensor]]:
        """Gamma by name of the matrix, computed anew."""
        self._follow_device()
        factor = self._gamma_factor()
        for name, part in self.parts.items():
            yield name, part.spread(factor) * part.value

    def _parts(self) -> dict[str, _Part]:
        parts: dict[str, _Part] = {}
        first, num_units = 0, sum(pair.size for pair in self.pairs)
        for pair in self.pairs:
            for place in unit_weights(self.masked.model, pair):
                if place.parameter.ndim < 2:
                    continue
                if place.name not in parts:
                    unit_of = torch.full((place.parameter.shape[place.dim],), num_units)
                    value = torch.zeros(place.parameter.shape)
                    parts[place.name] = _Part(place.parameter, place.dim, unit_of, value)
                parts[place.name].unit_of[place.index] = first + torch.arange(pair.size)[:, None]
            first += pair.size
        for part in parts.values():
            part.to(part.weight.device)
        return parts

    def _follow_device(self) -> None:
        """The model may have moved since the search was built."""
        device = next(iter(self.parts.values())).weight.device
        if self.norm.device != device:
            self.norm, self.entry, self._sizes = (x.to(device) for x in (self.norm, self.entry, self._sizes))
            for part in self.parts.values():
                part.to(device)

    def _gamma_factor(self) -> Tensor:
        """Gamma over V of every unit, and 0 for no unit."""
        factor = self.config.kappa * (1 - self.lam / self.norm).clamp(min=0)
        return torch.cat([factor, factor.new_zeros(1)])

    def _is_unit(self) -> Tensor:
        return torch.cat([torch.ones_like(self.norm), self.norm.new_zeros(1)])

    def _weight_norms(self) -> Tensor:
        squares = torch.zeros_like(self.norm)
        for part in self.parts.values():
            squares += part.squares(part.weight.detach(), len(squares))
        return self._norm(squares)

    def _norm(self, squares: Tensor) -> Tensor:
        """Norm of groups with these sums of squares."""
        return (squares if self.config.released_quirks else squares / self._sizes).sqrt()


class DessiLBIMethod(RankingMethod[DessiLBIConfig]):
    """Scores by the times at which groups of weights enter."""

    def build_search(self, config: DessiLBIConfig, masked: MaskedModel, request: SearchRequest) -> DessiLBISearch:
        return DessiLBISearch(config, masked, request.num_steps)


METHOD = DessiLBIMethod()
