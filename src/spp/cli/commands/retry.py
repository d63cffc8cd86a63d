"""spp retry: do again what is missing of a sweep, and nothing else."""

import contextlib
import json
import sys
from pathlib import Path

from rich.console import Console

from spp.cli.execute import carry_out, check_fits, print_submission
from spp.cli.markup import escape
from spp.cli.outcome import outcome_json
from spp.cli.sweeps import command, find_sweep
from spp.plan.cluster import ClusterConfig
from spp.store.leftovers import remove_unfinished
from spp.store.store import Store
from spp.store.trust import check_owned


def retry(root: Path, sweep: str | None, *, as_json: bool, automatic: bool = False, trusted: str = "user") -> int:
    """Carry the sweep out again as it was planned, on the cluster that it was planned for.

    Args:
        trusted: whose files of the store may run: user or group.
        automatic: called by a job when others have failed: only what looks like the machine's fault, and not for ever.

    Raises:
        ValueError: if there is no such sweep.
    """
    store = Store(root)
    sweep = find_sweep(root, sweep)
    # Its lines for the shell and the names of its modules run here or on the nodes, as this user.
    check_owned([str(store.sweep_dir(sweep)), str(store.sweep_dir(sweep) / "plan.json")], trusted)
    remove_unfinished(store, sweep)
    cluster = ClusterConfig.read(store.read_cluster(sweep) or {"name": "debug"}, "cluster")
    if cluster.name == "slurm":
        return _send_again(store, sweep, as_json=as_json, automatic=automatic, trusted=trusted)
    return _run_again(store, sweep, cluster, as_json=as_json, trusted=trusted)


def _send_again(store: Store, sweep: str, *, as_json: bool, automatic: bool, trusted: str) -> int:
    from spp.cli.job import StageJob
    from spp.schedule.slurm import retry as resubmit
    from spp.store.snapshot import take

    sent = resubmit(
        store, sweep, job=StageJob, code=take(store.root, trusted).absolute(), trusted=trusted, automatic=automatic
    )
    if as_json:
        numbers = {"num_jobs": sent.num_jobs, "num_arrays": sent.num_arrays}
        stages = {"cached": list(sent.cached), "awaited": list(sent.awaited)}
        print(json.dumps({"sweep": sweep, "ok": True, **numbers, **stages}, indent=1))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    print_submission(sent, console)
    console.print(f"follow with: {escape(command('watch', sweep, store.root))}")
    return 0


def _run_again(store: Store, sweep: str, cluster: ClusterConfig, *, as_json: bool, trusted: str) -> int:
    plan = store.read_plan(sweep)
    check_fits(plan, cluster)
    # With --json only the result goes to stdout; what happens on the way is for the eyes.
    console = Console(highlight=False, soft_wrap=True, stderr=as_json)
    console.print(f"sweep [bold]{escape(sweep)}[/], store {escape(str(store.root))}")
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        ok = carry_out(plan, store, sweep, cluster, console, trusted=trusted)
    if as_json:
        print(json.dumps(outcome_json(store, plan, sweep, ok), indent=1))
    return 0 if ok else 1
