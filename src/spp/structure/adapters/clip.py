"""Hugging Face CLIP: both encoders together, or either by itself."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spp.structure.adapters.adapter import LogitsPoint, Tower
from spp.structure.adapters.mlp import MlpParts
from spp.structure.adapters.registry import register
from spp.structure.adapters.separate import AttentionParts, SeparateBlock
from spp.structure.adapters.transformers_base import TransformersAdapter
from spp.structure.inputs import Inputs
from spp.structure.pair import Pair

_MODULE = "transformers.models.clip.modeling_clip"
_ENCODERS = {"vision": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}
"""The modules of each tower, in the order in which spp's network runs them."""


class ClipAdapter(TransformersAdapter):
    """Pairs of CLIP; the vision tower sees its patches and a class token, the text tower a whole context."""

    model_classes = tuple(
        f"{_MODULE}.{name}"
        for name in (
            "CLIPModel",
            "CLIPVisionModel",
            "CLIPTextModel",
            "CLIPVisionModelWithProjection",
            "CLIPTextModelWithProjection",
        )
    )
    attention_parts = AttentionParts("q_proj", "k_proj", "v_proj", "out_proj")
    mlp_parts = MlpParts(("fc1",), "fc2")

    def example_inputs(self, model: Any) -> dict[str, Tensor]:
        weight = next(model.parameters())
        inputs: dict[str, Tensor] = {}
        for _, encoder in _encoders(model):
            config = encoder.config
            if _sees_patches(encoder):
                shape = (1, config.num_channels, config.image_size, config.image_size)
                inputs["pixel_values"] = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
            else:
                length = config.max_position_embeddings
                inputs["input_ids"] = torch.zeros((1, length), dtype=torch.int64, device=weight.device)
                if weight.device.type != "meta":  # transformers looks into a mask, and there are no values
                    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def blocks(self, model: Any) -> Iterator[SeparateBlock]:
        for name, encoder in _encoders(model):
            position = encoder.embeddings.position_embedding
            prefix = f"{name}.encoder.layers".removeprefix(".")
            for number in range(len(encoder.encoder.layers)):
                block = f"{prefix}.{number}"
                streams = f"{block}.layer_norm1", f"{block}.layer_norm2"
                attention, mlp = f"{block}.self_attn", f"{block}.mlp"
                yield SeparateBlock(block, attention, mlp, position.num_embeddings, streams)

    def logits_point(self, model: nn.Module, pair: Pair) -> LogitsPoint | None:
        point = super().logits_point(model, pair)
        is_causal = not _sees_patches(_encoder_of(model, pair.module))
        return None if point is None else replace(point, is_causal=is_causal)

    def real_tokens(self, model: nn.Module, module: str, inputs: Inputs) -> Tensor | None:
        """In the text tower those up to the token of the end, which is where it puts out; behind it is padding."""
        encoder = _encoder_of(model, module)
        if _sees_patches(encoder):
            return None
        tokens = inputs["input_ids"] if isinstance(inputs, Mapping) else inputs
        # The configuration of the first CLIPs has 2 there, and transformers takes the largest number for the end.
        last = encoder.config.eos_token_id
        is_end = tokens == (tokens.amax(1, keepdim=True) if last == 2 else last)
        is_behind = is_end.cumsum(1) - is_end.long() > 0
        mask = super().real_tokens(model, module, inputs)
        return ~is_behind if mask is None else ~is_behind & mask

    def towers(self, model: nn.Module) -> dict[str, Tower]:
        found = {}
        for tower, (encoder, projection) in _ENCODERS.items():
            if hasattr(model, encoder):
                found[tower] = Tower(tuple(name for name in (encoder, projection) if hasattr(model, name)))
        return found if len(found) > 1 else {}

    def unknown_part(self, model: nn.Module, block: SeparateBlock) -> str | None:
        from transformers.models.clip import modeling_clip

        from spp.structure.modeling_transformers import CompactClipAttention

        known: Mapping[str, tuple[Any, ...]] = {
            block.name: (modeling_clip.CLIPEncoderLayer,),
            block.attention: (modeling_clip.CLIPAttention, CompactClipAttention),
            block.mlp: (modeling_clip.CLIPMLP,),
        }
        return next((name for name, classes in known.items() if type(model.get_submodule(name)) not in classes), None)


def _encoder_of(model: Any, module: str) -> Any:
    """The encoder that a module, by its dotted name, lies in."""
    return next(encoder for name, encoder in _encoders(model) if not name or module.startswith(f"{name}."))


def _sees_patches(encoder: Any) -> bool:
    return hasattr(encoder.embeddings, "patch_embedding")


def _encoders(model: Any) -> list[tuple[str, Any]]:
    """Dotted names and modules of the encoders, vision first."""
    if hasattr(model, "encoder"):
        return [("", model)]
    return [(name, getattr(model, name)) for name, _ in _ENCODERS.values() if hasattr(model, name)]


register(ClipAdapter())
