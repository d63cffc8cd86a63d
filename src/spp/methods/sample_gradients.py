"""Gradients where the masks multiply, for each sample of a batch by itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spp.structure.adapters.adapter import MaskPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.inputs import Inputs
from spp.structure.masked import MaskedModel
from spp.structure.pair import Pair

Collect = Callable[[Pair, MaskPoint, Tensor], None]
"""Takes a pair, the place where its mask multiplies and, in the backward pass, activation times gradient there: (...,
channels of all heads), float32. The gradient is that of the loss of the batch."""


class MaskPointWatch:
    """Hands on what passes the places where masks multiply.

    Args:
        masked: the network with its masks.
        pairs: whose places; pairs of that network.
        collect: gets it.

    Attributes:
        num_samples: of the batch of the last forward pass.
        inputs: what the network was called with there.
    """

    def __init__(self, masked: MaskedModel, pairs: Sequence[Pair], collect: Collect) -> None:
        self._masked, self._pairs, self._collect = masked, list(pairs), collect
        adapter = adapter_for(masked.model)
        shared = {pair.name: pair for pair in adapter.pairs(masked.model, per_head=False)}
        self._points = {pair.name: adapter.mask_point(masked.model, shared[pair.name]) for pair in pairs}
        self._handles: list[RemovableHandle] = []
        self.num_samples = 0
        self.inputs: Inputs = {}

    def attach(self) -> None:
        """Watch the next pass. The hooks go with `detach`: a network that is copied must carry none."""
        self.detach()
        model = self._masked.model
        self._handles.append(model.register_forward_pre_hook(self._see_call, with_kwargs=True))
        for pair in self._pairs:
            point = self._points[pair.name]
            self._handles.append(self._hook(model.get_submodule(point.linear), pair, point))

    def detach(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.inputs = [], {}

    def _see_call(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs = kwargs or args[0]
        self.num_samples = next(len(value) for value in (*args, *kwargs.values()) if isinstance(value, Tensor))

    def _hook(self, module: nn.Module, pair: Pair, point: MaskPoint) -> RemovableHandle:
        mask = self._masked.masks[pair.name]

        def hand_on(value: Tensor, grad: Tensor) -> None:
            products = value[..., : point.width].float() * grad[..., : point.width].float()
            self._collect(pair, point, products)

        def watch(value: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return value
            watched: Tensor = _Watch.apply(value, mask, hand_on)
            return watched

        if point.side == "input":
            return module.register_forward_pre_hook(lambda module, args: (watch(args[0]),))
        return module.register_forward_hook(lambda module, args, output: watch(output))


class SampleGradients:
    """Reads the gradient of every sample's own loss by the masks, as it passes the places where the masks multiply.

    Attributes:
        gradients: by pair name, (samples, size) float64, of the last forward and backward pass.
    """

    def __init__(self, masked: MaskedModel) -> None:
        self._watch = MaskPointWatch(masked, masked.pairs, self._add)
        self.gradients: dict[str, Tensor] = {}

    def attach(self) -> None:
        """Watch the next pass."""
        self.detach()
        self._watch.attach()

    def detach(self) -> None:
        """Forget the last pass."""
        self.gradients = {}
        self._watch.detach()

    def _add(self, pair: Pair, point: MaskPoint, products: Tensor) -> None:
        # A sample's windows or pixels follow each other, so that its tokens are one row of this view.
        num_samples, width = self._watch.num_samples, products.shape[-1]
        by_unit = point.gather(products.reshape(num_samples, -1, width).sum(1), pair).double()
        # The loss is a mean over the samples, so that each has only its share of it.
        self.gradients[pair.name] = by_unit * num_samples


class _Watch(torch.autograd.Function):
    """The identity; hands its value and the gradient of it on in the backward pass.

    It takes the mask, which needs a gradient, so that it is called where all before it is frozen.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, mask: Tensor, hand_on: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(value)
        ctx.hand_on = hand_on
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.hand_on(*ctx.saved_tensors, grad)
        return grad, None, None
