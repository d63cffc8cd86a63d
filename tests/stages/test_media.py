import json
import math

import numpy as np
import pytest
import torch
import wandb
from PIL import Image

from spp.dynamics.path import SolutionPath
from spp.dynamics.recorder import Trace
from spp.record.wandb_file import find_segments, read_runs
from spp.record.wandb_mirror import open_mirror
from spp.stages.media import MOST_UNITS, entry_image, log_path
from spp.store.store import Store
from spp.structure.pair import Pair


def path_of(entry, gamma):
    """A path with these times of entry by pair, and Gamma at the steps 0 and 10."""
    pairs = [Pair(name, name.rpartition(".")[2], len(times), 1, 1.0) for name, times in entry.items()]
    entry = {name: torch.tensor(times, dtype=torch.float64) for name, times in entry.items()}
    nothing = {name: torch.zeros_like(times) for name, times in entry.items()}
    last = {name: torch.tensor(values) for name, values in gamma.items()}
    trace = Trace(torch.tensor([0, 10]), {name: torch.stack([0 * value, value]) for name, value in last.items()})
    return SolutionPath(entry, nothing, nothing, pairs, {"num_steps_taken": 10}, trace)


@pytest.fixture
def log(tmp_path, no_account):
    """log(path): what W&B has of it: the folder of its files and its summary."""

    def log_one(path):
        names = ("project", "entity", "group", "job_type", "run_id", "name")
        mirror = open_mirror(tmp_path, mode="offline", tags=[], config={}, **dict.fromkeys(names, "x"))
        log_path(mirror, path)
        mirror.finish()
        wandb.teardown()
        (run,) = read_runs(find_segments(tmp_path))
        return run.folders[0] / "files", run.summary

    return log_one


def test_a_path_as_table_picture_and_curve(log):
    path = path_of({"a.qk": [3.0, math.inf], "b.mlp": [9.5, 0.5]}, {"a.qk": [0.5, 0.0], "b.mlp": [0.1, -2.0]})
    files, summary = log(path)
    table = json.loads((files / summary["path/units"]["path"]).read_text())
    assert table["columns"] == ["pair", "kind", "unit", "entry_step", "final_gamma"]
    assert table["data"] == [
        ["a.qk", "qk", 0, 3.0, 0.5],
        ["a.qk", "qk", 1, None, 0.0],
        ["b.mlp", "mlp", 0, 9.5, pytest.approx(0.1)],
        ["b.mlp", "mlp", 1, 0.5, -2.0],
    ]
    assert (summary["path/num_units"], summary["path/num_units_in_table"]) == (4, 4)
    assert (summary["path/step"], summary["path/support_qk"], summary["path/support_mlp"]) == (10, 50.0, 100.0)
    pixels = np.asarray(Image.open(files / summary["path/entry"]["path"]))
    assert np.array_equal(pixels, entry_image(path))
    # Of the three that entered, b's are the first and the last, a's the one between; a's other unit never did.
    assert np.unique(pixels).tolist() == [0, 115, 230, 255]
    assert (pixels[0, 0], pixels[0, -1], pixels[-1, 0], pixels[-1, -1]) == (115, 255, 0, 230)


def test_of_a_large_path_evenly_spaced_units_are_shown(log):
    sizes = {"a.qk": 15_000, "b.mlp": 30_000}
    times = {name: np.arange(size, dtype=float).tolist() for name, size in sizes.items()}
    files, summary = log(path_of(times, {name: [1.0] * size for name, size in sizes.items()}))
    assert (summary["path/num_units"], summary["path/num_units_in_table"]) == (45_000, MOST_UNITS)
    rows = json.loads((files / summary["path/units"]["path"]).read_text())["data"]
    assert len(rows) == MOST_UNITS
    assert (rows[0][:3], rows[-1][:3]) == (["a.qk", "qk", 0], ["b.mlp", "mlp", 29_999])
    places = np.array([unit + (0 if kind == "qk" else 15_000) for _, kind, unit, _, _ in rows])
    assert set(np.diff(places)) == {4, 5}


def test_members_of_every_kind_of_stage_have_one_table(mirrored):
    """Cost of every member where it is made, its accuracies where they are measured."""
    wandb.teardown()  # what is finished reaches the disk a moment later
    store, made, measured = Store(mirrored[0]), {}, {}
    for run in read_runs(find_segments(store.root)):
        kind, key = run.config["kind"], run.config["key"]
        if "family" not in run.summary:
            assert kind in ("dense", "update", "finetune") or "budget" not in run.config["config"]
            continue
        table = json.loads((run.folders[-1] / "files" / run.summary["family"]["path"]).read_text())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        summary = store.summary(kind, key)
        if kind == "measure":
            (row,) = rows
            assert (row["metric"], row["unit"]) == ("top1", "%")
            metrics = summary["metrics"]
            assert {name: row[name] for name in metrics} == {
                name: found["top1"]["value"] for name, found in metrics.items()
            }
            measured[row["macs"], row["params"]] = row["budget"]
        else:
            assert [row["macs"] for row in rows] == [member["macs"] for member in summary["members"].values()]
            assert all(row["test"] is None for row in rows)
            made |= {(row["macs"], row["params"]): row["budget"] for row in rows}
    assert len(made) == 4
    assert made == measured
    assert set(made.values()) == {0.5, 0.3}
