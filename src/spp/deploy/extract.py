"""A member of a wanted size or speed, from a finished path into a folder of its own."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from spp.deploy.card import MeasuredValue
from spp.deploy.finetuned import finetune_member
from spp.deploy.folder import refuse_used, write_folder
from spp.deploy.given_path import GivenPath
from spp.deploy.quality import OpenedData, open_measured_data
from spp.deploy.source import facts_of, has_texts
from spp.deploy.timing import Circumstances, latency
from spp.dynamics.budget import OutOfReachError
from spp.plan.numbers import format_size
from spp.stages.extract import OpenedPath
from spp.stages.member_source import CutMember, MemberSource
from spp.store.store import Store
from spp.structure.compact import compact
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs

LATENCY = "latency-ms"
MULTIPLE_OF = 8
"""What widths are rounded up to where nobody says otherwise."""
_NUM_HALVINGS = 8
"""Of the interval between the smallest and the dense size, in the search for a latency: to 0.4 % of it."""


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """What a member is asked for.

    Attributes:
        source: a path's file or folder, the folder or key of its stage, or the name of a sweep.
        kind: macs, params, units, or latency-ms.
        size: a fraction of the dense network (<= 1) or absolute; of a latency milliseconds.
        out: the folder to write.
        force: whether a member that is there may be overwritten.
        multiple_of: of the widths; None: 8, unless there are trained weights for this size and not for rounded widths.
        where: where latency is measured.
        num_repair_samples: training samples with which a member that was not finetuned for this size is repaired; 0: it
            stays as cut.
        finetunes: whether the member is trained on first, by the recipe of the sweep that its path is from.
        measures: whether accuracy and speed are measured.
        model: the network of a path's file that the store does not know: timm:NAME, my.module:make_model, or a folder
            of transformers; None: the store knows it.
        weights: a checkpoint of the dense network instead of what the store, the factory or the folder has; with a
            model of timm also "pretrained".
    """

    source: str
    kind: str
    size: float
    out: Path
    force: bool = False
    multiple_of: int | None = None
    where: Circumstances = field(default_factory=Circumstances)
    num_repair_samples: int = 0
    finetunes: bool = False
    measures: bool = True
    model: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        given = "--model" if self.model is not None else "--weights" if self.weights is not None else ""
        if self.finetunes and given:
            raise ValueError(
                f"--finetune: it is not allowed with {given}, as a sweep trains its own weights; allowed: one of the "
                f"two; say model.weights=FILE in a sweep, or leave --finetune out"
            )
        if self.finetunes and self.kind == LATENCY:
            raise ValueError(
                f"--{LATENCY}: {self.size:g} is not allowed with --finetune; allowed: --macs, --params, --units; "
                "extract it without --finetune first, and give the size that it has"
            )
        if self.finetunes and self.num_repair_samples:
            raise ValueError(
                f"--repair: {self.num_repair_samples} is not allowed with --finetune, where the sweep says how members "
                "are repaired; allowed: one of the two; leave --repair out"
            )


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What came out.

    Attributes:
        folder: where it lies.
        cost: as counted on the compact network.
        dense: of the dense network.
        num_units: that were kept.
        weights: whose weights it has.
        measured: accuracy and speed.
        not_measured: why there is no accuracy; empty if there is.
    """

    folder: Path
    cost: Cost
    dense: Cost
    num_units: int
    weights: str
    measured: list[MeasuredValue]
    not_measured: str


def extract(store: Store, request: ExtractRequest) -> Extracted:
    """Cut the member, measure it, and write its folder.

    Raises:
        ValueError: one line, if there is no such path, its weights are not in the store, the size is out of reach, or
            the folder is in use.
    """
    refuse_used(request.out, request.force)
    opened = _open_source(store, request)
    if request.finetunes and isinstance(opened, OpenedPath):
        opened.select(request.kind, request.size, request.multiple_of or 1)  # what is out of reach is refused at once
        finetune_member(store, opened.ref.key, request.kind, request.size, request.multiple_of)
        opened = OpenedPath(store, opened.ref.key)  # with the stages that are new
    member = _member(opened, request)
    found, problem = _open_data(opened) if request.measures or has_texts(member.architecture) else (None, "")
    measured = _measure(opened, member, request.where, found) if request.measures else []
    facts = facts_of(
        member.architecture,
        origin=_origin(member, request),
        dense=member.dense,
        measured=measured,
        runtime=member.runtime,
        data=None if found is None else found[0],
    )
    write_folder(request.out, member.network, facts, force=request.force)
    return Extracted(
        folder=request.out,
        cost=count_cost(member.network, example_inputs(member.network)),
        dense=member.dense,
        num_units=sum(int(mask.sum()) for mask in member.masks.values()),
        weights=member.weights,
        measured=measured,
        not_measured=problem if request.measures else "",
    )


def _open_source(store: Store, request: ExtractRequest) -> MemberSource:
    if request.model is not None:
        return GivenPath(request.source, request.model, request.weights)
    if request.weights is None:
        return OpenedPath(store, request.source)
    file = Path(request.weights)
    if not file.is_file():
        raise ValueError(f"--weights: there is no file {request.weights!r}; allowed: a checkpoint's file; correct it")
    return OpenedPath(store, request.source, file)


