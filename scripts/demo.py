"""The demo of the README: one search on the UCI digits, a family of five, its table and its Figure 2.

Command: make demo. Minutes on two CPU cores; a second call finds everything done.
"""

import sys

from spp.cli.main import main
from spp.cli.store_place import store_root
from spp.cli.sweeps import find_sweep

WORDS = ["pipeline=spp", "model=vit_micro", "data=digits", "budget=macs", "num_threads=2"]


def demo() -> int:
    """Run the pipeline, print the family table, and say where the figure and the store are."""
    code = main(["run", *WORDS])
    if code:
        return code
    root = store_root(WORDS)
    sweep = find_sweep(root, None)
    print()
    code = main(["report", "all", sweep])
    print(f"store: {root}")
    print(f"another size, without training: .venv/bin/spp extract {sweep} --macs 0.35")
    return code


if __name__ == "__main__":
    sys.exit(demo())
