"""What is not finite is never called done: the stage fails in one line and keeps its last good checkpoint."""

import math
import re
import shutil

import pytest
import torch
from torch import nn

from spp.cli.main import main
from spp.stages.finite import FiniteSteps, NotFiniteError, first_layer, require_finite_numbers, tensors_of
from spp.store.store import Store

LINE = re.compile(
    r"spp\.stages\.finite\.NotFiniteError: (\w+): .* at step (\d+) \(batch (\d+) of epoch (\d+)\), "
    r"first in (\S+); allowed: .*"
)


def run_from(finished, tmp_path, kind, *words):
    """A run in a copy of a finished store; the failures of the stages of one kind."""
    root, _ = finished
    shutil.copytree(root, tmp_path / "store", symlinks=True)
    status = main(["run", "debug=fast", "logger=off", f"paths.store={tmp_path / 'store'}", *words])
    store = Store(tmp_path / "store")
    folders = [folder for folder in (store.root / "stages" / kind).iterdir()]
    return status, [store.failure(kind, folder.name) for folder in folders if (folder / "FAILED").exists()]


@pytest.mark.parametrize("kind", ["dense", "prune", "finetune"])
def test_weights_that_diverge_fail_in_one_line(kind, finished, tmp_path):
    words = [f"{kind}.lr=1e37", f"{kind}.epochs=2", "budget.values=[0.5]"]
    status, (failure, *_) = run_from(finished, tmp_path, kind, *words)
    assert status == 1
    found = LINE.fullmatch(failure["error"].strip().splitlines()[-1])
    assert found, failure["error"]
    assert found[1] == kind
    assert int(found[2]) >= 1
    assert not found[5].startswith("model.")


@pytest.mark.parametrize("method", ["leap", "dessilbi", "upop", "wdpruning"])
def test_searches_that_train_weights_have_the_same_guard(method, finished, tmp_path):
    words = [f"method={method}", "search.lr=1e37", "budget.values=[0.5]"]
    status, (failure, *_) = run_from(finished, tmp_path, "search", *words)
    assert status == 1
    assert LINE.fullmatch(failure["error"].strip().splitlines()[-1]), failure["error"]


def test_the_first_bad_step_is_found_without_looking_at_every_one():
    steps = FiniteSteps()
    parameter = nn.Parameter(torch.ones(3))
    for gradient in (1.0, 2.0, math.nan, 3.0, 4.0):
        steps.note(torch.tensor(0.5))
        parameter.grad = torch.tensor([0.0, gradient, 0.0])
        steps.note_gradients(iter([parameter]))
        steps.end_step()
    assert steps.num_bad() == 3


def test_the_first_layer_that_puts_out_nan_is_named():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Linear(2, 2))
    assert first_layer(network, lambda: network(torch.zeros(1, 2))) is None
    with torch.no_grad():
        network[1][0].bias[0] = math.nan
    assert first_layer(network, lambda: network(torch.zeros(1, 2))) == "1.0"


@pytest.mark.parametrize("value", [{"a": [1.0, math.nan]}, {"a": [1.0, {"b": math.inf}]}])
def test_no_such_number_gets_into_json(value):
    require_finite_numbers({"a": [1.0, None, "nan"], "b": 2}, "summary")
    with pytest.raises(NotFiniteError, match=r"^summary\.a\[1\][^\n]* is not a finite number; allowed: [^\n]*$"):
        require_finite_numbers(value, "summary")


def test_the_last_good_checkpoint_stays(finished, tmp_path):
    words = ["dense.lr=1e37", "budget.values=[0.5]", "cluster.checkpoint_minutes=1e-9"]
    status, (failure, *_) = run_from(finished, tmp_path, "dense", *words)
    assert status == 1
    assert LINE.fullmatch(failure["error"].strip().splitlines()[-1])[2] == "2"
    (checkpoint,) = (tmp_path / "store" / "stages" / "dense").glob("*/last.ckpt")
    state = torch.load(checkpoint, weights_only=True)
    assert state["global_step"] == 1
    assert all(bool(tensor.isfinite().all()) for tensor in tensors_of(state["state_dict"]))
