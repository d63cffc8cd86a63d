"""Which task a network is for."""

from dataclasses import dataclass, field
from typing import Any

from spp.config import Config


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """A task of this package by its name, or one's own by a factory."""

    name: str | None = None
    """Name of the task: a module of spp.tasks."""
    factory: str | None = None
    """One's own task instead: my.module:make_task, which returns a spp.tasks.task.Task."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the factory."""
    source: str | None = None
    """sha256 of the factory's source, filled in when planning."""
