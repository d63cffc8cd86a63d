"""The whole way of networks that people bring: saved, loaded where spp is not, and run as ONNX."""

import sys
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.models.vision_transformer import VisionTransformer

import spp
from spp.deploy.export import export
from spp.structure.inputs import call

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}


def of_transformers(family, **values):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")
    config = getattr(transformers, f"{family}Config")(**SIZES, id2label={0: "cat", 1: "dog", 2: "cow"}, **values)
    return getattr(transformers, f"{family}ForImageClassification")(config)


def of_torchvision():
    return VisionTransformer(16, 8, 1, 2, 16, 24, num_classes=3)


def of_timm(name):
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    return timm.create_model(name, **sizes)


NETWORKS = {
    "EVA-02": partial(of_timm, "eva02_tiny_patch14_224"),
    "DINOv3": partial(of_timm, "vit_small_patch16_dinov3"),
    "BEiT": partial(of_timm, "beit_base_patch16_224"),
    "torchvision": of_torchvision,
    "Hugging Face ViT": partial(of_transformers, "ViT", intermediate_size=24),
    "Hugging Face DINOv2": partial(of_transformers, "Dinov2WithRegisters"),
    "Hugging Face DINOv2, SwiGLU": partial(of_transformers, "Dinov2", use_swiglu_ffn=True),
}
WITHOUT_SPP = """
from pathlib import Path
from safetensors.torch import load_file, save_file
sys.path.insert(0, sys.argv[1])
import modeling_spp, torch
images = load_file("images.safetensors")["images"]
for folder in sys.argv[1:]:
    with torch.no_grad():
        scores = modeling_spp.load(folder)(images)
    save_file({"scores": getattr(scores, "logits", scores)}, Path(folder) / "scores.safetensors")
assert "spp" not in sys.modules
"""
EXPORTED = ("Hugging Face ViT", "torchvision", "EVA-02")
FACTORIES = {"torchvision": "my_nets:make_model"}
MY_NETS = """
from torchvision.models.vision_transformer import VisionTransformer

def make_model():
    return VisionTransformer(16, 8, 1, 2, 16, 24, num_classes=3)
"""
IMAGES = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def pruned(name):
    """A network with weights that keep activations of order 1, and masks of it."""
    model = NETWORKS[name]().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
    return model, {pair.name: torch.rand(pair.size, generator=generator) < 0.6 for pair in spp.find_pairs(model)}


@pytest.fixture
def my_nets(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text(MY_NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    yield
    sys.modules.pop("my_nets", None)


@torch.no_grad()
def test_the_folders_load_where_spp_is_not(tmp_path, run_without_spp, my_nets):
    save_file({"images": IMAGES}, tmp_path / "images.safetensors")
    expected = {}
    for number, name in enumerate(NETWORKS):
        model, masks = pruned(name)
        folder = spp.save_member(model, masks, tmp_path / str(number), factory=FACTORIES.get(name))
        expected[folder] = call(spp.compact(model, masks), IMAGES)
        assert expected[folder].std() > 0.01
        torch.testing.assert_close(call(spp.load(folder), IMAGES), expected[folder], rtol=1e-5, atol=1e-5)
    run_without_spp(WITHOUT_SPP, *expected)
    for folder, scores in expected.items():
        found = load_file(folder / "scores.safetensors")["scores"]
        torch.testing.assert_close(found, scores, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_transformers_takes_the_folder_by_its_own_code(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed; install the extra llm")
    model, masks = pruned("Hugging Face ViT")
    folder = spp.save_member(model, masks, tmp_path / "small")
    loaded = transformers.AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    expected = spp.compact(model, masks)(IMAGES).logits
    torch.testing.assert_close(loaded(IMAGES).logits, expected, rtol=1e-5, atol=1e-5)
    assert loaded.config.id2label == {0: "cat", 1: "dog", 2: "cow"}


@pytest.mark.parametrize("name", EXPORTED)
def test_they_run_as_onnx(name, tmp_path, my_nets):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; install the extra onnx")
    folder = spp.save_member(*pruned(name), tmp_path / "small", factory=FACTORIES.get(name))
    assert export(folder, "onnx", tmp_path / "small.onnx").difference < 1e-5
