"""timm SwinTransformer: window attention with a relative position bias, in stages of shrinking resolution."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention, window_partition
from torch import Tensor

from spp.structure import narrow
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter


class SwinAdapter(TimmAdapter):
    """Pairs of timm's Swin: attention sees whole windows, padding included; the MLP sees the tokens alone."""

    model_classes = ("timm.models.swin_transformer.SwinTransformer",)
    block_classes = (SwinTransformerBlock,)
    attention_classes = (WindowAttention,)
    pre_norm_classes = (SwinTransformerBlock,)

    def params_per_head(self, attn: Any) -> int:
        return len(attn.relative_position_bias_table)

    def keep_heads(self, attn: Any, heads: Sequence[int]) -> None:
        table = attn.relative_position_bias_table
        attn.relative_position_bias_table = narrow.gather(table, torch.tensor(heads, dtype=torch.long), dim=1)

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
