"""What a pipeline file works with: the checked configuration of one point, and the way to make its stages.

Where it comes from: `spp.plan.reading`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from spp.config import Config, require
from spp.plan.cluster import ClusterConfig
from spp.plan.config import JOINT, BudgetConfig, RepairConfig, RuntimeConfig
from spp.plan.numbers import format_size
from spp.plan.recipes import DenseConfig, PassConfig, PruneConfig, RecipeConfig, SearchConfig, UpdateConfig
from spp.plan.spec import Stage
from spp.plan.walk import time_share_at

if TYPE_CHECKING:
    # For types alone: at run time plan calls on nobody, and what it needs of other rooms comes from outside.
    from spp.data.config import DataConfig
    from spp.methods.method import MethodConfig
    from spp.models.config import ModelConfig
    from spp.tasks.config import TaskConfig

STAGE_VERSIONS = {
    "dense": 1,
    "update": 2,
    "search": 1,
    "prune": 1,
    "repair": 1,
    "finetune": 1,
    "tokens": 1,
    "sparsify": 1,
    "measure": 2,
}
"""The kinds of stages; a version is raised by hand when a stage's code starts to give other results for one config."""

PADDED = ("bert", "clip")
"""Libraries whose networks read padded texts: what `repair` makes of them has changed once more than of the others."""

SEARCHES = ("update", "search")
"""The kinds whose results depend on the code of the method, too; its revisions are added to their version."""

_Recipe = TypeVar("_Recipe", bound=PassConfig)


