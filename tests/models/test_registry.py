"""What planning asks of networks: names, weights, factories; without torch."""

import hashlib
import subprocess
import sys

import pytest
import timm

from spp.models.registry import _timm_names, default_tag, read_model


def test_every_name_that_timm_lists_is_known():
    assert set(timm.list_models()) - {"spp_member"} <= _timm_names()  # which a member's own file adds


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "vit_base_patch16_224.augreg_in21k", "vit_tiny_patch16_224_in21k"]
)
def test_names_with_a_tag_and_old_names_are_taken(name):
    assert read_model({"name": name})[0].name == name


def test_a_name_that_timm_does_not_know_is_one_line_with_what_is_close():
    with pytest.raises(ValueError, match=r"^model.name: 'vit_tny_patch16_224' is no timm model; [^\n]*vit_tiny_"):
        read_model({"name": "vit_tny_patch16_224"})
    with pytest.raises(ValueError, match=r"^model.name: 'None' is no timm model"):
        read_model({})


def test_a_checkpoint_is_known_by_its_content_and_found_by_its_path(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"weights")
    config, runtime = read_model({"name": "vit_tiny_patch16_224", "weights": str(file)})
    assert config.weights == f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    assert runtime == {"weights_file": str(file)}
    with pytest.raises(ValueError, match=r"^model.weights: '[^']*missing.pt' is no file; [^\n]*$"):
        read_model({"name": "vit_tiny_patch16_224", "weights": str(tmp_path / "missing.pt")})


def test_a_factory_is_known_by_its_source(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text("def make(): ...\n")
    monkeypatch.chdir(tmp_path)
    config, runtime = read_model({"factory": "nets:make", "kwargs": {"width": 8}})
    assert (config.library, config.label, config.kwargs) == ("own", "nets", {"width": 8})
    assert config.source == hashlib.sha256(b"def make(): ...\n").hexdigest()
    assert runtime == {"folder": str(tmp_path)}


@pytest.mark.parametrize(
    "name",
    [
        "checkpoint_path",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "cache_dir",
        "features_only",
        "pretrained",
        "wings",
    ],
)
def test_arguments_that_no_key_could_know_are_refused(name):
    with pytest.raises(ValueError, match=rf"^model.kwargs.{name}: [^\n]*; allowed: patch_size, [^\n]*$"):
        read_model({"name": "vit_tiny_patch16_224", "kwargs": {name: "x"}})
    with pytest.raises(ValueError, match=r"^model.kwargs.depth: \{'file': 'x'\} is not allowed; [^\n]*$"):
        read_model({"name": "vit_tiny_patch16_224", "kwargs": {"depth": {"file": "x"}}})


def test_pretrained_weights_are_pinned_by_their_tag():
    config, _ = read_model({"name": "deit_small_patch16_224", "weights": "pretrained"})
    assert (config.name, config.tag) == ("deit_small_patch16_224", "fb_in1k")
    assert read_model({"name": "deit_small_patch16_224.fb_in1k", "weights": "pretrained"})[0].tag is None
    assert "tag" not in read_model({"name": "deit_small_patch16_224"})[0].identity()
    with pytest.raises(ValueError, match=r"^model.tag: 'x' is not allowed; [^\n]*$"):
        read_model({"name": "deit_small_patch16_224", "tag": "x"})


def test_the_tag_is_that_which_timm_would_take():
    names = [name for name in timm.list_models() if name.startswith(("vit_", "deit", "swin_"))]
    found = {name: default_tag(name) for name in names}
    known = {name: timm.get_pretrained_cfg(name) for name in names}
    wanted = {name: cfg.tag or "" for name, cfg in known.items() if cfg is not None and cfg.has_weights}
    assert {name: tag for name, tag in found.items() if tag is not None and tag != wanted.get(name)} == {}
    assert len([tag for tag in found.values() if tag]) > 100


def test_a_name_without_known_weights_is_refused_where_they_are_wanted():
    with pytest.raises(ValueError, match=r"^model.name: 'vit_base_patch16_clip_quickgelu_224' [^\n]*say model.name="):
        read_model({"name": "vit_base_patch16_clip_quickgelu_224", "weights": "pretrained"})


def test_nothing_of_this_imports_torch():
    code = (
        "import sys; from spp.models.registry import read_model; "
        "read_model({'name': 'vit_tiny_patch16_224', 'weights': 'pretrained'}); "
        "assert not {'torch', 'timm'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
