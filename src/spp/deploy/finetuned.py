"""A member of one's own size, trained on by the recipe of the sweep that its path is from, as stages of the store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spp.plan.config import BudgetConfig
from spp.plan.graph import Plan, Point
from spp.plan.numbers import format_size
from spp.plan.setup import STAGE_VERSIONS
from spp.plan.spec import Stage
from spp.record.lineage import Lineage, measures_member
from spp.stages.worker import run_stage
from spp.store.store import Store


def finetune_member(store: Store, search_key: str, kind: str, size: float, multiple_of: int | None) -> None:
    """Do what `spp run` would do for one more budget: cut, repair, finetune and measure a member.

    What is done already is not done again, and what was interrupted goes on. The stages are those of the newest sweep
    that has finetuned a member of this path, but for the budget, and make up a sweep of their own, so that reports have
    the member, too.

    Args:
        store: where the path's stages are.
        search_key: of the path's stage.
        kind: macs, params or units.
        size: a fraction of the dense network (<= 1) or absolute.
        multiple_of: of the widths; None: as in that sweep.

    Raises:
        ValueError: one line, if no sweep has finetuned a member of this path.
    """
    point, lineage = _newest(store, search_key, size)
    measure = _measured(lineage, kind, size, multiple_of)
    words = (word for word in point.overrides if not word.startswith("budget."))
    budget = [f"budget.kind={kind}", f"budget.values=[{size:.10g}]"]
    more = [] if multiple_of is None else [f"budget.multiple_of={multiple_of}"]
    plan = Plan.merge([replace(point, overrides=(*words, *budget, *more), stages=(measure,))])
    for stage in plan.stages.values():
        if not store.is_done(stage.kind, stage.key):
            store.put_spec(stage)
    name = f"extract-{point.meta['model']}-{point.meta['data']}-{measure.key[:6]}"
    if name not in store.list_sweeps():
        store.write_plan(name, plan)
    for stage in plan.stages.values():
        if not store.is_done(stage.kind, stage.key):
            run_stage(store.root, stage.kind, stage.key, wait_for_holder=True)


def _newest(store: Store, search_key: str, size: float) -> tuple[Point, Lineage]:
    """Of the newest sweep that has finetuned members of a path the one whose size is nearest, and its point."""
    for sweep in store.list_sweeps():
        plan = store.read_plan(sweep)
        found = [
            (abs(stage.config["budget"]["value"] - size), place, point, lineage)
            for place, point in enumerate(plan.points)
            for stage in point.stages
            if measures_member(stage.kind, stage.config)
            and (lineage := Lineage.of(stage)).finetune is not None
            and lineage.search.key == search_key
            and lineage.is_walked
        ]
        if found:
            _, _, point, lineage = min(found, key=lambda one: one[:2])
            return point, lineage
    raise ValueError(
        "--finetune: no sweep of this store has finetuned a member of this path, so there is no recipe; allowed: a "
        "path of a sweep with finetune.epochs=1 or more; leave --finetune out, or spp run with budget.values="
        f"[{format_size(size)}]"
    )


def _measured(lineage: Lineage, kind: str, size: float, multiple_of: int | None) -> Stage:
    """The chain of a lineage for another budget."""
    assert lineage.finetune is not None
    before = BudgetConfig.from_spec(lineage.family.config["budget"], "budget")
    wanted = replace(before, kind=kind, values=[size], multiple_of=multiple_of or before.multiple_of)
    family = _again(lineage.family, {}, budget=wanted.identity())
    budget = {"kind": kind, "value": size}
    if lineage.repair is not None:
        family = _again(lineage.repair, {"family": family})
    label = f"member {format_size(size)}"
    member = _again(lineage.finetune, {"family": family}, label=label, budget=budget)
    return _again(lineage.measure, {"member": member}, label=label, budget=budget)


def _again(stage: Stage, inputs: Mapping[str, Stage], label: str | None = None, **config: Mapping[str, Any]) -> Stage:
    """A stage with some inputs and parts of its config replaced, to be done by one process here."""
    return Stage(
        kind=stage.kind,
        config={**stage.config, **config},
        inputs={**stage.inputs, **inputs},
        version=STAGE_VERSIONS[stage.kind],
        label=stage.label if label is None else label,
        runtime={**stage.runtime, "devices": 1, "num_nodes": 1},
        resources=stage.resources,
    )
