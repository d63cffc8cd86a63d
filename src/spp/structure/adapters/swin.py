"""timm SwinTransformer: window attention with a relative position bias, in stages of shrinking resolution."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention

from spp.structure import narrow
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter


class SwinAdapter(TimmAdapter):
    """Pairs of timm's Swin: attention sees whole windows, padding included; the MLP sees the tokens alone."""

    model_classes = ("timm.models.swin_transformer.SwinTransformer",)
    block_classes = (SwinTransformerBlock,)
    attention_classes = (WindowAttention,)

    def params_per_head(self, attn: Any) -> int:
        return len(attn.relative_position_bias_table)

    def keep_heads(self, attn: Any, heads: Sequence[int]) -> None:
        table = attn.relative_position_bias_table
        attn.relative_position_bias_table = narrow.gather(table, torch.tensor(heads, dtype=torch.long), dim=1)

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
