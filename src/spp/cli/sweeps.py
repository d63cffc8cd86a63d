"""Sweeps by name, and what is known about one at a moment."""

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from spp.cli.store_place import store_root
from spp.plan.graph import Plan
from spp.process import Process, is_alive, this_process
from spp.record.lines import NewestValues
from spp.schedule.status import StageStatus, State, SweepStatus, sweep_status, was_cancelled
from spp.schedule.waiting import explain
from spp.store.about import named, read_about
from spp.store.store import Store, utc_now


@dataclass(frozen=True)
class SweepView:
    """A sweep at one moment.

    `runners`: the processes of cluster=debug and local that carry it out, with whether each lives (None: it is one of
    another machine). `num_retries`: how often a job of SLURM submits again what was lost. `problem`: why the queue
    could not be asked; then only the files' word is known.
    """

    status: SweepStatus
    cluster: str
    num_retries: int = 0
    runners: tuple[tuple[Process, bool | None], ...] = ()
    problem: str | None = None
    is_cancelled: bool = False
    """Whether nobody has begun anything of it since it was cancelled; what runs is ending, or others need it."""
    allow_failure: tuple[str, ...] = ()
    """Kinds of stages that may fail."""
    called: str | None = None
    """What people call it."""
    to_go_s: float | None = None
    """Seconds that it will still take, as far as that is known."""
    newest: Mapping[str, NewestValues] = field(default_factory=dict)
    """By key of a running stage, what it has recorded last."""

    @property
    def totals(self) -> dict[str, int]:
        """State -> number of stages."""
        return dict(Counter(stage.state.value for stage in self.status.stages))

    @property
    def failures(self) -> list[StageStatus]:
        """What failed or was lost; what is blocked is only a consequence."""
        return [stage for stage in self.status.stages if stage.state in (State.FAILED, State.LOST)]

    @property
    def ok(self) -> bool:
        """Whether every point has what it asked for, but for stages that may fail and what needs them."""
        if all(point.state is State.DONE for point in self.status.points):
            return True
        left = [stage for stage in self.status.stages if stage.state is not State.DONE]
        excused = {stage.key for stage in left if stage.state is State.FAILED and stage.kind in self.allow_failure}
        return all(stage.key in excused or stage.culprit in excused for stage in left)

    @property
    def settled(self) -> bool:
        """Whether nothing is left that could change by itself."""
        return self.ok or not any(stage.state in (State.RUNNING, State.QUEUED) for stage in self.status.stages)

    @property
    def word(self) -> str:
        """The state in a word: done, running, queued, failed, cancelled, or stopped: nobody works on what is left."""
        if self.ok:
            return "done"
        if self.is_cancelled or (self.settled and self.totals.get(State.CANCELLED.value) and not self.failures):
            return "cancelled"
        if self.settled:
            return "failed"
        if self.abandoned:
            return "stopped"
        return "running" if self.totals.get(State.RUNNING.value) else "queued"

    @property
    def may_be_retried(self) -> bool:
        """Whether a job of SLURM may be about to submit again what the machine broke."""
        return self.num_retries > 0 and any(stage.state is State.LOST for stage in self.failures)

    @property
    def abandoned(self) -> bool:
        """Whether stages are left to do and nobody seen here does anything for them."""
        working = any(stage.state is State.RUNNING or self._is_waiting_job(stage) for stage in self.status.stages)
        unknown = self.problem is not None or any(lives for _, lives in self.runners)
        return not self.settled and not working and not unknown

    @property
    def surely_abandoned(self) -> bool:
        """`abandoned`, and known from this machine alone: neither a cluster nor another host could know better."""
        return self.abandoned and self.cluster != "slurm" and all(lives is False for _, lives in self.runners)

    @staticmethod
    def _is_waiting_job(stage: StageStatus) -> bool:
        return stage.state is State.QUEUED and (stage.job is not None or stage.error is not None)


