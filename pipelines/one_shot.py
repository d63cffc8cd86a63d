"""One-shot pruning of single weights of a language model: calibrate, choose a mask layer by layer, measure.

Nothing is trained after the cut. What differs between rows is one axis at a time: method, group, pattern, permutation,
weight update, allocation over layers, calibration.

Reproduces: the language models of the paper's third table as far as its protocol is known (conf/experiment/llama2_*).
Command:    spp run pipeline=one_shot task=language model=llama_micro data=pydocs method=ria
Smoke:      spp run experiment=one_shot_pydocs method=ria dense.epochs=0 calibration.num_windows=4 data.num_windows=4
"""

import sys

from spp.plan.one_shot import OneShotSetup
from spp.plan.spec import Stage

KIND = "weights"
"""What its searches end in: masks of single weights."""
RECIPES = ("dense",)
"""The recipes that it uses."""


def stages(run: OneShotSetup) -> tuple[Stage, ...]:
    """The final stages of one point; everything before them hangs on their inputs."""
    # 1. A dense network: trained here, or the one we were given.
    dense = run.dense_model()

    # 2. The texts as windows of tokens: some to calibrate with, some to measure on.
    drawn = run.stage("tokens", label="calibration", inputs={"dense": dense}, text=run.calibration, seed=run.seed)
    held_out = run.stage("tokens", label="held out", inputs={"dense": dense}, text=run.data)

    # 3. Layer by layer a mask is chosen, and the activations go on through the pruned layer.
    sparse = run.stage(
        "sparsify",
        label=run.method.name,
        inputs={"dense": dense, "tokens": drawn},
        method=run.method,
        sparsity=run.sparsity,
        dtype=run.dtype,
        budget=run.budget,
        seed=run.seed,
    )

    # 4. The member is measured beside the dense network.
    reference = run.stage("measure", label="dense", inputs={"member": dense, "tokens": held_out}, **run.measured)
    inputs = {"member": sparse, "tokens": held_out, "reference": reference}
    return (run.stage("measure", label=f"member {run.method.name}", inputs=inputs, budget=run.budget, **run.measured),)


if __name__ == "__main__":
    from spp.cli.main import main

    sys.exit(main(["run", "pipeline=one_shot", *sys.argv[1:]]))
