"""What was not run: the command that fills the cell, and about how many GPU-hours it takes."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from spp.plan.numbers import format_size
from spp.record.record import MissingMember, Record
from spp.record.rows import Row
from spp.report.groups import Group, budget_text, duration, num_searches, search_rows
from spp.report.published import Published, PublishedRecipe, PublishedValue

A100_MACS_PER_S = 0.3 * 156e12
"""30 % of an A100's bf16 peak: 312 TFLOPS are 156 T multiply-adds per second."""
PASSES = 3
"""A step costs a forward pass and a backward pass of twice that."""

FORMULA = (
    "Estimated GPU-hours are 3 x multiply-adds per sample x training samples x epochs, over 30 % of the bf16 peak of "
    "an A100 (312 TFLOPS, that is 156 T multiply-adds per second): the search at the size of the dense model, the "
    "finetuning at that of the member. They were not measured."
)
SPP_PRESETS = ("priced", "released")
"""The default and that of the authors' code: each has a row of its own."""


@dataclass(frozen=True)
class Training:
    """What a run costs by arithmetic; macs are multiply-adds per sample, num_samples those of one epoch."""

    dense_macs: float
    num_samples: int
    search_epochs: float
    finetune_epochs: float
    member_macs: tuple[float, ...]

    @property
    def gpu_hours(self) -> float:
        """Hours of one A100."""
        macs = self.search_epochs * self.dense_macs + self.finetune_epochs * sum(self.member_macs)
        return PASSES * self.num_samples * macs / A100_MACS_PER_S / 3600


@dataclass(frozen=True)
class EstimatedRun:
    """Words of `spp run` and what they cost."""

    words: str
    training: Training


CIFAR10 = EstimatedRun(
    "model=vit_cifar data=cifar10", Training(182.85e6, 45_000, 130, 50, (1.28e8, 9.1e7, 7.3e7, 5.5e7, 3.7e7))
)
"""Five budgets under the recipe of conf/recipe/cifar10.yaml; the dense network's 100 epochs are in it."""


def todo(what: str, command: str, cost: str) -> str:
    """One line of `Table.todo`."""
    return f"{what}: {command} ({cost})"


def hours_text(hours: float) -> str:
    """About 22 GPU-hours."""
    return f"about {hours:.2g} GPU-hours" if hours < 10 else f"about {hours:.0f} GPU-hours"


def value_todo(value: PublishedValue, preset: str | None, published: Published) -> str | None:
    """How to fill the cell beside a published value; None where this project cannot."""
    if value.words is None or value.search_epochs is None or value.finetune_epochs is None:
        return None
    fraction = published.fraction(value)
    dense = published.dense[value.model]
    member_macs = () if fraction is None else (fraction * dense.macs,)
    num_samples = published.setting.num_train_images
    training = Training(dense.macs, num_samples, value.search_epochs, value.finetune_epochs, member_macs)
    words = [value.words, *([f"method.preset={preset}"] if preset not in (None, "priced") else []), "paths.data=DIR"]
    label = f"{value.method} ({preset})" if preset else value.method
    budget = "" if value.budget is None else f", {budget_text(value.budget_kind or '', value.budget)}"
    what = f"{label}, {value.model} on {value.data}{budget}"
    return todo(what, " ".join(["spp run", *words]), hours_text(training.gpu_hours))


def recipe_todo(recipe: PublishedRecipe, published: Published) -> str | None:
    """How to run a row of Table 6; None where this project cannot."""
    if recipe.words is None:
        return None
    count = f"{len(recipe.budgets)} member{'s'[: len(recipe.budgets) > 1]}"
    what = f"spp (priced), {recipe.model} on {recipe.data}, {count}"
    cost = "its cost is in the experiment's file"
    if recipe.model in published.dense:
        cost = hours_text(_recipe_training(recipe, recipe.budgets, 1, published).gpu_hours)
    return todo(what, f"spp run {recipe.words} paths.data=DIR", cost)


def _recipe_training(
    recipe: PublishedRecipe, fractions: Sequence[float], num_more_searches: int, published: Published
) -> Training:
    """A row of Table 6 with members at fractions of the dense model, which come from so many searches."""
    dense = published.dense[recipe.model]
    return Training(
        dense.macs,
        published.setting.num_train_images,
        num_more_searches * (recipe.update_epochs + recipe.prune_epochs),
        recipe.finetune_epochs,
        tuple(fraction * dense.macs for fraction in fractions),
    )


