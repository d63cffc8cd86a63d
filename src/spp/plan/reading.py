"""From the composed configuration of a point to its checked setup."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spp.config import require
from spp.plan.about import ABOUT_FIELDS
from spp.plan.cluster import DEFAULT, ClusterConfig
from spp.plan.config import BudgetConfig, LoggerConfig, RepairConfig, RuntimeConfig
from spp.plan.recipes import RECIPES, DenseConfig, PassConfig
from spp.plan.setup import SEARCHES, STAGE_VERSIONS, PointSetup, Setup

if TYPE_CHECKING:
    # For types alone: at run time plan calls on nobody, and what it needs of other rooms comes from outside.
    from spp.data.config import DataConfig
    from spp.methods.method import MethodConfig
    from spp.models.config import ModelConfig
    from spp.tasks.config import TaskConfig

GENERAL_FIELDS = (
    "accelerator", "budget", "calibration", "cluster", "data", "logger", "method", "model", "num_threads",
    "num_workers", "paths", "pipeline", "repair", "rest_of_walk", "seed", "sparsity", "store", "task", "teacher",
    "zero_shot",
)  # fmt: skip
"""Top-level fields of every configuration; beside them stand the recipes, of which a pipeline names its own."""

_MISSING = "???"
"""How Hydra writes a field that has to be set."""


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
