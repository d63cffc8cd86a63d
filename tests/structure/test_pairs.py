"""What is found, at which price, and what is refused."""

import pickle

import pytest
import timm
import torch
from timm.layers import DiffAttention, GatedMlp, SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock, VisionTransformer
from torch import nn

from spp.structure.adapters.adapter import Adapter, MaskPoint
from spp.structure.adapters.registry import adapter_for, register
from spp.structure.compact import compact
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, unit_weights
from spp.structure.pair import Pair

# vision-methods.md 0.2: params of a (qk, vo, mlp) unit by stage, head width, prunable total.
TABLE = {
    "deit_tiny_patch16_224": ([(1158, 1155, 385)], 64, 5_324_544),
    "deit_small_patch16_224": ([(4620, 4614, 769)], 64, 21_265_920),
    "deit_base_patch16_224": ([(18456, 18444, 1537)], 64, 84_999_168),
    "deit_tiny_distilled_patch16_224": ([(1158, 1155, 385)], 64, 5_324_544),
    "swin_tiny_patch4_window7_224": (
        [(582, 579, 193), (2316, 2310, 385), (9240, 9228, 769), (36912, 36888, 1537)],
        32,
        25_909_440,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_published_prices_and_totals(name):
    prices, head_width, total = TABLE[name]
    with torch.device("meta"):
        model = timm.create_model(name)
    pairs = find_pairs(model)
    assert len(pairs) == 36
    for pair in pairs:
        stage = int(pair.name.split(".")[1]) if name.startswith("swin") else 0
        assert pair.params_per_unit == prices[stage][["qk", "vo", "mlp"].index(pair.kind)]
        assert pair.size == head_width or pair.kind == "mlp"
    assert sum(pair.size * pair.params_per_unit for pair in pairs) == total


def test_names_modules_and_order(build):
    names = [(pair.name, pair.kind, pair.module) for pair in find_pairs(build("deit"))]
    assert names[:3] == [
        ("blocks.0.attn.qk", "qk", "blocks.0.attn"),
        ("blocks.0.attn.vo", "vo", "blocks.0.attn"),
        ("blocks.0.mlp", "mlp", "blocks.0.mlp"),
    ]
    assert [name.split(".")[1] for name, _, _ in names] == list("000111")
    swin = [pair.name for pair in find_pairs(build("swin_shifted"))]
    assert swin[3:7] == [
        "layers.0.blocks.1.attn.qk",
        "layers.0.blocks.1.attn.vo",
        "layers.0.blocks.1.mlp",
        "layers.1.blocks.0.attn.qk",
    ]


def test_per_head_splits_a_unit_into_its_heads(model):
    for shared, single in zip(find_pairs(model), find_pairs(model, per_head=True), strict=True):
        assert single.per_head == (single.kind != "mlp")
        assert not shared.per_head
        assert (single.name, single.num_heads) == (shared.name, shared.num_heads)
        assert single.size == shared.size * shared.num_heads
        assert single.params_per_unit * shared.num_heads == shared.params_per_unit
        assert single.macs_per_unit * shared.num_heads == shared.macs_per_unit


def test_without_qkv_bias_a_unit_has_no_bias(build):
    qk, vo, mlp = find_pairs(build("vit_plain"))[:3]
    assert (qk.params_per_unit, vo.params_per_unit, mlp.params_per_unit) == (
        3 * 2 * 24,
        3 * 2 * 24,
        2 * 24 + 1,
    )


def test_every_pair_carries_the_cost_of_the_model(model):
    cost = count_cost(model, example_inputs(model))
    assert {pair.model_cost for pair in find_pairs(model)} == {cost}


def test_example_has_the_size_and_the_dtype_of_the_model(build):
    example = example_inputs(build("deit", in_chans=2, img_size=(16, 20)).double())["x"]
    assert example.shape == (1, 2, 16, 20)
    assert example.dtype == torch.float64


def test_finding_changes_nothing(model):
    model.train()
    random_state = torch.get_rng_state()
    find_pairs(model)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_compact_model_can_be_searched_again(model, random_masks):
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=0)
    masks[pairs[0].name][:] = False
    small = compact(model, masks)
    again = find_pairs(small)
    assert [pair.name for pair in again] == [pair.name for pair in pairs[1:]]
    for pair, before in zip(again, pairs[1:], strict=True):
        assert pair.size == masks[pair.name].sum()
        assert (pair.params_per_unit, pair.macs_per_unit) == (before.params_per_unit, before.macs_per_unit)
        assert pair.model_cost.macs < before.model_cost.macs


@pytest.mark.parametrize("per_head", [False, True])
def test_the_weights_of_a_unit_are_what_leaves_with_it(model, per_head):
    """Each unit's numbers are set to its own label; the compact model is left with those of the kept units."""
    pairs = find_pairs(model, per_head=per_head)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        label = 0
        for pair in pairs:
            places = unit_weights(model, pair)
            for place in places:
                assert place.parameter is model.get_parameter(place.name)
            for unit in range(pair.size):
                label += 1
                for place in places:
                    slices = place.parameter.movedim(place.dim, 0)
                    assert not slices[place.index[unit]].any()
                    slices[place.index[unit]] = label
    values = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    counts = torch.bincount(values.long(), minlength=label + 1)[1:]
    expected = [pair.params_per_unit for pair in pairs for _ in range(pair.size)]
    assert counts.tolist() == expected
    masks = {pair.name: torch.arange(pair.size) % 4 > 0 for pair in pairs}
    small = torch.cat([parameter.detach().flatten() for parameter in compact(model, masks).parameters()])
    kept = torch.cat([masks[pair.name] for pair in pairs])
    assert torch.equal(torch.bincount(small.long(), minlength=label + 1)[1:], torch.where(kept, counts, 0))


def test_a_subclass_is_served_by_its_base(build):
    class Mine(VisionTransformer):
        pass

    model = Mine(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2)
    assert [pair.size for pair in find_pairs(model)] == [4, 4, 32]


def test_a_pair_survives_pickling(build):
    pairs = find_pairs(build("deit"))
    assert pickle.loads(pickle.dumps(pairs)) == pairs


SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
REFUSED = {
    "qk_norm": ({"qk_norm": True}, "blocks.0.attn.q_norm (LayerNorm)"),
    "scaled attention": ({"scale_attn_norm": True}, "blocks.0.attn.norm (LayerNorm)"),
    "scaled MLP": ({"scale_mlp_norm": True}, "blocks.0.mlp.norm (LayerNorm)"),
    "differential attention": ({"attn_layer": DiffAttention}, "blocks.0.attn (DiffAttention)"),
    "scaled SwiGLU": ({"mlp_layer": SwiGLU, "scale_mlp_norm": True}, "blocks.0.mlp.norm (LayerNorm)"),
    "gMLP": ({"mlp_layer": GatedMlp}, "blocks.0.mlp (GatedMlp)"),
    "parallel": ({"block_fn": ParallelScalingBlock}, "blocks.0 (ParallelScalingBlock)"),
    "several parallel": ({"block_fn": ParallelThingsBlock}, "blocks.0 (ParallelThingsBlock)"),
}


def refusal(model: nn.Module) -> str:
    with pytest.raises(ValueError, match="is not supported") as caught:
        find_pairs(model)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"model: {type(model).__name__} ")
    for supported in ("SwinTransformer", "VisionTransformer", "VisionTransformerDistilled", "BertModel", "ViTModel"):
        assert f" {supported}" in message
    assert "write an adapter" in message
    return message