def view_sweep(store: Store, sweep: str) -> SweepView:
    """What files and, where the sweep was sent to SLURM, the queue say about a sweep.

    Raises:
        ValueError: if there is no such sweep.
    """
    from spp.schedule.slurm import live_of

    live = live_of(store, sweep)
    processes = tuple((process, is_alive(process)) for process in runners(store, sweep))
    cluster = store.read_cluster(sweep)
    name = str(cluster.get("name", "debug"))
    num_retries = int(cluster.get("num_retries", 0)) if name == "slurm" else 0
    view = SweepView(sweep_status(store, sweep, live), name, num_retries, processes, live.note or None)
    allowed = cluster.get("allow_failure", ())
    view = replace(view, called=read_about(store, sweep)["name"], allow_failure=tuple(map(str, allowed)))
    view = replace(view, is_cancelled=was_cancelled(store.read_jobs(sweep)))
    return replace(view, status=_explained(view, store.read_plan(sweep), cluster.get("max_parallel")))


def _explained(view: SweepView, plan: Plan, max_parallel: int | None) -> SweepStatus:
    """The status, in which stages that have not begun tell what they wait for."""
    if not any(stage.state in (State.QUEUED, State.BLOCKED) for stage in view.status.stages):
        return view.status
    told = explain(
        plan,
        {stage.key: stage for stage in view.status.stages},
        max_parallel=max_parallel,
        is_slurm=view.cluster == "slurm",
        at_work=any(lives is not False for _, lives in view.runners),
    )
    return replace(view.status, stages=tuple(replace(stage, waits=told.get(stage.key)) for stage in view.status.stages))


@contextmanager
def noted_runner(store: Store, sweep: str, cluster: str) -> Iterator[None]:
    """Keep in jobs.jsonl that this process carries out the sweep, so that `spp cancel` and `spp watch` find it."""
    row = {"runner": asdict(this_process()), "cluster": cluster}
    store.append_job(sweep, {**row, "began": utc_now()})
    try:
        yield
    finally:
        store.append_job(sweep, {**row, "ended": utc_now()})


def runners(store: Store, sweep: str) -> list[Process]:
    """The processes that have begun to carry out the sweep (cluster=debug, local) and have not said that they ended."""
    begun: dict[Process, None] = {}
    for row in store.read_jobs(sweep):
        process = Process.from_json(row.get("runner"))
        if process is not None and "ended" in row:
            begun.pop(process, None)  # it may carry it out once more
        elif process is not None:
            begun[process] = None
    return list(begun)


def full_name(store: Store, source: str) -> str:
    """The name of the sweep that `source` begins; whatever else it is, a path or a stage, stays as it is."""
    is_path = Path(source).exists() or "/" in source or source.endswith(".safetensors")
    if is_path or store.find_stages(source):
        return source
    return find_sweep(store.root, source)


def find_sweep(root: Path, name: str | None) -> str:
    """The sweep that `name` is, that people call so, or that begins so; without a name the newest.

    Raises:
        ValueError: if there is none, or more than one begins so.
    """
    store = Store(root)
    known = store.list_sweeps()
    if not known:
        raise ValueError(
            f"paths.store: {str(root)!r} holds no sweep; allowed: a store that `spp run` has written to; run something "
            "first, or give paths.store=DIR"
        )
    if name is None or name in known:
        return name or known[0]
    if (called := named(store, name)) is not None:
        return called
    fitting = [sweep for sweep in known if sweep.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    allowed = ", ".join((fitting or known)[:5])
    problem = f"fits {len(fitting)} sweeps" if fitting else f"is not in {root}"
    remedy = "give more of its name" if fitting else "check the name and paths.store"
    raise ValueError(f"SWEEP: {name!r} {problem}; allowed: {allowed}; {remedy}")


def command(verb: str, name: str, root: Path) -> str:
    """A command line to go on with; names the store where it is not the one that is taken anyway."""
    store = "" if root.absolute() == store_root([]).absolute() else f" paths.store={shlex.quote(str(root))}"
    return f"spp {verb} {name}{store}"
