"""Networks from descriptions."""

import pytest
import torch
from torch import nn

from spp.models.build import architecture_of, build
from spp.models.config import ModelConfig
from spp.models.registry import read_model

MICRO = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
IMAGES = {"img_size": 8, "in_chans": 1}


def test_timm_gets_the_inputs_the_outputs_and_the_arguments():
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs=MICRO)
    network = build(architecture_of(config, IMAGES, 7))
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 7)
    assert len(network.blocks) == 2


def test_arguments_that_do_not_fit_are_one_line():
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs={"wings": 2})
    with pytest.raises(ValueError, match=r"^model.kwargs: \{[^\n]*\} do not fit vit_tiny_patch16_224 [^\n]*$"):
        build(architecture_of(config, IMAGES, 7))


def test_pretrained_weights_of_other_classes_are_refused_before_they_are_fetched():
    config = ModelConfig(name="vit_tiny_patch16_224", weights="pretrained")
    with pytest.raises(ValueError, match=r"^model.weights: 'pretrained' knows 1000 classes and the data have 7; "):
        build(architecture_of(config, IMAGES, 7))


FACTORY = """
from torch import nn

def make(width=4):
    return nn.Linear(2, width)

def broken():
    return "a network"
"""


def test_ones_own_network_is_what_its_factory_makes(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    config, runtime = read_model({"factory": "nets:make", "kwargs": {"width": 5}})
    network = build(architecture_of(config, {}, None), runtime)
    assert isinstance(network, nn.Linear)
    assert network.out_features == 5
    broken, runtime = read_model({"factory": "nets:broken"})
    with pytest.raises(ValueError, match=r"^model.factory: 'nets:broken' returned a str; allowed: a torch.nn"):
        build(architecture_of(broken, {}, None), runtime)
