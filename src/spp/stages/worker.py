"""Runs one stage of a store: python -m spp.stages.worker STORE KIND KEY.

Nothing is believed but the markers: the inputs' DONE before the work, the stage's own before that.
"""

import contextlib
import importlib
import logging
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from spp.stages.quick_imports import quick_imports

with quick_imports():
    import torch

    from spp.plan.config import RuntimeConfig
    from spp.record.wandb_mirror import Mirror, open_mirror
    from spp.stages.checkpoint import OURS, CheckpointFile, UnusableCheckpointError
    from spp.stages.context import StageRun
    from spp.stages.finite import require_finite_numbers
    from spp.stages.interruption import Interruptions
    from spp.stages.log import write_log
    from spp.stages.media import log_members
    from spp.stages.ranks import Meeting, NotLeaderError, Ranks, find_ranks
    from spp.store.claim import EXIT_CLAIMED, AlreadyClaimed, Holder, Liveness, claim
    from spp.store.provenance import collect
    from spp.store.store import Store
    from spp.temporary import remove

POLL_SECONDS = 2.0
"""How often a worker that waits for another one looks for it."""

_log = logging.getLogger(__name__)


def run_stage(root: Path, kind: str, key: str, *, alive: Liveness | None = None, wait_for_holder: bool = False) -> None:
    """Do a stage unless it is done; on success it has a DONE marker, on failure a FAILED one.

    It goes on from the stage's checkpoint where there is one. Where torchrun or srun started several processes for
    it, all of them call this; the first one claims, keeps the record and writes the artifacts.

    Args:
        root: folder of the store.
        kind: of the stage.
        key: of the stage.
        alive: whether a claim's holder on another machine lives.
        wait_for_holder: where a living process works on the stage, wait until it has finished or is gone.

    Raises:
        AlreadyClaimed: if a living process works on it.
        SystemExit: if a signal asked this process to stop; there is a checkpoint if it was training.
        Exception: whatever the stage raised; the FAILED marker holds its last lines.
    """
    store = Store(root)
    ranks = find_ranks(_runtime(store.spec(kind, key)).num_processes)
    interruptions = Interruptions()
    with interruptions.handled():
        if not ranks.is_leader:
            _follow(store, kind, key, ranks, interruptions)
            return
        meeting = Meeting(store.stage_dir(kind, key), ranks)
        meeting.open()
        told: Holder | None = None
        try:
            while True:
                try:
                    _lead(store, kind, key, ranks, interruptions, meeting, alive)
                    return
                except AlreadyClaimed as claimed:
                    # Ranks that have begun together cannot wait and begin again: the others are gone by now.
                    if meeting.has_begun and store.is_done(kind, key):
                        return
                    if not wait_for_holder or meeting.has_begun:
                        raise
                    if told != claimed.holder:
                        told = claimed.holder
                        _log.warning("waiting for %s", claimed.detail)
                    meeting.wait()
                    time.sleep(POLL_SECONDS)
        finally:
            meeting.close()


def _lead(
    store: Store,
    kind: str,
    key: str,
    ranks: Ranks,
    interruptions: Interruptions,
    meeting: Meeting,
    alive: Liveness | None,
) -> None:
    with claim(store, kind, key, alive=alive) as held:
        work = store.begin(kind, key)
        if work is None:
            return
        _log.info("%s %s begins on %s", kind, key, socket.gethostname())
        try:
            stage = _open(store, kind, key, work, ranks, interruptions)
            stage.is_claim_lost = lambda looks: held.look() if looks else held.lost
            _work(stage, meeting)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(error, SystemExit):
                _exit_by_signal(error)
            if not isinstance(error, Exception):
                raise
            if not (held.lost or interruptions.handed_over or isinstance(error, AlreadyClaimed)):
                _fail(store, kind, key)
            raise


def _fail(store: Store, kind: str, key: str) -> None:
    # What `begin` found is gone, so a marker is another rank's. Its connections were open while it wrote it, so it
    # is what ended this rank as well.
    if store.failure(kind, key) is None:
        store.fail(kind, key, traceback.format_exc())


def _follow(store: Store, kind: str, key: str, ranks: Ranks, interruptions: Interruptions) -> None:
    """What ranks other than the first do: train with it, and leave the rest to it."""
    folder = store.stage_dir(kind, key)
    has_work, checkpoint = Meeting(folder, ranks).hear()
    if not has_work:
        return
    try:
        stage = _open(store, kind, key, folder, ranks, interruptions)
        torch.set_num_threads(stage.runtime.num_threads)
        stage.restart(None if checkpoint is None else stage.checkpoint.read(checkpoint))
        with contextlib.suppress(NotLeaderError):
            _run(stage)
    except AlreadyClaimed:
        if not store.is_done(kind, key):
            raise
    except Exception:
        # The first rank may never hear of it: where it waits for this one on a GPU, it is killed.
        if not interruptions.handed_over:
            _fail(store, kind, key)
        raise


