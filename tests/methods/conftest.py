"""Tiny networks to search in, and a loop that calls a search as the stage does."""

from collections.abc import Callable, Iterable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from spp.dynamics.budget import Budget
from spp.dynamics.ordered_units import OrderedUnits
from spp.methods.method import MethodConfig
from spp.methods.registry import load_method
from spp.methods.search import Search, SearchRequest
from spp.structure.compact import compact
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.masked import MaskedModel

VIT = {"img_size": 8, "patch_size": 4, "num_classes": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
SWIN = {
    "img_size": 16,
    "patch_size": 2,
    "num_classes": 4,
    "embed_dim": 8,
    "depths": (1, 2),
    "num_heads": (2, 4),
    "window_size": 4,
    "mlp_ratio": 2,
}


def build_tiny(name: str = "vit", seed: int = 0) -> nn.Module:
    """A ViT or Swin in eval mode, with weights of a size that makes every unit matter."""
    model = VisionTransformer(**VIT) if name == "vit" else SwinTransformer(**SWIN)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model.eval()


def tiny_batches(masked: MaskedModel, num_steps: int, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shape = (8, *example_inputs(masked.model)["x"].shape[1:])
    return [
        (torch.randn(shape, generator=generator), torch.randint(4, (8,), generator=generator)) for _ in range(num_steps)
    ]


def build_search(
    config: MethodConfig,
    masked: MaskedModel,
    num_steps: int,
    budget: Budget | None = None,
    *,
    seed: int = 0,
    batch_size: int = 8,
) -> Search:
    request = SearchRequest(num_steps=num_steps, seed=seed, batch_size=batch_size, budget=budget)
    return load_method(config.name).build_search(config, masked, request)


def select(config: MethodConfig, path: OrderedUnits, kind: str, size: float) -> dict[str, Tensor]:
    return load_method(config.name).select(config, path, kind, size)


def finish_member(config: MethodConfig, small: nn.Module, seed: int) -> dict[str, object]:
    return load_method(config.name).finish_member(config, small, seed)


def run_search(
    search: Search, batches: Iterable[tuple[Tensor, Tensor]], *, lr: float = 0.0, after_step: Callable | None = None
) -> None:
    """Take one step per batch as the stage does; weights by plain SGD."""
    parameters = list(search.masked.model.parameters())
    for images, labels in batches:
        search.before_forward()
        for parameter in parameters:
            parameter.grad = None
        F.cross_entropy(search.masked(images), labels).backward()
        search.after_backward()
        assert all(mask.grad is None or not mask.grad.any() for mask in search.masks.values())
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= lr * parameter.grad
        if after_step is not None:
            after_step(search)


def achieved(model: nn.Module, masks: dict[str, Tensor]) -> Cost:
    """Cost of the compact model, counted and not priced."""
    return count_cost(compact(model, masks), example_inputs(model))


def assert_compact_is_masked(masked: MaskedModel, masks: dict[str, Tensor]) -> None:
    masked.eval()
    masked.set_masks(masks)
    images = tiny_batches(masked, 1, seed=5)[0][0]
    with torch.no_grad():
        torch.testing.assert_close(compact(masked.model, masks).eval()(images), masked(images), rtol=1e-5, atol=1e-5)


@pytest.fixture
def tiny() -> SimpleNamespace:
    """Networks (build, masked), a method's functions (search, select, finish_member), batches, run, achieved, ..."""

    def masked(name: str = "vit", *, per_head: bool = False, seed: int = 0) -> MaskedModel:
        model = build_tiny(name, seed)
        return MaskedModel(model, find_pairs(model, per_head=per_head))

    return SimpleNamespace(
        build=build_tiny,
        masked=masked,
        search=build_search,
        select=select,
        finish_member=finish_member,
        batches=tiny_batches,
        run=run_search,
        achieved=achieved,
        assert_compact_is_masked=assert_compact_is_masked,
    )
