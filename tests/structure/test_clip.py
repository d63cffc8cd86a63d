"""Hugging Face's CLIP: pairs, prices, masked against compact, sizes against the closed form."""

import copy

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

from spp.models.build import architecture_of, build, problem_of
from spp.models.clip import ClipEncoders
from spp.models.config import ModelConfig
from spp.structure.adapters.registry import adapter_for
from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, set_drop_path, unit_weights
from spp.structure.masked import MaskedModel
from spp.structure.modeling_transformers import CompactClipAttention
from spp.structure.repair import RIDGE, repair
from spp.structure.towers import pairs_of_tower

SIZES = {"num_hidden_layers": 2, "projection_dim": 12}
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 9}
SPECIAL = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
CONFIG = CLIPConfig(vision_config={**VISION, **SIZES}, text_config={**TEXT, **SIZES, **SPECIAL}, projection_dim=12)


def made(network_class=ClipEncoders, config=CONFIG):
    """A network whose weights keep activations of order 1."""
    network = network_class(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network


@pytest.fixture(scope="module")
def network():
    return made()


@pytest.fixture(scope="module")
def inputs():
    """Two pictures and three texts, of which two are padded."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, 20, (3, 9), generator=generator)
    tokens[:, 0] = 1
    for row, length in enumerate((9, 6, 3)):
        tokens[row, length - 1] = 3
        tokens[row, length:] = 0
    pixels = torch.randn(2, 3, 16, 16, generator=generator)
    return {"pixel_values": pixels, "input_ids": tokens, "attention_mask": (tokens != 0).long()}


def masks_for(pairs, seed, keep=0.6):
    generator = torch.Generator().manual_seed(seed)
    return {pair.name: torch.rand(pair.size, generator=generator) < keep for pair in pairs}


def masked_at(network, pairs, masks):
    masked = MaskedModel(network, pairs)
    masked.set_masks(masks)
    return masked


def assert_same(expected, actual):
    for name in ("images", "texts"):
        torch.testing.assert_close(actual[name], expected[name], atol=1e-5, rtol=1e-5)


def test_pairs_are_those_of_every_block_of_both_towers(network):
    pairs = find_pairs(network)
    blocks = [f"{tower}_model.encoder.layers.{number}" for tower in ("vision", "text") for number in range(2)]
    kinds = ("self_attn.qk", "self_attn.vo", "mlp")
    assert [pair.name for pair in pairs] == [f"{block}.{kind}" for block in blocks for kind in kinds]
    assert [pair.size for pair in pairs[:3]] == [8, 8, 40]
    per_head = find_pairs(network, per_head=True)
    assert [pair.size for pair in per_head[:3]] == [24, 24, 40]


@pytest.mark.parametrize("per_head", [False, True])
def test_prices_are_what_leaves(network, per_head):
    pairs = find_pairs(network, per_head=per_head)
    dense = count_cost(network, example_inputs(network))
    for pair in (*pairs[:3], *pairs[-3:]):
        # A unit of one head leaves no hole only where all heads lose one.
        lost = torch.arange(0, pair.size, pair.size // pair.num_heads if per_head else pair.size)
        mask = torch.ones(pair.size, dtype=torch.bool)
        mask[lost] = False
        cost = count_cost(compact(network, {pair.name: mask}), example_inputs(network))
        assert dense.params - cost.params == pair.params_per_unit * len(lost)
        assert dense.macs - cost.macs == pair.macs_per_unit * len(lost)
        numbers = sum(part.index[0].numel() * part.parameter.numel() // part.parameter.shape[part.dim]
                      for part in unit_weights(network, pair))  # fmt: skip
        assert numbers == pair.params_per_unit


@pytest.mark.parametrize("with_padding_mask", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("per_head", [False, True])
def test_compact_equals_masked_in_both_towers(inputs, per_head, attention, with_padding_mask):
    network = made()
    network.set_attn_implementation(attention)
    given = inputs if with_padding_mask else {k: v for k, v in inputs.items() if k != "attention_mask"}
    pairs = find_pairs(network, per_head=per_head)
    for seed in range(3):
        masks = masks_for(pairs, seed, keep=0.25 + 0.25 * seed)
        with torch.no_grad():
            expected = masked_at(network, pairs, masks)(**given)
            assert_same(expected, compact(network, masks)(**given))
            dense = network(**given)
        assert all((dense[name] - expected[name]).abs().max() > 0.01 for name in ("images", "texts"))


@pytest.mark.parametrize("emptied", [("qk",), ("vo",), ("mlp",), ("qk", "vo", "mlp")])
def test_zero_widths(network, inputs, emptied):
    pairs = find_pairs(network)
    masks = masks_for(pairs, seed=1)
    for pair in pairs:
        if pair.kind in emptied:
            masks[pair.name][:] = False
    small = compact(network, masks)
    assert_same(masked_at(network, pairs, masks)(**inputs), small(**inputs))
    count_cost(small, example_inputs(small))
    out = small.train()(**inputs)
    (out["images"].sum() + out["texts"].sum()).backward()
    torch.optim.AdamW(small.parameters()).step()
    assert torch.isfinite(small(**inputs)["texts"]).all()


def test_whole_heads_leave_transformers_own_class(network, inputs):
    pairs = find_pairs(network, per_head=True)
    masks = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in pairs}
    for pair in pairs:
        if pair.kind != "mlp":
            masks[pair.name][: pair.size // pair.num_heads] = False
    small = compact(network, masks)
    assert not any(isinstance(module, CompactClipAttention) for module in small.modules())
    assert_same(masked_at(network, pairs, masks)(**inputs), small(**inputs))
    assert [pair.num_heads for pair in find_pairs(small)] == [2, 2, 1] * 2 + [1, 1, 1] * 2
    again = shrink_like(network, widths_of(masks, pairs))
    again.load_state_dict(small.state_dict())
    assert_same(small(**inputs), again(**inputs))


def test_padding_behind_the_end_changes_no_embedding(network, inputs):
    without = {name: value for name, value in inputs.items() if name != "attention_mask"}
    assert_same(network(**inputs), network(**without))


def test_embeddings_are_those_of_transformers(network, inputs):
    stock = CLIPModel(CONFIG).eval()
    stock.load_state_dict(network.state_dict())
    expected = stock(**inputs)
    assert_same({"images": expected.image_embeds, "texts": expected.text_embeds}, network(**inputs))
    scale = expected.logits_per_image / (expected.image_embeds @ expected.text_embeds.T)
    torch.testing.assert_close(scale.mean(), network(**inputs)["scale"])


@pytest.mark.parametrize("network_class", [CLIPVisionModelWithProjection, CLIPTextModelWithProjection])
def test_a_tower_by_itself(network_class, inputs):
    config = CONFIG.vision_config if network_class is CLIPVisionModelWithProjection else CONFIG.text_config
    tower = made(network_class, config)
    name, output = (
        ("pixel_values", "image_embeds") if "Vision" in network_class.__name__ else ("input_ids", "text_embeds")
    )
    pairs = find_pairs(tower)
    masks = masks_for(pairs, seed=0)
    expected = masked_at(tower, pairs, masks)(**{name: inputs[name]})[output]
    torch.testing.assert_close(compact(tower, masks)(**{name: inputs[name]})[output], expected, atol=1e-5, rtol=1e-5)


def test_the_cost_of_a_tower_is_that_of_the_tower_alone(network):
    pairs = find_pairs(network)
    costs = {tower: pairs_of_tower(network, pairs, tower)[0].model_cost for tower in ("vision", "text")}
    for tower, cost in costs.items():
        alone = TOWERS[tower]
        assert cost == count_cost(alone, example_inputs(alone))
    assert sum(cost.macs for cost in costs.values()) == pairs[0].model_cost.macs
    assert sum(cost.params for cost in costs.values()) + 1 == pairs[0].model_cost.params  # and the temperature
    assert all(pair.name.startswith("text_model.") for pair in pairs_of_tower(network, pairs, "text"))
    with pytest.raises(ValueError, match=r"budget.towers: 'audio' is no tower.*allowed: joint, vision, text"):
        pairs_of_tower(network, pairs, "audio")


TOWERS = {
    "vision": CLIPVisionModelWithProjection(CONFIG.vision_config),
    "text": CLIPTextModelWithProjection(CONFIG.text_config),
}


def closed_form(size, patch, d, layers, text_d, text_layers, projection):
    """Parameters and multiply-adds of a pair of encoders with MLPs of 4 d, from the sizes alone."""
    tokens, length, vocabulary = (size // patch) ** 2 + 1, 77, 49408
    block_params = lambda d: 4 * d * (d + 1) + 8 * d * d + 5 * d + 4 * d  # noqa: E731 - a formula
    params = layers * block_params(d) + 3 * patch**2 * d + d + tokens * d + 4 * d + d * projection
    params += text_layers * block_params(text_d) + vocabulary * text_d + length * text_d + 2 * text_d
    params += text_d * projection + 1
    block_macs = lambda d, n: 12 * d * d * n + 2 * n * n * d  # noqa: E731
    macs = layers * block_macs(d, tokens) + 3 * patch**2 * d * (tokens - 1) + d * projection
    return params, macs + text_layers * block_macs(text_d, length) + text_d * projection


@pytest.mark.parametrize(
    ("name", "size", "patch", "form"),
    [
        ("clip_base", 224, 32, (768, 12, 512, 12, 512)),
        ("clip_base", 224, 16, (768, 12, 512, 12, 512)),
        ("clip_large", 336, 14, (1024, 24, 768, 12, 768)),
    ],
)
def test_sizes_follow_from_the_configurations_without_weights(name, size, patch, form):
    from omegaconf import OmegaConf

    from spp.locations import CONF

    values = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml")) | {"weights": "train"}
    values["kwargs"]["vision"]["patch_size"] = patch
    config = ModelConfig.read(values, "model")
    inputs = {"img_size": size, "in_chans": 3, "vocab_size": 49408, "length": 77}
    with torch.device("meta"):
        network = build(architecture_of(config, inputs, None, samples={}, outputs=""))
    cost = find_pairs(network)[0].model_cost
    assert (cost.params, cost.macs) == closed_form(size, patch, *form)
    if name == "clip_large":
        assert round(cost.params / 1e6, 1) == 427.9
        assert round(cost.macs / 1e9, 1) == 197.6


def test_a_description_may_name_the_token_0():
    inputs = {"img_size": 16, "in_chans": 1, "vocab_size": 20, "length": 9, "padding_token": 0}
    described = architecture_of(ModelConfig(name="clip"), inputs, None, samples={}, outputs="embeddings")
    assert problem_of(described) == ""


def test_repair_brings_the_embeddings_nearer(network, inputs):
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(32, 3, 16, 16, generator=generator)
    tokens = torch.randint(4, 20, (32, 9), generator=generator)
    tokens[:, -1] = 3
    batches = [{"pixel_values": pixels, "input_ids": tokens}]
    small = compact(network, masks_for(find_pairs(network), seed=2))
    repaired = repair(small, network, batches)
    with torch.no_grad():
        dense, before, after = (model(**batches[0]) for model in (network, small, repaired))
    for name in ("images", "texts"):
        assert (after[name] - dense[name]).norm() < 0.8 * (before[name] - dense[name]).norm()


def texts_alone(inputs):
    """A picture with each text, whose padding is gone."""
    lengths = inputs["attention_mask"].sum(1).tolist()
    pixels = inputs["pixel_values"][[0, 1, 0]]
    tokens = [inputs["input_ids"][row : row + 1, :length] for row, length in enumerate(lengths)]
    return [{"pixel_values": pixels[row : row + 1], "input_ids": ids} for row, ids in enumerate(tokens)]


@pytest.mark.parametrize("has_mask", [True, False])
def test_repair_of_padded_texts_is_that_of_the_texts_alone(network, inputs, has_mask):
    dense = copy.deepcopy(network).double()
    small = compact(dense, masks_for(find_pairs(dense), seed=2))
    whole = {**inputs, "pixel_values": inputs["pixel_values"][[0, 1, 0]]}
    if not has_mask:  # what is behind the end changes nothing
        del whole["attention_mask"]
        whole["input_ids"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], 3)
    alone = texts_alone(inputs)
    padded, expected = (
        repair(small, dense, [{name: _as_double(value) for name, value in batch.items()} for batch in batches])
        for batches in ([whole], alone)
    )
    torch.testing.assert_close(padded.state_dict(), expected.state_dict(), rtol=1e-6, atol=1e-9)


def _as_double(value):
    return value.double() if value.is_floating_point() else value


@pytest.mark.parametrize("end", [3, 2])
def test_the_end_of_a_text_is_where_transformers_looks_for_it(network, inputs, end):
    """2 in the configuration: the token of the largest number is the end, as in the first CLIPs."""
    other = copy.deepcopy(network)
    other.text_model.config.eos_token_id = end
    tokens = (
        inputs["input_ids"]
        if end == 3
        else torch.where(inputs["input_ids"] == 3, 19, inputs["input_ids"].clamp(max=18))
    )
    module = "text_model.encoder.layers.0.mlp"
    is_real = adapter_for(other).real_tokens(other, module, {"input_ids": tokens})
    assert is_real.sum(1).tolist() == [9, 6, 3]
    assert adapter_for(other).real_tokens(other, "vision_model.encoder.layers.0.mlp", inputs) is None


def test_queries_and_keys_of_a_causal_tower_are_refitted_to_the_logits_that_there_are(inputs):
    """Against least squares with one row for each logit of a token and one before it."""
    dense = made(CLIPTextModelWithProjection, CONFIG.text_config).double()
    dense.text_model.encoder.layers = dense.text_model.encoder.layers[:1]
    module = "text_model.encoder.layers.0.self_attn"
    kept = torch.tensor([True, False, True, True, False, False, True, True])
    small = compact(dense, {f"{module}.qk": kept})
    batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    repaired = repair(small, dense, [batch])

    seen = []
    handle = dense.get_submodule(f"{module}.q_proj").register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    dense(**batch)
    handle.remove()
    hidden = seen[0].detach()
    places = [
        (s, q, k) for s, row in enumerate(inputs["attention_mask"].sum(1)) for q in range(row) for k in range(q + 1)
    ]

    def heads_of(network, name):
        rows = network.get_submodule(f"{module}.{name}")(hidden).detach()
        return rows.view(3, 9, 2, -1)

    def centred(values, sample, query):
        return values - values[sample, : query + 1].mean(0)

    for head in range(2):
        dense_q, dense_k = (heads_of(dense, name)[:, :, head] for name in ("q_proj", "k_proj"))
        own_q, own_k = (heads_of(small, name)[:, :, head] for name in ("q_proj", "k_proj"))
        features = torch.cat([dense_q, torch.ones_like(dense_q[..., :1])], dim=-1)
        for side in ("query", "key"):
            design, target = [], []
            for s, q, k in places:
                lost = centred(dense_k, s, q)[s, k] @ dense_q[s, q] - centred(own_k, s, q)[s, k] @ own_q[s, q]
                row = torch.outer(centred(own_k, s, q)[s, k], features[s, q])
                if side == "key":
                    row = torch.outer(own_q[s, q], centred(dense_k, s, q)[s, k])
                design.append(row.flatten())
                target.append(lost)
            change = ridge_solution(torch.stack(design), torch.stack(target)).view(5, -1)
            own_q, own_k = (
                (own_q + features @ change.T, own_k) if side == "query" else (own_q, own_k + dense_k @ change.T)
            )
        torch.testing.assert_close(heads_of(repaired, "q_proj")[:, :, head], own_q)
        torch.testing.assert_close(heads_of(repaired, "k_proj")[:, :, head], own_k)


def ridge_solution(design, target):
    """argmin |design x - target|^2 + r |x|^2, r being RIDGE times the mean diagonal of design^T design."""
    gram = design.T @ design
    return torch.linalg.solve(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)), design.T @ target)


def test_a_block_that_is_not_understood_is_refused(network):
    other = copy.deepcopy(network)
    other.text_model.encoder.layers[1].mlp.fc1 = nn.Sequential(nn.Linear(16, 32))
    with pytest.raises(ValueError, match=r"text_model.encoder.layers.1.mlp.fc1 \(Sequential\) was not understood"):
        find_pairs(other)
    with pytest.raises(ValueError, match=r"drop_path: 0.1 is not allowed with ClipEncoders"):
        set_drop_path(network, 0.1)
