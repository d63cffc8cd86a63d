"""spp cancel: end what is submitted or running of a sweep; what is done stays."""

import json
import os
import signal
import time
from pathlib import Path

from spp.cli.markup import escape
from spp.cli.sweeps import command, find_sweep, runners
from spp.cli.table import count, make_console
from spp.process import Process, is_alive
from spp.store.store import Store, utc_now

GRACE_SECONDS = 30.0
"""How long the process of `spp run` may take to save what it is at, and to end its workers."""

_POLL_SECONDS = 0.1


def cancel(root: Path, sweep: str | None, *, as_json: bool) -> int:
    """End the sweep's jobs, and the process that carries it out if it is on this machine.

    Exit code 1 if a process of this machine does not end; of one elsewhere nothing is known, and it is named.
    """
    from spp.schedule.slurm import Cancelled
    from spp.schedule.slurm import cancel as cancel_jobs

    store = Store(root)
    sweep = find_sweep(root, sweep)
    was_submitted = any("batch" in row or "awaits" in row for row in store.read_jobs(sweep))
    if was_submitted:
        cancelled = cancel_jobs(store, sweep)
    else:
        cancelled = Cancelled((), ())
        store.append_job(sweep, {"cancelled": utc_now()})
    found = [(process, is_alive(process)) for process in runners(store, sweep)]
    ended = end_processes([process for process, lives in found if lives])
    left = [process for process, lives in found if lives and process not in ended]
    elsewhere = [process for process, lives in found if lives is None]
    if as_json:
        result = {
            "sweep": sweep,
            "jobs_ended": list(cancelled.ended),
            "jobs_kept": list(cancelled.kept),
            "processes_ended": [process.pid for process in ended],
            "processes_left": [process.pid for process in left],
            "processes_elsewhere": [f"{process.host}:{process.pid}" for process in elsewhere],
        }
        print(json.dumps(result, indent=1))
        return 1 if left else 0
    console = make_console()
    did = []
    if cancelled.ended:
        did.append(f"{count(len(cancelled.ended), 'job')} ended")
    if ended:
        did.append(f"{count(len(ended), 'process')} ended".replace("processs", "processes"))
    nothing = "nothing was ended" if cancelled.kept else "nothing of it was queued or running here"
    console.print(f"[bold]{escape(sweep)}[/]: {', '.join(did) or nothing}")
    if cancelled.kept:
        console.print(f"{count(len(cancelled.kept), 'job')} left: other sweeps have submitted or need them")
    for process in elsewhere:
        console.print(f"[dim]process {process.pid} on {process.host}, if it still runs, must be ended there[/]")
    for process in left:
        console.print(f"[red]process {process.pid} does not end[/]; end it with: kill -KILL {process.pid}")
    if did:
        console.print(f"go on with: {escape(command('retry', sweep, root))}")
    return 1 if left else 0


def end_processes(processes: list[Process], grace_s: float = GRACE_SECONDS) -> list[Process]:
    """Send SIGTERM to processes of this machine, wait for them, and return those that have ended."""
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            # Gone meanwhile, or of somebody else; whether it lives is looked at below.
            continue
    deadline = time.monotonic() + grace_s
    while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return [process for process in processes if not is_alive(process)]
