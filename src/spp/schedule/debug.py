"""`cluster=debug`: one stage after the other, in this process."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from spp.plan.graph import Plan
from spp.plan.spec import Stage
from spp.schedule.events import Observe, Outcome
from spp.schedule.ledger import Ledger
from spp.store.claim import AlreadyClaimed
from spp.store.store import Store

Worker = Callable[[Path, str, str], None]
"""Does the stage of (root of the store, kind, key): claims it, works, and leaves a marker."""


def run_in_process(plan: Plan, store: Store, worker: Worker, observe: Observe, *, poll_seconds: float = 1.0) -> Outcome:
    """Run a plan here, in its order. A failed stage blocks what needs it and nothing else.

    Stages that another process works on are left to it and awaited, after all that can be done meanwhile.
    Ctrl-C ends the running stage by a KeyboardInterrupt and passes through; the same call goes on later.
    """
    ledger = Ledger(plan, store, observe, poll_seconds)
    while True:
        ledger.poll()
        ready = ledger.ready()
        if ready:
            _run_one(ledger, store, worker, ready[0])
        elif ledger.waits:
            time.sleep(poll_seconds)
        else:
            return ledger.outcome()


def _run_one(ledger: Ledger, store: Store, worker: Worker, stage: Stage) -> None:
    if not ledger.start(stage):
        return
    try:
        worker(store.root, stage.kind, stage.key)
    except AlreadyClaimed as claimed:
        ledger.wait(stage, claimed.detail)
    except Exception:
        ledger.settle(stage, traceback.format_exc())
    else:
        ledger.settle(stage, "the worker returned without a DONE marker")
