"""One search for all budgets: the chain of every method that ranks the units (magnitude, taylor, vit_slim, ...).

It differs from solution_path.py in the search alone: walk, finetuning, data and budgets are the same.

Reproduces: nothing of the methods' own papers, whose recipes differ; it compares methods under one recipe.
Command:    spp run method=taylor            (or: python pipelines/one_search.py method=taylor, the same words)
Smoke:      spp run method=taylor debug=fast
"""

import sys

from spp.methods.registry import check_kind
from spp.plan.numbers import format_size
from spp.plan.setup import Setup
from spp.plan.spec import Stage


def stages(run: Setup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    check_kind(run.method, "ranking")
    shared = {"model": run.model, "data": run.data, "seed": run.seed}

    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_network()

    # 2. The search scores every unit; what it needs less of the epochs than others goes to the walk.
    search_recipe, walk_recipe = run.share_epochs()
    ranking = run.stage(
        "search",
        label="ranking",
        inputs={"dense": dense},
        **shared,
        recipe=search_recipe,
        method=run.method.search(),
    )

    # 3. The ranking is walked from dense to sparse while the weights train; a member is kept at each budget.
    family = run.stage(
        "prune",
        label="family",
        inputs={"dense": dense, "path": ranking},
        **shared,
        recipe=walk_recipe,
        method=run.method.selection(),
        budget=run.budget,
    )

    # 4. Each member, now a small dense network, is trained on.
    return tuple(
        run.stage(
            "finetune",
            label=f"member {format_size(size)}",
            inputs={"family": family},
            **shared,
            recipe=run.finetune_of(size, walk_recipe),
            budget={"kind": run.budget.kind, "value": size},
        )
        for size in run.budget.values
    )


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", *sys.argv[1:]]))