def _member(opened: MemberSource, request: ExtractRequest) -> CutMember:
    if request.kind != LATENCY:
        finetuned = opened.finetuned(request.kind, request.size, request.multiple_of)
        return finetuned or _cut(opened, request, _masks(opened, request.kind, request.size, request.multiple_of))
    dense = opened.dense_network()

    def time_of(masks: dict[str, Tensor]) -> float:
        return latency(compact(dense, masks), request.where, min_seconds=0.2).median_ms

    lowest, highest = opened.path.budget_range("macs")
    masks = fastest_fitting(
        request.size, lowest, highest, lambda size: _masks(opened, "macs", size, request.multiple_of), time_of
    )
    return _cut(opened, request, masks)


def _cut(opened: MemberSource, request: ExtractRequest, masks: dict[str, Tensor]) -> CutMember:
    member = opened.cut(masks)
    return opened.repaired(member, request.num_repair_samples) if request.num_repair_samples else member


def _masks(opened: MemberSource, kind: str, size: float, multiple_of: int | None) -> dict[str, Tensor]:
    """The units of a member; widths that nobody has set are rounded, unless trained weights would be lost by that."""
    if multiple_of is not None:
        return opened.select(kind, size, multiple_of)
    try:
        masks = opened.select(kind, size, MULTIPLE_OF)
    except OutOfReachError:  # of a small network's heads a multiple may be all there is
        return opened.select(kind, size, 1)
    return masks if opened.is_trained(masks) else opened.select_trained(kind, size) or masks


def fastest_fitting(
    target_ms: float,
    lowest: float,
    highest: float,
    select: Callable[[float], dict[str, Tensor]],
    time_of: Callable[[dict[str, Tensor]], float],
) -> dict[str, Tensor]:
    """The largest member along a path, by bisection, whose latency is at most a target.

    Args:
        target_ms: the target.
        lowest: multiply-adds of the smallest member.
        highest: multiply-adds of the largest one.
        select: the masks at a number of multiply-adds; raises ValueError below what rounded widths can reach.
        time_of: latency of the member of some masks in milliseconds.

    Raises:
        ValueError: one line, if not even the smallest member is so fast.
    """
    best: dict[str, Tensor] | None = None
    fastest: float | None = None
    if time_of(masks := select(highest)) <= target_ms:
        return masks
    low, high = lowest, highest
    for _ in range(_NUM_HALVINGS):
        middle = (low + high) / 2
        try:
            masks = select(middle)
        except ValueError:
            low = middle
            continue
        time_ms = time_of(masks)
        fastest = time_ms if fastest is None else min(fastest, time_ms)
        if time_ms <= target_ms:
            best, low = masks, middle
        else:
            high = middle
    if best is None:
        raise ValueError(
            f"--latency-ms: {target_ms:g} cannot be reached here; allowed: about {fastest:.3g} and more; use that, or "
            "fewer samples by --batch"
        )
    return best


def _measure(
    opened: MemberSource,
    member: CutMember,
    where: Circumstances,
    found: tuple[OpenedData, dict[str, dict[str, Any]]] | None,
) -> list[MeasuredValue]:
    """Accuracy where the data are, and speed, beside the dense network."""
    rows: list[MeasuredValue] = []
    if found is not None:
        data, dense_metrics = found
        values = data.measure(member.network)
        for name, value in values.items():
            unit = f" ({value['unit']})" if value["unit"] else ""
            dense = dense_metrics.get(name, {}).get("value")
            of = f"test {value['of']}"
            rows.append(
                MeasuredValue(
                    name=f"{value['label']}{unit}", value=value["value"], dense=dense, count=value["count"], of=of
                )
            )
    small, dense_time = latency(member.network, where), latency(opened.dense_network(), where)
    member.network.cpu()
    name = f"latency (ms), {where.label}"
    runs = small.num_runs
    rows.append(MeasuredValue(name=name, value=small.median_ms, dense=dense_time.median_ms, count=runs, of="runs"))
    return rows


def _open_data(opened: MemberSource) -> tuple[tuple[OpenedData, dict[str, dict[str, Any]]] | None, str]:
    """The data on which the dense network was measured, and what came out; or why there are none."""
    if not isinstance(opened, OpenedPath):
        return None, "no data are known where --model names the network"
    try:
        found = open_measured_data(opened.store, opened.dense_key)
    except ValueError as error:
        return None, str(error)
    if found is not None and opened.given is not None:
        return (found[0], {}), ""  # what was measured is the store's dense network
    return found, "" if found is not None else "the dense network of this path was not measured"


def _origin(member: CutMember, request: ExtractRequest) -> dict[str, Any]:
    # Of a path that was named by its file only the last part: where it lies is nobody's business who gets the folder.
    command = ["spp", "extract", Path(request.source).name, f"--{request.kind}", format_size(request.size)]
    if request.multiple_of is not None:
        command += ["--multiple-of", str(request.multiple_of)]
    if request.num_repair_samples:
        command += ["--repair", str(request.num_repair_samples)]
    if request.finetunes:
        command.append("--finetune")
    if request.model is not None:
        command += ["--model", Path(request.model).name]
    if request.weights is not None:
        command += ["--weights", Path(request.weights).name]
    return {
        "command": shlex.join(command),
        **({"method": member.method} if member.method else {}),
        "budget": {"kind": request.kind, "value": request.size},
        "weights": member.weights,
        "stages": member.keys,
        "kept": {name: mask.nonzero().flatten().tolist() for name, mask in member.masks.items()},
    }
