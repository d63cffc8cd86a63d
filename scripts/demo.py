"""The demo of the README: one search on the UCI digits, a family of five, its table and its Figure 2.

Command: make demo. Minutes on one CPU core; a second call finds everything done.
"""

import contextlib
import io
import sys

from spp.cli.main import main
from spp.cli.store_place import store_root
from spp.cli.sweeps import find_sweep

WORDS = ["data=digits"]


def demo() -> int:
    """Run the pipeline, print the family table, and say where its figure and its page are, and what to type next."""
    code = main(["run", *WORDS])
    if code:
        return code
    root = store_root(WORDS)
    sweep = find_sweep(root, None)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(["report", "all", sweep])  # dozens of files, of which three are for now
    folder = root / "reports" / sweep
    print()
    main(["report", "family", "--format", "csv", sweep])
    for what, name in (("figure", "figure2.png"), ("page", "report.html")):
        print(f"{what + ':':8s}{folder / name}")
    print(f"another size, without training: .venv/bin/spp extract {sweep} --macs 0.35")
    return code


if __name__ == "__main__":
    sys.exit(demo())
