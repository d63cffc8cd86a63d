"""Own classes from given weights: the head alone, then all; and the chain goes on."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import spp
from spp.models.weights import WEIGHTS_FILE
from spp.stages.worker import run_stage


def body(file):
    return {name: value for name, value in load_file(file).items() if not name.startswith("head.")}


def stem_of(weights):
    return {name: value for name, value in weights.items() if not name.startswith(("patch_embed.", "pos_embed"))}


def test_the_chain_ends_in_members_for_the_own_classes(own_classes):
    dense, member = own_classes["dense"], own_classes["finetune"]
    summary = dense.store.summary("dense", dense.key)
    assert summary["epochs"] == 2
    assert summary["architecture"]["num_outputs"] == 3
    assert summary["architecture"]["samples"]["class_names"] == ["bright", "dark", "grey"]
    assert member.store.is_done("finetune", member.key)


def test_members_of_given_weights_have_the_head_of_these(own_classes, tmp_path):
    from spp.cli.main import main

    dense = own_classes["dense"]
    weights = load_file(dense.store.artifacts_dir("dense", dense.key) / WEIGHTS_FILE)
    save_file(weights, tmp_path / "trained_on.safetensors")
    words = ["--weights", str(tmp_path / "trained_on.safetensors"), "--macs", "0.6", "--no-measure"]
    place = [f"paths.store={dense.store.root}", "--out", str(tmp_path / "small")]
    assert main(["extract", str(dense.store.latest()), *words, *place]) == 0
    member = spp.load(tmp_path / "small").state_dict()
    assert all(torch.equal(member[name], weights[name]) for name in ("head.weight", "head.bias"))


def test_while_the_head_trains_alone_the_rest_stands_still(own_classes, own_classes_words, digits_weights, tmp_path):
    from spp.cli.main import main

    dense = own_classes["dense"]
    spec = dense.store.spec("dense", dense.key)
    places = [spec["runtime"]["model"]["weights_file"], spec["runtime"]["data"]["root"]]
    words = [*own_classes_words, f"model.weights={places[0]}", f"data.root={places[1]}"]
    words += [
        f"paths.store={tmp_path}",
        "logger=off",
        "prune.epochs=0",
        "finetune.epochs=0",
        "dense.epochs=0",
        "repair=none",
    ]
    assert main(["run", "debug=fast", *words]) == 0
    (file,) = tmp_path.glob(f"stages/dense/*/artifacts/{WEIGHTS_FILE}")
    expected, found = stem_of(body(digits_weights)), stem_of(body(file))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    after = stem_of(body(dense.store.artifacts_dir("dense", dense.key) / WEIGHTS_FILE))
    assert not any(torch.equal(after[name], expected[name]) for name in expected if "weight" in name)


@pytest.mark.parametrize("places", [[2, 5], [9, 12]], ids=["head alone", "all"])
def test_an_interrupted_training_ends_as_the_undisturbed_one(places, own_classes, signals_at, tmp_path):
    stage = own_classes["dense"]
    store = stage.again(tmp_path / "store")
    signals_at(places)
    for _ in places:
        with pytest.raises(SystemExit):
            run_stage(store.root, "dense", stage.key)
    run_stage(store.root, "dense", stage.key)
    stage.assert_same(store)
