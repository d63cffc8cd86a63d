"""Exported members against the member itself, run by what users would run them with."""

import functools
import json
from pathlib import Path

import pytest
import torch

from spp.deploy import export as module
from spp.deploy.export import TOLERANCE, export
from spp.deploy.folder import load
from spp.models.build import architecture_of
from spp.models.config import ModelConfig
from spp.stages.member import build_untrained, load_member, save_member
from spp.structure.compact import compact
from spp.structure.find import find_pairs
from spp.structure.tokens import drop_tokens

VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2, "patch_size": 4}
SWIN = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "mlp_ratio": 2, "patch_size": 2, "window_size": 4}
MODELS = {
    "vit": ModelConfig(name="deit_tiny_patch16_224", kwargs=VIT),
    "vit of ragged heads": ModelConfig(name="deit_tiny_patch16_224", kwargs=VIT, per_head=True),
    "vit without some tokens": ModelConfig(name="deit_tiny_patch16_224", kwargs=VIT),
    "shifted swin": ModelConfig(name="swin_tiny_patch4_window7_224", kwargs=SWIN),
}
FILES = {"safetensors": "small", "torch": "small.pt2", "onnx": "small.onnx"}


@pytest.fixture(scope="module", params=MODELS)
def member(request, tmp_path_factory):
    """The file of a member with random weights, large enough that every unit matters, and random widths."""
    config = MODELS[request.param]
    samples = {"name": "images", "class_names": None, "preprocessing": {}}
    inputs = {"img_size": 32, "in_chans": 3}
    architecture = architecture_of(config, inputs, 7, samples=samples, outputs="logits")
    torch.manual_seed(0)
    dense = build_untrained(architecture).eval()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if request.param == "vit without some tokens":
        drop_tokens(dense, {"blocks.0": range(0, 65, 2), "blocks.1": range(0, 65, 8)})
    pairs = find_pairs(dense, per_head=config.per_head)
    masks = {pair.name: torch.rand(pair.size) < 0.6 for pair in pairs}
    file = tmp_path_factory.mktemp("member") / "member.safetensors"
    save_member(file, compact(dense, masks), masks, pairs, architecture, budget={"kind": "units", "value": 0.6})
    return file


@pytest.fixture(scope="module")
def exported(member, tmp_path_factory):
    """exported(form): what export made of the member, once for all tests of it."""
    folder = tmp_path_factory.mktemp("exported") / "deep"

    @functools.cache
    def make(form):
        return export(member, form, folder / FILES[form])

    return make


def run_onnx(file, images):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def run_program(file, images):
    return torch.export.load(file).module()(images)


def run_weights(file, images):
    return load(file)(images)


@pytest.mark.parametrize(("form", "run"), [("safetensors", run_weights), ("torch", run_program), ("onnx", run_onnx)])
@torch.no_grad()
def test_the_outputs_are_the_members(member, exported, form, run):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    made = exported(form)
    network = load_member(member)
    for num_images in (1, 2, 5):
        images = torch.randn(num_images, 3, 32, 32)
        expected = network(images)
        assert expected.std() > 0.1
        torch.testing.assert_close(
            run(made.file, images), expected, rtol=0, atol=TOLERANCE * float(expected.abs().max())
        )
    assert made.difference is not None
    assert made.difference <= TOLERANCE


def test_the_description_tells_how_to_run(exported):
    made = exported("torch")
    about = json.loads(made.description.read_text())
    assert (made.file.name, made.description) == ("small.pt2", made.file.with_name("small.pt2.json"))
    assert about["inputs"] == {"name": "images", "shape": ["batch", 3, 32, 32], "dtype": "float32"}
    assert about["outputs"] == {"name": "logits", "shape": ["batch", 7], "dtype": "float32"}
    assert about["budget"] == {"kind": "units", "value": 0.6}


def test_a_program_that_computes_something_else_is_refused(member, tmp_path, monkeypatch):
    def write_other(opened, out):
        return lambda samples: 1.01 * opened.network(samples)

    monkeypatch.setattr(module, "_write_program", write_other)
    with pytest.raises(ValueError, match=r"^--format: as torch the outputs of .* differ by .*; allowed: 1e-04"):
        export(member, "torch", tmp_path / "small.pt2")


def test_an_onnx_file_says_nothing_of_the_machine_that_wrote_it(exported):
    onnx = pytest.importorskip("onnx")
    file = exported("onnx").file
    content = file.read_bytes()
    for word in (b"site-packages", b"stack_trace", str(Path(torch.__file__).parents[1]).encode(), b"forward"):
        assert word not in content
    model = onnx.load(file)
    assert not model.graph.value_info
    weights = sum(int(torch.tensor(item.dims).prod()) for item in model.graph.initializer if item.data_type == 1)
    assert len(content) < 1.05 * 4 * weights + 60_000


@pytest.mark.parametrize("form", ["torch", "onnx"])
@pytest.mark.parametrize("network", ["vit of ragged heads", "shifted swin"])
def test_blocks_that_have_lost_all_units_of_a_kind_run_elsewhere(form, network, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    config = MODELS[network]
    inputs = {"img_size": 16, "in_chans": 3}
    samples = {"name": "images", "class_names": None, "preprocessing": {}}
    architecture = architecture_of(config, inputs, 7, samples=samples, outputs="logits")
    torch.manual_seed(0)
    dense = build_untrained(architecture).eval()
    pairs = find_pairs(dense, per_head=config.per_head)
    first, *_, last = dict.fromkeys(pair.owner for pair in pairs if pair.kind == "qk")
    gone = {f"{first}.qk", f"{last}.vo", next(pair.name for pair in pairs if pair.kind == "mlp")}
    assert gone <= {pair.name for pair in pairs}
    masks = {pair.name: torch.full((pair.size,), pair.name not in gone) for pair in pairs}
    save_member(tmp_path / "m.safetensors", compact(dense, masks), masks, pairs, architecture)
    assert export(tmp_path / "m.safetensors", form, tmp_path / FILES[form]).difference < TOLERANCE


@pytest.mark.parametrize("member", ["vit"], indirect=True)
@pytest.mark.parametrize("difference", [1.0, float("nan")])
def test_a_file_that_fails_its_check_is_not_left_behind(member, difference, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_difference", lambda network, written, batches: difference)
    with pytest.raises(ValueError, match=r"^--format: as torch the outputs of [^\n]* differ by [^\n]*$"):
        export(member, "torch", tmp_path / "small.pt2")
    assert not list(tmp_path.iterdir())
