"""spp extract: a compact model from a finished path."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spp.cli.sweeps import full_name
from spp.plan.numbers import flops_unit, format_flops, format_size
from spp.store.store import Store
from spp.text import visible

if TYPE_CHECKING:
    from spp.deploy.extract import Extracted


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was typed; see `spp.deploy.extract.ExtractRequest`."""

    source: str
    kind: str
    size: float
    out: Path
    force: bool
    multiple_of: int | None
    device: str
    batch_size: int
    num_threads: int
    num_repair_samples: int
    finetunes: bool
    measures: bool
    model: str | None
    weights: str | None


def extract(root: Path, words: Words, *, as_json: bool) -> int:
    """Write the folder of the model, and say what it costs and does."""
    store = Store(root)
    source = words.source if words.model is not None else full_name(store, words.source)
    from spp.deploy import extract as worker
    from spp.deploy.timing import Circumstances

    request = worker.ExtractRequest(
        source=source,
        kind=words.kind,
        size=words.size,
        out=words.out,
        force=words.force,
        multiple_of=words.multiple_of,
        where=Circumstances(words.device, words.batch_size, words.num_threads),
        num_repair_samples=words.num_repair_samples,
        finetunes=words.finetunes,
        measures=words.measures,
        model=words.model,
        weights=words.weights,
    )
    made = worker.extract(store, request)
    if as_json:
        cost, dense = made.cost, made.dense
        row = {"asked": {words.kind: words.size}, "macs": cost.macs, "params": cost.params, "num_units": made.num_units}
        row |= {"dense": {"macs": dense.macs, "params": dense.params}, "weights": made.weights}
        row |= {"folder": str(made.folder), "measured": [asdict(each) for each in made.measured]}
        print(json.dumps({**row, "not_measured": made.not_measured}, indent=1))
        return 0
    print(f"asked:   {words.kind} {format_size(words.size)}")
    print(f"weights: {made.weights}")
    print(f"folder:  {visible(str(made.folder))}")
    alone = ", or without spp as its README.md says" if (made.folder / "README.md").is_file() else ""
    print(f"load:    spp.load({str(made.folder)!r}){alone}")
    print(_table(made))
    if made.not_measured:
        print(f"accuracy is not measured: {made.not_measured}")
    return 0


def _table(made: "Extracted") -> str:
    cost, dense = made.cost, made.dense
    rows = [("", "dense", "this", ""), *_sizes(cost.macs, dense.macs, cost.params, dense.params)]
    rows.append(("units", "", f"{made.num_units}", ""))
    for row in made.measured:
        before = "" if row.dense is None else f"{row.dense:.4g}"
        rows.append((row.name, before, f"{row.value:.4g}", f"{row.count} {row.of}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip() for row in rows
    )


def _sizes(macs: float, dense_macs: float, params: int, dense_params: int) -> list[tuple[str, str, str, str]]:
    unit = flops_unit(dense_macs)
    before, after = (format_flops(value, unit) for value in (dense_macs, macs))
    return [
        (f"FLOPs ({unit}, multiply-adds)", before, after, f"{100 * macs / dense_macs:.1f} %"),
        ("parameters", f"{dense_params:,}", f"{params:,}", f"{100 * params / dense_params:.1f} %"),
    ]
