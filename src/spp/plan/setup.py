"""What a pipeline file works with: the checked configuration of one point, and the way to make its stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spp.config import Config, require
from spp.plan.about import ABOUT_FIELDS
from spp.plan.cluster import DEFAULT, ClusterConfig
from spp.plan.config import JOINT, BudgetConfig, LoggerConfig, RepairConfig, RuntimeConfig
from spp.plan.numbers import format_size
from spp.plan.recipes import RECIPES, DenseConfig, PassConfig, PruneConfig, RecipeConfig, SearchConfig, UpdateConfig
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

GENERAL_FIELDS = (
    "accelerator", "budget", "calibration", "cluster", "data", "logger", "method", "model", "num_threads",
    "num_workers", "paths", "pipeline", "repair", "rest_of_walk", "seed", "sparsity", "store", "task", "teacher",
)  # fmt: skip
"""Top-level fields of every configuration; beside them stand the recipes, of which a pipeline names its own."""

_MISSING = "???"
"""How Hydra writes a field that has to be set."""

_Recipe = TypeVar("_Recipe", bound=PassConfig)


@dataclass(frozen=True)
class Readers:
    """How the groups of other rooms become configs; plan calls on nobody, so they come from outside.

    `task`, `model`, `teacher` and `data` return the config and how its files are found here (`RuntimeConfig`), and
    `teacher` None for the dense network; the last argument of `data` is the folder for its caches. `fingerprint` gets
    what `data` returned. `fixed_augment` returns what of a recipe's `augment` also changes samples that are only looked
    at.
    """

    task: "Callable[[dict[str, Any]], tuple[TaskConfig, dict[str, Any]]]"
    model: "Callable[[dict[str, Any]], tuple[ModelConfig, dict[str, Any]]]"
    teacher: "Callable[[dict[str, Any]], tuple[ModelConfig | None, dict[str, Any]]]"
    data: "Callable[[dict[str, Any], str], tuple[DataConfig, dict[str, Any]]]"
    fingerprint: "Callable[[DataConfig, dict[str, Any]], dict[str, Any]]"
    fixed_augment: "Callable[[Mapping[str, Any]], dict[str, Any]]"


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
        if kind == "repair":
            return int(self.model.library in PADDED)
        return self.method.num_revisions if kind in SEARCHES else 0

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


def check_fields(cfg: Mapping[str, Any]) -> None:
    """Refuse what no part of the program would read, and notice what is missing; `pipeline` follows from the method.

    Raises:
        ValueError: one line.
    """
    known = (*GENERAL_FIELDS, *ABOUT_FIELDS, *RECIPES)
    for name, value in cfg.items():
        if name not in known:
            raise ValueError(f"{name}: {value!r} is an unknown field; allowed: {', '.join(known)}; remove it")
    for name in GENERAL_FIELDS:
        if name != "pipeline":
            _check_set(name, cfg.get(name))


def _check_set(name: str, value: Any) -> None:
    """Refuse a field that is not there, or holds one that still has to be set."""
    if value is None:
        raise ValueError(f"{name}: None is not allowed; allowed: what conf/ has; leave it as it is there")
    if value == _MISSING:
        raise ValueError(f"{name}: it is not set; allowed: a value; say {name}=...")
    if isinstance(value, Mapping):
        for field, inner in value.items():
            if inner == _MISSING or isinstance(inner, Mapping):
                _check_set(f"{name}.{field}", inner)


def read_setup(
    cfg: Mapping[str, Any], method: "MethodConfig", recipes: Sequence[str], readers: Readers, default_gpus: int
) -> Setup:
    """Check a resolved configuration and turn it into a Setup.

    Args:
        cfg: the composed configuration as plain dicts and lists, after `check_fields`.
        method: what was read from its group `method`.
        recipes: names of the recipes that the pipeline uses; the others are not looked at.
        readers: of the other rooms.
        default_gpus: GPUs of a stage whose resources leave their number open.

    Raises:
        ValueError: one line that names the field, the value, what is allowed and the remedy.
    """
    common = read_common(cfg, recipes, readers, default_gpus)
    budget = BudgetConfig.read(cfg["budget"], "budget")
    ranks = method.kinds[0] != "budget"
    allowed = f"1 for method={method.name}, whose search ends in one member"
    require(ranks or budget.multiple_of == 1, "budget.multiple_of", budget.multiple_of, allowed, "use 1")
    allowed = f"free for method={method.name}, whose search ends in one member"
    require(ranks or budget.form == "free", "budget.form", budget.form, allowed, "use free")
    finetune = common["recipes"].get("finetune")
    for name, recipe in common["recipes"].items():
        is_driven = name in SEARCHES and method.is_driven_by_dense
        allowed = f"0 where the dense network alone drives the search of method={method.name}"
        require(not (is_driven and recipe.distills), f"{name}.distill_weight", recipe.distill_weight, allowed, "use 0")
    repair = RepairConfig.read(cfg["repair"], "repair")
    _check_repair(repair, method, common["recipes"].get("prune"))
    setup = Setup(
        **common,
        method=method,
        budget=budget,
        measured_augment=readers.fixed_augment(finetune.augment) if finetune is not None else {},
        rest_of_walk=_read_rest_of_walk(cfg["rest_of_walk"], budget),
        repair=repair,
    )
    model = replace(setup.model, per_head=True) if method.needs_heads else setup.model
    # Last, as it looks at files: what else is wrong has been said by then.
    return replace(setup, model=model, data=with_fingerprint(setup, readers))


def read_common(cfg: Mapping[str, Any], recipes: Sequence[str], readers: Readers, default_gpus: int) -> dict[str, Any]:
    """The fields of a PointSetup, checked but for the fingerprint of the data (`with_fingerprint`).

    Raises:
        ValueError: one line.
    """
    cluster = _read_cluster(cfg["cluster"])
    task, task_runtime = readers.task(dict(cfg["task"]))
    model, model_runtime = readers.model(dict(cfg["model"]))
    teacher, teacher_runtime = readers.teacher(dict(cfg["teacher"]))
    data, data_runtime = readers.data(dict(cfg["data"]), str(Path(cfg["paths"]["store"], "cache").absolute()))
    runtime = RuntimeConfig.read(
        {
            "task": task_runtime,
            "model": model_runtime,
            "teacher": teacher_runtime,
            "data": data_runtime,
            "num_workers": cfg["num_workers"],
            "num_threads": cfg["num_threads"],
            "accelerator": cfg["accelerator"],
            "checkpoint_minutes": cluster.checkpoint_minutes,
            "wandb": LoggerConfig.read(cfg["logger"], "logger").plain(),
        },
        "",
    )
    checked = {name: _read_recipe(cfg, name, has_teacher=teacher is not None) for name in recipes}
    _check_dense(model, checked.get("dense"))
    return {
        "task": task,
        "model": model,
        "teacher": teacher,
        "data": data,
        "seed": _read_seed(cfg["seed"]),
        "recipes": checked,
        "runtime": runtime,
        "cluster": cluster,
        "default_gpus": default_gpus,
    }


def with_fingerprint(setup: PointSetup, readers: Readers) -> "DataConfig":
    """The data of a setup with the identity of their files, which is looked for now."""
    return replace(setup.data, fingerprint=readers.fingerprint(setup.data, setup.runtime.data))


def _check_dense(model: "ModelConfig", dense: PassConfig | None) -> None:
    """Refuse a new head that nothing trains, and what is said of a head or of layers that are not there."""
    if not isinstance(dense, DenseConfig):
        return
    is_new, decay = model.has_new_head, dense.layer_decay
    allowed = "1 or more, here or of dense.head_epochs, with model.head=new"
    require(not is_new or not dense.is_empty, "dense.epochs", dense.epochs, allowed, "use recipe=transfer")
    allowed, num = "0 without model.head=new", dense.head_epochs
    require(is_new or num == 0, "dense.head_epochs", num, allowed, "say model.head=new, or leave it out")
    allowed = "null for a language model"
    require(decay is None or model.library != "causal", "dense.layer_decay", decay, allowed, "leave it out")


def _read_cluster(values: Mapping[str, Any]) -> ClusterConfig:
    cluster = ClusterConfig.read(values, "cluster")
    for kind in cluster.resources:
        kinds = (DEFAULT, *STAGE_VERSIONS)
        require(kind in kinds, "cluster.resources", kind, ", ".join(kinds), "take one of these")
    for kind in cluster.allow_failure:
        require(kind in STAGE_VERSIONS, "cluster.allow_failure", kind, ", ".join(STAGE_VERSIONS), "take one of these")
    return cluster


def _read_recipe(cfg: Mapping[str, Any], name: str, *, has_teacher: bool) -> PassConfig:
    _check_set(name, cfg.get(name))
    recipe = RECIPES[name].read(cfg[name], name)
    can_be_taught = name != "dense" or has_teacher or not recipe.distills
    allowed = "0 where the dense network is the teacher"
    require(can_be_taught, "dense.distill_weight", recipe.distill_weight, allowed, "use 0, or name a teacher")
    return recipe


def _check_repair(repair: RepairConfig, method: "MethodConfig", walk: PassConfig | None) -> None:
    """Refuse one that starts from the dense weights where members have others."""
    if not repair.starts_from_dense:
        return
    allowed = f"full, second, none with method={method.name}, whose search trains the weights"
    require(not method.trains_weights, "repair.kind", repair.kind, allowed, "use full")
    has_walk, allowed = walk is not None and not walk.is_empty, f"0 with repair={repair.kind}"
    require(not has_walk, "prune.epochs", walk and walk.epochs, allowed, "use prune.epochs=0, or repair=full")


def _read_seed(seed: Any) -> int:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed!r} is not allowed; allowed: an integer from 0 to 2^32 - 1; use seed=0")
    return seed


def _read_rest_of_walk(rest_of_walk: Any, budget: BudgetConfig) -> bool:
    require(isinstance(rest_of_walk, bool), "rest_of_walk", rest_of_walk, "true, false", "use false")
    largest, allowed = max(budget.values), "fractions, with rest_of_walk=true"
    require(not rest_of_walk or largest <= 1, "budget.values", largest, allowed, "use rest_of_walk=false")
    return bool(rest_of_walk)
