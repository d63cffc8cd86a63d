"""The scores of Taylor and Fisher; see config.py."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spp.dynamics.budget import split
from spp.methods.bundles import take_gradients
from spp.methods.devices import mean_over_devices
from spp.methods.ranking import RankingMethod
from spp.methods.search import RankingSearch, SearchRequest
from spp.methods.units.taylor.config import TaylorConfig
from spp.structure.adapters.adapter import MaskPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair

Collect = Callable[[Tensor, Tensor], None]


class TaylorSearch(RankingSearch):
    """Averages a power of the masks' gradients over samples or batches.

    Attributes:
        total: sum of the batches' means, (num_units,) float64.
    """

    def __init__(self, config: TaylorConfig, masked: MaskedModel, num_steps: int) -> None:
        super().__init__(masked, num_steps)
        self.config = config
        self.total = torch.zeros(sum(pair.size for pair in self.pairs), dtype=torch.float64)
        self._watch = _SampleGradients(masked) if config.per_sample else None

    def before_forward(self) -> None:
        if self._watch is not None:
            self._watch.attach()

    def after_backward(self) -> None:
        gradients = take_gradients(self.masks)
        if self._watch is None:
            self.total += self._power(gradients)
        else:
            for pair, score in zip(self.pairs, torch.split(self.total, [p.size for p in self.pairs]), strict=True):
                own = self._power(self._watch.gradients[pair.name]).mean(0)
                score += mean_over_devices(own).cpu()
            self._watch.detach()
        self.num_steps_taken += 1

    def scores(self) -> dict[str, Tensor]:
        """Mean over the steps so far.

        Raises:
            ValueError: there was no step.
        """
        if self.num_steps_taken == 0:
            raise ValueError(
                "method.name: taylor is not allowed in a search of 0 steps; allowed: 1 or more; use magnitude"
            )
        return split(self.pairs, self.total / self.num_steps_taken)

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total.clone(), "num_steps_taken": self.num_steps_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.total = state["total"].cpu().clone()
        self.num_steps_taken = int(state["num_steps_taken"])

    def _power(self, gradients: Tensor) -> Tensor:
        return gradients.abs() if self.config.order == 1 else gradients.square()


class _SampleGradients:
    """Reads the gradient of every sample's own loss by the masks, as it passes the places where the masks multiply.

    Attributes:
        gradients: by pair name, (samples, size) float64, of the last forward and backward pass.
    """

    def __init__(self, masked: MaskedModel) -> None:
        self._masked = masked
        adapter = adapter_for(masked.model)
        shared = {pair.name: pair for pair in adapter.pairs(masked.model, per_head=False)}
        self._points = {pair.name: adapter.mask_point(masked.model, shared[pair.name]) for pair in masked.pairs}
        self._handles: list[RemovableHandle] = []
        self._num_samples = 0
        self.gradients: dict[str, Tensor] = {}

    def attach(self) -> None:
        """Watch the next pass. The hooks go with `detach`: a network that is copied must carry none."""
        self.detach()
        model = self._masked.model
        self._handles.append(model.register_forward_pre_hook(self._count_samples, with_kwargs=True))
        for pair in self._masked.pairs:
            point = self._points[pair.name]
            self._handles.append(self._hook(model.get_submodule(point.linear), pair, point))

    def detach(self) -> None:
        """Forget the last pass."""
        self.gradients = {}
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _count_samples(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._num_samples = next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor))

    def _hook(self, module: nn.Module, pair: Pair, point: MaskPoint) -> RemovableHandle:
        mask = self._masked.masks[pair.name]

        def collect(value: Tensor, grad: Tensor) -> None:
            # A sample's windows or pixels follow each other, so that its tokens are one row of this view.
            by_sample = value[..., : point.width].float() * grad[..., : point.width].float()
            by_sample = by_sample.reshape(self._num_samples, -1, point.width).sum(1)
            by_unit = by_sample.view(self._num_samples, -1, pair.size).sum(1).double()
            # The loss is a mean over the samples, so that each has only its share of it.
            self.gradients[pair.name] = by_unit * self._num_samples

        def watch(value: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return value
            watched: Tensor = _Watch.apply(value, mask, collect)
            return watched

        if point.side == "input":
            return module.register_forward_pre_hook(lambda module, args: (watch(args[0]),))
        return module.register_forward_hook(lambda module, args, output: watch(output))


class _Watch(torch.autograd.Function):
    """The identity; hands its value and the gradient of it on in the backward pass.

    It takes the mask, which needs a gradient, so that it is called where all before it is frozen.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, mask: Tensor, collect: Collect) -> Tensor:
        ctx.save_for_backward(value)
        ctx.collect = collect
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.collect(*ctx.saved_tensors, grad)
        return grad, None, None


class TaylorMethod(RankingMethod[TaylorConfig]):
    """Scores by gradients; the loss that the search sees must be a mean over the samples of a batch."""

    def build_search(self, config: TaylorConfig, masked: MaskedModel, request: SearchRequest) -> TaylorSearch:
        return TaylorSearch(config, masked, request.num_steps)


METHOD = TaylorMethod()
