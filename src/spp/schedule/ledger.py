"""The book that the schedulers of one machine keep: what is ready, awaited, done, failed or blocked."""

import bisect
import time

from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.schedule.events import Event, Observe, Outcome, What
from spp.schedule.queue import job_liveness
from spp.store.claim import holder_of, release_dead, waiting_for
from spp.store.leftovers import remove_leftovers
from spp.store.marker import DONE
from spp.store.store import FAILED, Store


class Ledger:
    """Follows a plan through a store; the markers in the store are the truth, this book only remembers them.

    A stage is ready once all its inputs are done. Ready stages come in the plan's order: depth first.
    """

    def __init__(self, plan: Plan, store: Store, observe: Observe, poll_seconds: float) -> None:
        self._plan = plan
        self._store = store
        self._observe = observe
        self._poll_seconds = poll_seconds
        self._next_poll = 0.0
        self._alive = job_liveness()
        self._ready: list[int] = []
        self._awaited: set[str] = set()
        self._done: list[str] = []
        self._failed: list[str] = []
        self._blocked: dict[str, str] = {}
        self._keys = list(plan.stages)
        self._cached = [key for key, stage in plan.stages.items() if self._is_done(stage)]
        finished = set(self._cached)
        self._missing = {key: len(set(plan.parents(key)) - finished) for key in self._keys if key not in finished}
        for key in self._cached:
            self._tell(What.CACHED, key)
        for key, num_missing in self._missing.items():
            if num_missing == 0:
                self._make_ready(key)

    def ready(self) -> list[Stage]:
        """Stages that may start, in the plan's order."""
        return [self._plan.stages[self._keys[position]] for position in self._ready]

    @property
    def waits(self) -> bool:
        """Whether other processes are working on stages of this plan."""
        return bool(self._awaited)

    def start(self, stage: Stage, log: str = "") -> bool:
        """Prepare a ready stage for a worker. False if another process holds it: it is awaited now."""
        self._ready.remove(self._plan.position[stage.key])
        folder, names = self._store.stage_dir(stage.kind, stage.key), self._names(stage)
        holder, alive = holder_of(folder, names, self._alive)
        if alive:
            self.wait(stage, waiting_for(folder, stage.key, self._alive) or "a process that has just started")
            return False
        if holder is not None:
            # A worker cannot ask SLURM, and would take a job of another machine for alive until its beats are old.
            release_dead(self._store, stage.kind, stage.key, self._alive)
        self._store.put_spec(stage)
        self._store.clear_failed(stage.kind, stage.key)
        self._tell(What.STARTED, stage.key, log)
        return True

    def wait(self, stage: Stage, holder: str) -> None:
        """Another process turned out to hold the stage that was started."""
        self._awaited.add(stage.key)
        self._tell(What.WAITING, stage.key, holder)

    def settle(self, stage: Stage, problem: str) -> None:
        """A worker has ended; `problem` becomes the failure if it left neither marker."""
        if self._store.is_done(stage.kind, stage.key):
            self._finish(stage.key)
            return
        if self._store.failure(stage.kind, stage.key) is None:
            self._store.fail(stage.kind, stage.key, problem)
        self._fail(stage)

    def poll(self) -> None:
        """Look at the awaited stages, but at most every `poll_seconds`; an abandoned one becomes ready."""
        if not self._awaited or time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + self._poll_seconds
        for key in sorted(self._awaited, key=self._plan.position.__getitem__):
            stage = self._plan.stages[key]
            names = self._names(stage)
            is_done = DONE in names and self._is_done(stage)
            if not is_done and holder_of(self._store.stage_dir(stage.kind, key), names, self._alive)[1]:
                continue
            self._awaited.remove(key)
            if is_done:
                self._finish(key)
            elif FAILED in names:
                self._fail(stage)
            else:
                self._make_ready(key)

    def outcome(self) -> Outcome:
        return Outcome(tuple(self._done), tuple(self._cached), tuple(self._failed), self._blocked)

    def _finish(self, key: str) -> None:
        self._done.append(key)
        self._tell(What.DONE, key)
        for child in self._plan.children(key):
            if child in self._missing:
                self._missing[child] -= 1
                if self._missing[child] == 0:
                    self._make_ready(child)

    def _fail(self, stage: Stage) -> None:
        self._failed.append(stage.key)
        failure = self._store.failure(stage.kind, stage.key) or {}
        self._tell(What.FAILED, stage.key, str(failure.get("error", "")))
        for key in self._plan.descendants(stage.key):
            # Through a stage that is done, though its input was not, nothing gets blocked.
            needs = self._plan.parents(key)
            hopeless = any(parent == stage.key or parent in self._blocked for parent in needs)
            if hopeless and key in self._missing and key not in self._blocked:
                self._blocked[key] = stage.key
                self._tell(What.BLOCKED, key, stage.key)

    def _is_done(self, stage: Stage) -> bool:
        """Whether a stage is done; then it is tidied up as well."""
        is_done = self._store.is_done(stage.kind, stage.key)
        if is_done:
            remove_leftovers(self._store, stage.kind, stage.key, self._names(stage), self._alive)
        return is_done

    def _make_ready(self, key: str) -> None:
        bisect.insort(self._ready, self._plan.position[key])

    def _names(self, stage: Stage) -> list[str]:
        return self._store.stage_files(stage.kind, stage.key)

    def _tell(self, what: What, key: str, detail: str = "") -> None:
        self._observe(Event(what, self._plan.stages[key], detail))
