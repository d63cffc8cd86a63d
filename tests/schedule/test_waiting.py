"""What waits, and for what: in words, for every way in which a stage can be kept from beginning."""

import pytest

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.status import StageStatus, State
from spp.schedule.time_to_go import remaining_of, time_to_go
from spp.schedule.waiting import explain, slurm_reason


@pytest.fixture
def chain():
    """a -> b -> c, d beside c."""
    a = Stage("dense", {"n": 0})
    b = Stage("update", {"n": 1}, {"dense": a})
    ends = tuple(Stage("finetune", {"n": n}, {"family": b}) for n in (2, 3))
    return Plan.merge([Point("p", (), ends, {})])


def statuses(plan, *states, **fields):
    found = {}
    for (key, stage), state in zip(plan.stages.items(), states, strict=True):
        found[key] = StageStatus(stage.kind, key, stage.label, state, **fields.get(stage.kind, {}))
    return found


def told(plan, found, **options):
    answer = explain(plan, found, **{"max_parallel": None, "is_slurm": False, "at_work": True, **options})
    return [answer.get(key) for key in plan.stages]


def test_inputs_and_slots(chain):
    a, b, *_ = chain.stages
    found = statuses(chain, State.RUNNING, State.QUEUED, State.QUEUED, State.QUEUED)
    assert told(chain, found) == [None, f"inputs: dense {a[:8]} running", *[f"inputs: update {b[:8]} queued"] * 2]
    found = statuses(chain, State.DONE, State.DONE, State.RUNNING, State.QUEUED)
    assert told(chain, found, max_parallel=1)[-1] == "a slot: 1 of 1 in use (cluster.max_parallel)"
    assert told(chain, found, at_work=False)[-1] == "nobody works on the sweep; spp retry goes on"
    assert told(chain, found, is_slurm=True)[-1] == "nobody has submitted it; spp retry does"


def test_slurms_reasons_claims_and_culprits(chain):
    a = next(iter(chain.stages))
    found = statuses(chain, State.QUEUED, *[State.QUEUED] * 3, dense={"error": "Priority", "job": "7"},
                     update={"error": "Dependency", "job": "8"})  # fmt: skip
    words = told(chain, found, is_slurm=True)
    assert words[:2] == ["other jobs come before it (Priority)", f"inputs: dense {a[:8]} queued"]
    blocked = statuses(chain, State.FAILED, *[State.BLOCKED] * 3)
    blocked = {
        k: StageStatus(s.kind, s.key, s.label, s.state, culprit=a if k != a else None) for k, s in blocked.items()
    }
    assert told(chain, blocked)[1] == f"dense {a[:8]} failed; it waits for spp retry"
    held = statuses(chain, State.QUEUED, State.QUEUED, State.QUEUED, State.QUEUED, dense={"host": "n7"})
    assert told(chain, held)[0] == "a claim that n7 holds"


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Resources", "for nodes that are free (Resources)"),
        ("QOSMaxJobsPerUserLimit", "for the limit of its quality of service (QOSMaxJobsPerUserLimit)"),
        ("AssocGrpGRES", "for the limit of its account (AssocGrpGRES)"),
        ("JobArrayTaskLimit", "for a slot of its job array (cluster.max_parallel) (JobArrayTaskLimit)"),
        (
            "ReqNodeNotAvail, UnavailableNodes:n1",
            "for nodes that are down or reserved (ReqNodeNotAvail, UnavailableNodes:n1)",
        ),
        ("BeginTime", "for the time at which it may begin, after a fault of the machine (BeginTime)"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_reasons_of_slurm_are_said_in_words(reason, words):
    assert slurm_reason(reason) == words


def test_time_to_go_is_that_of_the_longest_chain_or_of_all_shared_out(chain):
    a, b, c, d = chain.stages
    remaining = {a: 10.0, b: 20.0, c: 5.0, d: 7.0}
    assert time_to_go(chain, remaining, 1) == 42
    assert time_to_go(chain, remaining, 2) == 37  # a, b, d, one after the other
    assert time_to_go(chain, {c: 5.0, d: 7.0}, 2) == 7
    assert time_to_go(chain, {}, 1) == 0


def test_what_runs_takes_what_its_progress_says_else_what_was_expected():
    assert remaining_of(30.0, 1000.0, 0.25) == 90
    assert remaining_of(30.0, 100.0, None) == 70
    assert remaining_of(130.0, 100.0, 0.0) == 0
    assert remaining_of(None, 100.0, None) == 100
    assert remaining_of(30.0, None, None) is None
