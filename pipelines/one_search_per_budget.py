"""One search for each budget: the chain of every method that aims at a size (upop, wdpruning, leap, dsp).

The weights train while the masks move, so a search has the epochs of both the search and the walk of solution_path.py,
and it has them for every budget anew.

Reproduces: nothing of the methods' own papers, whose recipes differ; it compares methods under one recipe.
Command:    spp run method=upop            (or: python pipelines/one_search_per_budget.py method=upop, the same words)
Smoke:      spp run method=upop debug=fast
"""

import sys

from spp.plan.numbers import format_size
from spp.plan.setup import Setup
from spp.plan.spec import Stage

KIND = "budget"
"""What its searches end in; it is the pipeline of the methods of this kind."""
RECIPES = ("dense", "search", "prune", "finetune")
"""The recipes that it uses."""


def stages(run: Setup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_network()

    members = []
    for size in run.budget.values:
        # 2. Masks and weights move together until the size is reached; that is the member.
        found = run.stage(
            "search",
            label=f"search {format_size(size)}",
            inputs={"dense": dense},
            **run.shared,
            recipe=run.joint_epochs(),
            method=run.method.search_settings(KIND),
            budget={"kind": run.budget.kind, "value": size},
        )

        # 3. The member, now a small dense network, is trained on and measured.
        members.append(run.finetune_and_measure(found, dense, size, run.finetune))
    return tuple(members)


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", *sys.argv[1:]]))