def _exit_by_signal(stop: SystemExit) -> NoReturn:
    """Lightning makes exits of its own from Ctrl-C and SIGTERM, the latter with code 0; neither is a success."""
    if isinstance(stop.__context__, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    raise SystemExit(stop.code or 128 + signal.SIGTERM) from None


def _open(store: Store, kind: str, key: str, work: Path, ranks: Ranks, interruptions: Interruptions) -> StageRun:
    return StageRun(
        store=store,
        kind=kind,
        key=key,
        spec=store.spec(kind, key),
        artifacts=work,
        mirror=Mirror(),
        checkpoint=CheckpointFile(store.stage_dir(kind, key), key, work),
        ranks=ranks,
        interruptions=interruptions,
    )


def _work(stage: StageRun, meeting: Meeting) -> None:
    store, kind, key = stage.store, stage.kind, stage.key
    _check(stage)
    provenance = collect()
    store.write_provenance(kind, key, provenance)
    torch.set_num_threads(stage.runtime.num_threads)
    stage.mirror = open_mirror(store.stage_dir(kind, key), **_mirror_options(stage.spec, provenance))
    try:
        pinned = _restart(stage, meeting)
        if stage.earlier_code:
            _log.warning("%s was written by other code, which counts among the stage's provenance", pinned)
            store.write_provenance(kind, key, {**provenance, "earlier_code": stage.earlier_code})
        meeting.go(None if stage.saved is None else pinned)
        summary = _run(stage)
        summary |= _spent(stage) | _skipped(stage)
        require_finite_numbers(summary, kind)
        log_members(stage.mirror, stage.config, summary)
        stage.mirror.set_result(summary)
    finally:
        stage.mirror.finish()
    if not stage.is_superseded(about_to_write=True):
        stage.write_record()
    store.finish(kind, key, summary)
    _log.info("%s %s is done in %.1f s", kind, key, summary["seconds"])


def _restart(stage: StageRun, meeting: Meeting) -> Path:
    """Begin from the last checkpoint that can be used, if any; where all ranks find it."""
    checkpoint, problems = stage.checkpoint, list[str]()
    pinned, saved = checkpoint.path, None
    for path in (checkpoint.path, checkpoint.previous):
        pinned = meeting.pin(path)
        try:
            saved = checkpoint.read(pinned)
        except UnusableCheckpointError as error:
            problems.append(str(error))
            remove(path)  # or it would become the one before the next
        if saved is not None:
            break
    if problems:
        then = "starts anew" if saved is None else "goes on from the checkpoint before"
        _log.warning("%s; the stage %s", "; ".join(problems), then)
    stage.restart(saved)
    return pinned


def _check(stage: StageRun) -> None:
    wanted = stage.runtime.num_processes
    if stage.ranks.world_size != wanted:
        raise RuntimeError(
            f"the stage wants {wanted} processes and was started as one; start them with srun or torchrun, or set "
            f"cluster.resources.{stage.kind}.tasks_per_node=1"
        )
    for role, ref in stage.spec["inputs"].items():
        problems = stage.store.verify(ref["kind"], ref["key"])
        if problems:
            raise RuntimeError(f"input {role}: {problems[0]}; set it aside with spp verify --repair and run again")


def _run(stage: StageRun) -> dict[str, Any]:
    """The stage's own work, from its checkpoint or, where that turns out not to fit, from the one before or the start.

    Every rank does this: what does not fit does so on none of them, as all have read the same file.
    """
    run = work_of(stage.kind)
    while True:
        try:
            return run(stage)
        except UnusableCheckpointError as error:
            saved = _state_before(stage)
            if stage.ranks.is_leader:
                then = "starts anew" if saved is None else "goes on from the checkpoint before"
                reason = (str(error).splitlines() or [""])[0]
                _log.warning("%s does not fit the stage (%s); it %s", stage.checkpoint.path, reason, then)
                if saved is None:
                    stage.checkpoint.drop_all()
                else:
                    stage.checkpoint.drop_last()
            stage.restart(saved)


def _state_before(stage: StageRun) -> dict[str, Any] | None:
    """The checkpoint before the last one, unless it cannot be used or has been tried."""
    try:
        saved = stage.checkpoint.read(stage.checkpoint.previous)
    except UnusableCheckpointError:
        return None
    return None if saved is None or saved[OURS]["seconds"] in stage.tried else saved


def work_of(kind: str) -> Callable[[StageRun], dict[str, Any]]:
    """What a kind of stages does; each imports what it needs and no more."""
    with quick_imports():
        run: Callable[[StageRun], dict[str, Any]] = importlib.import_module(f"spp.stages.{kind}").run
    return run


def _spent(stage: StageRun) -> dict[str, Any]:
    """What the stage cost, interruptions included; GPU-seconds are 0 on a CPU."""
    seconds = stage.seconds
    on_gpu = torch.cuda.is_available() and stage.runtime.accelerator != "cpu"
    return {
        "seconds": seconds,
        "gpu_seconds": seconds * stage.runtime.num_processes if on_gpu else 0.0,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
    }


def _skipped(stage: StageRun) -> dict[str, Any]:
    """With data.on_error=skip, how many broken samples the first rank came across."""
    num_skipped = None if stage.data is None else stage.data.num_skipped
    return {} if num_skipped is None else {"num_skipped": num_skipped}


def _runtime(spec: Mapping[str, Any]) -> RuntimeConfig:
    return RuntimeConfig.read(spec["runtime"], "runtime")


def _mirror_options(spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    options = spec["runtime"]["wandb"]
    point = options.get("point")  # missing where a stage was planned alone
    config = {name: spec[name] for name in ("kind", "key", "version", "label", "config", "inputs")}
    return {
        "mode": options["mode"],
        "project": options["project"],
        "entity": options["entity"],
        "group": point and point["name"],
        "job_type": spec["kind"],
        "run_id": spec["key"],
        "name": spec["label"],
        "tags": [spec["kind"], *(point or {}).get("tags", ())],
        "config": {**config, "point": point, "provenance": dict(provenance)},
    }


def main() -> int:
    """Entry point of a worker process."""
    root, kind, key = sys.argv[1:]
    write_log()
    try:
        run_stage(Path(root), kind, key)
    except AlreadyClaimed as claimed:
        print(f"spp: {claimed}", file=sys.stderr)
        return EXIT_CLAIMED
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
