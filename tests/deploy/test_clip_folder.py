"""The folder of a pruned CLIP: in stock transformers where that can be, and by one file without spp in any case."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionModelWithProjection

import spp
from spp.models.clip import ClipEncoders
from spp.structure.modeling_transformers import tower_of

SIZES = {"num_hidden_layers": 2, "projection_dim": 12}
VISION = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "max_position_embeddings": 9}
SPECIAL = {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 0}
CONFIG = CLIPConfig(vision_config={**VISION, **SIZES}, text_config={**TEXT, **SIZES, **SPECIAL}, projection_dim=12)
INPUTS = {
    "pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
    "input_ids": torch.tensor([[1, 5, 6, 3, 0, 0, 0, 0, 0], [1, 7, 8, 9, 4, 5, 3, 0, 0]]),
}
WITHOUT_SPP = """
import sys
sys.modules["spp"] = None
sys.path.insert(0, sys.argv[1])
import torch, modeling_transformers
network = modeling_transformers.load(sys.argv[1])
inputs = torch.load(sys.argv[2])
with torch.no_grad():
    out = network(**inputs)
torch.save((out.image_embeds, out.text_embeds), sys.argv[2])
"""


@pytest.fixture(scope="module")
def network():
    network = ClipEncoders(CONFIG).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return network


def whole_heads(network):
    """Masks that cut one head of every attention and a third of every MLP's channels, differently by layer."""
    masks = {}
    for number, pair in enumerate(spp.find_pairs(network, per_head=True)):
        masks[pair.name] = torch.ones(pair.size, dtype=torch.bool)
        if pair.kind == "mlp":
            masks[pair.name][number::3] = False
        else:
            width = pair.size // pair.num_heads
            head = 1 if "layers.1" in pair.name else 0
            masks[pair.name][head * width : (head + 1) * width] = False
    return masks


def channels(network):
    generator = torch.Generator().manual_seed(2)
    return {pair.name: torch.rand(pair.size, generator=generator) < 0.6 for pair in spp.find_pairs(network)}


def assert_same(images, texts, expected):
    torch.testing.assert_close(images, expected["images"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(texts, expected["texts"], atol=1e-5, rtol=1e-5)


def test_the_folder_loads_without_spp(network, tmp_path):
    small = spp.compact(network, channels(network))
    folder = spp.save_member(small, tmp_path / "small")
    torch.save(INPUTS, tmp_path / "inputs.pt")
    subprocess.run([sys.executable, "-c", WITHOUT_SPP, str(folder), str(tmp_path / "inputs.pt")], check=True)
    assert_same(*torch.load(tmp_path / "inputs.pt"), small(**INPUTS))


@pytest.mark.parametrize("choose", [whole_heads, channels])
def test_what_is_loaded_is_as_small_as_what_was_saved(network, tmp_path, choose):
    small = spp.compact(network, choose(network))
    folder = spp.save_member(small, tmp_path / "small")
    loaded = spp.load(folder)
    found = loaded(**INPUTS)
    assert_same(found.image_embeds, found.text_embeds, small(**INPUTS))
    num_params = sum(value.numel() for value in loaded.parameters())
    assert num_params == sum(value.numel() for value in small.parameters())
    origin = json.loads((folder / "origin.json").read_text())
    assert origin["params"] == num_params


def test_transformers_loads_whole_heads_and_widths_of_mlps(network, tmp_path):
    small = spp.compact(network, whole_heads(network))
    folder = spp.save_member(small, tmp_path / "small")
    stock = CLIPModel.from_pretrained(folder).eval()
    assert stock.config.vision_config.intermediate_size < 40
    found = stock(**INPUTS)
    assert_same(found.image_embeds, found.text_embeds, small(**INPUTS))
    with pytest.raises(RuntimeError, match="size"):
        CLIPModel.from_pretrained(spp.save_member(spp.compact(network, channels(network)), tmp_path / "channels"))


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_a_tower_by_itself(network, tmp_path, tower):
    small = spp.compact(network, whole_heads(network))
    folder = spp.save_member(tower_of(small, tower), tmp_path / tower)
    class_ = {"vision": CLIPVisionModelWithProjection, "text": CLIPTextModelWithProjection}[tower]
    name, output = {"vision": ("pixel_values", "image_embeds"), "text": ("input_ids", "text_embeds")}[tower]
    expected = small(**INPUTS)["images" if tower == "vision" else "texts"]
    for loaded in (spp.load(folder), class_.from_pretrained(folder)):
        found = torch.nn.functional.normalize(loaded.eval()(**{name: INPUTS[name]})[output], dim=-1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_folder_that_was_altered_is_refused(network, tmp_path):
    folder = spp.save_member(network, channels(network), tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    config["spp"]["modules"]["text_model.encoder.layers.0.mlp"]["hidden"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json' was altered"):
        spp.load(folder)
    from spp.structure import modeling_transformers

    with pytest.raises(
        ValueError, match=r"model.safetensors: text_model.encoder.layers.0.mlp.* does not have the size"
    ):
        modeling_transformers.load(folder)
