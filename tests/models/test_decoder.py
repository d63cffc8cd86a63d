"""A language model read layer by layer computes what transformers computes with all layers in memory."""

import pytest
import torch

from spp.models.decoder import DecoderModel

pytest.importorskip("transformers", reason="the extra llm is not installed")


def opened(folder):
    return DecoderModel(folder, torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {}), ("llama", {"tie_word_embeddings": True}), ("opt", {}), ("opt", {"word_embed_proj_dim": 16})],
)
def test_layer_by_layer_is_the_whole_model(make_language_model, kind, changes):
    whole, folder = make_language_model(kind, **changes)
    model, tokens = opened(folder), torch.randint(2, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    hidden = model.embed(tokens)
    for index in range(model.num_layers):
        hidden = model.run_layer(model.load_layer(index), hidden)
    with torch.no_grad():
        expected = whole(input_ids=tokens, use_cache=False).logits
    torch.testing.assert_close(model.logits(hidden), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_linears_that_are_said_to_share_an_input_read_the_same_numbers(make_language_model, kind):
    _, folder = make_language_model(kind)
    model = opened(folder)
    layer, seen = model.load_layer(0), {}
    for name, linear in model.linears(layer).items():
        linear.register_forward_pre_hook(lambda module, args, name=name: seen.update({name: args[0].clone()}))
    model.run_layer(layer, model.embed(torch.arange(2, 12)[None]))
    assert seen.keys() == model.inputs.keys()
    for one, source in model.inputs.items():
        for other, other_source in model.inputs.items():
            shapes_differ = seen[one].shape != seen[other].shape
            assert (not shapes_differ and torch.equal(seen[one], seen[other])) == (source == other_source)


def test_a_weight_that_is_not_finite_is_named_with_its_layer(make_language_model):
    whole, folder = make_language_model("llama")
    with torch.no_grad():
        whole.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    whole.save_pretrained(folder)
    model = opened(folder)
    model.load_layer(0)
    with pytest.raises(ValueError, match=r"^model.weights: 'model.layers.1.mlp.up_proj.weight' holds numbers that are"):
        model.load_layer(1)


def test_a_shard_that_is_missing_is_named(make_language_model):
    whole, folder = make_language_model("llama")
    (folder / "model.safetensors").unlink()
    whole.save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    opened(folder)
    shards[-1].unlink()
    with pytest.raises(ValueError, match=rf"^model.weights: '[^']*{shards[-1].name}' is missing; [^\n]*$"):
        opened(folder)
