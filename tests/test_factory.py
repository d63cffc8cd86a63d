"""One's own code by name: found without running it, hashed, imported when it is used."""

import subprocess
import sys

import pytest

from spp.factory import call_factory, find_factory, find_own, load_factory

NOISY = "raise RuntimeError('ran')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a module and a package, in which the user stands."""
    (tmp_path / "single.py").write_text("def make(width=1):\n    return ['single', width]\n")
    package = tmp_path / "several"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("FACTOR = 2\n")
    (package / "nets.py").write_text(
        "from several.parts import FACTOR\n\ndef make(width=1):\n    return FACTOR * width\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(name):
    found = find_factory(name, "model.factory")
    return load_factory(name, str(found.folder), found.source, "model.factory")


def test_a_module_and_one_in_a_package_are_found_and_called(folder):
    assert load("single:make")(width=3) == ["single", 3]
    assert load("several.nets:make")(width=3) == 6


def test_finding_runs_nothing(folder):
    (folder / "noisy.py").write_text(NOISY)
    found = find_factory("noisy:make", "model.factory")
    assert found.folder == folder
    with pytest.raises(
        ValueError, match=r"^model.factory: 'noisy:make' cannot be imported \(RuntimeError: ran\); [^\n]*$"
    ):
        load("noisy:make")


def test_the_hash_follows_every_file_of_a_package_and_nothing_else(folder):
    before = find_factory("several.nets:make", "f").source
    (folder / "single.py").write_text("# another\n")
    assert find_factory("several.nets:make", "f").source == before
    (folder / "several" / "parts.py").write_text(
        "FACTOR = 3  # of another length: bytecode knows seconds and sizes alone\n"
    )
    assert find_factory("several.nets:make", "f").source != before


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("import blocks", "blocks.WIDTH"),
        ("from blocks import WIDTH", "WIDTH"),
        ("from lib import blocks", "blocks.WIDTH"),
    ],
)
def test_the_hash_follows_what_is_imported_from_the_same_folder(folder, statement, value):
    (folder / "lib").mkdir()
    (folder / "lib" / "blocks.py").write_text("import sizes\nWIDTH = sizes.WIDTH\n")
    (folder / "blocks.py").write_text("import os.path\nimport sizes\nWIDTH = sizes.WIDTH\n")
    (folder / "sizes.py").write_text("WIDTH = 4\n")
    (folder / "user.py").write_text(f"{statement}\n\ndef make():\n    return {value}\n")
    before = find_factory("user:make", "f").source
    assert load("user:make")() == 4
    (folder / "single.py").write_text("# not imported\n")
    assert find_factory("user:make", "f").source == before
    (folder / "sizes.py").write_text("WIDTH = 50\n")
    assert find_factory("user:make", "f").source != before
    assert load("user:make")() == 50


def test_two_factories_share_what_both_import(folder):
    (folder / "kinds.py").write_text("class Kind: pass\n")
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text("from kinds import Kind\n\ndef make():\n    return Kind()\n")
    assert type(load("one:make")()) is type(load("two:make")())


def test_a_library_that_is_loaded_already_is_not_loaded_again(folder):
    import timm
    from timm.models.vision_transformer import VisionTransformer

    arguments = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1}
    assert isinstance(load("timm.models:vit_tiny_patch16_224")(**arguments), VisionTransformer)
    assert sys.modules["timm"] is timm


def test_changed_source_is_refused_in_one_line_and_the_new_one_is_what_runs(folder):
    old = find_factory("several.nets:make", "model.factory")
    assert load("several.nets:make")() == 2
    (folder / "several" / "parts.py").write_text(
        "FACTOR = 3  # of another length: bytecode knows seconds and sizes alone\n"
    )
    with pytest.raises(ValueError, match=r"^model.factory: the source of 'several.nets:make' has changed since[^\n]*$"):
        load_factory("several.nets:make", str(folder), old.source, "model.factory")
    assert load("several.nets:make")() == 3


def test_a_module_of_the_same_name_elsewhere_is_another_one(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "single.py").write_text("def make(width=1):\n    return ['other', width]\n")
    source = find_factory("single:make", "f").source
    assert load_factory("single:make", str(folder), source, "f")() == ["single", 1]
    import hashlib

    content = hashlib.sha256((other / "single.py").read_bytes()).hexdigest()
    assert load_factory("single:make", str(other), content, "f")() == ["other", 1]
    assert load_factory("single:make", str(folder), source, "f")() == ["single", 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("single", "is no factory"),
        ("single:make:it", "is no factory"),
        ("../single:make", "is no factory"),
        ("missing:make", "there is no module 'missing'"),
        ("single:missing", "has no function 'missing'"),
    ],
)
def test_what_is_no_factory_is_named_in_one_line(folder, name, message):
    with pytest.raises(ValueError, match=rf"^model.factory: [^\n]*{message}[^\n]*; allowed: [^\n]*; [^\n]*$"):
        load(name)


@pytest.mark.parametrize("name", ["subprocess:run", "os:system", "shutil:rmtree", "yaml:load"])
def test_a_file_may_not_choose_what_is_called_elsewhere(folder, name):
    with pytest.raises(ValueError, match=rf"^model\.factory: '{name}' lies in [^\n]*; allowed: [^\n]*PYTHONPATH$"):
        load_factory(name, None, "0" * 64, "model.factory")


def test_a_file_may_name_what_lies_here_or_where_pythonpath_says(folder, tmp_path, monkeypatch):
    assert find_own("single:make", "model.factory") == folder
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "mine.py").write_text("def make():\n    return 1\n")
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(ValueError, match="lies in"):
        find_own("mine:make", "model.factory")
    monkeypatch.setenv("PYTHONPATH", str(installed))
    assert find_own("mine:make", "model.factory") == installed


def test_an_error_inside_is_one_line_with_the_arguments(folder):
    with pytest.raises(ValueError, match=r"^model.factory: 'single:make' raised TypeError for \{'depth': 1\} [^\n]*$"):
        call_factory(load("single:make"), {"depth": 1}, "single:make", "model.factory")


def test_finding_imports_no_torch(folder):
    code = "import sys; import spp.factory as f; f.find_factory('single:make', 'f'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)
