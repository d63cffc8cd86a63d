"""Architectures that people bring: cut as they are masked at the price that is said, or refused with a module named."""

from functools import partial

import pytest
import timm
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

from spp.structure.compact import compact
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.masked import MaskedModel

SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
OF_TRANSFORMERS = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 8,
}
SUPPORTED = {
    "DeiT III, layer scale": partial(timm.create_model, "deit3_small_patch16_224", **SIZES),
    "DINOv2 with registers": partial(timm.create_model, "vit_small_patch14_reg4_dinov2", **SIZES),
    "DINOv2": partial(timm.create_model, "vit_small_patch14_dinov2", **SIZES),
    "layer scale": partial(VisionTransformer, **SIZES, init_values=0.5),
    "attention pooling": partial(VisionTransformer, **SIZES, global_pool="map", class_token=False),
}
REFUSED = {
    "EVA-02": (partial(timm.create_model, "eva02_tiny_patch14_224", **SIZES), "blocks.0 (EvaBlock)"),
    "DINOv3": (partial(timm.create_model, "vit_small_patch16_dinov3", **SIZES), "blocks.0 (EvaBlock)"),
    "BEiT": (partial(timm.create_model, "beit_base_patch16_224", **SIZES), "blocks.0 (Block)"),
    "Swin V2": (
        partial(SwinTransformerV2, img_size=32, patch_size=4, embed_dim=16, depths=(1,), num_heads=(2,), window_size=4),
        "layers.0 (SwinTransformerV2Stage)",
    ),
    "qk-norm": (partial(VisionTransformer, **SIZES, qk_norm=True), "blocks.0.attn.q_norm (LayerNorm)"),
    "torchvision": (partial(TorchvisionTransformer, 16, 8, 1, 2, 16, 24), "encoder (Encoder)"),
}
REFUSED_OF_TRANSFORMERS = {
    "ViT": ("ViTModel", "ViTConfig", OF_TRANSFORMERS, "embeddings (ViTEmbeddings)"),
    "DeiT": ("DeiTModel", "DeiTConfig", OF_TRANSFORMERS, "embeddings (DeiTEmbeddings)"),
    "DINOv2": ("Dinov2Model", "Dinov2Config", OF_TRANSFORMERS, "embeddings (Dinov2Embeddings)"),
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", OF_TRANSFORMERS, "embeddings (DINOv3ViTEmbeddings)"),
    "Swin": (
        "SwinModel",
        "SwinConfig",
        {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4},
        "embeddings (SwinEmbeddings)",
    ),
}


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", SUPPORTED)
def test_supported_ones_are_cut_as_they_are_masked(name, per_head, random_masks):
    model = SUPPORTED[name]().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    images = torch.randn(2, 3, 16, 16, generator=generator)
    pairs = find_pairs(model, per_head=per_head)
    assert [pair.kind for pair in pairs] == ["qk", "vo", "mlp"] * 2
    masks = random_masks(pairs, seed=1)
    masked = MaskedModel(model, pairs)
    masked.set_masks(masks)
    with torch.no_grad():
        expected = masked(images)
        torch.testing.assert_close(compact(model, masks)(images), expected, atol=1e-5, rtol=1e-5)
        assert (expected - model(images)).abs().max() > 0.01


@pytest.mark.parametrize("name", SUPPORTED)
def test_cost_of_supported_ones_falls_as_it_is_said(name, random_masks):
    model = SUPPORTED[name]()
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=2)
    cost = count_cost(compact(model, masks), example_inputs(model))
    gone = {pair.name: int((~masks[pair.name]).sum()) for pair in pairs}
    dense = pairs[0].model_cost
    assert dense.params - cost.params == sum(gone[pair.name] * pair.params_per_unit for pair in pairs)
    assert dense.macs - cost.macs == pytest.approx(sum(gone[pair.name] * pair.macs_per_unit for pair in pairs))


def assert_refused(model, culprit):
    with pytest.raises(ValueError, match="is not supported") as caught:
        find_pairs(model)
    assert f"{culprit} was not understood" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_with_the_module_named(name):
    build, culprit = REFUSED[name]
    assert_refused(build(), culprit)


@pytest.mark.parametrize("name", REFUSED_OF_TRANSFORMERS)
def test_vision_networks_of_transformers_are_refused(name):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")
    model, config, sizes, culprit = REFUSED_OF_TRANSFORMERS[name]
    assert_refused(getattr(transformers, model)(getattr(transformers, config)(**sizes)), culprit)
