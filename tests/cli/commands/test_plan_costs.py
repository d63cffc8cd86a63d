"""What spp plan says of costs, without the data and against formulas; and what it refuses as spp run would."""

import json

import pytest

from spp.cli.commands import plan as module
from spp.cli.main import main

TRAIN, TEST = 1_281_167, 50_000


def vit_macs(width, depth=12, tokens=197, mlp=4, classes=1000):
    """Multiply-adds of a ViT at 224 pixels with patches of 16: embedding, blocks, head."""
    block = (4 + 2 * mlp) * width**2 * tokens + 2 * tokens**2 * width
    return 196 * 3 * 16**2 * width + depth * block + width * classes


@pytest.fixture
def plan(tmp_path, capsys):
    def planned(*words, code=0):
        capsys.readouterr()
        assert main(["plan", *words, f"paths.store={tmp_path / 'store'}", "--json"]) == code
        return json.loads(capsys.readouterr().out) if code == 0 else capsys.readouterr().err

    return planned


def test_deit_on_an_a100_without_the_data(plan, tmp_path):
    words = ["data=imagenet", "cluster=slurm_a100", "model.weights=train", "dense.epochs=300"]
    found = plan("-m", "model=deit_tiny,deit_small,deit_base", *words, "dense.precision=bf16-mixed")
    dense = [row for row in found["stages"] if row["stage"] == "dense"]
    for row, width in zip(dense, (192, 384, 768), strict=True):
        # A training is three forward passes; 30 % of 156 T multiply-adds per second.
        hours = 3 * vit_macs(width) * TRAIN * 300 / (0.3 * 156e12) / 3600
        assert 1 / 1.5 < row["gpu_seconds"] / 3600 / hours < 1.5
        assert row["estimated_by"] == "nominal"
        assert "312 TFLOPS" in row["basis"]
    assert found["gpu_hours"] > sum(row["gpu_seconds"] for row in dense) / 3600
    assert found["lacking"] == ["imagefolder"]
    assert not (tmp_path / "store").exists()


def test_a_registered_hash_gives_the_keys_of_the_run(plan, tmp_path):
    words = ["model=deit_tiny", "data=imagenet"]
    without = plan(*words)["stages"]
    registered = plan(*words, "data.manifest.sha256=abc")["stages"]
    assert not {row["key"] for row in without} & {row["key"] for row in registered}
    assert main(["run", *words, "data.manifest.sha256=abc", f"paths.store={tmp_path / 'store'}"]) == 2


def test_rows_have_method_and_seed(plan):
    rows = plan("-m", "debug=fast", "method=spp,taylor", "seed=3")["stages"]
    assert {(row["method"], row["seed"]) for row in rows if row["stage"] in ("update", "search")} == {
        ("spp", 3),
        ("taylor", 3),
    }
    assert {row["method"] for row in rows if row["stage"] == "dense"} == {None}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["budget.values=[5G]"], ["budget.values: 5e+09 cannot be reached", "allowed: "]),
        (["budget.values=[1]", "budget.kind=units", "method=dsp"], []),
        (["budget.values=[0.0001]"], ["budget.values: 0.0001 cannot be reached"]),
        (["finetune.batch_size=5000"], ["finetune.batch_size: 5000 is more than there is"]),
        (["cluster.resources.finetune.num_nodes=2"], ["finetune.num_nodes: 2 is too much"]),
    ],
)
def test_what_run_would_refuse(plan, words, named):
    error = plan("debug=fast", *words, code=2 if named else 0)
    assert [word for word in named if word not in error] == []
    if named:
        assert error.count("\n") == 1


def test_a_vit_l_for_4000_epochs_takes_no_24_seconds(plan):
    words = ["model.name=vit_large_patch16_224", "model.kwargs={}", "data=imagenet", "dense.epochs=4000"]
    found = plan("model=deit_tiny", *words, "model.weights=train", "cluster=slurm_a100", "dense.precision=bf16-mixed")
    (row,) = [row for row in found["stages"] if row["stage"] == "dense"]
    hours = 3 * vit_macs(1024, depth=24) * TRAIN * 4000 / (0.3 * 156e12) / 3600
    assert row["gpu_seconds"] / 3600 == pytest.approx(hours, rel=0.1)


def test_many_points_say_the_range_of_their_times():
    assert module._range_text([1.0, None, 3700.0]) == "1 s to 1 h 01 min"
    assert module._range_text([None]) == "?"


@pytest.mark.parametrize("words", [["data.root={}"], ["paths.data={}"]])
def test_an_archive_in_the_place_of_the_data_is_refused_as_by_run(plan, tmp_path, capsys, words):
    archive = tmp_path / "images.tar.gz"
    archive.write_bytes(b"")
    words = ["data=imagenet", *(word.format(archive) for word in words)]
    said = plan(*words, code=2)
    assert main(["run", *words, f"paths.store={tmp_path / 'store'}"]) == 2
    assert said == capsys.readouterr().err
    assert said.startswith(f"spp: data.root: {archive}")
    assert "is no folder" in said
