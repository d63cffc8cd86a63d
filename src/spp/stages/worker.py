"""Runs one stage of a store: python -m spp.stages.worker STORE KIND KEY.

Nothing is believed but the markers: the inputs' DONE before the work, the stage's own before that.
"""

import importlib
import logging
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

from spp.record.wandb_mirror import open_mirror
from spp.stages.context import StageRun
from spp.store.claim import EXIT_CLAIMED, AlreadyClaimed, claim
from spp.store.provenance import collect
from spp.store.store import Store


def run_stage(root: Path, kind: str, key: str) -> None:
    """Do a stage unless it is done; on success it has a DONE marker, on failure a FAILED one.

    Raises:
        AlreadyClaimed: if a living process works on it.
        Exception: whatever the stage raised; the FAILED marker holds its last lines.
    """
    # One line per Trainer about devices helps nobody who runs hundreds of stages.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    store = Store(root)
    with claim(store, kind, key) as held:
        work = store.begin(kind, key)
        if work is None:
            return
        try:
            _work(store, kind, key, work)
        except BaseException as error:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(error, SystemExit):
                _as_it_was_meant(error)
            if not isinstance(error, Exception):
                raise
            if not held.lost:
                store.fail(kind, key, traceback.format_exc())
            raise


def _as_it_was_meant(stop: SystemExit) -> NoReturn:
    """Lightning makes exits of its own from Ctrl-C and SIGTERM, the latter with code 0; neither is a success."""
    if isinstance(stop.__context__, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    raise SystemExit(stop.code or 128 + signal.SIGTERM) from None


def _work(store: Store, kind: str, key: str, work: Path) -> None:
    spec = store.spec(kind, key)
    for role, ref in spec["inputs"].items():
        problems = store.verify(ref["kind"], ref["key"])
        if problems:
            raise RuntimeError(f"input {role}: {problems[0]}; remove that stage's folder and run again")
    provenance = collect()
    store.write_provenance(kind, key, provenance)
    (store.stage_dir(kind, key) / "metrics.jsonl").unlink(missing_ok=True)
    mirror = open_mirror(store.stage_dir(kind, key), **_mirror_options(spec, provenance))
    stage = StageRun(store=store, kind=kind, key=key, spec=spec, artifacts=work, mirror=mirror)
    torch.set_num_threads(stage.runtime.num_threads)
    started = time.monotonic()
    try:
        summary: dict[str, Any] = importlib.import_module(f"spp.stages.{kind}").run(stage)
        summary |= _spent(time.monotonic() - started, stage)
        mirror.log({f"summary/{name}": value for name, value in _numbers(summary).items()})
    finally:
        mirror.finish()
    store.finish(kind, key, summary)


def _spent(seconds: float, stage: StageRun) -> dict[str, Any]:
    """What the stage cost; GPU-seconds are 0 on a CPU."""
    on_gpu = torch.cuda.is_available() and stage.runtime.accelerator != "cpu"
    return {
        "seconds": seconds,
        "gpu_seconds": seconds if on_gpu else 0.0,
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
    }


def _mirror_options(spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    options = spec["runtime"]["wandb"]
    return {
        "mode": options["mode"],
        "project": options["project"],
        "entity": options["entity"],
        "group": options.get("group"),
        "job_type": spec["kind"],
        "run_id": spec["key"],
        "name": spec["label"],
        "tags": [spec["kind"]],
        "config": {
            **spec["config"],
            "upstream": {role: ref["key"] for role, ref in spec["inputs"].items()},
            "provenance": dict(provenance),
        },
    }


def _numbers(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            flat |= _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[f"{prefix}{name}"] = value
    return flat


def main() -> int:
    """Entry point of a worker process."""
    root, kind, key = sys.argv[1:]
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
