"""Sizes of dense networks without their weights: python -m spp.stages.sizes < questions.

A question is {"model": config, "inputs": {...}, "num_outputs": n, "min_units": n, "towers": name, if any, "budget":
{kind, values}, if any}, a line of JSON each; so is an answer, {"macs", "params", "units", "range": kind -> least and
largest budget, "refused": why a budget cannot be reached, or null} or {"error": text}; "range" is empty of a network
that cannot be pruned. Networks are built on torch's meta device: no memory is taken, no weight is drawn, no file is
read.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from spp.dynamics.budget import KINDS, OutOfReachError, absolute_size, budget_range
from spp.models.build import architecture_of, build
from spp.models.config import TRAIN, ModelConfig
from spp.structure.cost import count_cost
from spp.structure.find import example_inputs, find_pairs
from spp.structure.pair import Pair
from spp.structure.towers import JOINT, pairs_of_tower


def sizes(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to a question.

    Raises:
        ValueError: if the network cannot be built.
    """
    # Its own weights would be loaded; how large it is does not depend on them.
    config = ModelConfig.from_spec({**question["model"], "weights": TRAIN, "ema": False, "tag": None}, "model")
    inputs = question["inputs"]
    with torch.device("meta"):
        model = build(architecture_of(config, inputs, question["num_outputs"], samples={}, outputs=""))
    try:
        whole = find_pairs(model, per_head=config.per_head)
    except ValueError:  # nothing of it can be pruned: a teacher of images
        cost = count_cost(
            model, torch.empty(1, inputs["in_chans"], inputs["img_size"], inputs["img_size"], device="meta")
        )
        return {"macs": cost.macs, "params": cost.params, "units": 0, "range": {}, "refused": None}
    cost = count_cost(model, example_inputs(model))
    cost = count_cost(model, example_inputs(model))
    pairs = pairs_of_tower(model, whole, question.get("towers", JOINT))
    refused = _refused(pairs, question["budget"], question["min_units"]) if "budget" in question else None
    within = {kind: budget_range(pairs, kind, question["min_units"]) for kind in KINDS}
    size = {"macs": cost.macs, "params": cost.params, "units": sum(pair.size for pair in whole)}
    return {**size, "range": within, "refused": refused}


def _refused(pairs: Sequence[Pair], budget: Mapping[str, Any], min_units: int) -> str | None:
    try:
        for size in budget["values"]:
            absolute_size(pairs, budget["kind"], size, min_units, field="budget.values")
    except OutOfReachError as error:
        return str(error)
    return None


def main() -> int:
    """Answer the questions on stdin."""
    for line in sys.stdin:
        try:
            answer = sizes(json.loads(line))
        except (ValueError, RuntimeError, NotImplementedError, TypeError) as error:
            answer = {"error": str(error).splitlines()[0] if str(error) else type(error).__name__}
        print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
