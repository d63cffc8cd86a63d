"""What timm's transformers share: one fused qkv Linear, a projection, and an MLP of two Linears."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from timm.layers.drop import DropPath, calculate_drop_path_rates
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.adapter import Adapter, HiddenPoint, LogitsPoint, MaskPoint, StreamPoint, UnitWeights
from spp.structure.adapters.mlp import mlp_pair, mlp_units, parts_of, shrink_mlp
from spp.structure.adapters.registry import refuse, refuse_computed
from spp.structure.modeling_spp import COMPACT_CLASSES, attention_sizes, numbers_of_heads, opened, with_heads
from spp.structure.pair import Pair


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
            values) and `proj`, which COMPACT_CLASSES of modeling_spp.py knows.
        pre_norm_classes: those of the block classes that add the output of attention and MLP, scaled at most, to what
            the norms before them see.
        mlp_classes: MLP classes whose Linears modeling_spp.py knows.
        opened_classes: attention classes that call no module for their maps, so that no hook sees these; where pairs
            are looked for an attention of COMPACT_CLASSES takes their place, with the same parameters under the same
            names in `state_dict`.
        attention_name: what a block calls its attention.
        mlp_name: what it calls its MLP.
        norm_names: what it calls the norms before attention and MLP.
    """

    block_classes: ClassVar[tuple[type[nn.Module], ...]]
    attention_classes: ClassVar[tuple[type[nn.Module], ...]]
    pre_norm_classes: ClassVar[tuple[type[nn.Module], ...]]
    mlp_classes: ClassVar[tuple[type[nn.Module], ...]] = (Mlp, GluMlp, SwiGLU)
    opened_classes: ClassVar[tuple[type[nn.Module], ...]] = ()
    attention_name: ClassVar[str] = "attn"
    mlp_name: ClassVar[str] = "mlp"
    norm_names: ClassVar[tuple[str, str]] = ("norm1", "norm2")

    @abstractmethod
    def blocks(self, model: Any) -> Iterator[tuple[str, BlockSize]]:
        """Dotted name and size of every block, in forward order."""

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        stem = next(m for m in model.patch_embed.modules() if isinstance(m, nn.Conv2d))
        shape = (1, stem.in_channels, *model.patch_embed.img_size)
        return {"x": torch.zeros(shape, dtype=stem.weight.dtype, device=stem.weight.device)}

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        blocks: list[Any] = [model.get_submodule(name) for name, _ in self.blocks(model)]
        rates: list[Any] = calculate_drop_path_rates(rate, len(blocks))
        for block, own in zip(blocks, rates, strict=True):
            for name in ("drop_path1", "drop_path2"):
                part = DropPath(own) if own > 0 else nn.Identity()
                setattr(block, name, part.train(block.training))

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        pairs: list[Pair] = []
        for name, size in self.blocks(model):
            self._open(model, f"{name}.{self.attention_name}")
            self._check(model, name)
            attention, mlp = f"{name}.{self.attention_name}", f"{name}.{self.mlp_name}"
            pairs += self._attention_pairs(attention, model.get_submodule(attention), size, per_head)
            module = model.get_submodule(mlp)
            pairs.append(mlp_pair(mlp, mlp, module, parts_of(module), size.num_tokens))
        return [pair for pair in pairs if pair.size > 0]

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        sizes: dict[str, dict[str, Any]] = {}
        for name, _ in self.blocks(model):
            attention, mlp = f"{name}.{self.attention_name}", f"{name}.{self.mlp_name}"
            sizes[attention] = attention_sizes(model.get_submodule(attention))
            second: Any = model.get_submodule(f"{mlp}.{parts_of(model.get_submodule(mlp)).second}")
            sizes[mlp] = {"hidden": second.in_features}
        return sizes

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            second = parts_of(module).second
            return MaskPoint(f"{pair.module}.{second}", "input", module.get_submodule(second).in_features)
        if pair.kind == "vo":
            return MaskPoint(f"{pair.module}.proj", "input", module.proj.in_features)
        # A bias that is added behind the Linear belongs to the query.
        last = "projected" if hasattr(module, "projected") else "qkv"
        return MaskPoint(f"{pair.module}.{last}", "output", module.num_heads * self._head_widths(module)[0])

    def first_mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            if isinstance(module, GluMlp | SwiGLU):
                return super().first_mask_point(model, pair)
            (first,) = parts_of(module).firsts
            return MaskPoint(f"{pair.module}.{first}", "output", module.get_submodule(first).out_features)
        point = self.mask_point(model, pair)
        return point if pair.kind == "vo" else replace(point, num_copies=2)

    def key_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        point = self.mask_point(model, pair)
        return replace(point, first=point.width)

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        target: Any = model.get_submodule(module)
        if "mlp" in kept:
            (units,) = kept["mlp"]
            shrink_mlp(target, parts_of(target), units)
        else:
            model.set_submodule(module, self._compact_attention(target, kept))

    def unit_weights(self, model: nn.Module, pair: Pair) -> list[UnitWeights]:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            parts = mlp_units(module, parts_of(module))
        else:
            heads, (qk_width, _) = module.num_heads, self._head_widths(module)
            channels = self.channels_of_units(model, pair)
            first_key, first_value = heads * qk_width, 2 * heads * qk_width
            is_qk = pair.kind == "qk"
            rows = torch.cat([channels, channels + first_key], dim=1) if is_qk else channels + first_value
            parts = [("qkv.weight", 0, rows), ("qkv.bias", 0, rows), (f"{'q' if is_qk else 'v'}_bias", 0, channels)]
            parts += [] if is_qk else [("proj.weight", 1, channels)]
        return [
            UnitWeights(f"{pair.module}.{part}", parameter, dim, index)
            for part, dim, index in parts
            if (parameter := _part(module, part)) is not None
        ]

    def stream_point(self, model: nn.Module, pair: Pair) -> StreamPoint | None:
        name, _, part = pair.module.rpartition(".")
        block: Any = model.get_submodule(name)
        if pair.kind == "qk" or not isinstance(block, self.pre_norm_classes):
            return None
        number = 0 if part == self.attention_name else 1
        scale = getattr(getattr(block, f"ls{number + 1}", None), "gamma", getattr(block, f"gamma_{number + 1}", None))
        arrange = self.attention_layout(block) if part == self.attention_name else None
        return StreamPoint(f"{name}.{self.norm_names[number]}", scale, arrange)

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        names = [name for name, _ in self.blocks(model)]
        return [HiddenPoint(names[0], "input"), *(HiddenPoint(name, "output") for name in names)]

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        attn: Any = model.get_submodule(pair.module)
        # Repair looks for biases in the Linear.
        return None if getattr(attn, "q_bias", None) is not None else self.logits_of(model, pair.module)

    def logits_of(self, model: nn.Module, module: str) -> LogitsPoint:
        """How the attention of this dotted name makes its logits."""
        attn: Any = model.get_submodule(module)
        heads, width = attn.num_heads, self._head_widths(attn)[0]
        qkv = f"{module}.qkv"
        return LogitsPoint(qkv, 0, qkv, heads * width, heads, width, float(attn.scale), tuple(numbers_of_heads(attn)))

    def attention_layout(self, block: Any) -> Callable[[Tensor], Tensor] | None:
        """How a block arranges tokens for its attention; None: as they are."""
        return None

    def channels_of_units(self, model: nn.Module, pair: Pair) -> Tensor:
        """The channels of every unit of a "qk" or "vo" pair among those of all heads, (units, channels of a unit)."""
        attn: Any = model.get_submodule(pair.module)
        widths = dict(zip(("qk", "vo"), self._head_widths(attn), strict=True))
        channels = torch.arange(attn.num_heads * widths[pair.kind])
        return channels[:, None] if pair.per_head else channels.view(attn.num_heads, -1).T

    def can_open(self, attn: Any) -> bool:
        """Whether an attention of `opened_classes` is of a form that its stand-in computes."""
        return True

    def params_per_head(self, attn: Any) -> int:
        """Parameters of one head that belong to none of its units."""
        return 0

    def keep_heads(self, attn: Any, heads: Sequence[int]) -> None:
        """Cut what belongs to none of the units down to the heads of these ascending numbers, in place."""

    def _compact_attention(self, attn: Any, kept: Mapping[str, Sequence[Tensor]]) -> nn.Module:
        num_heads, (qk_width, v_width) = attn.num_heads, self._head_widths(attn)
        queries = kept.get("qk", [torch.arange(qk_width)] * num_heads)
        values = kept.get("vo", [torch.arange(v_width)] * num_heads)
        heads = [head for head in range(num_heads) if len(values[head])]
        query = narrow.pack(queries, qk_width, heads)
        value = narrow.pack(values, v_width, heads)
        rows = (query, narrow.shift(query, num_heads * qk_width), narrow.shift(value, 2 * num_heads * qk_width))
        narrow.keep_rows(attn.qkv, torch.cat(rows))
        narrow.keep_columns(attn.proj, value)
        keep_biases(attn, query, value)
        self.keep_heads(attn, heads)
        widths = (len(index) // max(len(heads), 1) for index in (query, value))
        return with_heads(attn, heads, *widths)

    def _attention_pairs(self, name: str, attn: Any, size: BlockSize, per_head: bool) -> list[Pair]:
        """Prices of vision-methods.md 0.2: qk 2(d+1), vo 2d+1 parameters for one channel of one head."""
        bias = int(attn.qkv.bias is not None)
        dims = {"qk": 2 * attn.qkv.in_features, "vo": attn.qkv.in_features + attn.proj.out_features}
        bias_apart = int(getattr(attn, "q_bias", None) is not None)
        biases = {"qk": 2 * bias + bias_apart, "vo": bias + bias_apart}
        if attn.num_heads == 0:
            return []
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
                params_per_head=self.params_per_head(attn) if kind == "vo" else 0,
            )
            for kind in ("qk", "vo")
        ]

    def _open(self, model: nn.Module, name: str) -> None:
        attention = model.get_submodule(name) if name.rpartition(".")[2] in _children(model, name) else None
        if type(attention) in self.opened_classes and self.can_open(attention):
            model.set_submodule(name, opened(attention))

    def _head_widths(self, attn: Any) -> tuple[int, int]:
        """Channels of one head: (query and key, value)."""
        sizes = attention_sizes(attn)
        return sizes["qk_width"], sizes["v_width"]

    def _check(self, model: nn.Module, name: str) -> None:
        """Refuse the first part of a block that could mix units or is not a plain Linear."""
        block: Any = model.get_submodule(name)
        if type(block) not in self.block_classes:
            refuse(model, name)
        attention, mlp = f"{name}.{self.attention_name}", f"{name}.{self.mlp_name}"
        mixing = [f"{attention}.{part}" for part in ("q_norm", "k_norm", "norm", "gate")] + [f"{mlp}.norm"]
        for part in mixing:
            module = _part(model, part)
            if module is not None and not isinstance(module, nn.Identity):
                refuse(model, part)
        compact = (COMPACT_CLASSES.get(known) for known in (*self.attention_classes, *self.opened_classes))
        for part, classes in ((attention, (*self.attention_classes, *compact)), (mlp, self.mlp_classes)):
            if type(model.get_submodule(part)) not in classes:
                refuse(model, part)
        parts = parts_of(model.get_submodule(mlp))
        linears = [
            f"{attention}.qkv",
            f"{attention}.proj",
            *(f"{mlp}.{part}" for part in (*parts.firsts, parts.second)),
        ]
        for part in linears:
            linear = _part(model, part)
            if type(linear) is not nn.Linear:
                refuse(model, part)
            for weight in ("weight", "bias"):
                if not isinstance(getattr(linear, weight), nn.Parameter | None):
                    refuse_computed(model, part, weight)


def keep_biases(attn: Any, query: Tensor, value: Tensor) -> None:
    """Keep these channels of biases that queries and values have beside the Linear, where there are some, in place."""
    for name, index in (("q_bias", query), ("v_bias", value)):
        bias = getattr(attn, name, None)
        if bias is not None:
            setattr(attn, name, narrow.gather(bias, index, dim=0))


def _children(model: nn.Module, name: str) -> list[str]:
    return [child for child, _ in model.get_submodule(name.rpartition(".")[0]).named_children()]


def _part(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name, None)
