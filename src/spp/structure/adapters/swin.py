"""timm SwinTransformer: window attention with a relative position bias, in stages of shrinking resolution."""

from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention
from torch import Tensor, nn

from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter, split_heads


class CompactWindowAttention(WindowAttention):
    """timm's WindowAttention with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head; bias table and window bookkeeping are the source's, so that
    `set_input_size` works on the compact model. Fused attention is used where the source used it (timm's
    default here is not to); which kernel takes unequal widths is for scaled_dot_product_attention to decide.
    At width 0 the products are written out.

    Args:
        source: attention whose `qkv` and `proj` are already cut; its parts are taken over.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    def __init__(self, source: Any, qk_width: int, v_width: int) -> None:
        nn.Module.__init__(self)
        self.dim = source.dim
        self.window_size = source.window_size
        self.window_area = source.window_area
        self.num_heads = source.num_heads
        self.scale = source.scale
        self.fused_attn = source.fused_attn
        self.qk_width = qk_width
        self.v_width = v_width
        self.relative_position_bias_table = source.relative_position_bias_table
        self.register_buffer("relative_position_index", source.relative_position_index, persistent=False)
        self.qkv = source.qkv
        self.attn_drop = source.attn_drop
        self.proj = source.proj
        self.proj_drop = source.proj_drop
        self.softmax = source.softmax
        self.training = source.training

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend inside windows.

        Args:
            x: (windows of all samples, tokens of a window, channels); so is the result.
            mask: (windows of one sample, tokens, tokens), added to the scores; None without a shift.
        """
        windows, tokens, _ = x.shape
        q, k, v = split_heads(self.qkv(x), self.num_heads, self.qk_width, self.v_width)
        bias = self._get_rel_pos_bias()
        if self.fused_attn and self.qk_width and self.v_width:
            bias = bias if mask is None else bias + mask.repeat(windows // len(mask), 1, 1).unsqueeze(1)
            dropout = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        else:
            scores = (q * self.scale) @ k.transpose(-2, -1) + bias
            if mask is not None:
                by_sample = scores.view(-1, len(mask), self.num_heads, tokens, tokens)
                scores = (by_sample + mask.unsqueeze(1)).view_as(scores)
            x = self.attn_drop(self.softmax(scores)) @ v
        x = x.transpose(1, 2).reshape(windows, tokens, self.num_heads * self.v_width)
        out: Tensor = self.proj_drop(self.proj(x))
        return out


class SwinAdapter(TimmAdapter):
    """Pairs of timm's Swin: attention sees whole windows, padding included; the MLP sees the tokens alone."""

    model_classes = ("timm.models.swin_transformer.SwinTransformer",)
    block_classes = (SwinTransformerBlock,)
    attention_classes = (WindowAttention,)
    compact_class = CompactWindowAttention

    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        for stage, layer in model.layers.named_children():
            for index, block in layer.blocks.named_children():
                height, width = block.input_resolution
                window_height, window_width = block.window_size
                queries = _round_up(height, window_height) * _round_up(width, window_width)
                size = BlockSize(height * width, queries, window_height * window_width)
                yield f"layers.{stage}.blocks.{index}", size


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


register(SwinAdapter())
