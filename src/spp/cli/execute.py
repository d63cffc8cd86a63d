"""Carries out a sweep that was written down: in this process, by a queue of processes, or by SLURM."""

import itertools
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from spp.cli.display import RunDisplay
from spp.cli.markup import escape
from spp.cli.sweep_plan import visible_gpus
from spp.cli.sweeps import command, noted_runner
from spp.cli.table import count
from spp.plan.cluster import ClusterConfig
from spp.plan.graph import Plan
from spp.schedule.events import Event, Observe, Outcome, What
from spp.store.snapshot import checked_command, environment_of
from spp.store.store import Store

if TYPE_CHECKING:
    from spp.schedule.slurm import Submission

FOLLOW_SECONDS = 5.0

_NEXT = {"watch": "live", "status": "how far it is", "report all": "tables and figures of what is done by then"}


def check_fits(plan: Plan, cluster: ClusterConfig) -> None:
    """Refuse stages that ask for more machines or processes than the cluster can start.

    Raises:
        ValueError: one line.
    """
    if cluster.name == "slurm":
        return
    for stage in plan.stages.values():
        asked = {"num_nodes": stage.runtime.get("num_nodes", 1)}
        if cluster.name == "debug":
            asked["tasks_per_node"] = stage.runtime.get("devices", 1)
        for name, number in asked.items():
            if number > 1:
                remedy = "cluster=local" if name == "tasks_per_node" else "cluster=slurm"
                raise ValueError(
                    f"cluster.resources.{stage.kind}.{name}: {number} is too much for cluster={cluster.name}; "
                    f"allowed: 1; use {remedy}"
                )


def carry_out(
    plan: Plan,
    store: Store,
    sweep: str,
    cluster: ClusterConfig,
    console: Console,
    *,
    trusted: str = "user",
    wait: bool = False,
) -> bool:
    """Do, or submit, what is missing of a sweep, and say so.

    Args:
        trusted: whose files of the store may run: user or group.
        wait: with SLURM, stay until everything has ended.

    Returns:
        Whether all that this call could see went well: with SLURM and without `wait`, that it was submitted.
    """
    if cluster.name == "slurm":
        return _send(plan, store, sweep, cluster, console, trusted=trusted, wait=wait or cluster.wait)
    with noted_runner(store, sweep, cluster.name), RunDisplay(plan, store, console) as display:
        carried_out = _run_here if cluster.name == "debug" else _run_local
        outcome = carried_out(plan, store, cluster, display.observe, trusted)
    return _say_outcome(outcome, plan, store, sweep, console, allow_failure=cluster.allow_failure)


def report_finished(plan: Plan, store: Store, sweep: str, console: Console) -> bool:
    """Say of a plan whose stages are all done what `carry_out` would say here; nothing is written."""
    display = RunDisplay(plan, store, console)
    for stage in plan.stages.values():
        display.observe(Event(What.CACHED, stage))
    outcome = Outcome(done=(), cached=tuple(plan.stages), failed=(), blocked={})
    return _say_outcome(outcome, plan, store, sweep, console)


def _say_outcome(
    outcome: Outcome, plan: Plan, store: Store, sweep: str, console: Console, allow_failure: Collection[str] = ()
) -> bool:
    console.print(
        f"{len(outcome.done)} done, {len(outcome.cached)} cached, {len(outcome.failed)} failed, "
        f"{len(outcome.blocked)} blocked; tables and figures: {escape(command('report all', sweep, store.root))}"
    )
    for key in outcome.failed:
        stage = plan.stages[key]
        console.print(
            f"[red]{stage.kind} {key} failed[/]: see {escape(str(store.stage_dir(stage.kind, key) / 'FAILED'))}"
        )
    ok = outcome.ok_but_for(plan, allow_failure)
    if ok and outcome.failed:
        kinds = ", ".join(dict.fromkeys(plan.stages[key].kind for key in outcome.failed))
        console.print(f"{escape(kinds)} may fail (cluster.allow_failure), so the sweep counts as done")
    return ok


def worker_command(store: Store, plan: Plan, code: Path, trusted: str = "user") -> Callable[[str, str], list[str]]:
    """The argv of a local worker for (kind, key): it runs the code in `code`, as many processes as it asks for."""
    prefix = _python(code, trusted)

    def argv(kind: str, key: str) -> list[str]:
        num_tasks = int(plan.stages[key].runtime.get("devices", 1))
        many = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_tasks}"]
        return [*prefix, *(many if num_tasks > 1 else []), "-m", "spp.stages.worker", str(store.root), kind, key]

    return argv


def server_command(store: Store, code: Path, trusted: str = "user") -> list[str]:
    """The argv of the process that forks the workers of stages of one process; they run the code in `code`."""
    return [*_python(code, trusted), "-m", "spp.stages.serve", str(store.root)]


def _python(code: Path, trusted: str) -> list[str]:
    variables = [f"{name}={value}" for name, value in environment_of(code).items()]
    return checked_command(code, trusted, ["env", *variables, sys.executable])


def _run_here(plan: Plan, store: Store, cluster: ClusterConfig, observe: Observe, trusted: str) -> Outcome:
    from spp.schedule.debug import run_in_process
    from spp.stages.worker import run_stage

    return run_in_process(plan, store, run_stage, observe)


def _run_local(plan: Plan, store: Store, cluster: ClusterConfig, observe: Observe, trusted: str) -> Outcome:
    from spp.schedule.local import run_local
    from spp.store.snapshot import take

    code = take(store.root, trusted).absolute()
    return run_local(
        plan,
        store,
        command=worker_command(store, plan, code, trusted),
        server=server_command(store, code, trusted),
        max_parallel=cluster.max_parallel or 1,
        gpu_ids=visible_gpus() if cluster.gpus is None else [str(gpu) for gpu in cluster.gpus],
        observe=observe,
    )


def _send(
    plan: Plan, store: Store, sweep: str, cluster: ClusterConfig, console: Console, *, trusted: str, wait: bool
) -> bool:
    from spp.cli.job import StageJob
    from spp.schedule.slurm import submit
    from spp.store.snapshot import take

    with console.status("submitting") as spinner:
        numbers = itertools.count(1)

        def observe(event: Event) -> None:
            if event.what is What.SUBMITTED:
                spinner.update(f"submitting: {count(next(numbers), 'job')}")

        code = take(store.root, trusted).absolute()
        sent = submit(plan, store, sweep, cluster, job=StageJob, code=code, trusted=trusted, observe=observe)
    print_submission(sent, console)
    if wait:
        from spp.cli.follow import follow

        return follow(store, sweep, FOLLOW_SECONDS)
    console.print("It goes on without this process:")
    lines = {escape(command(verb, sweep, store.root)): text for verb, text in _NEXT.items()}
    for line, text in lines.items():
        console.print(f"  {line:<{max(map(len, lines))}}  [dim]{text}[/]")
    return True


def print_submission(sent: "Submission", console: Console) -> None:
    """Say what was sent to SLURM, and what was not because it is done or others are at it."""
    parts = [f"{count(sent.num_jobs, 'job')} submitted by {count(sent.num_arrays, 'call')} of sbatch"]
    if sent.cached:
        parts.append(f"{count(len(sent.cached), 'stage')} done before")
    if sent.awaited:
        parts.append(f"{count(len(sent.awaited), 'stage')} awaited from other jobs")
    console.print("; ".join(parts))
