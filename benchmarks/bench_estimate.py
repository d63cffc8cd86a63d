"""How far the estimates of spp plan are from what was then measured: python benchmarks/bench_estimate.py [--epochs N].

Runs the digits at five widths of a ViT, in one store that is empty at first, so that the first plan rests on nominal
numbers and every later one on what was measured by then. Prints for each what was estimated, what it took, and the
ratio.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spp.cli.main import main as spp
from spp.store.store import Store

WIDTHS = (64, 32, 96, 128, 192)
"""Embedding dimensions, each of 4 heads; the first is that of vit_micro."""


def planned(words: Sequence[str]) -> dict[str, float]:
    """Seconds by key that spp plan expects of what is to do, and 0 for what is done."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert spp(["plan", *words, "--json"]) == 0
    rows = json.loads(out.getvalue())["stages"]
    return {row["key"]: 0.0 if row["state"] == "done" else row["seconds"] for row in rows}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; exit code 1 if a width is off by more than a factor of 1.5."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=6)
    epochs = parser.parse_args(argv).epochs
    worst = 1.0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for place, width in enumerate(WIDTHS):
            words = ["model=vit_micro", f"model.kwargs.embed_dim={width}", "logger=off", f"paths.store={folder}"]
            words += [f"{kind}.epochs={epochs}" for kind in ("dense", "update", "prune", "finetune")]
            words += ["dense.warmup_epochs=1", "budget.values=[0.5,0.3]"]
            expected = planned(words)
            with contextlib.redirect_stdout(io.StringIO()):
                assert spp(["run", *words]) == 0
            took = {ref.key: store.done(ref.kind, ref.key)["seconds"] for ref in store.find_stages("")}
            estimate, measured = sum(expected.values()), sum(took[key] for key in expected)
            ratio = estimate / measured
            basis = "nominal" if place == 0 else "measured"
            print(
                f"width {width:4d}  {basis:8s}  estimated {estimate:7.1f} s  measured {measured:7.1f} s  x {ratio:.2f}",
                flush=True,
            )
            worst = max(worst, ratio, 1 / ratio)
    print(f"the furthest: a factor of {worst:.2f}")
    return 1 if worst > 1.5 else 0


if __name__ == "__main__":
    sys.exit(main())
