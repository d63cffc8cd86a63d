"""The folder of a pruned BERT: in stock transformers where that can be, and by one file without spp in any case."""

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

import spp
from spp.cli.main import main
from spp.models.bert import BertNetwork

CONFIG = BertConfig(
    **{"vocab_size": 20, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40},
    **{"max_position_embeddings": 12, "num_labels": 4, "example_length": 9},
)
IS_REAL = (torch.arange(9) < torch.tensor([[9], [4]])).long()
INPUTS = {
    "input_ids": torch.tensor([[1, 5, 6, 3, 2, 8, 9, 4, 7], [1, 7, 8, 9, 0, 0, 0, 0, 0]]),
    "attention_mask": IS_REAL,
    "token_type_ids": torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1], [0] * 9]),
}
WITHOUT_SPP = """
import sys
sys.modules["spp"] = None
sys.path.insert(0, sys.argv[1])
import torch, modeling_transformers
network = modeling_transformers.load(sys.argv[1])
with torch.no_grad():
    scores = network(**torch.load(sys.argv[2])).logits
torch.save((type(network).__name__, scores), sys.argv[2])
"""


def filled(network):
    """With weights of a size that makes every unit matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network.eval()


@pytest.fixture(scope="module")
def network():
    return filled(BertNetwork(CONFIG))


def whole_heads(network):
    """Masks that cut one head of the first attention, all of the second, and a part of every MLP's channels."""
    masks = {}
    for pair in spp.find_pairs(network, per_head=True):
        masks[pair.name] = torch.ones(pair.size, dtype=torch.bool)
        is_first = "layer.0" in pair.name
        if pair.kind == "mlp":
            masks[pair.name][:: 3 if is_first else 2] = False
        else:
            masks[pair.name][slice(8, 16) if is_first else slice(None)] = False
    return masks


def channels(network):
    generator = torch.Generator().manual_seed(2)
    return {pair.name: torch.rand(pair.size, generator=generator) < 0.6 for pair in spp.find_pairs(network)}


def scores_of(network):
    with torch.no_grad():
        outputs = network(**INPUTS)
    return outputs if isinstance(outputs, Tensor) else outputs[0]


def assert_same(network, small):
    torch.testing.assert_close(scores_of(network), scores_of(small), atol=1e-5, rtol=1e-5)


def test_the_folder_loads_without_spp(network, tmp_path):
    small = spp.compact(network, channels(network))
    folder = spp.save_member(small, tmp_path / "small")
    torch.save(INPUTS, tmp_path / "inputs.pt")
    subprocess.run([sys.executable, "-c", WITHOUT_SPP, str(folder), str(tmp_path / "inputs.pt")], check=True)
    name, scores = torch.load(tmp_path / "inputs.pt")
    assert name == "BertForSequenceClassification"
    torch.testing.assert_close(scores, scores_of(small), atol=1e-5, rtol=1e-5)
    assert (scores - scores_of(network)).abs().max() > 0.1


@pytest.mark.parametrize("choose", [whole_heads, channels])
def test_what_is_loaded_is_as_small_as_what_was_saved(network, tmp_path, choose):
    small = spp.compact(network, choose(network))
    folder = spp.save_member(small, tmp_path / "small", class_names=["a", "b", "c", "d"])
    loaded = spp.load(folder)
    assert_same(loaded, small)
    num_params = sum(value.numel() for value in loaded.parameters())
    assert num_params == sum(value.numel() for value in small.parameters())
    assert json.loads((folder / "origin.json").read_text())["params"] == num_params
    assert loaded.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d"}
    # It can be cut again, and saved again.
    again = spp.compact(loaded, {pair.name: torch.arange(pair.size) % 2 == 0 for pair in spp.find_pairs(loaded)})
    assert_same(spp.load(spp.save_member(again, tmp_path / "again")), again)


def test_transformers_loads_whole_heads_and_widths_of_mlps(network, tmp_path):
    small = spp.compact(network, whole_heads(network))
    stock = BertForSequenceClassification.from_pretrained(spp.save_member(small, tmp_path / "small")).eval()
    assert stock.config.intermediate_size == 26
    assert_same(stock, small)
    folder = spp.save_member(spp.compact(network, channels(network)), tmp_path / "channels")
    with pytest.raises(RuntimeError, match="size"):
        BertForSequenceClassification.from_pretrained(folder)


def test_an_encoder_without_a_head(tmp_path):
    encoder = filled(BertModel(CONFIG))
    small = spp.compact(encoder, whole_heads(encoder))
    folder = spp.save_member(small, tmp_path / "small")
    assert_same(spp.load(folder), small)
    assert_same(BertModel.from_pretrained(folder).eval(), small)


def test_names_of_classes_are_as_many_as_outputs(network, tmp_path):
    with pytest.raises(ValueError, match="class_names: 2 names are not allowed for 4 outputs"):
        spp.save_member(spp.compact(network, channels(network)), tmp_path / "small", class_names=["a", "b"])
    assert not (tmp_path / "small").exists()


def test_a_folder_is_exported_as_a_folder_and_as_nothing_else(network, tmp_path, capsys):
    small = spp.compact(network, channels(network))
    folder = str(spp.save_member(small, tmp_path / "small"))
    assert main(["export", folder, "--format", "safetensors", "--out", str(tmp_path / "again")]) == 0
    assert_same(spp.load(tmp_path / "again"), small)
    capsys.readouterr()
    assert main(["export", folder, "--format", "onnx", "--out", str(tmp_path / "small.onnx")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "several inputs (input_ids, attention_mask, token_type_ids); allowed: safetensors" in line


def test_a_bert_with_another_head_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a BertForMaskedLM is not allowed in a folder"):
        spp.save_member(BertForMaskedLM(CONFIG), tmp_path / "small")
