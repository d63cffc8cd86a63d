"""Given weights for other classes, channels and image sizes."""

import socket

import pytest
import timm
import torch
from torch import nn

from spp.models.build import architecture_of, build
from spp.models.config import ModelConfig
from spp.models.new_head import head_parameters, with_new_head
from spp.models.registry import read_model
from spp.models.weights import load_given

MICRO = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 2}
NAMED = {"samples": {"name": "images"}, "outputs": "logits"}


def given(tmp_path, num_classes=10, in_chans=1, name="deit_tiny_distilled_patch16_224", head="new", img_size=8):
    """A config of weights for `num_classes`, their file, and the network that they are of."""
    torch.manual_seed(1)
    network = timm.create_model(name, img_size=img_size, in_chans=in_chans, num_classes=num_classes, **MICRO)
    file = tmp_path / "given.pt"
    torch.save({"model": network.state_dict()}, file)
    config, runtime = read_model({"name": name, "kwargs": MICRO, "weights": str(file), "head": head})
    return config, runtime["weights_file"], network.eval()


def empty_network(config, num_classes, **inputs):
    return build(architecture_of(config, {"img_size": 8, "in_chans": 1, **inputs}, num_classes, **NAMED)).eval()


@pytest.mark.parametrize(
    ("name", "kwargs", "heads"),
    [
        ("deit_tiny_patch16_224", MICRO, {"head"}),
        ("deit_tiny_distilled_patch16_224", MICRO, {"head", "head_dist"}),
        ("swin_tiny_patch4_window7_224", SWIN, {"head.fc"}),
    ],
)
def test_the_head_begins_anew_and_the_rest_is_taken(name, kwargs, heads):
    old = timm.create_model(name, img_size=16, num_classes=5, **kwargs)
    network = timm.create_model(name, img_size=16, num_classes=3, **kwargs)
    assert {parameter.rpartition(".")[0] for parameter in head_parameters(network)} == heads
    network.load_state_dict(with_new_head(network, old.state_dict()))
    for parameter, value in network.state_dict().items():
        is_head = parameter in head_parameters(network)
        assert is_head or torch.equal(value, old.state_dict()[parameter])
        assert not is_head or len(value) == 3


def test_a_head_for_as_many_classes_is_new_all_the_same(tmp_path):
    config, file, old = given(tmp_path, num_classes=3)
    network = empty_network(config, 3)
    load_given(network, config, file)
    assert not torch.equal(network.head.weight, old.head.weight)
    assert torch.equal(network.blocks[0].mlp.fc1.weight, old.blocks[0].mlp.fc1.weight)


def test_grey_weights_see_in_a_grey_image_of_three_channels_what_they_saw(tmp_path):
    config, file, old = given(tmp_path)
    network = empty_network(config, 3, in_chans=3)
    load_given(network, config, file)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(
        network.forward_features(images.expand(2, 3, 8, 8)), old.forward_features(images), atol=1e-5, rtol=1e-5
    )


def test_positions_are_resized_to_larger_images(tmp_path):
    config, file, old = given(tmp_path)
    with torch.no_grad():
        old.pos_embed.fill_(0.25)
    torch.save(old.state_dict(), file)
    config, _ = read_model({"name": config.name, "kwargs": MICRO, "weights": file, "head": "new"})
    network = empty_network(config, 3, img_size=16)
    load_given(network, config, file)
    assert network.pos_embed.shape == (1, 18, 16)
    torch.testing.assert_close(network.pos_embed, torch.full((1, 18, 16), 0.25), atol=1e-4, rtol=0)


def test_other_classes_without_a_new_head_are_refused_with_the_remedy(tmp_path):
    config, file, _ = given(tmp_path, head="kept")
    with pytest.raises(ValueError, match=r"^model.weights: '[^\n]*' knows 10 classes and the data have 3; [^\n]*new"):
        load_given(empty_network(config, 3), config, file)


def test_more_than_the_head_may_not_differ(tmp_path):
    config, file, _ = given(tmp_path)
    deeper = ModelConfig(name=config.name, kwargs={**MICRO, "depth": 2}, weights=config.weights, head="new")
    with pytest.raises(ValueError, match=r"^model.weights: [^\n]*it lacks blocks.1.norm1.weight, [^\n]*$"):
        load_given(empty_network(deeper, 3), deeper, file)


def test_a_network_that_does_not_name_its_head_is_refused():
    with pytest.raises(ValueError, match=r"^model.head: 'new' is not allowed with Linear, [^\n]*get_classifier"):
        head_parameters(nn.Linear(2, 2))


def test_a_new_head_needs_given_weights_and_a_network_with_classes():
    with pytest.raises(ValueError, match=r"^model.head: 'new' is not allowed; allowed: kept with model.weights=train"):
        read_model({"name": "deit_tiny_patch16_224", "head": "new"})
    with pytest.raises(ValueError, match=r"^model.head: 'new' is not allowed; allowed: kept, as a language model"):
        read_model({"name": "llama", "head": "new"})


def test_without_a_network_one_line_says_which_file_to_put_where(tmp_path, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    config, _ = read_model({"name": "deit_tiny_patch16_224", "weights": "pretrained", "head": "new"})
    address = "/timm/deit_tiny_patch16_224.fb_in1k/resolve/main/model.safetensors"
    line = rf"^model.weights: the weights of deit_tiny_patch16_224.fb_in1k cannot be fetched here [^\n]*{address} "
    with pytest.raises(ValueError, match=line + r"[^\n]*model.weights=deit_tiny_patch16_224.fb_in1k.safetensors$"):
        empty_network(config, 3, img_size=224, in_chans=3)
