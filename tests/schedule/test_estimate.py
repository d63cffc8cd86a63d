import statistics

from spp.plan.spec import Stage
from spp.schedule.estimate import NUM_RECENT, Estimate, estimate


def finish(store, stage, **summary):
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, summary)


def test_nothing_is_known_at_first(store):
    stage = Stage("update", {})
    assert estimate(store, [stage]) == {stage.key: Estimate(None, None)}


def test_median_of_the_newest_of_the_same_kind(store):
    seconds = [1000.0 + 7 * (n % 11) for n in range(10)] + [float(n * n % 37) for n in range(NUM_RECENT)]
    for n, value in enumerate(seconds):
        finish(store, Stage("update", {"n": n}), seconds=value, gpu_seconds=4 * value)
    finish(store, Stage("dense", {}), seconds=5.0)
    update, dense, prune = Stage("update", {"n": -1}), Stage("dense", {"n": 1}), Stage("prune", {})
    expected = statistics.median(seconds[-NUM_RECENT:])
    estimates = estimate(store, [update, dense, prune])
    assert estimates[update.key] == Estimate(expected, 4 * expected)
    assert estimates[dense.key] == Estimate(5.0, None)
    assert estimates[prune.key] == Estimate(None, None)
