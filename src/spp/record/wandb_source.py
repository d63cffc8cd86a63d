"""The record, read from W&B runs instead of a store: from their files, or from a server.

Runs tell what finished stages measured. Members that were planned and never came to be measured, and sweeps whose every
stage an earlier sweep had done, left no such run and are not seen. The trajectories of a path are too large for W&B:
paths are part of the record where the folder of their stage is at hand, and a warning tells where it is not.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage, StageRef
from spp.record.lineage import measures_member
from spp.record.record import Record, make_record
from spp.record.wandb_account import ANSWER_SECONDS, account_problem
from spp.record.wandb_file import find_segments, read_runs
from spp.record.wandb_mirror import RESULT, unpack
from spp.store.store import Store

PATH_FILE = "path.safetensors"

_PAGE_SIZE = 200

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _WandbRun:
    """The run of one stage: its config and summary, and where the stage's folder is, or would be."""

    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    folder: Path

    @property
    def ref(self) -> StageRef:
        return StageRef(self.config["kind"], self.config["key"])


class RunFacts:
    """What finished stages have written down about themselves, by the word of their W&B runs (`rows.Facts`)."""

    def __init__(self, runs: Iterable[_WandbRun]) -> None:
        self._runs = {run.ref: run for run in runs}

    def is_done(self, kind: str, key: str) -> bool:
        """Whether the run ended with a result."""
        return RESULT in self._runs[StageRef(kind, key)].summary

    def damage(self, kind: str, key: str) -> None:
        """None: W&B keeps no artifacts that could be damaged."""
        return None

    def failure(self, kind: str, key: str) -> None:
        """None: a run does not tell why its stage has not finished."""
        return None

    def summary(self, kind: str, key: str) -> dict[str, Any]:
        """The result of a finished stage."""
        return dict(self._runs[StageRef(kind, key)].summary[RESULT])

    def provenance(self, kind: str, key: str) -> dict[str, Any]:
        """What ran."""
        return dict(self._runs[StageRef(kind, key)].config["provenance"])

    def stage_dir(self, kind: str, key: str) -> Path:
        """The stage's folder; it need not exist."""
        return self._runs[StageRef(kind, key)].folder


def read_wandb(where: str, store_root: Path) -> Record:
    """The record that W&B runs hold, in the order in which the sweeps began, their points and budgets.

    Args:
        where: "" for the files of the runs in the store, a folder for those below it (it comes before a project of
            the same name), or entity/project (or project) for the runs on the server.
        store_root: folder of the store.

    Raises:
        ValueError: one line, if there are no runs, no login, or no server.
    """
    is_folder = where == "" or Path(where).is_dir()
    runs = _local(Path(where or store_root), store_root) if is_folder else _online(where, store_root)
    if not runs:
        place = repr(where or str(store_root))
        raise ValueError(
            f"--source wandb: {place} holds no run of a stage; allowed: a store or folder with runs, or "
            "entity/project; run something with logger=offline or logger=online first"
        )
    plans = _plans(runs)
    source = f"W&B runs in {where or store_root}" if is_folder else f"W&B project {where}"
    record = make_record(RunFacts(runs), plans, source)
    at_hand = [path for path in record.paths if (path.artifacts / PATH_FILE).is_file()]
    if len(at_hand) < len(record.paths):
        missing = ", ".join(path.key for path in record.paths if path not in at_hand)
        _log.warning("no figures of the paths %s: the folders of these stages are not here", missing)
    return replace(record, paths=at_hand)


def _local(root: Path, store_root: Path) -> list[_WandbRun]:
    store = Store(store_root)
    runs = []
    for run in read_runs(find_segments(root)):
        if _is_of_stage(run.config):
            config, summary = unpack(run.config), unpack(run.summary)
            # A run lies in the folder `wandb` of its stage, unless somebody has taken it away from there.
            own = run.folders[-1].parent.parent
            folder = own if own.name == config["key"] else store.stage_dir(config["kind"], config["key"])
            runs.append(_WandbRun(config, summary, folder))
    return runs


def _online(project: str, store_root: Path) -> list[_WandbRun]:
    import wandb

    if problem := account_problem():
        raise ValueError(f"--source wandb: {project!r} is no folder, and {problem}")
    store = Store(store_root)
    try:
        found = list(wandb.Api(timeout=ANSWER_SECONDS).runs(project, lazy=False, per_page=_PAGE_SIZE))
    except Exception as error:  # of many kinds, none of which is its own
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(
            f"--source wandb: {project!r} cannot be read ({reason}); allowed: entity/project that this account sees, "
            "or a folder; check its name"
        ) from None
    runs = [(unpack(run.config), unpack(run.summary_metrics)) for run in found if _is_of_stage(run.config)]
    return [_WandbRun(config, summary, store.stage_dir(config["kind"], config["key"])) for config, summary in runs]


def _is_of_stage(config: Mapping[str, Any]) -> bool:
    """Whether a stage wrote this config; a project may hold other runs as well."""
    return {"kind", "key", "config", "inputs", "point", "provenance"} <= config.keys()


def _plans(runs: Iterable[_WandbRun]) -> dict[str, Plan]:
    """What the runs tell of the sweeps they belong to, by name."""
    by_ref = {run.ref: run for run in runs}
    stages: dict[StageRef, Stage] = {}
    points: dict[tuple[str, int], tuple[Mapping[str, Any], list[Stage]]] = {}
    num_without_inputs = 0
    for run in by_ref.values():
        if not measures_member(run.config["kind"], run.config["config"]) or run.config["point"] is None:
            continue
        if not _is_whole(run.ref, by_ref):
            num_without_inputs += 1
            continue
        point = run.config["point"]
        _, members = points.setdefault((point["sweep"], point["index"]), (point, []))
        members.append(_stage(run.ref, by_ref, stages))
    if num_without_inputs:
        _log.warning("%d members are left out: the runs of their searches are not here", num_without_inputs)
    plans: dict[str, Plan] = {}
    for sweep in dict.fromkeys(sweep for sweep, _ in points):
        indices = sorted(index for other, index in points if other == sweep)
        plans[sweep] = Plan.merge(_point(*points[sweep, index]) for index in indices)
    return plans


def _point(told: Mapping[str, Any], members: Iterable[Stage]) -> Point:
    finals = sorted(members, key=lambda stage: stage.config["budget"]["value"], reverse=True)
    return Point(told["name"], tuple(told["overrides"]), tuple(finals), told["meta"])


def _is_whole(ref: StageRef, runs: Mapping[StageRef, _WandbRun]) -> bool:
    """Whether the runs of a stage and of all that it came from are there, and those of its inputs finished."""
    if ref not in runs:
        return False
    inputs = [StageRef(**other) for other in runs[ref].config["inputs"].values()]
    return all(_is_whole(other, runs) and RESULT in runs[other].summary for other in inputs)


def _stage(ref: StageRef, runs: Mapping[StageRef, _WandbRun], stages: dict[StageRef, Stage]) -> Stage:
    if ref not in stages:
        config = runs[ref].config
        inputs = {role: _stage(StageRef(**other), runs, stages) for role, other in config["inputs"].items()}
        stages[ref] = Stage.from_json({**config, "runtime": {}, "resources": {}}, inputs)
    return stages[ref]
