"""Repair outside of the chain, and searches without labels, on a finished chain on digits."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import spp
from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.dynamics.path import SolutionPath
from spp.stages.member import build_untrained, load_member, member_file
from spp.stages.worker import run_stage
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


def test_members_can_be_repaired_as_snapvit_does_it(copied):
    store, _ = copied
    words = ["debug=fast", "prune.epochs=0", "finetune.epochs=0", "budget.values=[0.4]", "logger=off"]
    assert main(["run", *words, "repair=snapvit_inference", f"paths.store={store.root}"]) == 0
    stages = {stage.kind: stage for stage in store.read_plan(store.latest()).stages.values()}
    dense = build_untrained(store.summary("dense", stages["dense"].key)["architecture"]).eval()
    dense.load_state_dict(load_file(store.artifacts_dir("dense", stages["dense"].key) / "model.safetensors"))
    images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cut, repaired = (load_member(store.artifacts_dir(k, stages[k].key) / member_file(0.4)) for k in ("prune", "repair"))
    with torch.no_grad():
        wanted = dense.forward_features(images)
        errors = [float((one.forward_features(images) - wanted).square().mean()) for one in (cut, repaired)]
    assert errors[1] < errors[0]
    changed = {name for name, value in cut.named_parameters() if not torch.equal(value, repaired.get_parameter(name))}
    assert changed == {f"blocks.{i}.{name}.weight" for i in range(6) for name in ("attn.proj", "mlp.fc2")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=upop"], "repair.kind: 'snapvit_prune' is not allowed; allowed: full, second, none with method=upop"),
        (["prune.epochs=2"], "prune.epochs: 2 is not allowed; allowed: 0 with repair=snapvit_prune"),
    ],
)
def test_a_repair_that_begins_with_the_dense_weights_is_for_members_that_have_them(tmp_path, capsys, words, said):
    assert main(["plan", "prune.epochs=0", *words, "repair=snapvit_prune", f"paths.store={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spp: {said}")


@pytest.mark.parametrize("words", [["method.drive=kl"], ["update.mixup=0.8", "update.label_smoothing=0.1"]])
def test_a_path_is_refined_by_drawn_answers_whatever_drives_it(copied, words):
    """Neither the distance to the dense network, which is 0 there, nor mixed labels can order what is left."""
    store, _ = copied
    words = [*words, "debug=fast", "logger=off", f"paths.store={store.root}"]
    words = [*words, "method.refine=obs", "method.refine_cuts=1"]
    plan = plan_sweep(compose_points(words, False)).plan
    update = next(stage for stage in plan.stages.values() if stage.kind == "update")
    store.put_spec(update)
    run_stage(store.root, "update", update.key)
    refined = SolutionPath.load(store.artifacts_dir("update", update.key))
    paths = [replace(refined, rank=None), refined]
    summary = store.summary("update", update.key)
    assert (summary["num_refining_steps"], summary["epochs"]) == (10, 2.0)  # beside the 10 of the recipe's one epoch
    upper, lower = ([each.masks(macs=size) for each in paths] for size in (0.8, 0.4))
    assert all(torch.equal(mask, upper[1][name]) for name, mask in upper[0].items())
    assert any(not torch.equal(mask, lower[1][name]) for name, mask in lower[0].items())
    (name, rank), *_ = ((name, rank) for name, rank in refined.rank.items() if name.endswith("mlp"))
    inner = rank[lower[1][name]]
    assert inner.sort().values.tolist() != inner.tolist()
    assert inner.sort(descending=True).values.tolist() != inner.tolist()
