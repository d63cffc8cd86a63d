"""One search for each budget, and its walk: the chain of Lasso, whose lambda decides the size.

It differs from one_search.py in that every budget has a search and a walk of its own, with all their epochs; the
search ends in a ranking that fits its budget, and the walk leads to that budget alone.

Reproduces: Lasso of the paper's Figure 1, which finds one model per search; that figure's settings are not known.
Command:    spp run method=lasso            (or: python pipelines/one_lambda_per_budget.py method=lasso, the same words)
Smoke:      spp run method=lasso debug=fast
"""

import sys
from dataclasses import replace

from spp.plan.numbers import format_size
from spp.plan.setup import Setup
from spp.plan.spec import Stage

KIND = "budget ranking"
"""What its searches end in; it is the pipeline of the methods of this kind."""
RECIPES = ("dense", "search", "prune", "finetune")
"""The recipes that it uses."""


def stages(run: Setup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_network()

    search_recipe, walk_recipe = run.share_epochs()
    members = []
    for size in run.budget.values:
        # 2. Its weights frozen, the search finds the penalty at which the support has this size.
        ranking = run.stage(
            "search",
            label=f"search {format_size(size)}",
            inputs={"dense": dense},
            **run.shared,
            recipe=search_recipe,
            method=run.method.search_settings(KIND),
            budget={"kind": run.budget.kind, "value": size},
        )

        # 3. The ranking is walked from dense to this size while the weights train.
        family = run.stage(
            "prune",
            label=f"walk to {format_size(size)}",
            inputs={"dense": dense, "path": ranking},
            **run.shared,
            recipe=walk_recipe,
            method=run.method.selection_settings(),
            budget=replace(run.budget, values=[size]),
        )

        # 4. The member, now a small dense network, is trained on and measured.
        members.append(run.finetune_and_measure(family, dense, size, run.finetune))
    return tuple(members)


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", *sys.argv[1:]]))
