"""Defaults are stated once, in the dataclasses, and every field can be set; the user's own YAML files lie anywhere."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from spp.cli.config_loader import FieldsLoader, hydra_application
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.data.config import DataConfig
from spp.locations import CONF
from spp.methods.registry import config_class, method_names
from spp.methods.weights.registry import weight_config_class
from spp.models.config import ModelConfig
from spp.plan.recipes import RECIPES

GROUPS = {"model": ModelConfig, "data": DataConfig, "method": None}
FILES = [(group, file) for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "file"), FILES, ids=[f"{group}/{file.stem}" for group, file in FILES])
def test_a_file_repeats_no_default(group, file):
    values = yaml.safe_load(file.read_text())
    of_method = config_class if values.get("name") in method_names() else weight_config_class
    defaults = (GROUPS[group] or of_method(values["name"])).defaults()
    repeated = [
        name for name, value in values.items() if name != "name" and name in defaults and defaults[name] == value
    ]
    assert repeated == []


@pytest.mark.parametrize(
    "word",
    ["dense.mixup=0.8", "update.distill_weight=0.5", "search.clip_grad=1", "method.lam=2", "model.per_head=true",
     "data.num_train=100", "task.factory=a:b", "task.kwargs={a: 1}", "data.kwargs.size=3"],
)  # fmt: skip
def test_a_field_that_no_file_sets_can_be_set(word):
    (point,) = compose_points([word], multirun=False)
    group, field = word.partition("=")[0].split(".", 1)
    expected = yaml.safe_load(word.partition("=")[2])
    found = point.cfg[group]
    for name in field.split("."):
        found = found[name]
    assert found == expected


def test_every_field_of_every_recipe_is_there_with_its_default():
    (point,) = compose_points(["recipe=own"], multirun=False)
    for name, recipe in RECIPES.items():
        assert point.cfg[name].keys() == {*recipe.defaults(), *recipe.required()}
        assert {field: point.cfg[name][field] for field in ("mixup", "precision")} == {
            "mixup": 0,
            "precision": "32-true",
        }


@pytest.mark.parametrize(
    ("words", "mixup", "cutmix", "smoothing"),
    [
        ("", 0, 0, 0),
        ("method.preset=released", 0.8, 1.0, 0.1),
        ("method.preset=released update.mixup=0 update.label_smoothing=0.2", 0, 1.0, 0.2),
        ("update.mixup=0.3", 0.3, 0, 0),
        ("method.preset=nosuch", 0, 0, 0),
        ("method=taylor", 0, 0, 0),
    ],
)
def test_the_preset_chooses_the_labels_of_the_search_where_the_user_does_not(words, mixup, cutmix, smoothing):
    (point,) = compose_points(words.split(), multirun=False)
    found = [point.cfg["update"][field] for field in ("mixup", "cutmix", "label_smoothing")]
    assert found == [mixup, cutmix, smoothing]
    assert point.cfg["prune"]["mixup"] == 0
    assert "spp_preset" not in str(point.written)


def test_what_is_found_when_planning_cannot_be_set():
    for word in ("data.fingerprint={a: 1}", "model.source=abc"):
        with pytest.raises(ValueError, match="there is no such field"):
            compose_points([word], multirun=False)


def test_what_is_there_already_is_kept():
    (point,) = compose_points(["experiment=dessilbi_cifar10"], multirun=False)
    assert point.cfg["method"]["mu"] == 100.0
    assert point.cfg["model"]["kwargs"] == {"patch_size": 4}


def test_hydra_is_left_as_it_was_found():
    from hydra.core.global_hydra import GlobalHydra

    with hydra_application() as hydra:
        assert isinstance(hydra.config_loader, FieldsLoader)
        assert GlobalHydra.instance().is_initialized()
    assert not GlobalHydra.instance().is_initialized()


@pytest.fixture
def own(tmp_path):
    """A folder with a YAML of one's own for every group that people bring, and a factory."""
    files = {
        "method/patient.yaml": "name: spp\nlam: 0.9\n",
        "model/narrow.yaml": "name: deit_tiny_patch16_224\nkwargs: {patch_size: 2, embed_dim: 32, depth: 2}\n",
        "data/few_digits.yaml": "name: digits\nimg_size: 8\nnum_train: 500\n",
        "data/flowers.yaml": "factory: flowers:make_data\nkwargs: {size: 3}\n",
        "recipe/few_digits.yaml": "# @package _global_\n"
        "dense: {epochs: 3, batch_size: 32, lr: 1.0e-3}\nupdate: {epochs: 2, batch_size: 32}\n"
        "prune: {epochs: 2, batch_size: 32, lr: 1.0e-3}\nfinetune: {epochs: 1, batch_size: 32, lr: 1.0e-3}\n",
        "experiment/mine.yaml": "# @package _global_\n"
        "defaults:\n  - override /model: narrow\n  - override /data: few_digits\nbudget: {values: [0.6]}\n",
    }
    for name, text in files.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "flowers.py").write_text("def make_data(size):\n    raise RuntimeError('planning runs no factory')\n")
    return tmp_path