@dataclass(frozen=True, kw_only=True)
class PointSetup:
    """What every pipeline may use, checked; `recipes` holds those that the pipeline names, and no others.

    `teacher` is a network that teaches in place of the dense one; None: the dense one.
    """

    task: "TaskConfig"
    model: "ModelConfig"
    teacher: "ModelConfig | None"
    data: "DataConfig"
    seed: int
    recipes: Mapping[str, PassConfig]
    runtime: RuntimeConfig
    cluster: ClusterConfig
    default_gpus: int

    @property
    def dense(self) -> DenseConfig:
        """The recipe of the dense network."""
        return self._recipe("dense", DenseConfig)

    def _recipe(self, name: str, kind: type[_Recipe]) -> _Recipe:
        if name not in self.recipes:
            raise ValueError(
                f"pipeline: it uses the recipe {name!r}; allowed: those that its RECIPES name; add {name!r} to them"
            )
        recipe = self.recipes[name]
        assert isinstance(recipe, kind)
        return recipe

    def stage(
        self,
        kind: str,
        *,
        label: str,
        inputs: Mapping[str, Stage] | None = None,
        **config: Config | Mapping[str, Any] | float | str,
    ) -> Stage:
        """One stage of a pipeline: `config` is what its key hashes, next to the keys of its inputs.

        A stage whose recipe distills from another network than the dense one also has that in its config.
        """
        recipe = config.get("recipe")
        if self.teacher is not None and isinstance(recipe, PassConfig) and recipe.distills:
            config = {**config, "teacher": self.teacher}
        plain = {
            name: value if isinstance(value, Mapping | int | float | str) else value.identity()
            for name, value in config.items()
        }
        runtime, resources = self._placement_of(kind)
        return Stage(
            kind=kind,
            config=plain,
            inputs=dict(inputs or {}),
            version=STAGE_VERSIONS[kind] + self.num_revisions(kind),
            label=label,
            runtime=runtime,
            resources=resources,
        )

    def num_revisions(self, kind: str) -> int:
        """What the point's method, or model, adds to the version of a kind of stages."""
        return 0

    def _placement_of(self, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """How and with what the stages of a kind run."""
        if kind not in self._placements:
            resources = self.cluster.resources_of(kind, self.default_gpus)
            runtime = replace(self.runtime, devices=resources.num_tasks_per_node, num_nodes=resources.num_nodes)
            self._placements[kind] = runtime.plain(), resources.plain()
        return self._placements[kind]

    @cached_property
    def _placements(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Setup(PointSetup):
    """Everything that a pipeline which prunes units may use.

    `measured_augment` is what the recipe of the finetuning says of samples that are only looked at.
    """

    method: "MethodConfig"
    budget: BudgetConfig
    measured_augment: Mapping[str, Any]
    rest_of_walk: bool
    repair: RepairConfig

    def num_revisions(self, kind: str) -> int:
        is_padded = self.model.library in PADDED
        if kind == "repair":
            return int(is_padded)
        if kind not in SEARCHES:
            return 0
        return self.method.num_revisions + (self.method.num_revisions_of_texts if is_padded else 0)

    @property
    def update(self) -> UpdateConfig:
        """The recipe of SPP's search."""
        return self._recipe("update", UpdateConfig)

    @property
    def search(self) -> SearchConfig:
        """The recipe of every other search."""
        return self._recipe("search", SearchConfig)

    @property
    def prune(self) -> PruneConfig:
        """The recipe of the walk."""
        return self._recipe("prune", PruneConfig)

    @property
    def finetune(self) -> RecipeConfig:
        """The recipe of the training after the cut."""
        return self._recipe("finetune", RecipeConfig)

    @property
    def shared(self) -> dict[str, Any]:
        """What the config of every stage that trains holds."""
        towers = {} if self.budget.towers == JOINT else {"towers": self.budget.towers}
        return {"task": self.task, "model": self.model, "data": self.data, "seed": self.seed, **towers}

    def dense_network(self) -> Stage:
        """The dense network that every method starts from; given weights depend on no recipe and no seed."""
        # How it will be masked is none of its concern.
        model = replace(self.model, per_head=False)
        trained: dict[str, Any] = {"recipe": self.dense, "seed": self.seed} if self.model.is_trained else {}
        return self.stage("dense", label="dense", task=self.task, model=model, data=self.data, **trained)

    def share_epochs(self) -> tuple[SearchConfig, PruneConfig]:
        """The recipes of search and walk for a method that may need less than `search.epochs` for its search.

        What is left over goes to the walk or, where there is none, to the finetuning (`finetune_of`): all methods have
        equal epochs in all. A search asked for by its steps has these, or none where the method needs no data. Where
        the weights stand still the targets are the data's own, as in `update`.
        """
        if self.search.steps is None:
            needed = self.search.epochs - self._unspent_epochs
            search = replace(self.search, epochs=needed, warmup_epochs=min(self.search.warmup_epochs, needed))
        else:
            search = replace(self.search, steps=None if self.method.max_search_epochs == 0 else self.search.steps)
        if not self.method.trains_weights:
            search = search.with_own_targets()
        more = self._unspent_epochs if self.prune.epochs > 0 else 0
        return search, replace(self.prune, epochs=self.prune.epochs + more)

    @property
    def _unspent_epochs(self) -> int:
        """Epochs of `search` that the method's search does not need; 0 in pipelines without that recipe."""
        limit = self.method.max_search_epochs
        if limit is None or "search" not in self.recipes:
            return 0
        return max(0, self.search.epochs - limit)

    def joint_epochs(self) -> SearchConfig:
        """The recipe of a search that is the walk at the same time: it has the epochs of both.

        Raises:
            ValueError: one is asked for by its steps, the other by its epochs.
        """
        steps, epochs = self.search.steps, self.prune.epochs
        allowed = f"0 with method={self.method.name}, whose search is the walk, beside search.steps={steps}"
        require(steps is None or epochs == 0, "prune.epochs", epochs, allowed, "use prune.epochs=0")
        return replace(self.search, epochs=self.search.epochs + self.prune.epochs)

    def finetune_of(self, size: float, walk: PruneConfig) -> RecipeConfig:
        """The finetuning of the member that a walk to all budgets takes at `size`.

        Without a walk it also has what the search has left over, unless nothing is trained at all. With `rest_of_walk`
        it has, in whole epochs, what comes of the walk after the member is taken: the weights of every member then
        train for as many epochs as those of the smallest.
        """
        if walk.epochs == 0:
            more = self._unspent_epochs if self.finetune.epochs > 0 else 0
            return replace(self.finetune, epochs=self.finetune.epochs + more)
        if not self.rest_of_walk:
            return self.finetune
        smallest = min(self.budget.values)
        way = (1 - size) / (1 - smallest) if smallest < 1 else 1.0
        rest = round((1 - time_share_at(walk.shape, way)) * walk.epochs)
        return replace(self.finetune, epochs=self.finetune.epochs + rest)

    def finetune_and_measure(self, family: Stage, dense: Stage, size: float, recipe: RecipeConfig) -> Stage:
        """The end of every chain: the members of `family` are repaired, that at a budget is trained on and measured.

        Where the recipe has no epochs there is nothing to train, and the member is measured as it was repaired or cut.
        """
        budget = {"kind": self.budget.kind, "value": size}
        member = family = self._repaired(family, dense)
        if recipe.epochs > 0:
            teacher = {"dense": dense} if recipe.distills and self.teacher is None else {}
            label, inputs = f"member {format_size(size)}", {"family": family, **teacher}
            member = self.stage("finetune", label=label, inputs=inputs, **self.shared, recipe=recipe, budget=budget)
        inputs = {"member": member, "reference": self._measured("dense", {"member": dense})}
        return self._measured(f"member {format_size(size)}", inputs, budget=budget)

    def _repaired(self, family: Stage, dense: Stage) -> Stage:
        """The family with the weights of every member re-fitted to the dense network, or as it is."""
        if not self.repair.is_on:
            return family
        inputs = {"family": family, "dense": dense}
        return self.stage(
            "repair",
            label=family.label,
            inputs=inputs,
            task=self.task,
            data=self.data,
            seed=self.seed,
            augment=self.measured_augment,
            repair=self.repair,
        )

    def _measured(self, label: str, inputs: Mapping[str, Stage], **budget: Mapping[str, Any]) -> Stage:
        """A look at the test set, at samples that look like those of the finetuning."""
        stage = self.stage(
            "measure",
            label=label,
            inputs=inputs,
            task=self.task,
            data=self.data,
            augment=self.measured_augment,
            **budget,
        )
        # As many as the finetuning has fit into memory; how many they are is no part of what is measured.
        return replace(stage, runtime={**stage.runtime, "measure_batch_size": self.finetune.batch_size})
