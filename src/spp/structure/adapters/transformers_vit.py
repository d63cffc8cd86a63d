"""Hugging Face's ViT, DeiT and DINOv2 (with and without registers), of any size, with or without a head."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.layers.drop import DropPath, calculate_drop_path_rates
from torch import Tensor, nn

from spp.structure.adapters.adapter import AttentionPoint, HiddenPoint
from spp.structure.adapters.mlp import MlpParts, parts_of
from spp.structure.adapters.registry import refuse, register
from spp.structure.adapters.separate import AttentionParts, HeadSizes, SeparateAdapter, SeparateBlock
from spp.structure.modeling_spp import (
    CompactSeparateAttention,
    attention_sizes,
    numbers_of_heads,
    with_heads,
)

_LIBRARY = "transformers.models"
_FAMILIES = {"vit": "ViT", "deit": "DeiT", "dinov2": "Dinov2", "dinov2_with_registers": "Dinov2WithRegisters"}
"""The beginning of the names of its classes by the name of a family."""
_ENDINGS = ("Model", "ForImageClassification", "ForImageClassificationWithTeacher", "ForMaskedImageModeling")
_NORMS = ("layernorm_before", "layernorm_after"), ("norm1", "norm2")
"""What sees the stream before attention and MLP: in ViT and DeiT, and in DINOv2."""


class TransformersVitAdapter(SeparateAdapter):
    """Pairs of vision encoders; tokens are the patches of the configured image, and class, distillation, registers."""

    model_classes = tuple(
        f"{_LIBRARY}.{family}.modeling_{family}.{name}{ending}"
        for family, name in _FAMILIES.items()
        for ending in _ENDINGS
    )
    attention_parts = AttentionParts("q_proj", "k_proj", "v_proj", "o_proj")

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        embeddings, weight = _body(model)[1].embeddings, next(model.parameters())
        config = embeddings.patch_embeddings
        shape = (1, config.num_channels, *config.image_size)
        return {"pixel_values": torch.zeros(shape, dtype=weight.dtype, device=weight.device)}

    def blocks(self, model: Any) -> Iterator[SeparateBlock]:
        name, body = _body(model)
        layers = f"{name}layers" if hasattr(body, "layers") else f"{name}encoder.layer"
        for number, layer in model.get_submodule(layers).named_children():
            block = f"{layers}.{number}"
            norms = next((pair for pair in _NORMS if hasattr(layer, pair[0])), None)
            if norms is None:
                refuse(model, block)
            is_scaled = hasattr(layer, "layer_scale1")
            yield SeparateBlock(
                name=block,
                attention=f"{block}.attention",
                mlp=f"{block}.mlp",
                num_tokens=_num_tokens(body.embeddings),
                streams=(f"{block}.{norms[0]}", f"{block}.{norms[1]}"),
                scales=(f"{block}.layer_scale1.lambda1", f"{block}.layer_scale2.lambda1") if is_scaled else None,
            )

    def parts_of_mlp(self, mlp: nn.Module) -> MlpParts:
        return parts_of(mlp)

    def set_drop_path(self, model: nn.Module, rate: float) -> None:
        layers: list[Any] = [model.get_submodule(block.name) for block in self.blocks(model)]
        if rate > 0 and not all(hasattr(layer, "drop_path") for layer in layers):
            raise ValueError(
                f"drop_path: {rate} is not allowed with {type(model).__name__}, whose blocks have no stochastic depth; "
                "allowed: 0; leave it out"
            )
        rates: list[Any] = calculate_drop_path_rates(rate, len(layers))
        for layer, own in zip(layers, rates, strict=True):
            if hasattr(layer, "drop_path"):
                layer.drop_path = (DropPath(own) if own > 0 else nn.Identity()).train(layer.training)

    def module_sizes(self, model: nn.Module) -> dict[str, dict[str, Any]]:
        sizes: dict[str, dict[str, Any]] = {}
        for block in self.blocks(model):
            sizes[block.attention] = attention_sizes(model.get_submodule(block.attention))
            mlp: Any = model.get_submodule(block.mlp)
            sizes[block.mlp] = {"hidden": mlp.get_submodule(self.parts_of_mlp(mlp).second).in_features}
        return sizes

    def hidden_points(self, model: nn.Module) -> list[HiddenPoint]:
        names = [block.name for block in self.blocks(model)]
        return [HiddenPoint(names[0], "input"), *(HiddenPoint(name, "output") for name in names)]

    def attention_points(self, model: nn.Module) -> list[AttentionPoint]:
        return [AttentionPoint(self.logits_of(model, block.attention)) for block in self.blocks(model)]

    def head_sizes(self, attention: Any) -> HeadSizes:
        return HeadSizes(**attention_sizes(attention))

    def kept_heads(self, attention: Any) -> tuple[int, ...]:
        return tuple(numbers_of_heads(attention))

    def with_heads(self, attention: Any, heads: Sequence[int], qk_width: int, v_width: int) -> nn.Module:
        return with_heads(attention, heads, qk_width, v_width)

    def unknown_part(self, model: nn.Module, block: SeparateBlock) -> str | None:
        known = {block.name: ("Layer",), block.attention: ("Attention",), block.mlp: ("MLP", "SwiGLUFFN")}
        for name, endings in known.items():
            part = model.get_submodule(name)
            is_stock = _class_name(part) in {
                f"{_LIBRARY}.{family}.modeling_{family}.{start}{ending}"
                for family, start in _FAMILIES.items()
                for ending in endings
            }
            # Older versions have other Linears under the same names of classes.
            if not (is_stock or isinstance(part, CompactSeparateAttention)) or (
                name == block.attention and not hasattr(part, self.attention_parts.query)
            ):
                return name
        return None


def _body(model: Any) -> tuple[str, Any]:
    """The encoder with its embeddings, and its dotted name with a dot behind it."""
    name = next((name for name in ("vit", "deit", "dinov2", "dinov2_with_registers") if hasattr(model, name)), None)
    return ("", model) if name is None else (f"{name}.", getattr(model, name))


def _num_tokens(embeddings: Any) -> int:
    own = [getattr(embeddings, name, None) for name in ("cls_token", "distillation_token", "register_tokens")]
    return int(embeddings.patch_embeddings.num_patches + sum(each.shape[1] for each in own if each is not None))


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


register(TransformersVitAdapter())
