"""Sizes of dense networks without their weights: python -m spp.stages.sizes < questions.

A question is {"model": config, "inputs": {...}, "num_outputs": n, "min_units": n, "towers": name, if any, "budget":
{kind, values}, if any, "selection": {method: its settings, kind, values, multiple_of, form}, if any}, a line of JSON
each; so is an answer, {"macs", "params", "units", "num_pairs": kind -> number, "range": kind -> least and largest
budget, "refused": why a budget cannot be reached, or null, "out_of_reach": [budget, why the selection cannot serve it]
of those} or {"error": text}; "range" is empty of a network that cannot be pruned. Networks are built on torch's meta
device: no memory is taken, no weight is drawn, no file is read.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from spp.dynamics.budget import KINDS, OutOfReachError, absolute_size, budget_range
from spp.methods.reach import refusals
from spp.methods.registry import config_class
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
        return {"macs": cost.macs, "params": cost.params, "units": 0, "num_pairs": {}, "range": {}, "refused": None}
    cost = count_cost(model, example_inputs(model))
    pairs = pairs_of_tower(model, whole, question.get("towers", JOINT))
    refused = _refused(pairs, question["budget"], question["min_units"]) if "budget" in question else None
    out_of_reach = _out_of_reach(pairs, question["selection"]) if "selection" in question else []
    within = {kind: budget_range(pairs, kind, question["min_units"]) for kind in KINDS}
    size = {"macs": cost.macs, "params": cost.params, "units": sum(pair.size for pair in whole)}
    num_pairs = dict(Counter(pair.kind for pair in whole))
    return {**size, "num_pairs": num_pairs, "range": within, "refused": refused, "out_of_reach": out_of_reach}


def _refused(pairs: Sequence[Pair], budget: Mapping[str, Any], min_units: int) -> str | None:
    try:
        for size in budget["values"]:
            absolute_size(pairs, budget["kind"], size, min_units, field="budget.values")
    except OutOfReachError as error:
        return str(error)
    return None


def _out_of_reach(pairs: Sequence[Pair], selection: Mapping[str, Any]) -> list[tuple[float, str]]:
    config = config_class(selection["method"]["name"]).from_spec(selection["method"], "method")
    wanted = (selection["kind"], selection["values"], selection["multiple_of"], selection["form"])
    return list(refusals(config, pairs, *wanted).items())


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
