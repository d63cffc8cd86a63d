"""Networks from descriptions."""

import pytest
import torch
from torch import nn

from spp.models.build import architecture_of, build
from spp.models.config import ModelConfig
from spp.models.registry import read_model

MICRO = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}
IMAGES = {"img_size": 8, "in_chans": 1}
NAMED = {"samples": {"name": "images"}, "outputs": "logits"}


def test_timm_gets_the_inputs_the_outputs_and_the_arguments():
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs=MICRO)
    network = build(architecture_of(config, IMAGES, 7, **NAMED))
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 7)
    assert len(network.blocks) == 2


def test_arguments_that_do_not_fit_are_one_line():
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs={"num_heads": 0})
    with pytest.raises(ValueError, match=r"^model.kwargs: \{[^\n]*\} do not fit vit_tiny_patch16_224 [^\n]*$"):
        build(architecture_of(config, IMAGES, 7, **NAMED))


def test_pretrained_weights_of_other_classes_are_refused_before_they_are_fetched():
    config = ModelConfig(name="vit_tiny_patch16_224", weights="pretrained")
    with pytest.raises(ValueError, match=r"^model.weights: 'pretrained' knows 1000 classes and the data have 7; "):
        build(architecture_of(config, IMAGES, 7, **NAMED))


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
    network = build(architecture_of(config, {}, None, **NAMED), runtime)
    assert isinstance(network, nn.Linear)
    assert network.out_features == 5
    broken, runtime = read_model({"factory": "nets:broken"})
    with pytest.raises(ValueError, match=r"^model.factory: 'nets:broken' returned a str; allowed: a torch.nn"):
        build(architecture_of(broken, {}, None, **NAMED), runtime)


@pytest.mark.parametrize(("name", "value"), [("num_classes", 1000), ("img_size", 16), ("in_chans", 3)])
def test_arguments_that_contradict_the_data_are_refused(name, value):
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs={**MICRO, name: value})
    with pytest.raises(
        ValueError, match=rf"^model.kwargs.{name}: {value} contradicts data and task, for which it is [^\n]*$"
    ):
        build(architecture_of(config, IMAGES, 7, **NAMED))


def test_arguments_that_say_what_the_data_say_are_taken():
    config = ModelConfig(name="vit_tiny_patch16_224", kwargs={**MICRO, **IMAGES, "num_classes": 7})
    assert build(architecture_of(config, IMAGES, 7, **NAMED)).num_classes == 7


def test_a_description_from_elsewhere_cannot_bring_in_a_file(tmp_path):
    torch.save({}, tmp_path / "w.pt")
    description = {"name": "vit_tiny_patch16_224", "kwargs": {"checkpoint_path": str(tmp_path / "w.pt")}}
    with pytest.raises(ValueError, match=r"^model.kwargs.checkpoint_path: [^\n]*a file is only named by model.weights"):
        build({"model": description, "inputs": IMAGES, "num_outputs": 7})
