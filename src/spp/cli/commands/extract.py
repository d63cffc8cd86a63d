"""spp extract: a compact model from a finished path."""

import json
from pathlib import Path

from spp.plan.numbers import format_size
from spp.store.store import Store
from spp.text import visible


def extract(
    root: Path, source: str, kind: str, size: float, out: Path, *, num_repair_samples: int, as_json: bool
) -> int:
    """Write the model and say what it costs."""
    from spp.stages import extract as worker

    made = worker.extract(Store(root), source, kind, size, out, num_repair_samples)
    if as_json:
        row = {"asked": {kind: size}, "macs": made.macs, "params": made.params, "num_units": made.num_units}
        print(json.dumps({**row, "weights": str(made.weights), "file": str(made.file)}, indent=1))
        return 0
    print(f"asked:   {kind} {format_size(size)}")
    print(f"got:     {made.macs / 1e9:.6g} GFLOPs (multiply-adds), {made.params:,} parameters, {made.num_units} units")
    print(f"weights: {made.weights}")
    print(f"file:    {visible(str(made.file))}")
    print(f"load:    spp.load_member({str(made.file)!r})")
    return 0
