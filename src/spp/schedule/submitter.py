"""Submits what is missing of a sweep, in topological order, each batch written down before and after."""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.plan.cluster import DEFAULT, ClusterConfig, ResourcesConfig
from spp.plan.graph import Plan
from spp.schedule.batch_records import announce, job_name, jobs_folder, settle
from spp.schedule.batches import Batch, make_batches
from spp.schedule.events import Event, Observe, What
from spp.schedule.lanes import Lanes
from spp.schedule.queue import base, cluster_of, number, scancel, squeue, task_of
from spp.schedule.sbatch import max_array_size, submit_batch, submit_tender, tender_command
from spp.schedule.sweep_state import NUM_THREADS, SweepState
from spp.store.forms import is_job
from spp.store.store import Store
from spp.store.trust import check_owned

JobFactory = Callable[[str, str, str], Any]
"""From (root of the store, sweep, batch) to the callable that submitit pickles; it finds its task by itself."""


@dataclass(frozen=True)
class JobRequest:
    """How a stage is to be submitted: its resources (ResourcesConfig.plain), minutes to wait before, and how often
    it was submitted again because of the machine."""

    resources: Mapping[str, Any]
    begin_min: float = 0.0
    attempt: int = 0

    @property
    def group(self) -> str:
        """Stages with equal ones may share a job array."""
        return json.dumps([self.resources, self.begin_min], sort_keys=True)


@dataclass(frozen=True)
class Submission:
    """What a submission did: tasks given to SLURM, sbatch calls for them, names of the batches; and the keys of
    the stages that were done, and of those that jobs do already."""

    num_jobs: int
    num_arrays: int
    cached: tuple[str, ...]
    awaited: tuple[str, ...]
    batches: tuple[str, ...]


