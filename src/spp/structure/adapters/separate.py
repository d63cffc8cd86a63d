"""What transformers with separate query, key and value Linears share, as those of Hugging Face."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spp.structure import narrow
from spp.structure.adapters.adapter import Adapter, LogitsPoint, MaskPoint, StreamPoint, UnitWeights
from spp.structure.adapters.mlp import MlpParts, mlp_pair, mlp_units, shrink_mlp
from spp.structure.adapters.registry import refuse, refuse_computed
from spp.structure.pair import Pair


@dataclass(frozen=True)
class AttentionParts:
    """Dotted names, within the module of an attention, of its four Linears."""

    query: str
    key: str
    value: str
    output: str


@dataclass(frozen=True)
class HeadSizes:
    """Heads of an attention, channels of a query or key head and of a value head, and the factor of the scores."""

    num_heads: int
    qk_width: int
    v_width: int
    scale: float


@dataclass(frozen=True)
class SeparateBlock:
    """One block of a model.

    Attributes:
        name: dotted name of the block.
        attention: dotted name of its attention.
        mlp: dotted name of its MLP.
        num_tokens: tokens of a sample that both see.
        streams: dotted names of the modules whose inputs are the residual stream that attention and MLP are added to;
            None where their outputs are not added as they are, or scaled.
        scales: dotted names of the parameters that scale their outputs before that; None: nothing does.
    """

    name: str
    attention: str
    mlp: str
    num_tokens: int
    streams: tuple[str, str] | None
    scales: tuple[str, str] | None = None


class SeparateAdapter(Adapter):
    """Pairs, mask points and cuts; a subclass names the blocks, the Linears and the compact attention.

    Attributes:
        attention_parts: the Linears of an attention: one output row of query, key and value for each channel, head
            after head.
        mlp_parts: the Linears of an MLP, where all have the same; else see `parts_of_mlp`.
    """

    attention_parts: ClassVar[AttentionParts]
    mlp_parts: ClassVar[MlpParts]

    @abstractmethod
    def blocks(self, model: Any) -> Iterator[SeparateBlock]:
        """The blocks in forward order."""

    def parts_of_mlp(self, mlp: nn.Module) -> MlpParts:
        """The Linears of an MLP."""
        return self.mlp_parts

    @abstractmethod
    def head_sizes(self, attention: Any) -> HeadSizes:
        """Of an attention, compact or not."""

    @abstractmethod
    def kept_heads(self, attention: Any) -> tuple[int, ...]:
        """Numbers that its heads have in the network that no head had left."""

    @abstractmethod
    def with_heads(self, attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
        """The attention for Linears that are cut already, of the stock class where that can have these widths.

        Args:
            attention: of this architecture, compact or not; it is used up.
            heads: ascending numbers of the heads that are left.
            qk_width: channels of a query or key head that are left.
            v_width: channels of a value head that are left.
        """

    @abstractmethod
    def unknown_part(self, model: Any, block: SeparateBlock) -> str | None:
        """Dotted name of the first part of a block whose forward is not known; None where all is."""

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        pairs: list[Pair] = []
        for block in self.blocks(model):
            self._check(model, block)
            pairs += self._attention_pairs(model, block, per_head)
            pairs.append(self._mlp_pair(model, block))
        return [pair for pair in pairs if pair.size > 0]

    def mask_point(self, model: nn.Module, pair: Pair) -> MaskPoint:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            return self._input_of(model, pair.module, self.parts_of_mlp(module).second)
        if pair.kind == "vo":
            return self._input_of(model, pair.module, self.attention_parts.output)
        sizes = self.head_sizes(module)
        name = f"{pair.module}.{self.attention_parts.query}"
        return MaskPoint(name, "output", sizes.num_heads * sizes.qk_width)

    def shrink(self, model: nn.Module, module: str, kept: Mapping[str, Sequence[Tensor]]) -> None:
        target: Any = model.get_submodule(module)
        if "mlp" in kept:
            (units,) = kept["mlp"]
            shrink_mlp(target, self.parts_of_mlp(target), units)
            return
        parts, sizes = self.attention_parts, self.head_sizes(target)
        queries = kept.get("qk", [torch.arange(sizes.qk_width)] * sizes.num_heads)
        values = kept.get("vo", [torch.arange(sizes.v_width)] * sizes.num_heads)
        heads = [head for head in range(sizes.num_heads) if len(values[head])]
        query = narrow.pack(queries, sizes.qk_width, heads)
        value = narrow.pack(values, sizes.v_width, heads)
        for name, index in ((parts.query, query), (parts.key, query), (parts.value, value)):
            narrow.keep_rows(target.get_submodule(name), index)
        narrow.keep_columns(target.get_submodule(parts.output), value)
        widths = (len(index) // max(len(heads), 1) for index in (query, value))
        model.set_submodule(module, self.with_heads(target, heads, *widths))

    def unit_weights(self, model: nn.Module, pair: Pair) -> list[UnitWeights]:
        module: Any = model.get_submodule(pair.module)
        if pair.kind == "mlp":
            found = mlp_units(module, self.parts_of_mlp(module))
        else:
            parts, sizes = self.attention_parts, self.head_sizes(module)
            width = sizes.qk_width if pair.kind == "qk" else sizes.v_width
            channels = torch.arange(sizes.num_heads * width)
            units = channels[:, None] if pair.per_head else channels.view(sizes.num_heads, width).T
            rows = [parts.query, parts.key] if pair.kind == "qk" else [parts.value]
            found = [(f"{name}.{part}", 0, units) for name in rows for part in ("weight", "bias")]
            found += [(f"{parts.output}.weight", 1, units)] if pair.kind == "vo" else []
        return [
            UnitWeights(f"{pair.module}.{name}", parameter, dim, units)
            for name, dim, units in found
            if (parameter := _attribute(module, name)) is not None
        ]

    def stream_point(self, model: nn.Module, pair: Pair) -> StreamPoint | None:
        block = next(block for block in self.blocks(model) if pair.module in (block.attention, block.mlp))
        if pair.kind == "qk" or block.streams is None:
            return None
        number = 0 if pair.kind == "vo" else 1
        scale = None if block.scales is None else model.get_parameter(block.scales[number])
        return StreamPoint(block.streams[number], scale)

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        return self.logits_of(model, pair.module)

    def logits_of(self, model: nn.Module, module: str) -> LogitsPoint:
        """How the attention of this dotted name makes its logits."""
        attention: Any = model.get_submodule(module)
        sizes, parts = self.head_sizes(attention), self.attention_parts
        query, key = (f"{module}.{name}" for name in (parts.query, parts.key))
        heads = self.kept_heads(attention)
        return LogitsPoint(query, 0, key, 0, sizes.num_heads, sizes.qk_width, sizes.scale, heads)

    def _input_of(self, model: nn.Module, module: str, part: str) -> MaskPoint:
        linear: Any = model.get_submodule(f"{module}.{part}")
        return MaskPoint(f"{module}.{part}", "input", linear.in_features)

    def _attention_pairs(self, model: nn.Module, block: SeparateBlock, per_head: bool) -> list[Pair]:
        """Prices of vision-methods.md 0.2: qk 2(d+1), vo 2d+1 parameters for one channel of one head."""
        attention: Any = model.get_submodule(block.attention)
        sizes = self.head_sizes(attention)
        if not sizes.num_heads:
            return []
        query, key, value, output = (
            attention.get_submodule(name)
            for name in (
                self.attention_parts.query,
                self.attention_parts.key,
                self.attention_parts.value,
                self.attention_parts.output,
            )
        )
        dims = {"qk": query.in_features + key.in_features, "vo": value.in_features + output.out_features}
        biases = {"qk": _num_biases(query, key), "vo": _num_biases(value)}
        widths = {"qk": sizes.qk_width, "vo": sizes.v_width}
        heads_per_unit = 1 if per_head else sizes.num_heads
        return [
            Pair(
                name=f"{block.attention}.{kind}",
                kind=kind,
                size=widths[kind] * sizes.num_heads // heads_per_unit,
                params_per_unit=heads_per_unit * (dims[kind] + biases[kind]),
                macs_per_unit=float(heads_per_unit * block.num_tokens * (dims[kind] + block.num_tokens)),
                num_heads=sizes.num_heads,
                per_head=per_head,
                module=block.attention,
            )
            for kind in ("qk", "vo")
        ]

    def _mlp_pair(self, model: nn.Module, block: SeparateBlock) -> Pair:
        mlp = model.get_submodule(block.mlp)
        return mlp_pair(block.mlp, block.mlp, mlp, self.parts_of_mlp(mlp), block.num_tokens)

    def _check(self, model: nn.Module, block: SeparateBlock) -> None:
        """Refuse the first part of a block that could mix units or is not a plain Linear."""
        unknown = self.unknown_part(model, block)
        if unknown is not None:
            refuse(model, unknown)
        attention, mlp = self.attention_parts, self.parts_of_mlp(model.get_submodule(block.mlp))
        names = [f"{block.attention}.{part}" for part in (attention.query, attention.key, attention.value)]
        names += [f"{block.attention}.{attention.output}"]
        names += [f"{block.mlp}.{part}" for part in (*mlp.firsts, mlp.second)]
        for name in names:
            linear = model.get_submodule(name)
            if type(linear) is not nn.Linear:
                refuse(model, name)
            for weight in ("weight", "bias"):
                if not isinstance(getattr(linear, weight), nn.Parameter | None):
                    refuse_computed(model, name, weight)


def _num_biases(*linears: nn.Linear) -> int:
    return sum(linear.bias is not None for linear in linears)


def _attribute(module: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(module.get_submodule(owner), name)
