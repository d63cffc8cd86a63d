"""Architectures that people bring: cut as they are masked at the price that is said, or refused with a module named."""

from functools import partial

import pytest
import timm
import torch
from timm.layers import GluMlp, SwiGLU, SwiGLUPacked
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torchvision.models.vision_transformer import ConvStemConfig
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

from spp.structure.adapters.registry import adapter_for
from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, unit_weights
from spp.structure.inputs import call
from spp.structure.masked import MaskedModel
from spp.structure.repair import repair

SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
OF_TRANSFORMERS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def of_transformers(family, ending, **values):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")
    config = getattr(transformers, f"{family}Config")(**OF_TRANSFORMERS, num_labels=5, **values)
    return getattr(transformers, f"{family}{ending}")(config)


SUPPORTED = {
    "DeiT III, layer scale": partial(timm.create_model, "deit3_small_patch16_224", **SIZES),
    "DINOv2 with registers": partial(timm.create_model, "vit_small_patch14_reg4_dinov2", **SIZES),
    "DINOv2": partial(timm.create_model, "vit_small_patch14_dinov2", **SIZES),
    "layer scale": partial(VisionTransformer, **SIZES, init_values=0.5),
    "attention pooling": partial(VisionTransformer, **SIZES, global_pool="map", class_token=False),
    "SwiGLU": partial(VisionTransformer, **SIZES, mlp_layer=SwiGLU),
    "SwiGLU in one map": partial(VisionTransformer, **SIZES, mlp_layer=SwiGLUPacked),
    "GLU, gate last": partial(VisionTransformer, **SIZES, mlp_layer=GluMlp),
    "EVA": partial(Eva, **SIZES),
    "EVA, post-norm": partial(Eva, **SIZES, use_post_norm=True),
    "EVA-02": partial(timm.create_model, "eva02_tiny_patch14_224", **SIZES),
    "DINOv3": partial(timm.create_model, "vit_small_patch16_dinov3", **SIZES),
    "DINOv3, biases and SwiGLU": partial(timm.create_model, "vit_huge_plus_patch16_dinov3_qkvb", **SIZES),
    "RoPE-ViT, angles of a head": partial(timm.create_model, "vit_small_patch16_rope_mixed_224", **SIZES),
    "BEiT": partial(timm.create_model, "beit_base_patch16_224", **SIZES),
    "BEiT, absolute positions": partial(Beit, **SIZES, use_abs_pos_emb=True, init_values=0.1),
    "torchvision": partial(TorchvisionTransformer, 16, 8, 2, 2, 16, 24, num_classes=5),
    "torchvision, convolutional stem": partial(
        TorchvisionTransformer, 16, 8, 2, 2, 16, 24, conv_stem_configs=[ConvStemConfig(8, 8, 8)]
    ),
    "Hugging Face ViT": partial(of_transformers, "ViT", "ForImageClassification"),
    "Hugging Face ViT without a head": partial(of_transformers, "ViT", "Model"),
    "Hugging Face DeiT": partial(of_transformers, "DeiT", "ForImageClassification"),
    "Hugging Face distilled DeiT": partial(of_transformers, "DeiT", "ForImageClassificationWithTeacher"),
    "Hugging Face DINOv2": partial(of_transformers, "Dinov2", "ForImageClassification"),
    "Hugging Face DINOv2 with registers": partial(of_transformers, "Dinov2WithRegisters", "ForImageClassification"),
    "Hugging Face DINOv2, SwiGLU": partial(of_transformers, "Dinov2", "Model", use_swiglu_ffn=True),
}
REFUSED = {
    "EVA-02 of a normed MLP": (
        partial(timm.create_model, "eva02_base_patch14_224", **SIZES),
        "blocks.0.mlp.norm (LayerNorm)",
    ),
    "EVA with separate maps": (partial(Eva, **SIZES, qkv_fused=False), "blocks.0.attn (EvaAttention)"),
    "BEiT with a bias that layers share": (
        partial(Beit, **SIZES, use_shared_rel_pos_bias=True),
        "rel_pos_bias (RelativePositionBias)",
    ),
    "Swin V2": (
        partial(SwinTransformerV2, img_size=32, patch_size=4, embed_dim=16, depths=(1,), num_heads=(2,), window_size=4),
        "layers.0 (SwinTransformerV2Stage)",
    ),
    "qk-norm": (partial(VisionTransformer, **SIZES, qk_norm=True), "blocks.0.attn.q_norm (LayerNorm)"),
}
REFUSED_OF_TRANSFORMERS = {
    "DINOv3": ("DINOv3ViTModel", "DINOv3ViTConfig", OF_TRANSFORMERS, "embeddings (DINOv3ViTEmbeddings)"),
    "Swin": (
        "SwinModel",
        "SwinConfig",
        {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4},
        "embeddings (SwinEmbeddings)",
    ),
}


def built(name):
    """The network with weights that keep activations of order 1, so that every unit matters."""
    model = SUPPORTED[name]().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model