@dataclass(frozen=True)
class Submitter:
    """Where the stages of a sweep are sent, and what runs there: `code` is put on PYTHONPATH,
    after a check of whose it is (`spp.store.trust`)."""

    plan: Plan
    store: Store
    sweep: str
    cluster: ClusterConfig
    job: JobFactory
    code: Path | None
    observe: Observe
    trusted: str = "user"

    def send(self, state: SweepState, requests: Mapping[str, JobRequest]) -> Submission:
        """Submit the stages `requests`; to be called by whoever holds `submitting`.

        Raises ValueError, in one line, if sbatch refuses, and queue.Unreachable if the controller gives no answer;
        what was submitted by then stays, and the next call goes on from there.
        """
        # Its jobs run what lies there.
        folder = self.store.sweep_dir(self.sweep)
        check_owned([str(self.store.root), str(folder), str(folder / "plan.json"), str(folder / "jobs")], self.trusted)
        self._tell(state)
        # They would stay in the queue for ever, and keep their arrays from ending.
        scancel(state.stale)
        self._note_awaited(state)
        cluster = self.cluster.clusters or ""
        self._check_clusters(state.live, cluster)
        limit = self.cluster.max_array_size or (max_array_size(cluster) if len(requests) > 1 else 1)
        lanes = None if self.cluster.max_jobs is None or not requests else Lanes.read(self.cluster.max_jobs, cluster)
        # Each job of a lane waits for another one, so none can share an array.
        groups = {key: f"{request.group} {key}" if lanes else request.group for key, request in requests.items()}
        live = {key: number(job) for key, job in state.live.items()}
        batches = make_batches(self.plan, groups, live, limit)
        names: list[str] = []
        jobs: list[str] = []
        for batch in batches:
            names.append(f"{len(names):03d}-{secrets.token_hex(3)}")
            jobs.append(number(self._send_batch(batch, names[-1], jobs, state, requests, lanes)))
        self._send_tender(state, jobs)
        num_jobs = sum(len(batch.tasks) for batch in batches)
        cached = tuple(key for key in self.plan.stages if key in state.done)
        return Submission(num_jobs, len(batches), cached, tuple(state.live), tuple(names))

    def _check_clusters(self, live: Mapping[str, str], cluster: str) -> None:
        """Refuse to wait for jobs of another cluster, which SLURM cannot do."""
        for key, job in live.items():
            if cluster_of(job) != cluster:
                stage = self.plan.stages[key]
                here, there = cluster or "this machine's", cluster_of(job) or "this machine's"
                raise ValueError(
                    f"cluster.clusters: {stage.kind} {key} is done by job {job} of {there} cluster, for which jobs of "
                    f"{here} cannot wait; allowed: the same cluster; submit there, or later"
                )

    def _tell(self, state: SweepState) -> None:
        for key, stage in self.plan.stages.items():
            if key in state.done:
                self.observe(Event(What.CACHED, stage))
            elif key in state.live:
                self.observe(Event(What.WAITING, stage, f"job {state.live[key]}"))

    def _note_awaited(self, state: SweepState) -> None:
        """So that whoever cancels another sweep knows that this one needs its jobs."""
        awaits = []
        for key, job in state.live.items():
            task = state.tasks.get(key)
            if task is None or task.record.sweep != self.sweep:
                awaits.append([self.plan.stages[key].kind, key, job, state.queue[job].name])
        if awaits:
            self.store.append_job(self.sweep, {"awaits": awaits, "time": time.time()})

    def _send_batch(
        self,
        batch: Batch,
        name: str,
        jobs: Sequence[str],
        state: SweepState,
        requests: Mapping[str, JobRequest],
        lanes: Lanes | None,
    ) -> str:
        stages = {index: self.plan.stages[key] for index, key in batch.tasks.items()}
        request = requests[next(iter(batch.tasks.values()))]
        content = {
            "time": time.time(),
            "tasks": {index: [stage.kind, stage.key] for index, stage in stages.items()},
            "resources": dict(request.resources),
            "cluster": self.cluster.clusters,
            "attempts": {key: requests[key].attempt for key in batch.tasks.values() if requests[key].attempt},
        }

        def prepare(index: int) -> None:
            stage = stages[index]
            self.store.put_spec(stage, durable=False)
            if stage.key in state.failed:
                self.store.clear_failed(stage.kind, stage.key)
            note = {"sweep": self.sweep, "batch": name, "index": index, "name": job_name(self.sweep, name)}
            self.store.write_submitted(stage.kind, stage.key, note)

        dependency = batch.dependency(jobs)
        lane = None if lanes is None else lanes.choose(dependency or "")
        if lane is not None:
            dependency = lane.after(dependency)
        announce(self.store, self.sweep, name, content)
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            list(pool.map(prepare, stages))
        try:
            job = submit_batch(
                self.job(str(self.store.root.absolute()), self.sweep, name),
                folder=jobs_folder(self.store, self.sweep, name),
                name=job_name(self.sweep, name),
                indices=sorted(stages),
                resources=ResourcesConfig.read(request.resources, "resources"),
                cluster=self.cluster,
                dependency=dependency,
                begin_min=request.begin_min,
                code=self.code,
                trusted=self.trusted,
                lane=None if lane is None else lane.comment,
            )
        except ValueError:
            settle(self.store, self.sweep, name, None)
            raise
        settle(self.store, self.sweep, name, job)
        if lanes is not None and lane is not None:
            lanes.took(lane, number(job))
        for index, stage in stages.items():
            self.observe(Event(What.SUBMITTED, stage, task_of(job, index) if batch.is_array else job))
        return job

    def _send_tender(self, state: SweepState, jobs: Sequence[str]) -> None:
        """A job that submits again what the machine broke, for as long as nobody is awake."""
        # One failure in an array shows when the array has ended, which that of another sweep may never do.
        ours = {key for key, task in state.tasks.items() if task.record.sweep == self.sweep}
        guarded = {base(job) if key in ours else job for key, job in state.live.items()}.union(jobs)
        waiting = waiting_tenders(self.store, self.sweep)
        if self.cluster.num_retries == 0 or not guarded or (waiting and not jobs):
            return
        scancel(waiting)
        name = job_name(self.sweep, f"tender-{secrets.token_hex(3)}")
        tender = submit_tender(
            tender_command(self.store.root, self.sweep, self.trusted),
            folder=jobs_folder(self.store, self.sweep, "tender"),
            name=name,
            resources=self.cluster.resources_of(DEFAULT),
            cluster=self.cluster.clusters or "",
            jobs=sorted(guarded),
            code=self.code,
            trusted=self.trusted,
        )
        self.store.append_job(self.sweep, {"tender": tender, "name": name, "time": time.time()})


def waiting_tenders(store: Store, sweep: str) -> list[str]:
    """The tenders of a sweep that have not started."""
    tenders = {row["tender"]: row.get("name") for row in store.read_jobs(sweep) if is_job(row.get("tender"))}
    queue = squeue(tenders)
    ours = [job for job, name in tenders.items() if job in queue and queue[job].name == name]
    return [job for job in ours if queue[job].phase == "pending"]
