"""Small models with weights large enough that every unit matters, and random masks for them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor, nn

from spp.structure.pair import Pair

VIT = {
    "img_size": 16,
    "patch_size": 4,
    "num_classes": 5,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "mlp_ratio": 2,
    "drop_path_rate": 0.5,
    "attn_drop_rate": 0.1,
}
SWIN = {
    "patch_size": 2,
    "num_classes": 5,
    "embed_dim": 16,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "mlp_ratio": 2,
    "drop_path_rate": 0.5,
    "attn_drop_rate": 0.1,
}
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "deit": partial(VisionTransformer, **VIT),
    "deit_distilled": partial(VisionTransformerDistilled, **VIT),
    "vit_plain": partial(
        VisionTransformer,
        **VIT,
        qkv_bias=False,
        class_token=False,
        global_pool="avg",
        reg_tokens=2,
        init_values=0.5,
    ),
    "vit_post_norm": partial(VisionTransformer, **VIT, block_fn=ResPostBlock),
    # 16 x 16 patches in windows of 4 x 4; then 8 x 8. Every second block is shifted.
    "swin_shifted": partial(SwinTransformer, **SWIN, img_size=32, window_size=4),
    # 12 x 12 patches in windows of 5 x 5, padded to 15 x 15; then 6 x 6, padded to 10 x 10.
    "swin_padded": partial(SwinTransformer, **SWIN, img_size=24, window_size=5),
}


def build(name: str, seed: int = 0, **overrides: object) -> nn.Module:
    """A model of BUILDERS in eval mode with random weights of a size that keeps activations of order 1."""
    model = BUILDERS[name](**overrides).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model


def random_masks(pairs: list[Pair], seed: int, keep: float = 0.6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {pair.name: torch.rand(pair.size, generator=generator) < keep for pair in pairs}


@pytest.fixture(name="build")
def fixture_build() -> Callable[..., nn.Module]:
    return build


@pytest.fixture(params=sorted(BUILDERS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@pytest.fixture(name="random_masks")
def fixture_random_masks() -> Callable[..., dict[str, Tensor]]:
    return random_masks


@pytest.fixture
def images() -> Callable[[nn.Module], Tensor]:
    """Two random images of the model's size."""

    def draw(model: nn.Module) -> Tensor:
        return torch.randn((2, 3, *model.patch_embed.img_size), generator=torch.Generator().manual_seed(1))

    return draw
