"""timm SwinTransformer: window attention with a relative position bias, in stages of shrinking resolution."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import (
    SwinTransformerBlock,
    WindowAttention,
    get_relative_position_index,
    window_partition,
)
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter, numbers_of_heads, scores_of, split_heads


class CompactWindowAttention(WindowAttention):
    """timm's WindowAttention of fewer heads, with a query-key width of its own and a value width of its own.

    Scores keep the scale of the full head; bias table (the columns of the kept heads) and window bookkeeping are
    the source's, so that `set_input_size` works on the compact model. Fused attention is used where the source used
    it (timm's default here is not to); which kernel takes unequal widths is for scaled_dot_product_attention to
    decide. Without query-key channels the products are written out; without heads only the projection's bias is left.

    Args:
        source: attention whose `qkv` and `proj` are already cut; its parts are taken over.
        heads: numbers of the source's heads that are kept.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.
    """

    relative_position_index: Tensor

    def __init__(self, source: Any, heads: Sequence[int], qk_width: int, v_width: int) -> None:
        nn.Module.__init__(self)
        self.dim = source.dim
        self.window_size = source.window_size
        self.window_area = source.window_area
        self.num_heads = len(heads)
        self.kept_heads = [numbers_of_heads(source)[head] for head in heads]
        self.scale = source.scale
        self.fused_attn = source.fused_attn
        self.qk_width = qk_width
        self.v_width = v_width
        table = source.relative_position_bias_table
        self.relative_position_bias_table = narrow.gather(table, torch.tensor(heads, dtype=torch.long), dim=1)
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
        qkv = self.qkv(x)
        if not self.num_heads and torch.compiler.is_exporting():  # in training every parameter shall have a gradient
            out: Tensor = self.proj_drop(self.proj(qkv[..., :0]))
            return out
        q, k, v = split_heads(qkv, self.num_heads, self.qk_width, self.v_width)
        bias = self._get_rel_pos_bias()
        if self.fused_attn and self.qk_width and self.v_width:
            bias = bias if mask is None else bias + mask.repeat(windows // len(mask), 1, 1).unsqueeze(1)
            dropout = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        else:
            scores = scores_of(q, k, v, self.scale) + bias
            if mask is not None:
                by_sample = scores.view(windows // len(mask), len(mask), self.num_heads, tokens, tokens)
                scores = (by_sample + mask.unsqueeze(1)).view_as(scores)
            x = self.attn_drop(self.softmax(scores)) @ v
        x = x.transpose(1, 2).reshape(windows, tokens, self.num_heads * self.v_width)
        out = self.proj_drop(self.proj(x))
        return out

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Change the window and interpolate the position biases."""
        if self.num_heads:
            super().set_window_size(window_size)
            return
        # There is nothing to interpolate, which timm does not expect.
        height, width = self.window_size = window_size
        self.window_area = height * width
        table = self.relative_position_bias_table
        empty = table.new_empty((2 * height - 1) * (2 * width - 1), 0)
        self.relative_position_bias_table = nn.Parameter(empty, requires_grad=table.requires_grad)
        self.relative_position_index = get_relative_position_index(height, width, device=table.device)

    def _get_rel_pos_bias(self) -> Tensor:
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(self.window_area, self.window_area, self.num_heads).permute(2, 0, 1).contiguous().unsqueeze(0)


class SwinAdapter(TimmAdapter):
    """Pairs of timm's Swin: attention sees whole windows, padding included; the MLP sees the tokens alone."""

    model_classes = ("timm.models.swin_transformer.SwinTransformer",)
    block_classes = (SwinTransformerBlock,)
    attention_classes = (WindowAttention,)
    compact_class = CompactWindowAttention
    pre_norm_classes = (SwinTransformerBlock,)

    def params_per_head(self, attn: Any) -> int:
        return len(attn.relative_position_bias_table)

    def attention_layout(self, block: Any) -> Callable[[Tensor], Tensor] | None:
        """From (batch, height, width, channels) to the shifted and padded windows, (windows, tokens, channels)."""
        (height, width), (down, right) = block.window_size, block.shift_size

        def arrange(stream: Tensor) -> Tensor:
            shifted = stream.roll((-down, -right), dims=(1, 2))
            padding = (0, 0, 0, -shifted.shape[2] % width, 0, -shifted.shape[1] % height)
            return window_partition(F.pad(shifted, padding), (height, width)).flatten(1, 2)

        return arrange

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
