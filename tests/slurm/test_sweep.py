"""A sweep of the digits pipeline on the virtual cluster, as a lab member would run it."""

import json
import subprocess
import sys
import time
from collections import Counter

import pytest

POINTS = ["-m", "debug=fast", "finetune.epochs=1,2", "budget.values=[0.5]"]
"""One dense network, search and family, 2 members."""


@pytest.mark.slow
@pytest.mark.slurm
def test_submit_leave_and_find_everything_done(slurm, commands, sweeps, make_sweeps, tmp_path, capsys):
    store = sweeps.store
    words = ["run", *POINTS, *sweeps.words, f"paths.store={store.root}"]
    submitted = subprocess.run([sys.executable, "-m", "spp.cli.main", *words], capture_output=True, text=True)
    returned = time.time()
    assert submitted.returncode == 0, submitted.stderr
    sweep = store.latest() or ""
    rows = store.read_jobs(sweep)
    assert returned - max(row["time"] for row in rows) < 10
    states = sweeps.settled(sweep, timeout_s=900)

    assert set(states.values()) == {"done"}
    kinds = Counter(stage.kind for stage in sweeps.stages(sweep))
    assert kinds == {"dense": 1, "update": 1, "prune": 1, "repair": 1, "finetune": 2, "measure": 3}
    starts = [path for path in store.root.glob("stages/*/*/logs/*.log")]
    assert len(starts) == len(states) == 9  # each stage was started once, whoever needs it

    capsys.readouterr()
    assert sweeps.spp("report", "all", sweep, "--out", str(tmp_path / "report")) == 0
    assert list((tmp_path / "report").glob("*.md"))

    # The same in one process: the same keys and, byte for byte, the same artifacts.
    here = make_sweeps(tmp_path / "here")
    one_point = ["debug=fast", POINTS[-1], "logger=off", "accelerator=cpu"]
    assert here.spp("run", *one_point) == 0
    stages = here.store.read_plan(here.store.latest() or "").stages
    assert len(stages) == 7
    for key, stage in stages.items():
        assert store.done(stage.kind, key)["artifacts"] == here.store.done(stage.kind, key)["artifacts"]


@pytest.mark.slow
def test_many_points_take_few_calls(fake_slurm, commands, sweeps, monkeypatch, capsys):
    """5 stages each that share the dense network and what it measures, of one of which there is one too many for an
    array; nothing runs."""
    monkeypatch.setenv("FAKE_SLURM_RUN", "0")
    monkeypatch.setenv("FAKE_SLURM_ARRAY", "201")
    learning_rates = ",".join(f"{1e-3 + 1e-6 * i:.6f}" for i in range(200))
    points = ["-m", "debug=fast", "repair=none", "budget.values=[0.5]", f"method.lr={learning_rates}"]
    sweep = sweeps.run(*points)
    calls = Counter(line.split()[0] for line in (fake_slurm / "calls").read_text().splitlines())
    assert calls["sbatch"] <= 15
    assert len(sweeps.store.read_plan(sweep).stages) == 802

    capsys.readouterr()
    assert sweeps.spp("status", sweep, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["measure"] == {"queued": 201}
