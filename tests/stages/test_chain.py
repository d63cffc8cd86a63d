"""The whole chain on real digits, through the command line, as short as it can be."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import spp
from spp.cli.main import main
from spp.store.store import Store


@pytest.fixture(scope="module")
def store(finished):
    return Store(finished[0])


@pytest.fixture(scope="module")
def stages(finished, store):
    plan = store.read_plan(finished[1])
    return {(stage.kind, stage.label): stage for stage in plan.stages.values()}


def test_one_search_gives_the_whole_family(stages):
    assert [kind for kind, _ in stages] == [
        "dense",
        "update",
        "prune",
        "repair",
        "finetune",
        "measure",
        "measure",
        "finetune",
        "measure",
    ]


def test_every_stage_is_whole_and_traceable(store, stages):
    for stage in stages.values():
        assert store.verify(stage.kind, stage.key) == []
        provenance = store.provenance(stage.kind, stage.key)
        assert provenance["packages"]["torch"]
        assert store.summary(stage.kind, stage.key)["seconds"] > 0


def test_members_are_as_large_as_promised_and_load_as_plain_modules(store, stages):
    dense = store.summary("dense", stages["dense", "dense"].key)
    for size in (0.5, 0.3):
        key = stages["finetune", f"member {size:g}"].key
        member = spp.load(store.artifacts_dir("finetune", key))
        cost = spp.count_cost(member, torch.zeros(1, 1, 8, 8))
        summary = store.summary("finetune", key)
        assert (cost.macs, cost.params) == (summary["macs"], summary["params"])
        largest_unit = max(pair.macs_per_unit for pair in spp.SolutionPath.load(_path(store, stages)).pairs)
        assert size * dense["macs"] - largest_unit < cost.macs <= size * dense["macs"]


def test_members_are_nested(store, stages):
    from spp.stages.member import describe_member, member_file

    folder = store.artifacts_dir("prune", stages["prune", "family"].key)
    large, small = (describe_member(folder / member_file(size))["kept"] for size in (0.5, 0.3))
    assert all(set(small[name]) < set(large[name]) or small[name] == large[name] for name in large)


def test_the_recorded_accuracy_is_that_of_the_saved_weights(store, stages):
    """Counted here in three lines, without Lightning, on images read from scikit-learn."""
    from spp.data.registry import open_source

    stage = stages["finetune", "member 0.5"]
    member = spp.load(store.artifacts_dir("finetune", stage.key))
    data = _digits()
    with torch.inference_mode():
        right = sum(int((member(x).argmax(1) == y).sum()) for x, y in data.test_dataloader())
    num_images = len(open_source("digits", None).split("test"))
    measured = store.summary("measure", stages["measure", "member 0.5"].key)["metrics"]["test"]["top1"]
    assert (measured["count"], measured["of"], measured["unit"]) == (num_images, "images", "%")
    assert measured["value"] == pytest.approx(100 * right / num_images)
    metrics = store.summary("measure", stages["measure", "member 0.5"].key)["metrics"]
    while_training = store.summary("finetune", stage.key)["val"]
    assert {name: metrics["val"][name] for name in while_training} == while_training


def test_members_are_compared_with_the_dense_network_as_cut_repaired_and_trained(store, stages):
    """Computed here by the formula, on images read from scikit-learn."""
    from spp.stages.member import build_untrained, load_member, member_file

    folders = {kind: store.artifacts_dir(kind, stages[kind, "family"].key) for kind in ("prune", "repair")}
    files = {name: folders[kind] / member_file(0.5) for name, kind in (("before", "prune"), ("repaired", "repair"))}
    files["test"] = store.artifacts_dir("finetune", stages["finetune", "member 0.5"].key) / "member.safetensors"
    measured = store.summary("measure", stages["measure", "member 0.5"].key)["metrics"]
    dense_stage = stages["dense", "dense"].key
    dense = build_untrained(store.summary("dense", dense_stage)["architecture"]).eval()
    dense.load_state_dict(load_file(store.artifacts_dir("dense", dense_stage) / "model.safetensors"))
    images = torch.cat([images for images, _ in _digits().test_dataloader()])
    for name, file in files.items():
        with torch.inference_mode():
            wanted, own = dense(images).double().softmax(1), load_member(file)(images).double().softmax(1)
        divergence = (wanted * (wanted / own).log()).sum(1).mean()
        assert measured[name]["kl"]["value"] == pytest.approx(float(divergence), rel=1e-3, abs=1e-6)
        agreeing = 100 * float((wanted.argmax(1) == own.argmax(1)).double().mean())
        assert measured[name]["agreement"]["value"] == pytest.approx(agreeing)
    assert measured["repaired"]["kl"]["value"] < measured["before"]["kl"]["value"]
    assert set(measured) == {"test", "val", "before", "val_before", "repaired", "val_repaired"}


def test_repair_is_left_out_where_it_is_not_wanted(finished, capsys):
    assert main(["plan", "debug=fast", "repair=none", f"paths.store={finished[0]}"]) == 0
    assert "repair" not in capsys.readouterr().out
    assert main(["plan", "debug=fast", "repair.kind=most", f"paths.store={finished[0]}"]) == 2
    assert (
        "repair.kind: 'most' is not allowed; allowed: full, second, snapvit_prune, snapvit_inference, none"
        in capsys.readouterr().err
    )


def test_the_same_words_find_everything_done(finished, capsys):
    root, _ = finished
    assert main(["run", "debug=fast", "logger=off", f"paths.store={root}"]) == 0
    assert "0 done, 9 cached" in capsys.readouterr().out


def test_the_released_scheme_prunes_the_dense_weights(finished, tmp_path):
    """prune.epochs=0: the member's weights are the dense ones, cut."""
    root = shutil.copytree(finished[0], tmp_path / "store")
    words = ["debug=fast", "logger=off", f"paths.store={root}", "prune.epochs=0", "finetune.epochs=0"]
    assert main(["run", *words, "repair=none"]) == 0
    store = Store(root)
    plan = store.read_plan(store.latest() or "")
    kinds = {stage.kind: stage for stage in plan.stages.values()}
    weights = load_file(store.artifacts_dir("dense", kinds["dense"].key) / "model.safetensors")
    assert "finetune" not in kinds
    of_both = [store.summary("measure", s.key)["metrics"] for s in plan.stages.values() if s.kind == "measure"]
    assert all(set(metrics) == {"test", "val"} for metrics in of_both)
    member = load_file(store.artifacts_dir("prune", kinds["prune"].key) / "member_0.3.safetensors")
    assert torch.equal(member["head.weight"], weights["head.weight"])
    assert kinds["update"].key in {stage.key for stage in Store(root).read_plan(finished[1]).stages.values()}


