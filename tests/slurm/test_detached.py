"""A sweep that was submitted and left: who runs, who waits, who is blocked; on the fake SLURM and on the real one."""

import json
import os
import subprocess
from collections import Counter

import pytest

GRID = ["-m", "debug=fast", "seed=0,1", "method.preset=priced,textbook"]
"""2 dense networks, 4 searches on them, 4 families, 8 members; all 10 networks are measured."""


def test_equal_stages_are_one_job_and_all_end_as_done(queue, light):
    sweep = light.run(*GRID)
    states = light.settled(sweep)
    assert set(states.values()) == {"done"}
    assert sorted(light.ran()) == sorted(states)
    kinds = Counter(stage.kind for stage in light.stages(sweep))
    assert kinds == {"dense": 2, "update": 4, "prune": 4, "repair": 4, "finetune": 8, "measure": 10}

    known = queue.rows().keys()
    assert light.run(*GRID) == sweep
    assert queue.rows().keys() == known


def test_a_failure_blocks_its_descendants_and_nothing_else_and_retry_does_what_is_missing(queue, light, capsys):
    fault = light.broken("update", 1)
    fault.parent.mkdir()
    fault.touch()
    sweep = light.run(*GRID)
    states = light.settled(sweep)
    plan = light.store.read_plan(sweep)
    failed = [key for key in light.keys(sweep, "update") if plan.stages[key].config["seed"] == 1]
    blocked = [key for culprit in failed for key in plan.descendants(culprit)]
    assert len(failed) == 2
    assert {key for key, state in states.items() if state == "failed"} == set(failed)
    assert {key for key, state in states.items() if state == "blocked"} == set(blocked)
    assert set(states.values()) == {"done", "failed", "blocked"}
    for stage in light.stages(sweep):
        if stage.state == "blocked":
            assert stage.culprit in failed
            assert stage.key in plan.descendants(stage.culprit)

    capsys.readouterr()
    light.spp("status", sweep, "--json")
    shown = {stage["key"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert "update is broken" in shown[failed[0]]["error"]

    fault.unlink()
    before = Counter(light.ran())
    assert light.spp("retry", sweep) == 0
    assert set(light.settled(sweep).values()) == {"done"}
    assert Counter(light.ran()) - before == Counter([*failed, *blocked])


def test_cancel_ends_what_waits_and_retry_goes_on(queue, light):
    blockers = [queue.sbatch("--exclusive", script="sleep 300") for _ in range(4)]
    sweep = light.run("debug=fast")
    assert light.spp("cancel", sweep) == 0
    assert "done" not in light.settled(sweep).values()
    queue.run("scancel", *blockers)
    assert light.spp("retry", sweep) == 0
    assert set(light.settled(sweep).values()) == {"done"}
    assert len(light.ran()) == len(set(light.ran())) == 9


KILLING_SBATCH = """#!/bin/bash
# Stands before the real one on PATH, and kills whoever submits at its second call: before it, or after.
echo call >> {calls}
num=$(wc -l < {calls})
[ {when} = before ] && [ $num = 2 ] && kill -9 $PPID && exit 1
PATH={path} sbatch "$@"; code=$?
[ {when} = after ] && [ $num = 2 ] && kill -9 $PPID
exit $code
"""


# The real one has the harder case: the queue knows of jobs that the store has not heard of.
REAL = pytest.param("real", "after", marks=pytest.mark.slurm)


@pytest.mark.parametrize(("queue", "when"), [("fake", "before"), ("fake", "after"), REAL], indirect=["queue"])
def test_killed_within_the_submission_the_same_words_lose_and_double_nothing(queue, light, when, tmp_path):
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.write_text(KILLING_SBATCH.format(calls=tmp_path / "calls", when=when, path=os.environ["PATH"]))
    wrapper.chmod(0o755)
    env = {**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"}
    killed = subprocess.run(light.command("run", *GRID, *light.words), env=env, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert (tmp_path / "calls").read_text().split() == ["call", "call"]

    sweep = light.run(*GRID)
    assert set(light.settled(sweep).values()) == {"done"}
    assert sorted(light.ran()) == sorted(light.store.read_plan(sweep).stages)


@pytest.mark.slurm
def test_a_controller_that_restarts_forgets_nothing(slurm, commands, light):
    # A job that starts while the controller is away has no step (srun asks for it): none may.
    blockers = [commands.sbatch("--exclusive", script="sleep 300") for _ in range(4)]
    sweep = light.run(*GRID)
    slurm("stop", "slurmctld")
    assert {stage.state for stage in light.stages(sweep)} & {"lost", "failed"} == set()
    slurm("start", "slurmctld")
    commands.run("scancel", *blockers)
    assert set(light.settled(sweep).values()) == {"done"}
    assert sorted(light.ran()) == sorted(light.store.read_plan(sweep).stages)
