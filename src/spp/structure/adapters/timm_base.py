"""What timm's transformers share: one fused qkv Linear, a projection, and an MLP of two Linears."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.registry import Adapter, MaskPoint, refuse
from spp.structure.pairs import Pair


@dataclass(frozen=True)
class BlockSize:
    """How much work one block of a model has per sample.

    Attributes:
        num_tokens: tokens that the MLP sees.
        num_queries: tokens that the attention sees, padding of windows included.
        num_keys: tokens that each of them attends to.
    """

    num_tokens: int
    num_queries: int
    num_keys: int


class TimmAdapter(Adapter):
    """Pairs, mask points and cuts of a timm transformer; a subclass names the blocks and the classes.

    Attributes:
        block_classes: block classes whose forward is known to call `attn` and `mlp` between residuals.
        attention_classes: attention classes with `num_heads`, `qkv` (first all queries, then keys, then
            values) and `proj`.
        compact_class: the attention for unequal query-key and value widths, built as
            `compact_class(source, qk_width, v_width)`; it has attributes of these names.
    """

    block_classes: ClassVar[tuple[type[nn.Module], ...]]
    attention_classes: ClassVar[tuple[type[nn.Module], ...]]
    compact_class: ClassVar[type[nn.Module]]

    @abstractmethod
    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        """Dotted name and size of every block, in forward order."""

    def example(self, model: Any) -> Tensor:
        stem = next(m for m in model.patch_embed.modules() if isinstance(m, nn.Conv2d))
        shape = (1, stem.in_channels, *model.patch_embed.img_size)
        return torch.zeros(shape, dtype=stem.weight.dtype, device=stem.weight.device)

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        pairs: list[Pair] = []
        for name, size in self.blocks(model):
            self._check(model, name)
            attention, mlp = f"{name}.attn", f"{name}.mlp"
            pairs += self._attention_pairs(attention, model.get_submodule(attention), size, per_head)
            pairs.append(_mlp_pair(mlp, model.get_submodule(mlp), size))
        return [pair for pair in pairs if pair.size > 0]

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            return MaskPoint(f"{pair.module}.fc2", "input", module.fc2.in_features)
        if pair.kind == "vo":
            return MaskPoint(f"{pair.module}.proj", "input", module.proj.in_features)
        return MaskPoint(f"{pair.module}.qkv", "output", module.num_heads * self._head_widths(module)[0])

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        target: Any = model.get_submodule(module)
        if "mlp" in kept:
            (units,) = kept["mlp"]
            narrow.keep_rows(target.fc1, units)
            narrow.keep_columns(target.fc2, units)
        else:
            model.set_submodule(module, self._compact_attention(target, kept))

    def _compact_attention(self, attn: Any, kept: Mapping[str, Sequence[Tensor]]) -> nn.Module:
        heads, (qk_width, v_width) = attn.num_heads, self._head_widths(attn)
        query = narrow.pack(kept.get("qk", [torch.arange(qk_width)] * heads), qk_width)
        value = narrow.pack(kept.get("vo", [torch.arange(v_width)] * heads), v_width)
        rows = (query, narrow.shift(query, heads * qk_width), narrow.shift(value, 2 * heads * qk_width))
        narrow.keep_rows(attn.qkv, torch.cat(rows))
        narrow.keep_columns(attn.proj, value)
        return self.compact_class(attn, len(query) // heads, len(value) // heads)

    def _attention_pairs(self, name: str, attn: Any, size: BlockSize, per_head: bool) -> list[Pair]:
        """Prices of vision-methods.md 0.2: qk 2(d+1), vo 2d+1 parameters for one channel of one head."""
        bias = int(attn.qkv.bias is not None)
        dims = {"qk": 2 * attn.qkv.in_features, "vo": attn.qkv.in_features + attn.proj.out_features}
        biases = {"qk": 2 * bias, "vo": bias}
        widths = dict(zip(("qk", "vo"), self._head_widths(attn), strict=True))
        heads_per_unit = 1 if per_head else attn.num_heads
        return [
            Pair(
                name=f"{name}.{kind}",
                kind=kind,
                size=widths[kind] * attn.num_heads // heads_per_unit,
                params_per_unit=heads_per_unit * (dims[kind] + biases[kind]),
                macs_per_unit=float(heads_per_unit * size.num_queries * (dims[kind] + size.num_keys)),
                num_heads=attn.num_heads,
                per_head=per_head,
                module=name,
            )
            for kind in ("qk", "vo")
        ]

    def _head_widths(self, attn: Any) -> tuple[int, int]:
        """Channels of one head: (query and key, value)."""
        width = attn.qkv.out_features // 3 // attn.num_heads
        return getattr(attn, "qk_width", width), getattr(attn, "v_width", width)

    def _check(self, model: nn.Module, name: str) -> None:
        """Refuse the first part of a block that could mix units or is not a plain Linear."""
        block: Any = model.get_submodule(name)
        if type(block) not in self.block_classes:
            refuse(model, name)
        if type(block.attn) not in (*self.attention_classes, self.compact_class):
            refuse(model, f"{name}.attn")
        if type(block.mlp) is not Mlp:
            refuse(model, f"{name}.mlp")
        for part in ("attn.q_norm", "attn.k_norm", "attn.norm", "attn.gate", "mlp.norm"):
            module = _part(block, part)
            if module is not None and not isinstance(module, nn.Identity):
                refuse(model, f"{name}.{part}")
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            if type(_part(block, part)) is not nn.Linear:
                refuse(model, f"{name}.{part}")


def split_heads(qkv: Tensor, num_heads: int, qk_width: int, v_width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Take the output of a fused qkv Linear apart.

    Args:
        qkv: shape (batch, tokens, num_heads * (2 * qk_width + v_width)).
        num_heads: number of heads.
        qk_width: channels of a query or key head.
        v_width: channels of a value head.

    Returns:
        Queries and keys of shape (batch, num_heads, tokens, qk_width), values (batch, num_heads, tokens,
        v_width).
    """
    batch, tokens, _ = qkv.shape
    first_key, first_value = num_heads * qk_width, 2 * num_heads * qk_width
    q = qkv[..., :first_key].reshape(batch, tokens, num_heads, qk_width)
    k = qkv[..., first_key:first_value].reshape(batch, tokens, num_heads, qk_width)
    v = qkv[..., first_value:].reshape(batch, tokens, num_heads, v_width)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _mlp_pair(name: str, mlp: Any, size: BlockSize) -> Pair:
    dims = mlp.fc1.in_features + mlp.fc2.out_features
    return Pair(
        name=name,
        kind="mlp",
        size=mlp.fc1.out_features,
        params_per_unit=dims + int(mlp.fc1.bias is not None),
        macs_per_unit=float(dims * size.num_tokens),
        num_heads=1,
        per_head=False,
        module=name,
    )


def _part(block: nn.Module, path: str) -> nn.Module | None:
    owner, _, name = path.partition(".")
    part: nn.Module | None = getattr(getattr(block, owner), name, None)
    return part