def test_a_damaged_input_fails_its_stage_and_nothing_half_written_stays(finished, tmp_path, capsys):
    root = shutil.copytree(finished[0], tmp_path / "store")
    store = Store(root)
    stages = {stage.kind: stage for stage in store.read_plan(finished[1]).stages.values()}
    dense, update = stages["dense"], stages["update"]
    weights = store.artifacts_dir("dense", dense.key) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    shutil.rmtree(store.stage_dir("update", update.key))
    for kind in ("prune", "repair", "finetune", "measure"):
        shutil.rmtree(root / "stages" / kind)

    assert main(["run", "debug=fast", "logger=off", f"paths.store={root}"]) == 1
    text = capsys.readouterr().out
    assert "2 failed, 6 blocked" in text
    failure = store.failure("update", update.key)
    assert failure is not None
    assert "model.safetensors has another sha256" in failure["error"]
    left = {path.name for path in store.stage_dir("update", update.key).iterdir()}
    assert left == {"spec.json", "FAILED", "claim-1.released"}


def test_weights_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, capsys):
    save_file({"head.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    root = tmp_path / "store"
    words = ["debug=fast", f"model.weights={tmp_path / 'other.safetensors'}", f"paths.store={root}"]
    assert main(["run", *words]) == 2
    error = capsys.readouterr().err
    assert "model.weights" in error
    assert "knows 3 classes and the data have 10" in error
    assert not root.exists()


def test_a_given_checkpoint_is_the_dense_network(finished, tmp_path, capsys):
    root, sweep = finished
    dense = next(iter(Store(root).read_plan(sweep).stages.values()))
    given = Store(root).artifacts_dir("dense", dense.key) / "model.safetensors"
    other = tmp_path / "store"
    words = ["debug=fast", "logger=off", f"model.weights={given}", "budget.values=[0.5]", "prune.epochs=0"]
    assert main(["run", *words, "finetune.epochs=0", "seed=7", f"paths.store={other}"]) == 0
    stage = next(iter(Store(other).read_plan(Store(other).latest() or "").stages.values()))
    copied = load_file(Store(other).artifacts_dir("dense", stage.key) / "model.safetensors")
    assert all(torch.equal(value, copied[name]) for name, value in load_file(given).items())
    assert "seed" not in stage.config


def _path(store, stages):
    return store.artifacts_dir("update", stages["update", "path"].key)


def _digits():
    from spp.data.images.module import ImageData

    split = {"val_fraction": 0.1, "split_seed": 0, "seed": 0}
    return ImageData(name="digits", root=None, img_size=8, batch_size=50, **split, augment={}, num_workers=0)