def images(count=2):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_cut_as_masked(model, pairs, masks):
    masked = MaskedModel(model, pairs)
    masked.set_masks(masks)
    expected, small = call(masked, images()), compact(model, masks)
    torch.testing.assert_close(call(small, images()), expected, atol=1e-5, rtol=1e-5)
    assert (expected - call(model, images())).abs().max() > 0.001
    return small


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", SUPPORTED)
def test_supported_ones_are_cut_as_they_are_masked(name, per_head, random_masks):
    model = built(name)
    pairs = find_pairs(model, per_head=per_head)
    assert [pair.kind for pair in pairs] == ["qk", "vo", "mlp"] * 2
    masks = random_masks(pairs, seed=1)
    small = assert_cut_as_masked(model, pairs, masks)
    rebuilt = shrink_like(model, widths_of(masks, pairs))
    rebuilt.load_state_dict(small.state_dict())
    torch.testing.assert_close(call(rebuilt, images()), call(small, images()))
    # What was cut can be cut on, and trained.
    again = find_pairs(small, per_head=per_head)
    assert_cut_as_masked(small, again, random_masks(again, seed=3, keep=0.7))
    call(small.train(), images()).sum().backward()


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("name", ["EVA-02", "DINOv3", "BEiT", "torchvision", "Hugging Face DINOv2"])
def test_channels_of_a_unit_are_those_that_its_mask_multiplies(name, per_head):
    model = built(name)
    adapter, shared = adapter_for(model), {pair.name: pair for pair in find_pairs(model)}
    for pair in find_pairs(model, per_head=per_head):
        point = adapter.mask_point(model, shared[pair.name])
        factors = point.spread(torch.arange(1.0, pair.size + 1), pair)
        rows = next(part for part in unit_weights(model, pair) if part.dim == (1 if point.side == "input" else 0))
        for unit, index in enumerate(rows.index):
            own = index[index < point.width]  # of queries and keys in one map the queries
            assert (factors == unit + 1).nonzero().flatten().tolist() == own.sort().values.tolist()
        values = torch.rand(point.width)
        summed = (torch.arange(1.0, pair.size + 1) * point.gather(values, pair)).sum()
        torch.testing.assert_close(summed, (factors * values).sum())


@pytest.mark.parametrize("name", ["EVA-02", "DINOv3", "RoPE-ViT, angles of a head"])
def test_rotary_pairs_keep_their_angles_where_one_head_has_all_and_one_has_not(name):
    model = built(name)
    pairs = find_pairs(model, per_head=True)
    masks = {pair.name: torch.arange(pair.size) != pair.size // 2 for pair in pairs if pair.kind == "qk"}
    small = assert_cut_as_masked(model, pairs, masks)
    rebuilt = shrink_like(model, widths_of(masks, pairs))
    rebuilt.load_state_dict(small.state_dict())
    torch.testing.assert_close(call(rebuilt, images()), call(small, images()))


@pytest.mark.parametrize("name", SUPPORTED)
def test_whole_heads_and_all_units_of_a_kind_leave(name):
    model = built(name)
    pairs = find_pairs(model, per_head=True)
    heads = {pair.name: torch.arange(pair.size) >= (pair.size // 2 if pair.kind != "mlp" else 0) for pair in pairs[:3]}
    small = assert_cut_as_masked(model, pairs, heads)
    assert [pair.num_heads for pair in find_pairs(small)] == [1, 1, 1, 2, 2, 1]
    first, second = pairs[:3], pairs[3:]
    emptied = {pair.name: torch.zeros(pair.size, dtype=torch.bool) for pair in (first[0], first[2], second[1])}
    assert_cut_as_masked(model, pairs, emptied)


@pytest.mark.parametrize("name", SUPPORTED)
def test_repair_brings_supported_ones_nearer(name, random_masks):
    model = built(name)
    small = compact(model, random_masks(find_pairs(model), seed=1))
    with torch.no_grad():
        before, after = (
            (call(network, images(64)) - call(model, images(64))).norm()
            for network in (small, repair(small, model, [images(64)]))
        )
    assert after < 0.7 * before


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
    for pair in pairs:
        numbers = sum(
            part.index[0].numel() * part.parameter.numel() // part.parameter.shape[part.dim]
            for part in unit_weights(model, pair)
        )
        assert numbers == pair.params_per_unit


@pytest.mark.parametrize("name", ["torchvision", "EVA-02", "DINOv3", "RoPE-ViT, angles of a head", "BEiT"])
def test_a_network_stays_what_it_was_where_it_is_looked_into(name):
    model = built(name)
    parameters, state = list(model.parameters()), {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected = model(images())
    find_pairs(model)
    assert all(after is before for after, before in zip(model.parameters(), parameters, strict=True))
    assert model.state_dict().keys() == state.keys()
    with torch.no_grad():
        torch.testing.assert_close(model(images()), expected, atol=1e-6, rtol=1e-5)
    other = SUPPORTED[name]()
    other.load_state_dict(model.state_dict())
    model.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(images()), model(images()), atol=1e-6, rtol=1e-5)


def test_an_attention_of_torch_that_torchvision_does_not_build_is_refused():
    model = SUPPORTED["torchvision"]()
    model.encoder.layers[1].self_attention = torch.nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True)
    assert_refused(model, "encoder.layers.encoder_layer_1.self_attention (MultiheadAttention)")


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
