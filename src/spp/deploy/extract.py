"""A member at a budget, from a finished path into a folder of its own."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spp.deploy.folder import refuse_used, write_folder
from spp.deploy.source import facts_of
from spp.plan.numbers import format_size
from spp.stages.extract import CutMember, cut_member
from spp.store.store import Store
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """What a member is asked for.

    Attributes:
        source: a path's file or folder, the folder of its stage, or the name of a sweep.
        kind: macs, params or units.
        size: a fraction of the dense network (<= 1) or absolute.
        out: the folder to write.
        force: whether a member that is there may be overwritten.
    """

    source: str
    kind: str
    size: float
    out: Path
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What came out: the folder, its counted cost, that of the dense network, and whose weights it has."""

    folder: Path
    cost: Cost
    dense: Cost
    num_units: int
    weights: str


def extract(store: Store, request: ExtractRequest) -> Extracted:
    """Cut the member and write its folder.

    Raises:
        ValueError: one line, if there is no such path, its weights are not in the store, the size is out of reach, or
            the folder is in use.
    """
    refuse_used(request.out, request.force)
    member = cut_member(store, request.source, request.kind, request.size)
    facts = facts_of(member.architecture, origin=_origin(member, request), dense=member.dense)
    write_folder(request.out, member.network, facts, force=request.force)
    return Extracted(
        folder=request.out,
        cost=count_cost(member.network, example_inputs(member.network)),
        dense=member.dense,
        num_units=sum(int(mask.sum()) for mask in member.masks.values()),
        weights=member.weights,
    )


def _origin(member: CutMember, request: ExtractRequest) -> dict[str, Any]:
    # Of a path that was named by its file only the last part: where it lies is nobody's business who gets the folder.
    command = ["spp", "extract", Path(request.source).name, f"--{request.kind}", format_size(request.size)]
    return {
        "command": shlex.join(command),
        "method": member.method,
        "budget": {"kind": request.kind, "value": request.size},
        "weights": member.weights,
        "stages": member.keys,
        "kept": {name: mask.nonzero().flatten().tolist() for name, mask in member.masks.items()},
    }
