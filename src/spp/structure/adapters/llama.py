"""Llama of Hugging Face: grouped-query attention with rotary positions, gated MLP."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.adapter import Adapter, MaskPoint, StreamPoint, UnitWeights
from spp.structure.adapters.registry import refuse, refuse_computed, register
from spp.structure.modeling_spp_llama import CompactLlamaAttention, rotary_places, with_groups
from spp.structure.pair import Pair

DEFAULT_LENGTH = 512
"""Tokens of a sample, where the model does not say in `window_length`: language models have no input size."""
_MODULE = "transformers.models.llama.modeling_llama"
_ATTENTION, _MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


class LlamaAdapter(Adapter):
    """What `Pair` calls a head is a kv group here: a key head, a value head, and the query heads that read them.

    A "qk" unit is a rotary pair, channels i and i + half a head, in the keys and in all queries of the group. A "vo"
    unit is a channel of the values, and its column of o_proj for every query head. An "mlp" unit is a row of gate_proj
    and up_proj and a column of down_proj.
    """

    model_classes = (f"{_MODULE}.LlamaForCausalLM", f"{_MODULE}.LlamaModel")

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        return {"input_ids": torch.zeros(1, _length(model), dtype=torch.long, device=device)}

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        pairs: list[Pair] = []
        for name, layer in _layers(model):
            _check(model, name, layer)
            pairs += _attention_pairs(f"{name}.self_attn", layer.self_attn, _length(model), per_head)
            pairs.append(_mlp_pair(f"{name}.mlp", layer.mlp, _length(model)))
        return [pair for pair in pairs if pair.size > 0]

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            return MaskPoint(f"{pair.module}.down_proj", "input", module.down_proj.in_features)
        repeats = module.num_key_value_groups
        if pair.kind == "vo":
            return MaskPoint(f"{pair.module}.o_proj", "input", module.o_proj.in_features, copies_per_head=repeats)
        return MaskPoint(f"{pair.module}.q_proj", "output", module.q_proj.out_features, copies_per_head=2 * repeats)

    def key_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        return MaskPoint(f"{pair.module}.k_proj", "output", module.k_proj.out_features, copies_per_head=2)

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        target: Any = model.get_submodule(module)
        if "mlp" in kept:
            (units,) = kept["mlp"]
            for first in (target.gate_proj, target.up_proj):
                narrow.keep_rows(first, units)
            narrow.keep_columns(target.down_proj, units)
            target.intermediate_size = len(units)
        else:
            model.set_submodule(module, _compact_attention(target, kept))

    def unit_weights(self, model: nn.Module, pair: Pair) -> list[UnitWeights]:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            units = torch.arange(pair.size)[:, None]
            parts = [("gate_proj", 0, units), ("up_proj", 0, units), ("down_proj", 1, units)]
        else:
            keys, queries = _channels(module, pair.kind, 1), _channels(module, pair.kind, module.num_key_value_groups)
            if not pair.per_head:
                keys, queries = (each.transpose(0, 1) for each in (keys, queries))
            keys, queries = (each.reshape(pair.size, -1) for each in (keys, queries))
            is_qk = pair.kind == "qk"
            parts = [("q_proj", 0, queries), ("k_proj", 0, keys)] if is_qk else [("v_proj", 0, keys)]
            parts += [] if is_qk else [("o_proj", 1, queries)]
        return [
            UnitWeights(f"{pair.module}.{part}.{name}", parameter, dim, index)
            for part, dim, index in parts
            for name in (("weight", "bias") if dim == 0 else ("weight",))
            if (parameter := getattr(module.get_submodule(part), name)) is not None
        ]

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        if rate:
            raise ValueError(f"drop_path: {rate} is not allowed with {type(model).__name__}; allowed: 0; leave it out")

    def sequential_blocks(self, model: nn.Module) -> list[str]:
        return [name for name, _ in _layers(model)]

    def stream_point(self, model: nn.Module, pair: Pair) -> StreamPoint | None:
        if pair.kind == "qk":
            return None
        norm = "post_attention_layernorm" if pair.kind == "mlp" else "input_layernorm"
        return StreamPoint(f"{pair.module.rpartition('.')[0]}.{norm}")


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    prefix, decoder = ("model.layers", model.model) if hasattr(model, "lm_head") else ("layers", model)
    for number, layer in enumerate(decoder.layers):
        yield f"{prefix}.{number}", layer


def _length(model: Any) -> int:
    """Tokens of a sample."""
    length: int = getattr(model, "window_length", None) or min(DEFAULT_LENGTH, model.config.max_position_embeddings)
    return length


def _widths(attention: Any) -> tuple[int, int, int]:
    """KV groups, channels of a query or key head, channels of a value head."""
    if isinstance(attention, CompactLlamaAttention):
        return attention.num_groups, attention.qk_width, attention.v_width
    return attention.k_proj.out_features // attention.head_dim, attention.head_dim, attention.head_dim


def _channels(attention: Any, kind: str, heads_per_group: int) -> Tensor:
    """The channels of every unit in a linear of so many heads a group, (groups, units of a group, channels)."""
    num_groups, qk_width, v_width = _widths(attention)
    width, per_unit = (qk_width, 2) if kind == "qk" else (v_width, 1)
    # A head's first half has the first channels of its rotary pairs, the second half the others.
    shape = (num_groups, heads_per_group, per_unit, width // per_unit)
    numbers = torch.arange(num_groups * heads_per_group * width).view(shape)
    return numbers.permute(0, 3, 1, 2).flatten(2)


def _attention_pairs(name: str, attention: Any, length: int, per_head: bool) -> list[Pair]:
    """Prices of llm-prototype.md 3: (2 + 2 rep) hidden weights of a rotary pair, (1 + rep) hidden of a value channel.

    `rep` are the query heads of a kv group. Each channel of a query head is a multiply-add for every two tokens in the
    product with the keys, each of a value head one in the product with the probabilities.
    """
    num_groups, qk_width, v_width = _widths(attention)
    if num_groups == 0:
        return []
    repeats, hidden = attention.num_key_value_groups, attention.q_proj.in_features
    first, bias = 1 + repeats, int(attention.q_proj.bias is not None)
    groups_per_unit = 1 if per_head else num_groups
    # Kind, units of a group, weights and biases of one of its channels, products of that channel.
    kinds = [
        ("qk", qk_width // 2, 2 * first * hidden, 2 * first * bias, 2 * repeats),
        ("vo", v_width, hidden + repeats * attention.o_proj.out_features, bias, repeats),
    ]
    return [
        Pair(
            name=f"{name}.{kind}",
            kind=kind,
            size=units * num_groups // groups_per_unit,
            params_per_unit=groups_per_unit * (weights + biases),
            macs_per_unit=float(groups_per_unit * length * (weights + products * length)),
            num_heads=num_groups,
            per_head=per_head,
            module=name,
        )
        for kind, units, weights, biases, products in kinds
    ]


def _mlp_pair(name: str, mlp: Any, length: int) -> Pair:
    weights = 2 * mlp.gate_proj.in_features + mlp.down_proj.out_features
    return Pair(
        name=name,
        kind="mlp",
        size=mlp.down_proj.in_features,
        params_per_unit=weights + 2 * int(mlp.gate_proj.bias is not None),
        macs_per_unit=float(weights * length),
        module=name,
    )


def _compact_attention(attention: Any, kept: Mapping[str, Sequence[Tensor]]) -> nn.Module:
    num_groups, qk_width, v_width = _widths(attention)
    repeats, half = attention.num_key_value_groups, qk_width // 2
    pairs = kept.get("qk", [torch.arange(half)] * num_groups)
    values = kept.get("vo", [torch.arange(v_width)] * num_groups)
    groups = [group for group in range(num_groups) if len(values[group])]
    pair, value = (_packed([kind[group] for group in groups]) for kind in (pairs, values))
    channels = torch.cat([pair, narrow.shift(pair, half)], dim=1)
    places = rotary_places(attention)[groups]

    def rows(index: Tensor, width: int, heads_per_group: int) -> Tensor:
        heads = torch.tensor(groups, dtype=torch.long)[:, None] * heads_per_group + torch.arange(heads_per_group)
        first = (heads * width)[:, :, None]
        return torch.where(index[:, None] == narrow.PADDING, narrow.PADDING, index[:, None] + first).flatten()

    narrow.keep_rows(attention.q_proj, rows(channels, qk_width, repeats))
    narrow.keep_rows(attention.k_proj, rows(channels, qk_width, 1))
    narrow.keep_rows(attention.v_proj, rows(value, v_width, 1))
    narrow.keep_columns(attention.o_proj, rows(value, v_width, repeats))
    rotary = places.gather(1, channels.clamp(min=0).to(places.device)) if channels.numel() else channels
    return with_groups(attention, len(groups), channels.shape[1], value.shape[1], rotary)


def _packed(kept: Sequence[Tensor]) -> Tensor:
    """The kept numbers of every group, filled up to the widest, (groups, width)."""
    index = narrow.pack(kept, 0)
    return index.view(len(kept), -1) if len(kept) else index.view(0, 0)


def _check(model: nn.Module, name: str, layer: Any) -> None:
    """Refuse the first part of a layer that could mix units or is not a plain Linear."""
    parts = (("", "LlamaDecoderLayer"), (".self_attn", "LlamaAttention"), (".mlp", "LlamaMLP"))
    for part, expected in parts:
        found = type(model.get_submodule(name + part))
        if found is not CompactLlamaAttention and f"{found.__module__}.{found.__qualname__}" != f"{_MODULE}.{expected}":
            refuse(model, name + part)
    for part, linears in (("self_attn", _ATTENTION), ("mlp", _MLP)):
        for linear in linears:
            module: Any = layer.get_submodule(f"{part}.{linear}")
            if type(module) is not nn.Linear:
                refuse(model, f"{name}.{part}.{linear}")
            for weight in ("weight", "bias"):
                if not isinstance(getattr(module, weight), nn.Parameter | None):
                    refuse_computed(model, f"{name}.{part}.{linear}", weight)


register(LlamaAdapter())
