"""What a scheduler tells while it works, and what it hands back."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from spp.plan.graph import Plan
from spp.plan.spec import Stage


class What(StrEnum):
    CACHED = "cached"
    """It was done before."""
    SUBMITTED = "submitted"
    """A cluster will do it; `detail` is the job."""
    STARTED = "started"
    """A worker runs; `detail` is its log, if it has one."""
    WAITING = "waiting"
    """Another process or job is doing it; `detail` names it."""
    DONE = "done"
    FAILED = "failed"
    """`detail` is the error in one line."""
    BLOCKED = "blocked"
    """It needs a failed stage; `detail` is the key of that one."""


@dataclass(frozen=True)
class Event:
    """Something happened to a stage."""

    what: What
    stage: Stage
    detail: str = ""


Observe = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a plan ended, by key; every stage is in exactly one of the four.

    `done` were done now (here or by a process that was waited for), `cached` before; `blocked` maps a stage
    that was not tried to the failed one that it needs.
    """

    done: tuple[str, ...]
    cached: tuple[str, ...]
    failed: tuple[str, ...]
    blocked: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether all stages are done."""
        return not self.failed and not self.blocked

    def ok_but_for(self, plan: Plan, allow_failure: Collection[str]) -> bool:
        """Whether all stages are done but for those of the kinds that may fail, and for what needs these."""
        culprits = {*self.failed, *self.blocked.values()}
        return all(plan.stages[key].kind in allow_failure for key in culprits)
