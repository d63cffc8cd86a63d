from hypothesis import given, settings
from hypothesis import strategies as st

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.schedule.batches import MAX_ARRAY_TEXT, array_text, make_batches


@st.composite
def situations(draw):
    """A plan, which of its stages are missing (with a group each), which are live in which job, and the limit."""
    stages = []
    for number in range(draw(st.integers(1, 14))):
        parents = draw(st.lists(st.sampled_from(stages), max_size=3, unique_by=lambda s: s.key)) if stages else []
        roles = {f"role{place}": parent for place, parent in enumerate(parents)}
        stages.append(Stage("work", {"number": number}, roles))
    plan = Plan.merge([Point("point", (), tuple(stages))])
    missing, live, free = {}, {}, [f"{array}_{index}" for array in (7, 8) for index in (0, 1, 5)] + ["9", "10"]
    for key in plan.stages:
        what = draw(st.sampled_from(["missing", "missing", "missing", "done", "live"]))
        if what == "missing":
            missing[key] = draw(st.sampled_from(["small", "large"]))
        elif what == "live" and free:
            live[key] = free.pop(draw(st.integers(0, len(free) - 1)))
    return plan, missing, live, draw(st.integers(1, 5))


def waits_of(batches, live):
    """What each stage waits for, from the texts that sbatch gets and the rules of SLURM."""
    jobs = [str(100 + number) for number in range(len(batches))]
    done_by = {job: key for key, job in live.items()}
    arrays = {"7": {0, 1, 5}, "8": {0, 1, 5}}
    waits = {}
    for job, batch in zip(jobs, batches, strict=True):
        text = batch.dependency(jobs)
        for index, key in batch.tasks.items():
            waits[key] = set()
            for part in text.split(",") if text else []:
                word, *tasks = part.split(":")
                if word == "aftercorr":
                    assert batch.is_array, "aftercorr of a plain job waits for the whole array"
                    (array,) = tasks
                    assert index in arrays[array], "an index that the parent lacks waits for the whole array"
                    tasks = [f"{array}_{index}"]
                else:
                    assert word == "afterok"
                    assert not {task for task in tasks if task in arrays}, "a whole array"
                waits[key] |= {done_by[task] for task in tasks if task in done_by}
        if batch.is_array:
            arrays[job] = set(batch.tasks)
        done_by.update({f"{job}_{i}" if batch.is_array else job: key for i, key in batch.tasks.items()})
    return waits


@settings(max_examples=150, deadline=None)
@given(situations())
def test_each_stage_waits_for_its_live_inputs_and_for_nothing_else(situation):
    plan, missing, live, size = situation
    batches = make_batches(plan, missing, live, size)
    assert sorted(key for batch in batches for key in batch.tasks.values()) == sorted(missing)
    waits = waits_of(batches, live)
    for key, waited in waits.items():
        inputs = {parent for parent in plan.parents(key) if parent in missing or parent in live}
        assert waited <= inputs
        implied, stack = set(), list(waited)
        while stack:
            parent = stack.pop()
            implied.add(parent)
            stack.extend(waits.get(parent, ()))
        assert inputs <= implied


@settings(max_examples=150, deadline=None)
@given(situations())
def test_batches_keep_to_the_limit_and_to_one_group(situation):
    plan, missing, live, size = situation
    # Indices of jobs that exist are what they are.
    live = {key: "9" for key in live}
    for batch in make_batches(plan, missing, live, size):
        assert len(batch.tasks) <= size
        assert max(batch.tasks) < size
        assert {missing[key] for key in batch.tasks.values()} == {batch.group}


def chains(num_points, num_budgets=1, num_seeds=1):
    points = []
    for seed in range(num_seeds):
        dense = Stage("dense", {"seed": seed})
        for n in range(num_points):
            update = Stage("update", {"n": n}, {"dense": dense})
            prune = Stage("prune", {}, {"path": update})
            tuned = tuple(Stage("finetune", {"budget": b}, {"family": prune}) for b in range(num_budgets))
            points.append(Point(f"seed={seed} n={n}", (), tuned))
    return Plan.merge(points)


def num_calls(plan, size=1001, groups=None):
    return len(make_batches(plan, {key: (groups or {}).get(s.kind, "") for key, s in plan.stages.items()}, {}, size))


def test_a_thousand_points_take_four_calls():
    assert num_calls(chains(1000)) == 4
    assert num_calls(chains(1000, num_budgets=3)) == 6
    assert num_calls(chains(1000, num_budgets=3), groups={"prune": "short", "finetune": "long"}) == 6


def test_few_points_with_many_budgets_get_an_array_each():
    assert num_calls(chains(1, num_budgets=50, num_seeds=2)) == 5
    assert num_calls(chains(1, num_budgets=3, num_seeds=2)) == 5


def test_arrays_are_cut_at_the_limit():
    batches = make_batches(chains(10), dict.fromkeys(chains(10).stages, ""), {}, 4)
    assert [len(batch.tasks) for batch in batches] == [1, *3 * [4, 4, 2]]


def test_children_of_live_array_tasks_share_an_array():
    plan = chains(100)
    updates = [key for key, stage in plan.stages.items() if stage.kind == "update"]
    live = {key: f"12_{index}" for index, key in enumerate(updates)}
    missing = {key: "" for key, stage in plan.stages.items() if stage.kind in ("prune", "finetune")}
    assert [batch.dependency(["50", "51"]) for batch in make_batches(plan, missing, live, 1001)] == [
        "aftercorr:12",
        "aftercorr:50",
    ]


@given(st.sets(st.integers(0, 60)))
def test_array_text_names_each_index_once(indices):
    parts = [part.split("-") for part in array_text(indices).split(",")] if indices else []
    named = [index for part in parts for index in range(int(part[0]), int(part[-1]) + 1)]
    assert named == sorted(indices)


def test_lists_of_indices_stay_within_what_sbatch_reads():
    plan = chains(4000)
    keep = {key for n, key in enumerate(k for k, s in plan.stages.items() if s.kind == "update") if n % 2 == 0}
    missing = {key: "" for key in keep}
    missing |= {key: "" for key, stage in plan.stages.items() if stage.kind == "prune"}
    live = {key: f"12_{n}" for n, key in enumerate(k for k, s in plan.stages.items() if s.kind == "update")}
    live = {key: job for key, job in live.items() if key in keep}
    missing = {key: "" for key in missing if key not in live and plan.parents(key)[0] in live}
    batches = make_batches(plan, missing, live, 10_000)
    assert max(len(array_text(batch.tasks)) for batch in batches) <= MAX_ARRAY_TEXT
    assert sum(len(batch.tasks) for batch in batches) == len(missing) == 2000
