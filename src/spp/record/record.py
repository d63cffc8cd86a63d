"""Everything that reports are made from: finished members, paths, and what is still missing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spp.plan.graph import Plan, Point
from spp.plan.spec import Stage
from spp.record.lineage import Lineage, measures_member
from spp.record.rows import Facts, Row, RowMaker, command, identity
from spp.record.variants import PlannedMember, variants_of_members, variants_of_points
from spp.store.marker import ARTIFACTS
from spp.store.store import Store


@dataclass(frozen=True)
class PathSource:
    """A finished search that has left a solution path in `artifacts`."""

    key: str
    method: str
    preset: str | None
    variant: str
    task: str
    model: str
    data: str
    seed: int
    artifacts: Path


@dataclass(frozen=True)
class RequestedMember:
    """A member that was asked for."""

    method: str
    preset: str | None
    variant: str
    task: str
    model: str
    data: str
    seed: int
    budget_kind: str
    budget_asked: float


@dataclass(frozen=True)
class MissingMember(RequestedMember):
    """A member that was asked for and is not finished; `state` is failed or not finished.

    `search_key`: of the search that it comes from, which it may share with others.
    """

    point: str
    sweep: str
    state: str
    command: str
    search_key: str


@dataclass(frozen=True)
class Record:
    """What one or several sweeps have measured; `source` says where it was read.

    `out_of_reach`: what sweeps have left out because the method cannot serve the budget. `latencies`: what
    `spp benchmark --keep` has measured, of whatever sweeps (`spp.record.latencies`).
    """

    rows: Sequence[Row]
    paths: Sequence[PathSource]
    missing: Sequence[MissingMember]
    source: str
    out_of_reach: Sequence[RequestedMember] = ()
    latencies: Sequence[Row] = ()


def read_record(store: Store, sweeps: Sequence[str]) -> Record:
    """The record of sweeps in a store, in the order of their points and budgets.

    A member of several sweeps counts once, for the first that names it.
    """
    return make_record(store, {sweep: store.read_plan(sweep) for sweep in sweeps}, "store")


def make_record(facts: Facts, plans: Mapping[str, Plan], source: str) -> Record:
    """The record of planned sweeps, by name, whose stages `facts` knows about."""
    rows: list[Row] = []
    paths: dict[str, PathSource] = {}
    missing: list[MissingMember] = []
    maker = RowMaker(facts)
    points = {f"{sweep}/{point.name}": point for sweep, plan in plans.items() for point in plan.points}
    words = variants_of_points(points)
    members: dict[str, tuple[str, Point, Stage]] = {}
    for sweep, point, stage in _members(plans):
        members.setdefault(stage.key, (sweep, point, stage))
    variants = variants_of_members(
        PlannedMember(point, words[f"{sweep}/{point.name}"], stage) for sweep, point, stage in members.values()
    )
    for key, (sweep, point, stage) in members.items():
        lineage = Lineage.of(stage)
        own_identity = identity(point, lineage, variants[key])
        if facts.is_done(stage.kind, stage.key):
            rows.append(maker.row(point, sweep, variants[key], lineage))
        else:
            missing.append(_missing(facts, point, sweep, own_identity, lineage))
        path = lineage.path
        # One that is damaged stays, so that whoever draws it says so.
        if path is not None and path.key not in paths and _has_finished(facts, path):
            folder = facts.stage_dir(path.kind, path.key) / ARTIFACTS
            paths[path.key] = PathSource(key=path.key, **own_identity, artifacts=folder)
    out_of_reach = dict.fromkeys(
        RequestedMember(
            **identity(point, Lineage.of(stage), variants[stage.key]),
            budget_kind=stage.config["budget"]["kind"],
            budget_asked=budget,
        )
        for _, point, stage in _members(plans)
        for budget in point.meta.get("out_of_reach", ())
    )
    return Record(rows, list(paths.values()), missing, source, tuple(out_of_reach))


def _has_finished(facts: Facts, stage: Stage) -> bool:
    return facts.is_done(stage.kind, stage.key) or facts.damage(stage.kind, stage.key) is not None


def _members(plans: Mapping[str, Plan]) -> Iterator[tuple[str, Point, Stage]]:
    for sweep, plan in plans.items():
        for point in plan.points:
            yield from ((sweep, point, stage) for stage in point.stages if measures_member(stage.kind, stage.config))


def _missing(facts: Facts, point: Point, sweep: str, own_identity: Row, lineage: Lineage) -> MissingMember:
    stage = lineage.measure
    has_failed = any(facts.failure(part.kind, part.key) is not None for part in _with_inputs(stage))
    return MissingMember(
        point=point.name,
        sweep=sweep,
        **own_identity,
        budget_kind=stage.config["budget"]["kind"],
        budget_asked=stage.config["budget"]["value"],
        state="failed" if has_failed else "not finished",
        command=command(point),
        search_key=lineage.search.key,
    )


def _with_inputs(stage: Stage) -> Iterator[Stage]:
    yield stage
    for parent in stage.inputs.values():
        yield from _with_inputs(parent)