def missing_todo(members: Sequence[MissingMember], rows: Sequence[Row], published: Published) -> str:
    """How to go on with members of one combination; what they cost is told by finished ones alike, else by Table 6."""
    first = members[0]
    label = f"{first.method} ({first.preset})" if first.preset else first.method
    variant = f" {first.variant}" if first.variant else ""
    seeds = list(dict.fromkeys(m.seed for m in members))
    budgets = list(dict.fromkeys(_budgets(members)))
    sizes = ", ".join(budget_text(first.budget_kind, budget) for budget in budgets)
    named = f"seed{'s'[: len(seeds) > 1]} {', '.join(map(str, seeds))}"
    what = f"{label}{variant}, {first.model} on {first.data}, {sizes}, {named}, {first.state}"
    command = first.command
    if len(seeds) > 1:
        command = sweep_command(first.command, first.method, [f"seed={','.join(map(str, seeds))}"])
    names = ("method", "task", "model", "data")
    num_more_searches = len({m.search_key for m in members})
    alike = [row for row in rows if all(row[name] == getattr(first, name) for name in names)]
    recipe = published.recipe(first.model)
    is_known = recipe is not None and first.data == recipe.data and first.model in published.dense
    if alike or recipe is None or not is_known or first.budget_kind == "units":
        exact = [row for row in alike if (row["preset"], row["variant"]) == (first.preset, first.variant)]
        other = ", by members with other settings" if alike and not exact else ""
        return todo(what, command, f"{cost_of_alike(exact or alike, len(members), num_more_searches)}{other}")
    dense = published.dense[first.model]
    total = dense.macs if first.budget_kind == "macs" else dense.params
    fractions = [budget if budget <= 1 else budget / total for budget in _budgets(members)]
    hours = _recipe_training(recipe, fractions, num_more_searches, published).gpu_hours
    return todo(what, command, f"{hours_text(hours)} with the epochs of Table 6")


def missing_todos(record: Record, wanted: Iterable[MissingMember], published: Published) -> tuple[str, ...]:
    """One line for all seeds and budgets of what was asked for and is not finished."""
    alike: dict[tuple[object, ...], list[MissingMember]] = {}
    for m in wanted:
        words = [word for word in shlex.split(m.command) if not word.startswith("seed=")]
        alike.setdefault(
            (m.method, m.preset, m.variant, m.task, m.model, m.data, m.budget_kind, m.state, *words), []
        ).append(m)
    lines = []
    for members in alike.values():
        # Seeds of one line lack the same budgets: their command asks for all of them.
        by_budgets: dict[tuple[float, ...], list[MissingMember]] = {}
        for seed in dict.fromkeys(m.seed for m in members):
            own = [m for m in members if m.seed == seed]
            by_budgets.setdefault(tuple(_budgets(own)), []).extend(own)
        lines += [missing_todo(part, record.rows, published) for part in by_budgets.values()]
    return tuple(lines)


def _budgets(members: Iterable[MissingMember]) -> list[float]:
    return [m.budget_asked for m in members]


def sweep_command(command: str, method: str, more: Sequence[str]) -> str:
    """The command of one point as that of a sweep over `more`, words that replace those of their fields.

    The method is always said: experiments bring sweeps of their own, most of them over methods.
    """
    fields = tuple(f"{word.partition('=')[0]}=" for word in more)
    words = [word for word in shlex.split(command)[2:] if word != "-m" and not word.startswith(fields)]
    named = [] if any(word.startswith("method=") for word in words) else [f"method={method}"]
    return shlex.join(["spp", "run", "-m", *words, *named, *more])


def budget_todo(group: Group, rows: Sequence[Row]) -> str:
    """How to fill a budget that other methods have and the one of `rows`, members of one combination, has not."""
    combination = group.combination
    words = [word for word in shlex.split(rows[0]["command"])[2:] if not word.startswith("budget")]
    seeds = sorted({row["seed"] for row in rows})
    budget = group.budget_asked if group.budget_asked <= 1 else format_size(group.budget_asked)
    words += [f"budget={group.budget_kind}", f"budget.values=[{budget}]"]
    command = shlex.join(["spp", "run", *words])
    if len(seeds) > 1:
        command = sweep_command(command, combination.method, [f"seed={','.join(map(str, seeds))}"])
    what = f"{combination.label}, {combination.model} on {combination.data}, {group.budget}"
    return todo(what, command, cost_of_alike(rows, len(seeds), len(seeds)))


def cost_of_alike(rows: Sequence[Row], num_members: int = 1, num_more_searches: int = 1) -> str:
    """About what more members cost, and the searches that they come from, by what those like them took."""
    if not rows:
        return "nothing alike has been run, so no estimate"
    searches, count = search_rows(rows), num_searches(rows)

    def total(unit: str) -> float:
        search = sum(row[f"search_{unit}"] for row in searches) / count
        return float(num_more_searches * search + num_members * mean(row[f"finetune_{unit}"] for row in rows))

    if total("gpu_seconds"):
        return f"{hours_text(total('gpu_seconds') / 3600)}, as measured on {rows[0]['device']}"
    return f"no GPU-hours: about {duration(total('seconds'), 0)} on {rows[0]['device']}, as measured"
