"""spp extract: a compact model from a finished path."""

from pathlib import Path

from spp.plan.numbers import format_size
from spp.store.store import Store
from spp.text import visible


def extract(root: Path, source: str, kind: str, size: float, out: Path, *, force: bool) -> int:
    """Write the folder of the model and say what it costs."""
    from spp.deploy import extract as worker

    request = worker.ExtractRequest(source=source, kind=kind, size=size, out=out, force=force)
    made = worker.extract(Store(root), request)
    cost, dense = made.cost, made.dense
    print(f"asked:   {kind} {format_size(size)}")
    print(
        f"got:     {cost.macs / 1e9:.6g} GFLOPs (multiply-adds, {100 * cost.macs / dense.macs:.1f} %), "
        f"{cost.params:,} parameters ({100 * cost.params / dense.params:.1f} %), {made.num_units} units"
    )
    print(f"weights: {made.weights}")
    print(f"folder:  {visible(str(made.folder))}")
    print(f"load:    spp.load({str(made.folder)!r}), or without spp as its README.md says")
    return 0