def spp(folder, *words):
    """What `spp` prints in a folder that has nothing to do with the checkout."""
    command = [sys.executable, "-m", "spp.cli.main", *words]
    environment = {**os.environ, "SPP_STORE": str(folder / "store")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


WAYS = [["--config-dir", "conf"], ["hydra.searchpath=[conf]"], ["hydra.searchpath=[file://{folder}/conf]"]]


@pytest.mark.parametrize("way", WAYS, ids=["option", "word", "scheme"])
def test_yaml_files_of_ones_own_need_no_change_of_the_package(own, way):
    way = [word.format(folder=own) for word in way]
    plan = json.loads(spp(own, "plan", *way, "experiment=mine", "method=patient", "--json"))
    kinds = [row["stage"] for row in plan["stages"]]
    assert kinds == ["dense", "update", "prune", "repair", "finetune", "measure", "measure"]
    cfg = yaml.safe_load(spp(own, "run", "--cfg", "job", *way, "experiment=mine", "method=patient", "method.kappa=3"))
    assert (cfg["method"]["lam"], cfg["method"]["kappa"], cfg["method"]["preset"]) == (0.9, 3, "priced")
    assert (cfg["model"]["kwargs"]["depth"], cfg["data"]["num_train"], cfg["dense"]["epochs"]) == (2, 500, 3)
    assert cfg["search"]["lr"] == "???"
    assert not (own / "store" / "sweeps").exists()


def test_several_folders_are_looked_into_after_the_packages_own(own, tmp_path):
    more = tmp_path / "more" / "model"
    more.mkdir(parents=True)
    (more / "wide.yaml").write_text("name: deit_base_patch16_224\n")
    (more / "vit_micro.yaml").write_text("name: deit_base_patch16_224\n")
    dirs = [str(own / "conf"), str(tmp_path / "more")]
    points = compose_points(["model=narrow,wide,vit_micro"], multirun=True, config_dirs=dirs)
    names = [point.cfg["model"]["name"] for point in points]
    assert names == ["deit_tiny_patch16_224", "deit_base_patch16_224", "deit_tiny_patch16_224"]
    with pytest.raises(ValueError, match=r"^model: 'narow' does not exist; allowed: .*did you mean model=narrow\?"):
        compose_points(["model=narow"], multirun=False, config_dirs=dirs)


def test_data_without_a_recipe_of_their_name_say_where_it_comes_from(own):
    dirs = [str(own / "conf")]
    line = r"^recipe: 'flowers' does not exist; allowed: [^\n]*own, [^\n]*; it goes with data=flowers: name another"
    with pytest.raises(ValueError, match=line):
        compose_points(["data=flowers"], multirun=False, config_dirs=dirs)


def test_a_factory_of_ones_own_implies_its_groups_and_is_not_run_by_planning(own):
    words = ["data.factory=flowers:make_data", "data.kwargs.size=3"]
    by_word = json.loads(spp(own, "plan", *words, "--json"))
    by_file = json.loads(spp(own, "plan", "--config-dir", "conf", "data=flowers", "recipe=own", "--json"))
    assert [row["key"] for row in by_word["stages"]] == [row["key"] for row in by_file["stages"]]
    (point,) = compose_points(["model.factory=flowers:make_data", "data.factory=flowers:make_data"], multirun=False)
    assert point.cfg["model"]["kwargs"] == {}
    assert point.cfg["dense"]["epochs"] == 20


def test_a_sweep_prints_a_document_for_each_point(capsys):
    assert main(["run", "-m", "--cfg", "job", "seed=3,4", "method.lam=0.7"]) == 0
    documents = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [document["seed"] for document in documents] == [3, 4]
    assert {document["method"]["lam"] for document in documents} == {0.7}
