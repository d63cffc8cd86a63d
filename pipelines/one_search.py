"""One search for all budgets: the chain of every method that ranks the units (magnitude, taylor, vit_slim, ...).

It differs from solution_path.py in the search alone: walk, finetuning, data and budgets are the same.

Reproduces: nothing of the methods' own papers, whose recipes differ; it compares methods under one recipe.
Command:    spp run method=taylor            (or: python pipelines/one_search.py method=taylor, the same words)
Smoke:      spp run method=taylor debug=fast
"""

import sys

from spp.plan.setup import Setup
from spp.plan.spec import Stage

KIND = "ranking"
"""What its searches end in; it is the pipeline of the methods of this kind."""
RECIPES = ("dense", "search", "prune", "finetune")
"""The recipes that it uses."""


def stages(run: Setup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_network()

    # 2. The search scores every unit; what it needs less of the epochs than others goes to the walk.
    search_recipe, walk_recipe = run.share_epochs()
    ranking = run.stage(
        "search",
        label="ranking",
        inputs={"dense": dense},
        **run.shared,
        recipe=search_recipe,
        method=run.method.search_settings(KIND),
    )

    # 3. The ranking is walked from dense to sparse while the weights train; a member is kept at each budget.
    family = run.stage(
        "prune",
        label="family",
        inputs={"dense": dense, "path": ranking},
        **run.shared,
        recipe=walk_recipe,
        method=run.method.selection_settings(),
        budget=run.budget,
    )

    # 4. Each member, now a small dense network, is trained on and measured.
    return tuple(
        run.finetune_and_measure(family, dense, size, run.finetune_of(size, walk_recipe)) for size in run.budget.values
    )


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", *sys.argv[1:]]))
