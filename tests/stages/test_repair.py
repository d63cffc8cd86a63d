"""Repair outside of the chain, and searches without labels, on a finished chain on digits."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import spp
from spp.cli.main import main
from spp.dynamics.path import SolutionPath
from spp.stages.member import build_untrained
from spp.store.store import Store


@pytest.fixture
def copied(finished, tmp_path):
    """A store of one's own."""
    return Store(shutil.copytree(finished[0], tmp_path / "store")), finished[1]


def test_an_extracted_model_can_be_repaired(copied, tmp_path, capsys):
    store, sweep = copied
    words = ["extract", sweep, "--macs", "0.4", "--no-measure", f"paths.store={store.root}"]
    assert main([*words, "--out", str(tmp_path / "cut")]) == 0
    assert main([*words, "--out", str(tmp_path / "repaired"), "--repair", "64"]) == 0
    assert "repaired with 64 training samples" in capsys.readouterr().out
    cut, repaired = (spp.load(tmp_path / name) for name in ("cut", "repaired"))
    stage = next(stage for stage in store.read_plan(sweep).stages.values() if stage.kind == "dense")
    dense = build_untrained(store.summary("dense", stage.key)["architecture"]).eval()
    dense.load_state_dict(load_file(store.artifacts_dir("dense", stage.key) / "model.safetensors"))
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = dense.forward_features(images)
        errors = [float((one.forward_features(images) - wanted).square().mean()) for one in (cut, repaired)]
    assert errors[1] < errors[0]
    assert [value.shape for value in cut.parameters()] == [value.shape for value in repaired.parameters()]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--repair", "none"])
    assert stopped.value.code == 2
    assert "'none' is not allowed; allowed: 1 or more; use 256" in capsys.readouterr().err


def test_a_search_driven_by_the_dense_network_finds_another_path(copied):
    store, sweep = copied
    words = ["debug=fast", "prune.epochs=0", "finetune.epochs=0", "repair=none", "logger=off"]
    assert main(["run", *words, "method.drive=kl", f"paths.store={store.root}"]) == 0
    paths = []
    for name in (sweep, store.latest()):
        stages = store.read_plan(name).stages.values()
        (update,) = [stage for stage in stages if stage.kind == "update"]
        paths.append(SolutionPath.load(store.artifacts_dir("update", update.key)))
    assert any(not torch.equal(paths[1].V[name], value) for name, value in paths[0].V.items())


def test_a_method_without_labels_runs_through_the_chain(copied, capsys):
    store, _ = copied
    words = ["debug=fast", "prune.epochs=0", "finetune.epochs=0", "budget.values=[0.5]", "logger=off"]
    sizes = ["method.num_cuts=2", "method.num_samples=64", "method.num_repair_samples=64"]
    assert main(["run", *words, "method=obs", *sizes, f"paths.store={store.root}"]) == 0
    assert "0 failed" in capsys.readouterr().out
