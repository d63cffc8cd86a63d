"""spp: prune a transformer once, deploy it at any size."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spp.deploy.folder import load, push_to_hub, save_member
    from spp.dynamics.bregman import BregmanOptimizer
    from spp.dynamics.path import SolutionPath
    from spp.methods.weights.one_linear import choose_mask, update_weights
    from spp.sparsity.statistics import InputStats
    from spp.structure.compact import compact
    from spp.structure.cost import Cost, count_cost
    from spp.structure.find import find_pairs
    from spp.structure.masked import MaskedModel
    from spp.structure.pair import Pair
    from spp.structure.repair import repair
    from spp.tasks.recall import recall

__version__ = "0.2.0"

_HOMES = {
    "BregmanOptimizer": "spp.dynamics.bregman",
    "Cost": "spp.structure.cost",
    "InputStats": "spp.sparsity.statistics",
    "MaskedModel": "spp.structure.masked",
    "Pair": "spp.structure.pair",
    "SolutionPath": "spp.dynamics.path",
    "choose_mask": "spp.methods.weights.one_linear",
    "compact": "spp.structure.compact",
    "count_cost": "spp.structure.cost",
    "find_pairs": "spp.structure.find",
    "load": "spp.deploy.folder",
    "push_to_hub": "spp.deploy.folder",
    "save_member": "spp.deploy.folder",
    "recall": "spp.tasks.recall",
    "repair": "spp.structure.repair",
    "update_weights": "spp.methods.weights.one_linear",
}

__all__ = [
    "BregmanOptimizer",
    "Cost",
    "InputStats",
    "MaskedModel",
    "Pair",
    "SolutionPath",
    "choose_mask",
    "compact",
    "count_cost",
    "find_pairs",
    "load",
    "push_to_hub",
    "recall",
    "repair",
    "save_member",
    "update_weights",
]


def __getattr__(name: str) -> Any:
    # Lazy, because `import spp` must not cost the seconds that torch takes.
    if name not in _HOMES:
        raise AttributeError(f"module 'spp' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
