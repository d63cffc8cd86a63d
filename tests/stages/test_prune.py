from hypothesis import given
from hypothesis import strategies as st

from spp.stages.prune import BudgetWalk


def follow(sizes, num_steps, interval, shape, largest=1.0):
    """Sizes over the steps, and (budget, step, size until then) of every member that was taken on the way."""
    walk = BudgetWalk(sizes, num_steps, interval, shape, largest)
    over_time, taken_at, size = [], [], largest
    for step in range(0, num_steps, interval):
        before = size
        size, taken = walk.advance(step)
        taken_at += [(budget, step, before) for budget in taken]
        over_time.append(size)
    return over_time, taken_at, walk.pending


@given(
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6, unique=True),
    st.integers(20, 400),
    st.integers(1, 7),
    st.sampled_from(["sine", "cubic", "linear", "cosine"]),
    st.sampled_from([1.0, 0.95]),
)
def test_the_walk_falls_to_the_smallest_budget_and_stops_at_every_other(sizes, num_steps, interval, shape, largest):
    over_time, taken, left = follow(sizes, num_steps, interval, shape, largest)
    assert over_time == sorted(over_time, reverse=True)
    assert over_time[0] == largest
    assert min(over_time) >= min(sizes)
    assert sorted([budget for budget, _, _ in taken] + left) == sorted(sizes)
    for budget, _, size_until_then in taken:
        assert size_until_then == budget


def test_with_time_enough_only_the_smallest_is_left_for_the_end():
    over_time, taken, left = follow([0.7, 0.5, 0.4, 0.3, 0.2], 200, 5, "sine")
    assert [budget for budget, _, _ in taken] == [0.7, 0.5, 0.4, 0.3]
    assert left == [0.2]
    assert over_time[-1] == 0.2


def test_a_dense_budget_is_the_dense_network():
    _, taken, _ = follow([1.0, 0.5], 100, 5, "linear")
    assert taken[0] == (1.0, 0, 1.0)
