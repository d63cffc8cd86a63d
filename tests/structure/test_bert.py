"""Hugging Face's BERT: what is found in it, what it costs, and that it is cut as it is masked, padding included."""

import pytest
import torch
from torch import nn

from spp.methods.elimination.statistics import PairStatistics
from spp.structure.compact import compact, shrink_like, widths_of
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs, set_drop_path, unit_weights
from spp.structure.masked import MaskedModel
from spp.structure.repair import repair

transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")

SIZES = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
LENGTH = 16
LAYER = "bert.encoder.layer"


def build_bert(kind="BertForSequenceClassification", attention="sdpa", seed=0, **changes):
    """A small BERT in eval mode with weights large enough that every unit matters."""
    config = transformers.BertConfig(**{**SIZES, "max_position_embeddings": LENGTH, **changes})
    config._attn_implementation = attention
    model = getattr(transformers, kind)(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model


@pytest.fixture
def texts():
    """Three texts of 16, 9 and 2 tokens, padded, the second with two parts."""
    tokens = torch.randint(1, 50, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(LENGTH) < torch.tensor([[16], [9], [2]])).long()
    parts = torch.zeros_like(tokens)
    parts[1, 4:9] = 1
    return {"input_ids": tokens * mask, "attention_mask": mask, "token_type_ids": parts}


def both(model, pairs, masks, texts):
    masked = MaskedModel(model, pairs)
    masked.set_masks(masks)
    with torch.no_grad():
        return masked(**texts)[0], compact(model, masks)(**texts)[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("per_head", [False, True])
def test_the_compact_model_equals_the_masked_one_with_padding(texts, random_masks, attention, per_head):
    model = build_bert(attention=attention)
    pairs = find_pairs(model, per_head=per_head)
    masks = random_masks(pairs, seed=2)
    masked, small = both(model, pairs, masks, texts)
    torch.testing.assert_close(small, masked, atol=1e-5, rtol=1e-5)
    assert (masked - model(**texts)[0]).abs().max() > 0.01


@pytest.mark.parametrize("emptied", [("qk",), ("vo",), ("mlp",), ("qk", "vo", "mlp")])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_emptied_kind_of_pairs(texts, random_masks, emptied, attention):
    model = build_bert(attention=attention)
    pairs = find_pairs(model)
    masks = random_masks(pairs, seed=3)
    for pair in pairs:
        if pair.kind in emptied:
            masks[pair.name][:] = False
    masked, small = both(model, pairs, masks, texts)
    torch.testing.assert_close(small, masked, atol=1e-5, rtol=1e-5)
    trained = compact(model, masks).train()
    trained(**texts)[0].sum().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in trained.parameters())


def test_what_stands_behind_the_padding_changes_nothing(texts, random_masks):
    model = build_bert()
    small = compact(model, random_masks(find_pairs(model, per_head=True), seed=4))
    other = dict(texts, input_ids=torch.where(texts["attention_mask"] == 1, texts["input_ids"], 7))
    torch.testing.assert_close(small(**other)[0], small(**texts)[0], atol=1e-6, rtol=1e-6)
    alone = {name: value[1:2, :9] for name, value in texts.items()}
    torch.testing.assert_close(small(**alone)[0], small(**texts)[0][1:2], atol=1e-5, rtol=1e-5)


def test_whole_heads_leave_stock_attention(texts):
    model = build_bert()
    pairs = find_pairs(model, per_head=True)
    masks = {pair.name: torch.ones(pair.size, dtype=torch.bool) for pair in pairs}
    for kind in ("qk", "vo"):
        masks[f"{LAYER}.0.attention.{kind}"][8:16] = False  # the second of three heads
        masks[f"{LAYER}.1.attention.{kind}"][:] = False
    masked, small = both(model, pairs, masks, texts)
    torch.testing.assert_close(small, masked, atol=1e-5, rtol=1e-5)
    cut = compact(model, masks)
    first = cut.bert.encoder.layer[0].attention.self
    assert type(first) is type(model.bert.encoder.layer[0].attention.self)
    assert (first.num_attention_heads, first.query.out_features) == (2, 16)
    assert cut.bert.encoder.layer[1].attention.output.dense.in_features == 0
    again = find_pairs(cut, per_head=True)
    assert [pair.size for pair in again if pair.name.startswith(f"{LAYER}.0.attention")] == [16, 16]
    assert not any(pair.name.startswith(f"{LAYER}.1.attention") for pair in again)


def test_embeddings_pooler_and_head_are_left_as_they_are(random_masks):
    model = build_bert()
    small = compact(model, random_masks(find_pairs(model), seed=5))
    cut = {name for name, weight in small.state_dict().items() if weight.shape != model.state_dict()[name].shape}
    assert cut
    assert all(name.startswith(f"{LAYER}.") for name in cut)
    rest = set(model.state_dict()) - cut
    assert all(torch.equal(small.state_dict()[name], model.state_dict()[name]) for name in rest)


@pytest.mark.parametrize("per_head", [False, True])
def test_prices_are_what_cutting_saves(per_head):
    model = build_bert()
    pairs = find_pairs(model, per_head=per_head)
    for pair in pairs:
        mask = torch.ones(pair.size, dtype=torch.bool)
        # Shared units, or the same channel of every head: heads of unequal widths would be filled up.
        gone = torch.arange(pair.size) % (pair.size // pair.num_heads if per_head else pair.size) == 1
        cost = count_cost(compact(model, {pair.name: mask & ~gone}), example_inputs(model))
        num_gone = int(gone.sum())
        assert pair.model_cost.params - cost.params == num_gone * pair.params_per_unit
        assert pair.model_cost.macs - cost.macs == pytest.approx(num_gone * pair.macs_per_unit)
        parts = unit_weights(model, pair)
        numbers = sum(part.index.numel() * part.parameter[0].numel() if part.dim == 0 else
                      part.index.numel() * len(part.parameter) for part in parts)  # fmt: skip
        assert numbers == pair.size * pair.params_per_unit


def closed_form(*, width, depth, mlp, vocabulary, tokens, classes, positions=512):
    """Parameters and multiply-adds of a BERT that classifies, written out."""
    norm, linear = 2 * width, lambda inputs, outputs: inputs * outputs + outputs
    embeddings = (vocabulary + positions + 2) * width + norm
    layer = 4 * linear(width, width) + linear(width, mlp) + linear(mlp, width) + 2 * norm
    params = embeddings + depth * layer + linear(width, width) + linear(width, classes)
    macs_of_layer = tokens * (4 * width * width + 2 * width * mlp) + 2 * tokens * tokens * width
    return depth * macs_of_layer + width * width + width * classes, params


@pytest.mark.parametrize(
    ("config", "sizes", "millions"),
    [
        ({}, {"width": 768, "depth": 12, "mlp": 3072, "vocabulary": 30522}, 109.5),
        (
            {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
            {"width": 384, "depth": 6, "mlp": 1536, "vocabulary": 30522},
            22.7,
        ),
    ],
)
def test_costs_of_published_sizes_follow_from_their_configuration(config, sizes, millions):
    with torch.device("meta"):
        model = transformers.BertForSequenceClassification(
            transformers.BertConfig(**config, num_labels=3, example_length=128)
        )
    macs, params = closed_form(**sizes, tokens=128, classes=3)
    pairs = find_pairs(model)
    assert (pairs[0].model_cost.macs, pairs[0].model_cost.params) == (macs, params)
    assert params / 1e6 == pytest.approx(millions, abs=0.05)
    # What stays when all units have gone: embeddings, biases of second maps, norms, pooler and head.
    left = params - sum(pair.size * pair.params_per_unit for pair in pairs)
    width, depth = sizes["width"], sizes["depth"]
    assert left == params - depth * (4 * width * (width + 1) - width + sizes["mlp"] * (2 * width + 1))


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForTokenClassification"])
def test_other_heads_of_the_library_have_the_same_encoder(kind, texts, random_masks):
    model = build_bert(kind)
    pairs = find_pairs(model)
    assert [pair.name.removeprefix("bert.") for pair in pairs] == [
        f"encoder.layer.{layer}.{part}" for layer in (0, 1) for part in ("attention.qk", "attention.vo", "mlp")
    ]
    masked, small = both(model, pairs, random_masks(pairs, seed=6), texts)
    torch.testing.assert_close(small, masked, atol=1e-5, rtol=1e-5)


def test_a_compact_model_is_built_again_from_its_widths(texts, random_masks):
    model = build_bert()
    pairs = find_pairs(model, per_head=True)
    masks = random_masks(pairs, seed=7)
    small, again = compact(model, masks), shrink_like(build_bert(seed=1), widths_of(masks, pairs))
    again.load_state_dict(small.state_dict())
    torch.testing.assert_close(again(**texts)[0], small(**texts)[0])


def test_repair_brings_it_closer_to_the_dense_model(texts, random_masks):
    model = build_bert()
    pairs = find_pairs(model)
    small = compact(model, random_masks(pairs, seed=8, keep=0.8))
    batches = [
        {"input_ids": torch.randint(1, 50, (16, LENGTH), generator=torch.Generator().manual_seed(seed))}
        for seed in range(8)
    ]
    repaired = repair(small, model, batches)
    seen = {"input_ids": torch.randint(1, 50, (32, LENGTH), generator=torch.Generator().manual_seed(99))}
    with torch.no_grad():
        dense, before, after = (each(**seen)[0] for each in (model, small, repaired))
    assert (after - dense).square().mean() < 0.5 * (before - dense).square().mean()


def test_repair_of_padded_texts_is_that_of_the_texts_alone(texts, random_masks):
    model = build_bert().double()
    small = compact(model, random_masks(find_pairs(model), seed=8))
    lengths = texts["attention_mask"].sum(1).tolist()
    alone = [{name: rows[row : row + 1, :n] for name, rows in texts.items()} for row, n in enumerate(lengths)]
    padded, expected = (repair(small, model, batches).state_dict() for batches in ([texts], alone))
    torch.testing.assert_close(padded, expected, rtol=1e-6, atol=1e-9)
    assert any(not torch.equal(weight, padded[name]) for name, weight in small.state_dict().items())


def test_statistics_of_padded_texts_are_those_of_the_texts_alone(texts):
    model = build_bert().double()
    lengths = texts["attention_mask"].sum(1).tolist()
    alone = [{name: rows[row : row + 1, :n] for name, rows in texts.items()} for row, n in enumerate(lengths)]
    found = []
    for batches in ([texts], alone):
        masked = MaskedModel(model, find_pairs(model))
        statistics = PairStatistics(masked)
        for batch in batches:
            statistics.attach()
            masked(**batch)[0].square().sum(1).mean().backward()
            statistics.take_in()
        found.append(statistics)
    padded, expected = found
    for name in expected.maps:
        torch.testing.assert_close(padded.of_map(name), expected.of_map(name))
    for pair in masked.pairs:
        if pair.kind == "qk":
            torch.testing.assert_close(padded.of_logits(pair.name), expected.of_logits(pair.name))


def test_what_is_no_encoder_is_refused_by_name():
    config = transformers.BertConfig(**SIZES, is_decoder=True, add_cross_attention=True)
    with pytest.raises(ValueError, match=r"crossattention .*was not understood"):
        find_pairs(transformers.BertModel(config))
    model = build_bert()
    model.bert.encoder.layer[1].attention.self = nn.Identity()
    with pytest.raises(ValueError, match=r"layer\.1\.attention\.self \(Identity\) was not understood"):
        MaskedModel(model, [])
    with pytest.raises(ValueError, match=r"^drop_path: 0\.1 is not allowed with BertForSequenceClassification, w"):
        set_drop_path(build_bert(), 0.1)
