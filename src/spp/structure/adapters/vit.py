"""timm VisionTransformer and VisionTransformerDistilled (DeiT) of any width, depth and image size."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from spp.structure.adapters.adapter import TokenPoint
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter, numbers_of_heads, scores_of, split_heads


class CompactAttention(nn.Module):
    """timm's Attention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head, so that removing a channel is the same as masking it. Fused
    attention is used where the source used it; which kernel takes unequal widths is for
    scaled_dot_product_attention to decide (on CUDA some take only equal ones, and it then falls back by
    itself). Without query-key channels the products are written out, for the scores are the mask alone; without
    heads only the projection's bias is left.

    Args:
        source: attention whose `qkv` and `proj` are already cut; its parts are taken over.
        heads: numbers of the source's heads that are kept.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, heads: Sequence[int], qk_width: int, v_width: int) -> None:
        super().__init__()
        self.num_heads = len(heads)
        self.kept_heads = [numbers_of_heads(source)[head] for head in heads]
        self.scale: float = source.scale
        self.fused_attn: bool = source.fused_attn
        self.qk_width = qk_width
        self.v_width = v_width
        self.qkv: nn.Linear = source.qkv
        self.attn_drop: nn.Dropout = source.attn_drop
        self.proj: nn.Linear = source.proj
        self.proj_drop: nn.Dropout = source.proj_drop
        self.training = source.training

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attend; x and the result are (batch, tokens, channels), the arguments are timm's."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x)
        if not self.num_heads:
            out: Tensor = self.proj_drop(self.proj(qkv[..., :0]))
            return out
        q, k, v = split_heads(qkv, self.num_heads, self.qk_width, self.v_width)
        if self.fused_attn and self.qk_width and self.v_width:
            dropout = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(
                q, k, v, attn_mask=attn_mask, dropout_p=dropout, is_causal=is_causal, scale=self.scale
            )
        else:
            scores = _apply_mask(scores_of(q, k, v, self.scale), attn_mask, is_causal)
            x = self.attn_drop(scores.softmax(dim=-1)) @ v
        x = x.transpose(1, 2).reshape(batch, tokens, self.num_heads * self.v_width)
        out = self.proj_drop(self.proj(x))
        return out


class ShorterBlock(Block):
    """timm's Block that first drops tokens for good, the same positions of every image.

    Args:
        source: the block; its parts are taken over under their names.
        kept: ascending numbers, of the tokens that reach the block, of those that stay.
    """

    kept: Tensor

    def __init__(self, source: Block, kept: Tensor) -> None:
        nn.Module.__init__(self)
        for name, part in source.named_children():
            self.add_module(name, part)
        self.register_buffer("kept", kept, persistent=False)
        self.training = source.training

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """From (batch, tokens, channels) to (batch, kept tokens, channels); a mask is over the kept tokens."""
        out: Tensor = super().forward(x.index_select(1, self.kept), attn_mask, is_causal)
        return out


class VitAdapter(TimmAdapter):
    """Pairs of timm's ViT; tokens are the patches and the prefix tokens (class, distillation, registers)."""

    model_classes = (
        "timm.models.vision_transformer.VisionTransformer",
        "timm.models.deit.VisionTransformerDistilled",
    )
    block_classes = (Block, ResPostBlock, ShorterBlock)
    attention_classes = (Attention,)
    compact_class = CompactAttention
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


def _apply_mask(scores: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
    """Mask scores as scaled_dot_product_attention does: True in a bool mask keeps, a float mask is added."""
    if is_causal:
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    if attn_mask is None:
        return scores
    if attn_mask.dtype == torch.bool:
        return scores.masked_fill(~attn_mask, float("-inf"))
    return scores + attn_mask


register(VitAdapter())
