"""The tasks by name. A new task is one module here, with a class TASK, and one file in conf/task."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import spp.tasks
from spp.config import require, require_name
from spp.factory import call_factory, find_factory, load_factory
from spp.tasks.config import TaskConfig

if TYPE_CHECKING:
    from spp.data.facts import DataFacts
    from spp.tasks.task import Task

_NO_TASKS = ("config", "recall", "registry", "task", "text_metrics")


def task_names() -> list[str]:
    """Names that `task=` takes."""
    modules = (module.name for module in pkgutil.iter_modules(spp.tasks.__path__))
    return sorted(name for name in modules if name not in _NO_TASKS)


def read_task(values: Mapping[str, Any]) -> tuple[TaskConfig, dict[str, Any]]:
    """Check the group `task`; imports no torch.

    Returns:
        The config with the hash of a factory's source, and how a worker finds the factory.

    Raises:
        ValueError: one line, if there is no such task or factory.
    """
    config = TaskConfig.read(values, "task")
    if config.factory is not None:
        factory = find_factory(config.factory, "task.factory")
        return replace(config, name=None, source=factory.source), {"folder": str(factory.folder)}
    require_name(config.name, task_names(), "task.name", "not a task")
    require(not config.kwargs, "task.kwargs", config.kwargs, "{}, as they are for a task.factory", "leave it out")
    return config, {}


def build_task(config: TaskConfig, runtime: Mapping[str, Any], facts: "DataFacts") -> "Task":
    """The task for a data set.

    Raises:
        ValueError: one line, if the data are not of its kind, or a factory fails or returns something else.
    """
    from spp.tasks.task import Task

    if config.factory is None:
        made: Task = importlib.import_module(f"spp.tasks.{config.name}").TASK(facts)
        return made
    assert config.source is not None
    factory = load_factory(config.factory, runtime.get("folder"), config.source, "task.factory")
    task = call_factory(factory, {"facts": facts, **config.kwargs}, config.factory, "task.factory")
    if not isinstance(task, Task):
        raise ValueError(
            f"task.factory: {config.factory!r} returned a {type(task).__name__}; allowed: a spp.tasks.task.Task; "
            "return one"
        )
    names = [metric.name for metric in task.metrics]
    if task.headline not in names:
        raise ValueError(
            f"task.factory: {config.factory!r} returned a task whose headline {task.headline!r} is no metric of its; "
            f"allowed: {', '.join(names)}; name one of them"
        )
    return task
