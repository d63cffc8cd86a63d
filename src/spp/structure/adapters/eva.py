"""timm's Eva: EVA, EVA-02, DINOv3 and other ViTs, with rotary positions or without."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.layers.attention import AttentionRope
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.adapter import LogitsPoint, MaskPoint
from spp.structure.adapters.registry import register
from spp.structure.adapters.timm_base import BlockSize, TimmAdapter, keep_biases
from spp.structure.modeling_spp import CompactEvaAttention, numbers_of_heads, rotary_places
from spp.structure.pair import Pair


class EvaAdapter(TimmAdapter):
    """Pairs of Eva; where positions are rotary, a "qk" unit is a rotary pair, two channels of a query and of a key.

    They are neighbours, or half a head apart (`rotate_half`).
    """

    model_classes = ("timm.models.eva.Eva",)
    block_classes = (EvaBlock, EvaBlockPostNorm)
    pre_norm_classes = (EvaBlock,)
    attention_classes = ()
    opened_classes = (EvaAttention, AttentionRope)

    def can_open(self, attn: Any) -> bool:
        return bool(attn.qkv is not None)

    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        tokens = model.patch_embed.num_patches + model.num_prefix_tokens
        for name, _ in model.blocks.named_children():
            yield f"blocks.{name}", BlockSize(tokens, tokens, tokens)

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        found = super().pairs(model, per_head=per_head)
        return [_of_rotary_pairs(pair) if pair.kind == "qk" and _is_rotary(model) else pair for pair in found]

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        point = super().mask_point(model, pair)
        if pair.kind != "qk" or not _is_rotary(model):
            return point
        attn: Any = model.get_submodule(pair.module)
        return replace(point, copies_per_head=2) if attn.rotate_half else replace(point, channels_per_unit=2)

    def channels_of_units(self, model: nn.Module, pair: Pair) -> Tensor:
        if pair.kind != "qk" or not _is_rotary(model):
            return super().channels_of_units(model, pair)
        attn: Any = model.get_submodule(pair.module)
        num_pairs: int = attn.qk_width // 2
        in_head: Tensor = torch.arange(attn.qk_width)
        in_head = in_head.view(2, num_pairs).T if attn.rotate_half else in_head.view(num_pairs, 2)
        by_head: Tensor = in_head + torch.arange(attn.num_heads)[:, None, None] * attn.qk_width
        return by_head.flatten(0, 1) if pair.per_head else by_head.transpose(0, 1).flatten(1)

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        return None if _is_rotary(model) else super().logits_point(model, pair)

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        if "mlp" in kept:
            super().shrink(model, module, kept)
        else:
            attn: Any = model.get_submodule(module)
            model.set_submodule(module, _compact_attention(attn, kept, _is_rotary(model)))


def _is_rotary(model: Any) -> bool:
    return bool(model.rope is not None)


def _of_rotary_pairs(pair: Pair) -> Pair:
    return replace(
        pair,
        size=pair.size // 2,
        params_per_unit=2 * pair.params_per_unit,
        macs_per_unit=2 * pair.macs_per_unit,
    )


def _channels(pairs: Tensor, num_pairs: int, rotate_half: bool) -> Tensor:
    """The channels, in their order, of a head's rotary pairs (..., pairs) of so many; padding stays padding."""
    if rotate_half:
        return torch.cat([pairs, narrow.shift(pairs, num_pairs)], dim=-1)
    first = torch.where(pairs == narrow.PADDING, narrow.PADDING, 2 * pairs)
    return torch.stack([first, narrow.shift(first, 1)], dim=-1).flatten(-2)


def _in_place(kept: Sequence[Tensor], num_units: int) -> Tensor:
    """The kept numbers of every head at their own places, with padding between them, (heads, units)."""
    index = torch.full((len(kept), num_units), narrow.PADDING)
    for row, numbers in zip(index, kept, strict=True):
        row[numbers] = numbers
    return index


def _compact_attention(attn: Any, kept: Mapping[str, Sequence[Tensor]], is_rotary: bool) -> nn.Module:
    num_heads, qk_width, v_width = attn.num_heads, attn.qk_width, attn.v_width
    num_units = qk_width // 2 if is_rotary else qk_width
    queries = kept.get("qk", [torch.arange(num_units)] * num_heads)
    values = kept.get("vo", [torch.arange(v_width)] * num_heads)
    heads = [head for head in range(num_heads) if len(values[head])]
    in_head = narrow.pack([queries[head] for head in heads], 0).view(len(heads), -1 if heads else 0)
    if in_head.shape[1] == num_units:  # then each pair has its place of old, also in heads that have lost some
        in_head = _in_place([queries[head] for head in heads], num_units)
    channels = _channels(in_head, num_units, attn.rotate_half) if is_rotary else in_head
    first = torch.tensor(heads, dtype=torch.long)[:, None] * qk_width
    query = torch.where(channels == narrow.PADDING, narrow.PADDING, channels + first).flatten()
    value = narrow.pack(values, v_width, heads)
    rows = (query, narrow.shift(query, num_heads * qk_width), narrow.shift(value, 2 * num_heads * qk_width))
    narrow.keep_rows(attn.qkv, torch.cat(rows))
    narrow.keep_columns(attn.proj, value)
    keep_biases(attn, query, value)
    places, numbers = rotary_places(attn)[heads].cpu(), numbers_of_heads(attn)
    is_full = channels.shape[1] == qk_width  # also where nothing was left before
    rotary = places if is_full else places.gather(1, channels.clamp(min=0))
    kept_numbers = [numbers[head] for head in heads]
    widths = channels.shape[1], len(value) // max(len(heads), 1)
    made: Any = CompactEvaAttention(attn, len(heads), *widths, rotary, attn.head_numbers[heads])
    made.kept_heads = kept_numbers
    return made  # type: ignore[no-any-return]


register(EvaAdapter())
