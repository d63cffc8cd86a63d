"""Teachers beside the dense network, in the chain on digits."""

import re
import shutil
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from spp.cli.main import main
from spp.data.facts import DataFacts
from spp.models.config import ModelConfig
from spp.record.record import read_record
from spp.stages.teacher import build_teacher
from spp.store.store import Store
from spp.tasks.classification import Classification

MICRO = "deit_tiny_patch16_224"
KWARGS = "{patch_size: 2, embed_dim: 64, depth: 6, num_heads: 4}"
WORDS = [
    *("debug=fast", "logger=off", "prune.epochs=0", "repair=none", "budget.values=[0.5]"),
    *("finetune.epochs=1", "finetune.batch_size=512", "finetune.distill_weight=0.9", "finetune.distill_hidden=1"),
]


@pytest.fixture
def store(finished, tmp_path):
    """A store of one's own with a finished dense network."""
    return Store(shutil.copytree(finished[0], tmp_path / "store"))


def run(store, *words):
    """Run on, and return the stages of the sweep by their kinds."""
    assert main(["run", *WORDS, *words, f"paths.store={store.root}"]) == 0
    return {stage.kind: stage for stage in store.read_plan(store.latest() or "").stages.values()}


def weights_of(store, stage):
    file = next(store.artifacts_dir(stage.kind, stage.key).glob("*.safetensors"))
    return load_file(file)


def test_a_checkpoint_of_the_dense_network_teaches_as_the_dense_network_does(store):
    parent = run(store)
    checkpoint = store.root / "teacher.safetensors"
    shutil.copy(store.artifacts_dir("dense", parent["dense"].key) / "model.safetensors", checkpoint)
    teacher = [f"teacher.name={MICRO}", f"teacher.kwargs={KWARGS}", f"teacher.weights={checkpoint}"]
    given = run(store, *teacher)
    assert given["finetune"].key != parent["finetune"].key
    assert given["finetune"].config["teacher"]["weights"].startswith("sha256:")
    for name, value in weights_of(store, parent["finetune"]).items():
        assert torch.equal(value, weights_of(store, given["finetune"])[name]), name
    (row,) = read_record(store, [store.latest() or ""]).rows
    assert row["recipes"]["finetune"]["teacher"] == given["finetune"].config["teacher"]


@pytest.mark.parametrize(
    ("width", "depth", "num_classes", "named"),
    [
        (64, 6, 11, r"teacher\.weights: .* knows 11 classes and the data have 10; .* a teacher of the same classes"),
        (48, 6, 10, r"finetune\.distill_hidden: hidden states of shape \(1, 17, 64\) .*\(1, 17, 48\)"),
        (64, 5, 10, r"finetune\.distill_hidden: 7 hidden states .* 6 of the teacher"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_when_planning(tmp_path, capsys, width, depth, num_classes, named):
    arguments = {"patch_size": 2, "embed_dim": width, "depth": depth, "num_heads": 4}
    network = timm.create_model(MICRO, img_size=8, in_chans=1, num_classes=num_classes, **arguments)
    kwargs = "{" + ", ".join(f"{name}: {value}" for name, value in arguments.items()) + "}"
    save_file(network.state_dict(), tmp_path / "t.safetensors")
    words = [f"teacher.name={MICRO}", f"teacher.kwargs={kwargs}", f"teacher.weights={tmp_path / 't.safetensors'}"]
    assert main(["run", *WORDS, *words, f"paths.store={tmp_path / 'store'}"]) == 2
    assert re.search(named, capsys.readouterr().err)
    assert not (tmp_path / "store" / "stages").exists()


def test_a_teacher_of_other_heads_is_refused_when_planning(tmp_path, capsys):
    arguments = {"patch_size": 2, "embed_dim": 64, "depth": 6, "num_heads": 2}
    network = timm.create_model(MICRO, img_size=8, in_chans=1, num_classes=10, **arguments)
    kwargs = "{" + ", ".join(f"{name}: {value}" for name, value in arguments.items()) + "}"
    save_file(network.state_dict(), tmp_path / "t.safetensors")
    words = [f"teacher.name={MICRO}", f"teacher.kwargs={kwargs}", f"teacher.weights={tmp_path / 't.safetensors'}"]
    words += ["finetune.distill_hidden=0", "finetune.distill_attention=1", f"paths.store={tmp_path / 'store'}"]
    assert main(["run", *WORDS, *words]) == 2
    told = r"finetune\.distill_attention: 4 heads over 17 tokens .* the teacher's 2 over 17"
    assert re.search(told, capsys.readouterr().err)


class Images:
    """Data as a teacher sees them."""

    def __init__(self, mean):
        statistics = {"mean": mean, "std": [0.229, 0.224, 0.225]}
        inputs = {"img_size": 32, "in_chans": 3}
        self.facts = DataFacts(name="photos", inputs=inputs, num_classes=1000, preprocessing=statistics)


@pytest.mark.parametrize(("mean", "fits"), [([0.485, 0.456, 0.406], True), ([0.5, 0.5, 0.5], False)])
def test_timms_weights_are_for_inputs_of_their_own_normalisation(monkeypatch, mean, fits):
    """timm would fetch the weights, which are none of this; a convolutional network takes images of any size."""
    asked = []
    create = timm.create_model

    def without_weights(name, pretrained, **arguments):
        asked.append((name, pretrained))
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", without_weights)
    monkeypatch.setattr("spp.models.timm.get_session", lambda: SimpleNamespace(head=lambda *_, **__: None))
    config, data = ModelConfig(name="regnety_002", weights="pretrained", tag="pycls_in1k", ema=False), Images(mean)
    task = Classification(data.facts)
    if fits:
        teacher = build_teacher(config, data, task, {})
        assert set(asked) == {("regnety_002.pycls_in1k", True)}
        assert teacher(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)
        assert isinstance(teacher, nn.Module)
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
    else:
        with pytest.raises(ValueError, match=r"^teacher\.name: 'regnety_002\.pycls_in1k' was trained on inputs of"):
            build_teacher(config, data, task, {})
        assert not asked
