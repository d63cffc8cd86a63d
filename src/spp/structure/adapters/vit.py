"""timm VisionTransformer and VisionTransformerDistilled (DeiT) of any width, depth and image size."""

from collections.abc import Iterator
from typing import Any

from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from spp.structure.adapters.adapter import AttentionPoint, HiddenPoint, TokenPoint
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter
from spp.structure.modeling_spp import ShorterBlock


class VitAdapter(TimmAdapter):
    """Pairs of timm's ViT; tokens are the patches and the prefix tokens (class, distillation, registers)."""

    model_classes = (
        "timm.models.vision_transformer.VisionTransformer",
        "timm.models.deit.VisionTransformerDistilled",
    )
    block_classes = (Block, ResPostBlock, ShorterBlock)
    attention_classes = (Attention,)
    pre_norm_classes = (Block,)

    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        tokens = _num_patches(model) + model.num_prefix_tokens
        for name, block in model.blocks.named_children():
            tokens = len(block.kept) if isinstance(block, ShorterBlock) else tokens
            yield f"blocks.{name}", BlockSize(tokens, tokens, tokens)

    def token_points(self, model: Any) -> list[TokenPoint]:
        if not _has_fixed_tokens(model):
            return []
        return [
            TokenPoint(name, (f"{name}.norm1", f"{name}.norm2"), model.num_prefix_tokens, _num_patches(model))
            for name, _ in self.blocks(model)
        ]

    def hidden_points(self, model: Any) -> list[HiddenPoint]:
        points, stay = super().hidden_points(model)[:1], None
        for name, block in model.blocks.named_children():
            if isinstance(block, ShorterBlock):
                stay = block.kept if stay is None else stay[block.kept]
            points.append(HiddenPoint(f"blocks.{name}", "output", stay))
        return points

    def attention_points(self, model: Any) -> list[AttentionPoint]:
        behind = self.hidden_points(model)[1:]
        return [AttentionPoint(self.logits_of(model, f"{point.module}.attn"), point.tokens) for point in behind]

    def drop_tokens(self, model: nn.Module, block: str, kept: Tensor) -> None:
        source: Any = model.get_submodule(block)
        model.set_submodule(block, ShorterBlock(source, kept.to(next(source.parameters()).device)))


def _num_patches(model: Any) -> int:
    height, width = model.patch_embed.dynamic_feat_size(model.patch_embed.img_size)
    return int(height * width)


def _has_fixed_tokens(model: Any) -> bool:
    """Whether every image has the same tokens, and only blocks and a mean or a class token's head see them."""
    return (
        isinstance(model, VisionTransformer)
        and all(type(block) in (Block, ShorterBlock) for block in model.blocks)
        and not model.dynamic_img_size
        and isinstance(model.patch_drop, nn.Identity)
        and model.attn_pool is None
    )


register(VitAdapter())
