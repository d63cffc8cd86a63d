"""torchvision's VisionTransformer, of any size, with or without a convolutional stem."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock

from spp.structure.adapters.adapter import HiddenPoint
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter


class TorchvisionVitAdapter(TimmAdapter):
    """Pairs of torchvision's ViT; tokens are the patches and the class token."""

    model_classes = ("torchvision.models.vision_transformer.VisionTransformer",)
    block_classes = (EncoderBlock,)
    pre_norm_classes = (EncoderBlock,)
    attention_classes = ()
    opened_classes = (nn.MultiheadAttention,)
    mlp_classes = (MLPBlock,)
    attention_name = "self_attention"
    norm_names = ("ln_1", "ln_2")

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        stem = next(module for module in model.conv_proj.modules() if isinstance(module, nn.Conv2d))
        shape = (1, stem.in_channels, model.image_size, model.image_size)
        return {"x": torch.zeros(shape, dtype=stem.weight.dtype, device=stem.weight.device)}

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        if rate > 0:
            raise ValueError(
                f"drop_path: {rate} is not allowed with torchvision's {type(model).__name__}, whose blocks have no "
                "stochastic depth; allowed: 0; leave it out"
            )

    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        for name, _ in model.encoder.layers.named_children():
            yield f"encoder.layers.{name}", BlockSize(model.seq_length, model.seq_length, model.seq_length)

    def can_open(self, attn: Any) -> bool:
        is_one = attn.in_proj_weight is not None and attn.batch_first
        return is_one and attn.bias_k is None and not attn.add_zero_attn

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        names = [name for name, _ in self.blocks(model)]
        return [HiddenPoint(names[0], "input"), *(HiddenPoint(name, "output") for name in names)]


register(TorchvisionVitAdapter())
