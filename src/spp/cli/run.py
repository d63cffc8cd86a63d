"""spp run: plan a sweep, write it down, and carry it out."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.markup import escape

from spp.cli.compose import compose_points
from spp.cli.display import RunDisplay, count
from spp.cli.planning import Planned, plan_sweep, visible_gpus
from spp.plan.graph import Plan
from spp.plan.setup import Setup
from spp.schedule.events import Outcome
from spp.store.store import Store


def run(words: Sequence[str], multirun: bool) -> int:
    """Run the stages that the words ask for; exit code 1 if one of them failed."""
    planned = plan_sweep(compose_points(words, multirun))
    plan, store = planned.plan, Store(planned.store)
    _preflight(planned, store)
    sweep = sweep_name(plan)
    console = Console(soft_wrap=True, highlight=False)
    size = f"{count(plan.points, 'point')}, {count(plan.stages, 'stage')}"
    console.print(f"sweep [bold]{escape(sweep)}[/]: {size}, store {escape(str(store.root))}")
    store.write_plan(sweep, plan)
    with RunDisplay(plan, store, console) as display:
        outcome = _carry_out(planned, store, display)
    console.print(
        f"{len(outcome.done)} done, {len(outcome.cached)} cached, {len(outcome.failed)} failed, "
        f"{len(outcome.blocked)} blocked; tables and figures: spp report all {sweep}"
    )
    for key in outcome.failed:
        stage = plan.stages[key]
        marker = store.stage_dir(stage.kind, key) / "FAILED"
        console.print(f"[red]{stage.kind} {key} failed[/]: see {escape(str(marker))}")
    return 0 if outcome.ok else 1


def sweep_name(plan: Plan) -> str:
    """A name that says what the sweep is about and is the same for the same words."""
    first = plan.points[0].meta
    parts = [first["method"], first["model"], first["data"]]
    content = json.dumps([[point.name, *(stage.key for stage in point.stages)] for point in plan.points])
    return "-".join([*(str(part) for part in parts), hashlib.sha256(content.encode()).hexdigest()[:6]])


def _preflight(planned: Planned, store: Store) -> None:
    """Refuse what cannot work before anything is written; points that have finished need no check."""
    checked: list[Setup] = []
    for point in planned.plan.points:
        setup = planned.setups[point.name]
        # Neither the seed nor the point's name, which the mirror carries, changes the verdict.
        seedless = replace(setup, seed=0, runtime=replace(setup.runtime, wandb={}))
        if seedless not in checked and not all(store.is_done(stage.kind, stage.key) for stage in point.stages):
            from spp.stages.preflight import check

            checked.append(seedless)
            check(setup)


def _carry_out(planned: Planned, store: Store, display: RunDisplay) -> Outcome:
    cluster = planned.cluster
    if cluster.name == "debug":
        from spp.schedule.debug import run_in_process
        from spp.stages.worker import run_stage

        return run_in_process(planned.plan, store, run_stage, display.observe)
    from spp.schedule.local import run_local

    return run_local(
        planned.plan,
        store,
        command=lambda kind, key: [sys.executable, "-m", "spp.stages.worker", str(store.root), kind, key],
        max_parallel=cluster.max_parallel or 1,
        gpu_ids=visible_gpus() if cluster.gpus is None else [str(gpu) for gpu in cluster.gpus],
        observe=display.observe,
    )