@pytest.mark.parametrize("reason", REFUSED)
def test_units_that_cannot_be_separated_are_refused(reason):
    overrides, culprit = REFUSED[reason]
    assert f"{culprit} was not understood" in refusal(VisionTransformer(**SMALL, **overrides))


def test_a_gate_or_a_wrapped_linear_in_a_later_block_is_refused():
    model = VisionTransformer(**SMALL)
    model.blocks[1].attn.gate = nn.Linear(16, 16)
    assert "blocks.1.attn.gate (Linear) was not understood" in refusal(model)
    model = VisionTransformer(**SMALL)
    model.blocks[1].mlp.fc2 = nn.utils.parametrizations.weight_norm(model.blocks[1].mlp.fc2)
    assert "blocks.1.mlp.fc2 (ParametrizedLinear) was not understood" in refusal(model)


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("resnet18", "layer1.0 (BasicBlock)"),
        ("swinv2_tiny_window8_256", "layers.0 (SwinTransformerV2Stage)"),
    ],
)
def test_models_without_an_adapter_are_refused(name, culprit):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert f"{culprit} was not understood" in refusal(model)


def test_models_of_torch_alone_are_refused():
    assert "1.0 (Conv2d)" in refusal(nn.Sequential(nn.Identity(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())))
    assert "itself (Linear)" in refusal(nn.Linear(2, 2))


class Bottleneck(nn.Module):
    """The smallest architecture with a pair: two Linears and an activation."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(4, 8)
        self.narrow = nn.Linear(8, 4)

    def forward(self, x):
        return self.narrow(self.wide(x).relu())


class BottleneckAdapter(Adapter):
    model_classes = (f"{Bottleneck.__module__}.{Bottleneck.__qualname__}",)

    def example_inputs(self, model):
        return {"x": torch.zeros(1, 4)}

    def set_drop_path(self, model, rate):
        raise NotImplementedError

    def pairs(self, model, *, per_head):
        return [Pair("inner", "mlp", 8, 9, 8.0, 1, False, "")]

    def mask_point(self, model, pair):
        return MaskPoint("narrow", "input", 8)

    def shrink(self, model, module, kept):
        raise NotImplementedError

    def unit_weights(self, model, pair):
        raise NotImplementedError


def test_an_adapter_from_elsewhere_can_be_registered(monkeypatch):
    monkeypatch.setattr("spp.structure.adapters.registry._ADAPTERS", {})
    adapter = BottleneckAdapter()
    register(adapter)
    assert adapter_for(Bottleneck()) is adapter
    assert find_pairs(Bottleneck())[0].model_cost.macs == 64


def test_a_pair_made_by_hand_needs_the_five_fields_of_the_contract():
    named = Pair(name="blocks.0.mlp", kind="mlp", size=8, params_per_unit=9, macs_per_unit=8.0)
    assert named == Pair("blocks.0.mlp", "mlp", 8, 9, 8.0)
    assert (named.num_heads, named.per_head, named.module, named.model_cost) == (1, False, "", None)


@pytest.mark.parametrize("model", [None, "deit"])
def test_what_is_no_model_is_refused_in_one_line(model):
    with pytest.raises(ValueError, match=r"^model: (NoneType|str) is not allowed: must be a torch.nn.Module; [^\n]*$"):
        find_pairs(model)
