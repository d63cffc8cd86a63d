"""The folder of a member: loaded with spp, and where spp is not."""

import hashlib
import json
import re

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import spp
from spp.structure import modeling_spp


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def folder(vit, masks, tmp_path):
    names = ["cat", "dog", "cow", "hen"]
    preprocessing = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "interpolation": "bilinear", "crop_pct": 0.875}
    return spp.save_member(vit, masks, tmp_path / "small", class_names=names, preprocessing=preprocessing)


@torch.no_grad()
def test_it_is_the_masked_network(folder, vit, masks, images):
    masked = spp.MaskedModel(vit, spp.find_pairs(vit))
    masked.set_masks(masks)
    torch.testing.assert_close(spp.load(folder)(images), masked(images), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_it_loads_by_its_own_file_where_spp_is_not(folder, vit, masks, images, tmp_path, run_without_spp):
    save_file({"images": images}, tmp_path / "images.safetensors")
    code = """
from safetensors.torch import load_file, save_file
sys.path.insert(0, "small")
import modeling_spp, timm, torch
images = load_file("images.safetensors")["images"]
with torch.no_grad():
    by_file = modeling_spp.load("small")(images)
    by_timm = timm.create_model("spp_member", pretrained=True, folder="small").eval()(images)
save_file({"file": by_file, "timm": by_timm}, "scores.safetensors")
assert "spp" not in sys.modules
"""
    run_without_spp(code)
    expected = spp.compact(vit, masks)(images)
    assert expected.std() > 0.1
    for scores in load_file(tmp_path / "scores.safetensors").values():
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_transformers_loads_it_where_spp_is_not(folder, vit, masks, images, tmp_path, run_without_spp):
    pytest.importorskip("transformers", reason="needs the extra 'llm'")
    save_file({"images": images}, tmp_path / "images.safetensors")
    code = """
from safetensors.torch import load_file, save_file
import torch
from transformers import AutoModelForImageClassification
network = AutoModelForImageClassification.from_pretrained("small", trust_remote_code=True)
with torch.no_grad():
    out = network(pixel_values=load_file("images.safetensors")["images"])
assert network.config.id2label[1] == "dog", network.config.id2label
save_file({"scores": out.logits}, "scores.safetensors")
"""
    run_without_spp(code)
    scores = load_file(tmp_path / "scores.safetensors")["scores"]
    torch.testing.assert_close(scores, spp.compact(vit, masks)(images), rtol=1e-5, atol=1e-5)


def test_config_has_timms_keys_and_what_the_network_truly_is(folder, vit, masks):
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["num_classes"] == 4
    assert config["label_names"] == ["cat", "dog", "cow", "hen"]
    preprocessing = config["pretrained_cfg"]
    assert preprocessing["input_size"] == [3, 32, 32]
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.1, 0.2, 0.3], [0.5, 0.5, 0.5])
    assert (preprocessing["interpolation"], preprocessing["crop_pct"]) == ("bilinear", 0.875)
    assert "license" not in preprocessing  # nobody said which weights these are
    for number in range(2):
        attention = config["spp"]["modules"][f"blocks.{number}.attn"]
        assert attention == {
            "num_heads": 3,
            "qk_width": int(masks[f"blocks.{number}.attn.qk"].sum()),
            "v_width": int(masks[f"blocks.{number}.attn.vo"].sum()),
            "scale": pytest.approx(8**-0.5),
        }
        assert config["spp"]["modules"][f"blocks.{number}.mlp"]["hidden"] == int(masks[f"blocks.{number}.mlp"].sum())


def test_images_are_prepared_as_config_says(folder):
    from PIL import Image

    transform = modeling_spp.transform(modeling_spp.read_config(folder))
    pixels = transform(Image.new("RGB", (50, 40), (255, 0, 51)))
    expected = [(value - mean) / 0.5 for value, mean in zip((1.0, 0.0, 0.2), (0.1, 0.2, 0.3), strict=True)]
    assert pixels.shape == (3, 32, 32)
    torch.testing.assert_close(pixels[:, 5, 5], torch.tensor(expected))


def test_the_card_has_the_counted_size_and_no_path(folder, vit, masks, tmp_path):
    card = (folder / "README.md").read_text()
    cost = spp.count_cost(spp.compact(vit, masks), torch.zeros(1, 3, 32, 32))
    dense = spp.count_cost(vit, torch.zeros(1, 3, 32, 32))
    assert f"| parameters (M) | {cost.params / 1e6:.4g} | {dense.params / 1e6:.4g} |" in card
    assert f"{100 * cost.macs / dense.macs:.1f} % of the multiply-adds" in card
    assert all(str(tmp_path) not in file.read_text() for file in folder.iterdir() if file.suffix in (".md", ".json"))


