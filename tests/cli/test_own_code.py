"""A network and data of one's own, from a folder outside of the repository."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

import spp
from spp.cli.main import main
from spp.factory import call_factory
from spp.stages.worker import run_stage
from spp.store.store import Store

NETS = '''
import timm
from torch import nn


class Classifier(nn.Module):
    """A supported network behind a name of one's own."""

    def __init__(self, width):
        super().__init__()
        self.backbone = timm.create_model(
            "vit_tiny_patch16_224", img_size=8, in_chans=1, patch_size=2, embed_dim=width, depth=2, num_heads=2,
            num_classes=3,
        )

    def forward(self, pixels):
        return self.backbone(pixels)


def make_model(width=16):
    return Classifier(width)


def make_text():
    return "no network"
'''
SETS = """
import torch
from torch.utils.data import TensorDataset


def make_data(count=96):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    pixels = torch.randn(count, 1, 8, 8, generator=generator) + labels[:, None, None, None]
    return {
        "train": TensorDataset(pixels, labels),
        "validation": TensorDataset(pixels[:9], labels[:9]),
        "test": TensorDataset(pixels[:30], labels[:30]),
        "class_names": ["low", "middle", "high"],
        "preprocessing": {"mean": [0.0], "std": [1.0]},
    }
"""
SMALL = [
    "model.factory=nets:make_model",
    "data.factory=sets:make_data",
    "debug=fast",
    *(f"{recipe}.batch_size=16" for recipe in ("dense", "update", "prune", "finetune")),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's folder."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "sets.py").write_text(SETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_run_report_and_extract_in_processes_of_their_own(folder, capsys, monkeypatch):
    words = [*SMALL, "logger=off", "cluster=local", "paths.store=store"]
    assert main(["plan", *words]) == 0
    assert not (folder / "store").exists()
    assert main(["run", *words]) == 0
    store = Store(folder / "store")
    sweep = store.latest()
    stages = list(store.read_plan(sweep).stages.values())
    assert len([s for s in stages if s.kind == "measure"]) == 3
    assert main(["report", "family", sweep, "--format", "md", "paths.store=store"]) == 0
    assert "nets on sets" in capsys.readouterr().out
    assert main(["extract", sweep, "--macs", "0.4", "--multiple-of", "1", "--out", "small", "paths.store=store"]) == 0

    small = spp.load("small")
    pixels = torch.zeros(2, 1, 8, 8)
    assert small(pixels).shape == (2, 3)
    assert type(small).__name__ == "Classifier"
    dense = next(s for s in stages if s.kind == "dense")
    macs = store.summary("dense", dense.key)["macs"]
    assert 0.3 * macs < spp.count_cost(small, pixels).macs <= 0.4 * macs
    about = store.summary("dense", dense.key)["architecture"]["samples"]
    assert about["class_names"] == ["low", "middle", "high"]
    assert about["preprocessing"] == {"mean": [0.0], "std": [1.0]}
    provenance = json.dumps(store.spec("dense", dense.key))
    assert "nets:make_model" in provenance
    assert "sets:make_data" in provenance


def test_members_are_exported_from_another_folder(folder, tmp_path_factory, capsys, monkeypatch):
    """By the key of a measure, that of a finetuning, a file and a folder; the network's code lies elsewhere."""
    words = [*SMALL, "logger=off", "budget.values=[0.5]", "prune.epochs=0", "paths.store=store"]
    assert main(["run", *words]) == 0
    store = Store(folder / "store")
    stages = list(store.read_plan(store.latest()).stages.values())
    measure = next(stage for stage in stages if stage.kind == "measure" and "budget" in stage.config)
    tuned = measure.inputs["member"]
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.delitem(sys.modules, "nets")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    file = store.artifacts_dir("finetune", tuned.key) / "member.safetensors"
    for number, member in enumerate((measure.key, tuned.key, file, file.parent)):
        out = f"{number}"
        words = ["--format", "safetensors", "--out", out, f"paths.store={store.root}"]
        assert main(["export", str(member), *words]) == 0
        assert load_file(f"{out}/model.safetensors").keys() == load_file(file).keys()
    assert main(["export", measure.key, "--format", "torch", "--out", "small.pt2", f"paths.store={store.root}"]) == 0
    pixels = torch.randn(2, 1, 8, 8)
    program = torch.export.load("small.pt2").module()
    torch.testing.assert_close(program(pixels), spp.load(file, runtime={"folder": str(folder)})(pixels))


def test_the_key_follows_the_source_and_the_arguments(folder, capsys):
    def keys(*words):
        assert main(["plan", *SMALL, *words, "paths.store=store", "--json"]) == 0
        return [stage["key"] for stage in json.loads(capsys.readouterr().out)["stages"]]

    first = keys()
    assert keys() == first
    assert not set(keys("model.kwargs={width: 24}")) & set(first)
    (folder / "sets.py").write_text(SETS.replace("% 3", "% 2"))
    assert not set(keys()) & set(first)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.factory=nets:make_modl"], "model.factory: 'nets' has no function 'make_modl'"),
        (["model.factory=nets:make_text"], "model.factory: 'nets:make_text' returned a str"),
        (["model.factory=nots:make_model"], "model.factory: there is no module 'nots'"),
        (["model.kwargs={depth: 2}"], "model.factory: 'nets:make_model' raised TypeError"),
        (["model.kwargs={width: 17}"], "model.factory: 'nets:make_model' raised"),
        (["data.factory=nets:make_text"], "data.factory: 'nets:make_text' returned a str"),
        (["data.kwargs={count: 0}"], "data.factory: 'sets:make_data' returned an empty 'train'"),
        (
            ["dense.batch_size=1000"],
            "dense.batch_size: 1000 is more than there is; allowed: up to the 96 training samples",
        ),
        (["finetune.epochs=0", "finetune.augment={hflip: 0.5}"], "finetune.augment: {'hflip': 0.5} does not reach"),
        (["dense.augment={hflip: 0.5}"], "dense.augment: {'hflip': 0.5} does not reach the data"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_anything_is_written(folder, capsys, words, named):
    assert main(["run", *SMALL, "logger=off", *words, "paths.store=store"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (folder / "store").exists()


def test_a_network_that_does_not_fit_the_data_is_refused_before_anything_runs(folder, capsys):
    (folder / "nets.py").write_text(NETS.replace("img_size=8", "img_size=16"))
    assert main(["run", *SMALL, "logger=off", "paths.store=store"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model: Classifier cannot take the samples of sets:make_data" in line


def test_a_source_that_changed_since_the_key_was_made_fails_its_stage_in_one_line(folder):
    from spp.cli.points import compose_points
    from spp.cli.sweep_plan import plan_sweep

    plan = plan_sweep(compose_points([*SMALL, "logger=off", "paths.store=store"], False)).plan
    store = Store(folder / "store")
    dense = next(iter(plan.stages.values()))
    store.put_spec(dense)
    (folder / "nets.py").write_text(NETS.replace("depth=2", "depth=3"))
    with pytest.raises(ValueError, match=r"^model.factory: the source of 'nets:make_model' has changed since [^\n]*$"):
        run_stage(store.root, "dense", dense.key)


def test_a_secret_of_the_environment_reaches_ones_own_code_and_no_file(folder, capsys, monkeypatch):
    sets = SETS.replace(
        "def make_data(count=96):\n", "def make_data(count=96, token=''):\n    assert token == 's3cret-7'\n"
    )
    (folder / "sets.py").write_text(sets)
    monkeypatch.setenv("MY_TOKEN", "s3cret-7")
    words = [*SMALL, "data.kwargs={token: '${oc.env:MY_TOKEN}'}", "budget.values=[0.5]", "prune.epochs=0"]
    assert main(["run", *words, "paths.store=store"]) == 0
    assert "data.kwargs.token=${oc.env:MY_TOKEN}" in " ".join(capsys.readouterr().out.split())
    texts = [file.read_bytes() for file in (folder / "store").rglob("*") if file.is_file() and not file.is_symlink()]
    assert any(b"${oc.env:MY_TOKEN}" in text for text in texts)
    assert [text for text in texts if b"s3cret-7" in text and b"assert token ==" not in text] == []


def test_a_name_that_the_environment_does_not_have_is_named_by_the_worker():
    with pytest.raises(ValueError, match=r"^data\.kwargs\.token: the environment has no 'NO_SUCH_TOKEN'"):
        call_factory(dict, {"token": "${oc.env:NO_SUCH_TOKEN}"}, "sets:make", "data.factory")
    assert call_factory(dict, {"a": ["${oc.env:NO_SUCH_TOKEN,b}"]}, "sets:make", "data.factory") == {"a": ["b"]}
