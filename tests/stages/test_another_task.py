"""A task that only these tests know, from the dense network to the report: an error without a unit, lower is better."""

import csv
import json

import pytest
import torch
from safetensors.torch import load_file

from spp.cli.main import main
from spp.stages.member import load_member
from spp.store.store import Store

TASK = '''
import torch
import torch.nn.functional as F

from spp.tasks.task import LOWER, Evaluator, Metric, Task, TrainingLoss, sum_over_devices


class Squares(TrainingLoss):
    def __call__(self, outputs, targets):
        return F.mse_loss(outputs[:, 0], targets)


class RootMeanSquare(Evaluator):
    def __init__(self, task):
        super().__init__()
        self.task, self.sums = task, torch.zeros(2)

    def update(self, outputs, batch):
        misses = outputs[:, 0] - self.task.targets(batch)
        self.sums += torch.tensor([float(misses.square().sum()), len(misses)])
        self.num_samples += len(misses)

    def compute(self):
        total, count = sum_over_devices(self.sums).tolist()
        return {"error": (total / count) ** 0.5}


class Darkness(Task):
    """How dark an image is on average: a number from its pixels, whatever its class."""

    name = "darkness"
    metrics = (Metric("error", "RMS error", "", LOWER),)
    headline = "error"
    num_outputs = 1

    def inputs(self, batch):
        return batch[0]

    def targets(self, batch):
        return batch[0].mean((1, 2, 3))

    def training_loss(self, recipe):
        for name in ("label_smoothing", "mixup", "cutmix"):
            if getattr(recipe, name):
                raise ValueError(f"{name}: {getattr(recipe, name)} is not allowed for darkness; allowed: 0; use 0")
        return Squares()

    def evaluator(self):
        return RootMeanSquare(self)


def make(facts):
    return Darkness(facts)
'''
RECIPES = ("dense", "update", "search", "prune", "finetune")
WORDS = [
    "task.factory=darkness:make",
    "data.num_train=500",
    "dense.batch_size=32",
    "repair.num_samples=64",
    "budget.values=[0.6,0.3]",
    "logger=off",
    *(f"{recipe}.label_smoothing=0" for recipe in RECIPES),
    "dense.epochs=6", "dense.warmup_epochs=1",
    *(f"{recipe}.epochs=1" for recipe in RECIPES[1:]),
    *(f"{recipe}.warmup_epochs=0" for recipe in ("search", "prune", "finetune")),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the user's own file lies."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "darkness.py").write_text(TASK)
    return folder


@pytest.fixture(scope="module")
def store(folder):
    """The finished chains of SPP, whose weights stand still in the search, and of UPop, which trains them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "-m", *WORDS, "method=spp,upop", f"paths.store={folder / 'store'}"]) == 0
    return Store(folder / "store")


def stages_of(store):
    return list(store.read_plan(store.latest()).stages.values())


def test_the_chain_is_the_one_of_every_task(store):
    kinds = [stage.kind for stage in stages_of(store)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "dense": 1, "update": 1, "search": 2, "prune": 1, "repair": 3, "finetune": 4, "measure": 5,
    }  # fmt: skip
    assert {stage.config["task"]["factory"] for stage in stages_of(store)} == {"darkness:make"}


def test_networks_have_the_tasks_outputs_and_learn(store):
    dense = next(stage for stage in stages_of(store) if stage.kind == "dense")
    weights = load_file(store.artifacts_dir("dense", dense.key) / "model.safetensors")
    assert weights["head.weight"].shape[0] == 1
    rows = [
        json.loads(line) for line in (store.stage_dir("dense", dense.key) / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["val_error"] < rows[0]["val_error"]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_the_weights_that_are_kept_are_those_of_the_smallest_error(store):
    dense = next(stage for stage in stages_of(store) if stage.kind == "dense")
    folder = store.stage_dir("dense", dense.key)
    errors = [json.loads(line)["val_error"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = store.summary("dense", dense.key)["val"]["error"]
    assert kept["value"] == pytest.approx(min(errors), rel=1e-4)
    assert (kept["unit"], kept["better"], kept["of"]) == ("", "lower", "images")


def test_the_recorded_error_is_that_of_the_saved_weights(store):
    from spp.data.loaders import open_data
    from spp.data.registry import read_data

    stage = next(s for s in stages_of(store) if s.kind == "measure" and s.inputs["member"].kind == "finetune")
    member = load_member(store.artifacts_dir("finetune", stage.inputs["member"].key))
    config, runtime = read_data({"name": "digits", "img_size": 8}, "cache")
    data = open_data(config, runtime, batch_size=50, augment={}, seed=0, num_workers=0)
    with torch.inference_mode():
        misses = torch.cat([member(images)[:, 0] - images.mean((1, 2, 3)) for images, _ in data.test_dataloader()])
    recorded = store.summary("measure", stage.key)["metrics"]["test"]
    assert list(recorded) == ["error"]
    assert recorded["error"]["value"] == pytest.approx(float(misses.square().mean().sqrt()), rel=1e-4)
    assert recorded["error"]["count"] == 297


def test_tables_and_figures_speak_of_the_error(store, folder, capsys):
    for name in ("family", "compare"):
        assert main(["report", name, "--out", str(folder / "report"), f"paths.store={store.root}"]) == 0
    text = capsys.readouterr().out
    assert "RMS error after" in text
    assert "top-1" not in text
    assert "%" not in text.split("RMS error before")[0].split("of dense")[0]
    with (folder / "report" / "family.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [
        store.summary("measure", s.key)["metrics"]["test"]["error"]["value"]
        for s in stages_of(store)
        if s.kind == "measure" and "budget" in s.config
    ]
    assert sorted(float(row["error"]) for row in rows) == pytest.approx(sorted(measured))
    assert {row["error_better"] for row in rows} == {"lower"}
    page = next((folder / "report").glob("*.html")).read_text()
    assert "RMS error" in page
    assert "top-1" not in page


def test_what_the_task_does_not_know_is_refused_in_one_line(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for word, named in (
        ("finetune.label_smoothing=0.1", "finetune.label_smoothing: 0.1 is not allowed for darkness"),
        ("prune.distill_weight=0.5", "prune.distill_weight: darkness does not learn from a teacher"),
        ("model.kwargs.num_classes=3", "model.kwargs.num_classes: 3 contradicts data and task, for which it is 1"),
    ):
        assert main(["run", *WORDS, word, f"paths.store={folder / 'other'}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line
    assert not (folder / "other").exists()


def test_a_headline_that_is_not_measured_is_refused_in_one_line(folder, tmp_path, monkeypatch, capsys):
    source = (folder / "darkness.py").read_text()
    (tmp_path / "brightness.py").write_text(source.replace('headline = "error"', 'headline = "mistake"'))
    monkeypatch.chdir(tmp_path)
    assert main(["run", *WORDS, "task.factory=brightness:make", "paths.store=other"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "task.factory: 'brightness:make' returned a task whose headline 'mistake' is no metric" in line
