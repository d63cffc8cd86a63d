"""Hugging Face's BERT: the encoder, of any size; embeddings, pooler and head are left as they are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spp.structure.adapters.adapter import AttentionPoint, HiddenPoint
from spp.structure.adapters.mlp import MlpParts
from spp.structure.adapters.registry import register
from spp.structure.adapters.separate import AttentionParts, SeparateBlock
from spp.structure.adapters.transformers_base import TransformersAdapter
from spp.structure.pair import Pair

LIBRARY = "transformers.models.bert.modeling_bert"
_CLASSES = {
    "": "BertLayer",
    ".attention": "BertAttention",
    ".attention.output": "BertSelfOutput",
    ".intermediate": "BertIntermediate",
    ".output": "BertOutput",
}
"""The parts of a layer whose forward is known, by their place in it."""


class BertAdapter(TransformersAdapter):
    """Pairs of BERT's encoder. An attention or MLP is added to what its first maps see, and normed behind that.

    A text has as many tokens as `example_length` of the network's configuration says; where that has none, as those of
    Hugging Face, as the network has positions.
    """

    model_classes = tuple(
        f"{LIBRARY}.{name}"
        for name in (
            "BertModel",
            "BertForSequenceClassification",
            "BertForTokenClassification",
            "BertForQuestionAnswering",
            "BertForMaskedLM",
        )
    )
    attention_parts = AttentionParts("self.query", "self.key", "self.value", "output.dense")
    mlp_parts = MlpParts(("intermediate.dense",), "output.dense")

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        device = next(model.parameters()).device
        tokens = torch.zeros(1, _length(model), dtype=torch.long, device=device)
        if device.type == "meta":  # transformers looks into a mask, and there are no values
            return {"input_ids": tokens}
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "token_type_ids": tokens}

    def pairs(self, model: nn.Module, *, per_head: bool) -> list[Pair]:
        # An MLP is no module of its own: its name would be that of the layer, in which the attention lies, too.
        found = super().pairs(model, per_head=per_head)
        return [replace(pair, name=f"{pair.name}.mlp") if pair.kind == "mlp" else pair for pair in found]

    def blocks(self, model: Any) -> Iterator[SeparateBlock]:
        body = "bert." if hasattr(model, "bert") else ""
        for index, _ in model.get_submodule(f"{body}encoder.layer").named_children():
            name = f"{body}encoder.layer.{index}"
            streams = (f"{name}.attention.self.query", f"{name}.intermediate.dense")
            yield SeparateBlock(name, f"{name}.attention", name, _length(model), streams)

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        names = [block.name for block in self.blocks(model)]
        return [HiddenPoint(names[0], "input"), *(HiddenPoint(name, "output") for name in names)]

    def attention_points(self, model: nn.Module) -> list[AttentionPoint]:
        return [AttentionPoint(self.logits_of(model, block.attention)) for block in self.blocks(model)]

    def unknown_part(self, model: Any, block: SeparateBlock) -> str | None:
        from spp.structure.modeling_transformers import CompactBertSelfAttention

        layer: Any = model.get_submodule(block.name)
        for place, name in _CLASSES.items():
            part = model.get_submodule(f"{block.name}{place}")
            if _name_of(part) != f"{LIBRARY}.{name}":
                return f"{block.name}{place}"
        attention = layer.attention.self
        if type(attention) is not CompactBertSelfAttention and _name_of(attention) != f"{LIBRARY}.BertSelfAttention":
            return f"{block.name}.attention.self"
        return f"{block.name}.crossattention" if layer.is_decoder else None


def _length(model: Any) -> int:
    return int(getattr(model.config, "example_length", model.config.max_position_embeddings))


def _name_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


register(BertAdapter())
