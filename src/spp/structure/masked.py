"""The masked model: one number per unit multiplies it; at 1 it is the model itself."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spp.structure.adapters.adapter import MaskPoint, TokenPoint
from spp.structure.adapters.registry import adapter_for
from spp.structure.pair import Pair
from spp.structure.wrappers import uncompiled, unwrapped

_CHECKPOINTING = {
    "grad_checkpointing": "set_grad_checkpointing(False)",
    "gradient_checkpointing": "gradient_checkpointing_disable()",
}
"""By the name of the flag, timm's and transformers', how it is turned off."""


class Masks(dict[str, nn.Parameter]):
    """The masks by pair name.

    Attributes:
        pairs: the pairs, in the order of the masks.
    """

    pairs: list[Pair]


class _MaskParameters(nn.ParameterDict):
    """Follows the model's device, and its dtype down to float32."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_MaskParameters":
        def convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            is_narrow = torch.promote_types(converted.dtype, torch.float32) != converted.dtype
            return tensor.to(converted.device) if is_narrow else converted

        super()._apply(convert, recurse)  # type: ignore[no-untyped-call]
        return self


class MaskedModel(nn.Module):
    """A model whose units are multiplied by trainable masks.

    The mask of a "qk" pair multiplies the query, bias included: scores are X W_Q diag(m) W_K^T X^T. That of
    a "vo" pair multiplies the input of the projection, A X W_V diag(m), and that of an "mlp" pair the input
    of fc2, after the activation. A shared mask is repeated over the heads. Scores stay scaled by the full
    width of a head, and fused attention stays fused. With `at_first_maps` the masks multiply what the first map of a
    pair puts out instead, bias included: that of a "qk" pair queries and keys, X W_Q diag(m)^2 W_K^T X^T, that of an
    "mlp" pair the output of fc1, before the activation (for a "vo" pair both places are one function). At masks of 0
    and 1 the places make no difference where the activation of 0 is 0.

    Forward hooks do this, and only while this module's own forward runs: calling `model` directly is dense.
    Masks are kept in float32 or better, also by `half()`, and cast to the dtype of the activation: half precision
    stays half.

    Args:
        model: a model with an adapter; it is held, not copied. What torch.compile or DataParallel have wrapped is held
            without the wrapper; a compiled part of it runs uncompiled while the masks are on.
        pairs: pairs of that model, found or made by hand under their names; units of the others are left alone.
        at_first_maps: where the masks multiply.

    Raises:
        ValueError: a pair does not fit the model.
    """

    def __init__(self, model: nn.Module, pairs: Iterable[Pair], *, at_first_maps: bool = False) -> None:
        super().__init__()
        self.model = model = unwrapped(model)
        self.pairs = list(pairs)
        adapter = adapter_for(model)
        known = {pair.name: pair for pair in adapter.pairs(model, per_head=False)}
        self._points: dict[str, MaskPoint] = {}
        self._shaped: dict[str, Pair] = {}
        self.mask_parameters = _MaskParameters()
        for pair in self.pairs:
            if pair.name not in known:
                raise ValueError(
                    f"pairs: {pair.name} is not allowed: must be a pair of this {type(model).__name__};"
                    " use find_pairs(model)"
                )
            find_point = adapter.first_mask_point if at_first_maps else adapter.mask_point
            point = find_point(model, known[pair.name])
            num_heads = known[pair.name].num_heads
            num_copies = point.channels_per_unit * point.copies_per_head * (1 if pair.per_head else num_heads)
            if pair.size * num_copies != point.width:
                raise ValueError(
                    f"pairs: {pair.name} with {pair.size} units is not allowed: must have"
                    f" {point.width // num_copies}; use find_pairs(model)"
                )
            self._shaped[pair.name] = replace(pair, num_heads=num_heads)
            self._points[pair.name] = point
            self.mask_parameters[_key(pair.name)] = _ones(pair.size, model.get_submodule(pair.module))
        self._token_points: list[TokenPoint] = []
        self.token_parameters = _MaskParameters()

    @property
    def masks(self) -> Masks:
        """The mask of every pair by name, each a float parameter of shape (size,)."""
        masks = Masks((pair.name, self._mask(pair.name)) for pair in self.pairs)
        masks.pairs = list(self.pairs)
        return masks

    @torch.no_grad()
    def set_masks(self, values: Mapping[str, Tensor]) -> None:
        """Copy values into the masks in place; masks that are not named stay.

        Args:
            values: bool or float tensors of shape (size,) by pair name.

        Raises:
            ValueError: an unknown name or a wrong shape; no mask has changed then.
        """
        masks = self.masks
        for name, value in values.items():
            if name not in masks:
                raise ValueError(f"masks: {name} is not allowed: must be a masked pair; use a name in .masks")
            if value.shape != masks[name].shape:
                raise ValueError(
                    f"masks: {name} with shape {tuple(value.shape)} is not allowed:"
                    f" must be {tuple(masks[name].shape)}; give one value per unit"
                )
        for name, value in values.items():
            masks[name].copy_(value)

    def mask_tokens(self) -> dict[str, nn.Parameter]:
        """From now on, multiply what the norms of a block put out for a patch by a mask of the two, at first 1.

        Returns:
            The masks by name of the block, float parameters of shape (num_patches,); none where the model cannot do
            without some tokens. Prefix tokens have no mask.
        """
        self._token_points = adapter_for(self.model).token_points(self.model)
        for point in self._token_points:
            self.token_parameters[_key(point.block)] = _ones(point.num_patches, self.model.get_submodule(point.block))
        return {point.block: self.token_parameters[_key(point.block)] for point in self._token_points}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its masks on; takes and returns what the model does."""
        self._refuse_checkpointing()
        handles: list[RemovableHandle] = []
        try:
            for pair in self.pairs:
                handles.append(self._attach(pair))
            for point in self._token_points:
                handles.extend(self._attach_tokens(point))
            with uncompiled(self.model):
                return self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    def _mask(self, name: str) -> nn.Parameter:
        mask: nn.Parameter = self.mask_parameters[_key(name)]
        return mask

    def _attach(self, pair: Pair) -> RemovableHandle:
        point = self._points[pair.name]
        module = self.model.get_submodule(point.linear)
        factor = point.spread(self._mask(pair.name), self._shaped[pair.name])
        if point.side == "input":
            return module.register_forward_pre_hook(_multiply_input(factor))
        return module.register_forward_hook(_multiply_output(factor))

    def _attach_tokens(self, point: TokenPoint) -> list[RemovableHandle]:
        factor = F.pad(self.token_parameters[_key(point.block)], (point.num_prefix, 0), value=1.0)
        norms = (self.model.get_submodule(name) for name in point.norms)
        return [norm.register_forward_hook(_multiply_tokens(factor)) for norm in norms]

    def _refuse_checkpointing(self) -> None:
        # The recomputation runs in the backward pass, when the hooks are gone.
        if not torch.is_grad_enabled():
            return
        for name, remedy in _CHECKPOINTING.items():
            if any(getattr(module, name, False) for module in self.model.modules()):
                raise ValueError(f"{name}: True is not allowed: must be False while masks are on; use model.{remedy}")


def _key(name: str) -> str:
    # A parameter's own name must not hold a dot.
    return name.replace(".", "/")


def _ones(size: int, module: nn.Module) -> nn.Parameter:
    weight = next(module.parameters())
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return nn.Parameter(torch.ones(size, dtype=dtype, device=weight.device))


def _multiply_input(factor: Tensor) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
    def hook(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        return (args[0] * factor.to(args[0].dtype),)

    return hook


def _multiply_output(factor: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        rest = output.shape[-1] - len(factor)
        return output * F.pad(factor.to(output.dtype), (0, rest), value=1.0)

    return hook


def _multiply_tokens(factor: Tensor) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    def hook(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return output * factor.to(output.dtype)[:, None]

    return hook
