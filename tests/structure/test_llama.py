"""Llama with grouped-query attention: masked against compact, prices by closed form, gradients by hand."""

import copy

import pytest
import torch
from torch import nn

from spp.methods.sample_gradients import SampleGradients
from spp.structure.adapters.llama import LlamaAdapter
from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, set_drop_path, unit_weights
from spp.structure.masked import MaskedModel
from spp.structure.modeling_spp_llama import CompactLlamaAttention
from spp.structure.repair import repair

transformers = pytest.importorskip("transformers", reason="the extra llm is not installed")

SIZES = {
    "vocab_size": 32,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


def make_llama(seed: int = 0, **sizes) -> nn.Module:
    """A tiny Llama whose every unit matters."""
    config = transformers.LlamaConfig(**{**SIZES, **sizes}, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    model = transformers.LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    model.window_length = 16
    return model


@pytest.fixture(params=["plain", "biased", "one_group"])
def llama(request: pytest.FixtureRequest) -> nn.Module:
    further = {"biased": {"attention_bias": True, "mlp_bias": True}, "one_group": {"num_key_value_heads": 1}}
    return make_llama(**further.get(request.param, {}))


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(32, (2, 16), generator=torch.Generator().manual_seed(5))


def folded(model: nn.Module, masks: dict[str, torch.Tensor], per_head: bool) -> nn.Module:
    """A dense copy with the masks multiplied into query rows and into columns of o_proj and down_proj, by loops."""
    model = copy.deepcopy(model)
    config = model.config
    repeats, half = config.num_attention_heads // config.num_key_value_heads, config.head_dim // 2
    with torch.no_grad():
        for name, mask in masks.items():
            module = model.get_submodule(name.removesuffix(".qk").removesuffix(".vo"))
            if name.endswith("mlp"):
                module.down_proj.weight *= mask
                continue
            for head in range(config.num_attention_heads):
                own = mask.view(config.num_key_value_heads, -1)[head // repeats] if per_head else mask
                first = head * config.head_dim
                for unit, factor in enumerate(own):
                    if name.endswith("vo"):
                        module.o_proj.weight[:, first + unit] *= factor
                        continue
                    for row in (first + unit, first + unit + half):
                        module.q_proj.weight[row] *= factor
                        if module.q_proj.bias is not None:
                            module.q_proj.bias[row] *= factor
    return model


def random_masks(model: nn.Module, per_head: bool, keep: float = 0.5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        pair.name: torch.rand(pair.size, generator=generator) < keep for pair in find_pairs(model, per_head=per_head)
    }


@pytest.mark.parametrize("per_head", [False, True])
def test_masked_is_the_model_with_masks_in_its_weights(llama, tokens, per_head):
    pairs = find_pairs(llama, per_head=per_head)
    generator = torch.Generator().manual_seed(0)
    values = {pair.name: torch.rand(pair.size, generator=generator) * 2 - 0.5 for pair in pairs}
    masked = MaskedModel(llama, pairs)
    assert torch.equal(masked(input_ids=tokens).logits, llama(input_ids=tokens).logits)
    masked.set_masks(values)
    expected = folded(llama, values, per_head)(input_ids=tokens).logits
    torch.testing.assert_close(masked(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("per_head", [False, True])
def test_compact_is_masked_and_costs_what_the_prices_say(llama, tokens, per_head):
    masks = random_masks(llama, per_head)
    pairs = find_pairs(llama, per_head=per_head)
    masked = MaskedModel(llama, pairs)
    masked.set_masks(masks)
    small = compact(llama, masks)
    expected = masked(input_ids=tokens).logits
    torch.testing.assert_close(small(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-5)

    again = shrink_like(llama, widths_of(masks, pairs))
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(input_ids=tokens).logits, small(input_ids=tokens).logits)
    if not per_head:  # nothing is padded: prices add up
        dense, cost = pairs[0].model_cost, count_cost(small, example_inputs(small))
        gone = {pair.name: int((~masks[pair.name]).sum()) for pair in pairs}
        assert dense.macs - cost.macs == sum(gone[pair.name] * pair.macs_per_unit for pair in pairs)
        num_params = sum(parameter.numel() for parameter in small.parameters())
        assert dense.params - num_params == sum(gone[pair.name] * pair.params_per_unit for pair in pairs)


def test_prices_are_the_closed_form_of_the_whole_model(llama):
    pairs, length, config = find_pairs(llama), llama.window_length, llama.config
    cost = count_cost(llama, example_inputs(llama))
    head = config.vocab_size * config.hidden_size
    assert sum(pair.size * pair.macs_per_unit for pair in pairs) + length * head == cost.macs
    rest = 2 * head + (2 * config.num_hidden_layers + 1) * config.hidden_size
    biases = (config.attention_bias + config.mlp_bias) * config.num_hidden_layers * config.hidden_size
    assert sum(pair.size * pair.params_per_unit for pair in pairs) + rest + biases == cost.params


def test_compact_of_compact_is_compact_at_once(tokens):
    llama = make_llama()
    masks = random_masks(llama, per_head=True, keep=0.8)
    once = compact(llama, masks)
    more = random_masks(once, per_head=True, keep=0.6)
    masked = MaskedModel(once, find_pairs(once, per_head=True))
    masked.set_masks(more)
    twice = compact(once, more)
    torch.testing.assert_close(twice(input_ids=tokens).logits, masked(input_ids=tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_group_without_values_leaves_and_whole_groups_stay_stock(tokens):
    llama = make_llama()
    vo = torch.ones(3, 8, dtype=torch.bool)
    vo[1] = False
    masks = {"model.layers.0.self_attn.vo": vo.flatten(), "model.layers.1.self_attn.vo": torch.zeros(24).bool()}
    masked = MaskedModel(llama, find_pairs(llama, per_head=True))
    masked.set_masks(masks)
    small = compact(llama, masks)
    first, second = (layer.self_attn for layer in small.model.layers)
    assert type(first).__name__ == "LlamaAttention"
    assert first.q_proj.out_features == 4 * 8
    assert isinstance(second, CompactLlamaAttention)
    assert sum(parameter.numel() for parameter in second.parameters()) == 0
    torch.testing.assert_close(small(input_ids=tokens).logits, masked(input_ids=tokens).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kinds", [("qk",), ("vo", "qk"), ("mlp",)])
def test_nothing_left_of_a_kind(tokens, kinds):
    llama = make_llama()
    masks = {pair.name: torch.zeros(pair.size).bool() for pair in find_pairs(llama) if pair.kind in kinds}
    masked = MaskedModel(llama, find_pairs(llama))
    masked.set_masks(masks)
    small = compact(llama, masks)
    torch.testing.assert_close(small(input_ids=tokens).logits, masked(input_ids=tokens).logits, atol=1e-5, rtol=1e-5)


def test_it_generates_with_a_cache_as_without(tokens):
    llama = make_llama()
    masks = random_masks(llama, per_head=True)
    masks["model.layers.0.self_attn.vo"][:] = False
    small = compact(llama, masks)
    prompt = tokens[:, :5]
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    with_cache, without = (small.generate(prompt, use_cache=use, **options) for use in (True, False))
    assert torch.equal(with_cache, without)
    padded = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    logits = small(input_ids=prompt, attention_mask=padded).logits
    alone = small(input_ids=prompt[:1, 2:]).logits
    torch.testing.assert_close(logits[0, 2:], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("per_head", [False, True])
def test_the_weights_of_all_units_are_what_leaves(per_head):
    llama = make_llama(attention_bias=True)
    for pair in find_pairs(llama, per_head=per_head):
        parts = unit_weights(llama, pair)
        num_weights = sum(
            part.index.shape[1] * (part.parameter.shape[1 - part.dim] if part.parameter.ndim > 1 else 1)
            for part in parts
        )
        assert num_weights == pair.params_per_unit
        masks = {pair.name: torch.arange(pair.size) != 1}
        emptied = copy.deepcopy(llama)
        with torch.no_grad():
            for part in unit_weights(emptied, pair):
                part.parameter.index_fill_(part.dim, part.index[1], 0.0)
        x = torch.arange(16)[None]
        torch.testing.assert_close(
            emptied(input_ids=x).logits, compact(llama, masks)(input_ids=x).logits, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("per_head", [False, True])
def test_gradients_of_samples_are_those_of_the_masks(tokens, per_head):
    llama = make_llama().requires_grad_(False)
    masked = MaskedModel(llama, find_pairs(llama, per_head=per_head))
    watch = SampleGradients(masked)
    watch.attach()
    logits = masked(input_ids=tokens).logits
    logits.square().mean().backward()
    for name, mask in masked.masks.items():
        torch.testing.assert_close(watch.gradients[name].mean(0).float(), mask.grad, atol=1e-6, rtol=1e-3)


def test_repair_brings_the_outputs_nearer(tokens):
    llama = make_llama()
    small = compact(llama, random_masks(llama, per_head=True, keep=0.7))
    batches = [{"input_ids": torch.randint(32, (4, 16), generator=torch.Generator().manual_seed(n))} for n in range(8)]
    repaired = repair(small, llama, batches)
    wanted = llama(input_ids=tokens).logits
    before, after = ((each(input_ids=tokens).logits - wanted).square().mean() for each in (small, repaired))
    assert after < 0.7 * before


def test_repair_runs_every_block_as_often_in_a_deep_network_and_finds_what_whole_passes_find(tokens, monkeypatch):
    batches = [{"input_ids": tokens}, {"input_ids": tokens.flip(0)}]
    runs = {}
    for depth in (2, 5):
        model = make_llama(num_hidden_layers=depth)
        small = compact(model, random_masks(model, per_head=True))
        counts = [0] * depth
        for number, layer in enumerate(model.model.layers):

            def count(module, args, number=number, counts=counts):
                counts[number] += 1

            layer.input_layernorm.register_forward_pre_hook(count)
        repaired = repair(small, model, batches, kind="second")
        runs[depth] = max(counts)
    assert runs[2] == runs[5]
    monkeypatch.setattr(LlamaAdapter, "sequential_blocks", lambda self, model: [])
    whole = repair(small, model, batches, kind="second")
    for (name, one), other in zip(repaired.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_stochastic_depth_is_refused():
    with pytest.raises(ValueError, match=r"drop_path: 0\.1 is not allowed with LlamaForCausalLM"):
        set_drop_path(make_llama(), 0.1)