@torch.no_grad()
def test_whole_heads_leave_stock_classes(vit, images, tmp_path):
    masks = {}
    for pair in spp.find_pairs(vit, per_head=True):
        by_head = torch.ones(pair.num_heads, pair.size // pair.num_heads, dtype=torch.bool)
        by_head[1 if pair.kind != "mlp" else 0, 5 if pair.kind == "mlp" else slice(None)] = False
        masks[pair.name] = by_head.flatten()
    network = spp.load(spp.save_member(vit, masks, tmp_path / "heads"))
    assert {type(module).__module__.partition(".")[0] for module in network.modules()} <= {"torch", "timm"}
    assert network.blocks[0].attn.num_heads == 2
    masked = spp.MaskedModel(vit, spp.find_pairs(vit, per_head=True))
    masked.set_masks(masks)
    torch.testing.assert_close(network(images), masked(images), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_equal_mlps_are_loaded_by_plain_timm(vit, images, tmp_path):
    masks = {pair.name: torch.arange(pair.size) % 3 > 0 for pair in spp.find_pairs(vit) if pair.kind == "mlp"}
    plain = timm.create_model(f"local-dir:{spp.save_member(vit, masks, tmp_path / 'mlp')}", pretrained=True).eval()
    torch.testing.assert_close(plain(images), spp.compact(vit, masks)(images), rtol=1e-5, atol=1e-5)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=1)

    def forward(self, pixels):
        return self.backbone(pixels)[:, :5]


@torch.no_grad()
def test_a_network_of_ones_own_is_made_by_its_factory(tmp_path, images):
    model = Holder().eval()
    masks = {pair.name: torch.arange(pair.size) % 3 > 0 for pair in spp.find_pairs(model)}
    with pytest.raises(ValueError, match=r"^model: a Holder that timm.create_model has not made [^\n]*factory="):
        spp.save_member(model, masks, tmp_path / "small")
    folder = spp.save_member(model, masks, tmp_path / "small", factory=f"{__name__}:Holder")
    torch.testing.assert_close(spp.load(folder)(images), spp.compact(model, masks)(images), rtol=1e-5, atol=1e-5)


def test_a_folder_from_a_stranger_calls_nothing(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["spp"]["factory"], config["model_args"] = "os:mkdir", {"path": str(tmp_path / "called")}
    (folder / "config.json").write_text(json.dumps(config))
    origin = json.loads((folder / "origin.json").read_text())
    origin["sha256"]["config.json"] = hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    (folder / "origin.json").write_text(json.dumps(origin))
    with pytest.raises(ValueError, match=r"^config\.json: spp\.factory: 'os:mkdir' "):
        spp.load(folder)
    assert not (tmp_path / "called").exists()


def test_a_network_that_timm_would_build_differently_is_refused(vit, masks, tmp_path):
    for block in vit.blocks:
        block.mlp.act = nn.SiLU()
    with pytest.raises(ValueError, match=r"^model: built again its outputs differ by [^\n]*$"):
        spp.save_member(vit, masks, tmp_path / "small")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_overwritten_only_where_that_is_asked_for(folder, vit, masks, tmp_path):
    with pytest.raises(ValueError, match=r"^--out: [^\n]* holds a member; [^\n]* --force$"):
        spp.save_member(vit, masks, folder)
    larger = {name: torch.ones_like(mask) for name, mask in masks.items()}
    spp.save_member(vit, larger, folder, force=True)
    assert spp.count_cost(spp.load(folder), torch.zeros(1, 3, 32, 32)) == spp.count_cost(vit, torch.zeros(1, 3, 32, 32))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else than a member"):
        spp.save_member(vit, masks, tmp_path / "other", force=True)
    assert (tmp_path / "other" / "letter.txt").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "modeling_spp.py", "origin.json"])
@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_missing_or_altered_file_is_named_in_one_line(folder, name, damage):
    file = folder / name
    if damage == "missing":
        file.unlink()
    elif name == "origin.json":
        file.write_text("{}")
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        spp.load(folder)
    assert "\n" not in str(caught.value)
    assert "; allowed: " in str(caught.value)


def test_weights_of_other_sizes_than_config_says_are_refused_without_spp_too(folder):
    config = json.loads((folder / "config.json").read_text())
    config["spp"]["modules"]["blocks.1.mlp"]["hidden"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.fc1\.weight is \d+ x 24 there and \d+ x 24 by config\.json"):
        modeling_spp.load(folder)


def test_names_of_classes_must_fit_the_outputs(vit, masks, tmp_path):
    with pytest.raises(ValueError, match=r"^class_names: 2 names are not allowed for 4 outputs"):
        spp.save_member(vit, masks, tmp_path / "small", class_names=["cat", "dog"])


def test_pushing_without_a_token_says_what_to_set(folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match=r"^token: there is none; [^\n]*set HF_TOKEN$"):
        spp.push_to_hub(folder, "someone/small")
