"""timm's BEiT, of any size, with absolute or relative positions."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.models.beit import Attention, Block

from spp.structure import narrow
from spp.structure.adapters.registry import refuse, register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter


class BeitAdapter(TimmAdapter):
    """Pairs of BEiT; a bias of relative positions leaves with its head, one that layers share is not understood."""

    model_classes = ("timm.models.beit.Beit",)
    block_classes = (Block,)
    pre_norm_classes = (Block,)
    attention_classes = ()
    opened_classes = (Attention,)

    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        if model.rel_pos_bias is not None:
            refuse(model, "rel_pos_bias")
        tokens = model.patch_embed.num_patches + model.num_prefix_tokens
        for name, _ in model.blocks.named_children():
            yield f"blocks.{name}", BlockSize(tokens, tokens, tokens)

    def params_per_head(self, attn: Any) -> int:
        table = attn.relative_position_bias_table
        return 0 if table is None else len(table)

    def keep_heads(self, attn: Any, heads: Sequence[int]) -> None:
        table = attn.relative_position_bias_table
        if table is not None:
            attn.relative_position_bias_table = narrow.gather(table, torch.tensor(heads, dtype=torch.long), dim=1)


register(BeitAdapter())
