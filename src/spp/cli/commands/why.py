"""spp why: which fields make a stage another one than the nearest that is done."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spp.cli.difference_table import difference_rows, difference_table
from spp.cli.points import compose_points
from spp.cli.specs import Specs
from spp.cli.sweep_plan import plan_sweep
from spp.cli.table import make_console
from spp.plan.compare import Difference, differences, flat
from spp.store.store import Store

_NUM_COMPARED = 20
"""Done stages that are compared with all their inputs, the nearest by their own fields."""


def why(root: Path, prefix: str, words: Sequence[str], *, as_json: bool) -> int:
    """Print in which fields a stage differs from the nearest done one of its kind.

    Args:
        root: folder of the store.
        prefix: how the stage's key begins.
        words: those of a run that has not begun, whose plan has the stage; else the store has to know it.
        as_json: print one JSON object.

    Raises:
        ValueError: one line, if the key begins no stage or several.
    """
    store = Store(root)
    planned = plan_sweep(compose_points(words, multirun=False)).plan.stages.values() if words else ()
    specs = Specs(store, {stage.key: stage.to_json() for stage in planned})
    spec = specs.find(prefix)
    is_done = store.is_done(spec["kind"], spec["key"])
    nearest = _nearest(store, spec, specs)
    if as_json:
        row = {"kind": spec["kind"], "key": spec["key"], "done": is_done, "nearest": nearest and nearest[0]["key"]}
        print(json.dumps({**row, "differences": difference_rows(nearest[1]) if nearest else []}, indent=1))
        return 0
    console = make_console()
    console.print(f"{spec['kind']} {spec['key']} is {'done' if is_done else 'not done'}", soft_wrap=True)
    if nearest is None:
        console.print(f"there is no {'other ' if is_done else ''}{spec['kind']} that is done")
        return 0
    other, found = nearest
    console.print(f"the nearest that is done is {other['kind']} {other['key']}:", soft_wrap=True)
    console.print(difference_table(found, "this one", "the done one"))
    return 0


def _nearest(store: Store, spec: Mapping[str, Any], specs: Specs) -> tuple[Mapping[str, Any], list[Difference]] | None:
    """The done stage of this kind with the fewest other fields, those of its inputs included; None if there is none."""
    own = flat(spec["config"])
    refs = [ref for ref in store.find_stages("") if ref.kind == spec["kind"] and ref.key != spec["key"]]
    found = [other for ref in refs if store.is_done(ref.kind, ref.key) and (other := specs.of(ref.kind, ref.key))]
    ranked = sorted(found, key=lambda other: (_num_other(own, flat(other["config"])), other["key"]))
    compared = [(other, differences(spec, other, specs.of)) for other in ranked[:_NUM_COMPARED]]
    return min(compared, key=lambda pair: len(pair[1]), default=None)


def _num_other(left: Mapping[str, Any], right: Mapping[str, Any]) -> int:
    return sum(left.get(name) != right.get(name) for name in {*left, *right})
