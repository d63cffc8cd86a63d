"""How long a sweep will still take; pure."""

from collections.abc import Mapping

from spp.plan.graph import Plan


def time_to_go(plan: Plan, remaining: Mapping[str, float], num_parallel: int) -> float:
    """Seconds until the stages of `remaining` are done: the longest chain of them, or all of them shared out.

    Args:
        plan: of the sweep.
        remaining: seconds that each stage which is not done still takes.
        num_parallel: stages at a time.
    """
    ends: dict[str, float] = {}
    for key in plan.stages:
        if key in remaining:
            ends[key] = remaining[key] + max((ends.get(parent, 0.0) for parent in plan.parents(key)), default=0.0)
    return max([sum(remaining.values()) / max(1, num_parallel), *ends.values()])


def remaining_of(seconds: float | None, expected: float | None, share_done: float | None) -> float | None:
    """What a running stage still takes: by the share of it that is done, else by what it is expected to take.

    Args:
        seconds: how long it has been running.
        expected: seconds that it is expected to take in all.
        share_done: how much of it is done, in [0, 1].
    """
    if seconds is not None and share_done is not None and share_done > 0.02:
        return seconds * (1 - share_done) / share_done
    if expected is None:
        return None
    return max(0.0, expected - (seconds or 0.0))
