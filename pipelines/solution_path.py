"""Solution Path Pruning: one search, then a compact model for every budget (pipeline=spp).

The algorithm of the paper as a chain of stages. Only the last line is run once per budget.

Reproduces: the rows of SPP in the paper's tables; with the default data, the digits demo of the README.
Command:    spp run pipeline=spp            (or: python pipelines/solution_path.py, the same words)
Smoke:      spp run pipeline=spp debug=fast
"""

import sys

from spp.plan.setup import Setup
from spp.plan.spec import Stage

KIND = "path"
"""What its searches end in; it is the pipeline of the methods of this kind."""
RECIPES = ("dense", "update", "prune", "finetune")
"""The recipes that it uses."""


def stages(run: Setup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_network()

    # 2. Its weights frozen, the mask dynamics run once; the order of entry is the path.
    path = run.stage(
        "update",
        label="path",
        inputs={"dense": dense},
        **run.shared,
        recipe=run.update,
        method=run.method.search_settings(KIND),
    )

    # 3. The path is walked from dense to sparse while the weights train; a member is kept at each budget.
    family = run.stage(
        "prune",
        label="family",
        inputs={"dense": dense, "path": path},
        **run.shared,
        recipe=run.prune,
        method=run.method.selection_settings(),
        budget=run.budget,
    )

    # 4. Each member, now a small dense network, is trained on and measured.
    return tuple(
        run.finetune_and_measure(family, dense, size, run.finetune_of(size, run.prune)) for size in run.budget.values
    )


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", "pipeline=spp", *sys.argv[1:]]))
