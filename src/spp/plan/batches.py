"""Whether the batches of a point's recipes can be made, as far as that is known without opening the data."""

from spp.plan.recipes import PassConfig
from spp.plan.setup import PointSetup


def check_batches(setup: PointSetup, num_train: int | None) -> None:
    """Refuse a batch that its processes cannot share, or for which there are too few samples.

    Args:
        setup: of a point.
        num_train: training samples without those of the validation split; None if only opening the data tells.

    Raises:
        ValueError: one line.
    """
    for name, recipe in setup.recipes.items():
        if not recipe.is_empty:
            _check_batch(name, recipe, _num_processes(setup, name), num_train)


def _check_batch(name: str, recipe: PassConfig, num_processes: int, num_train: int | None) -> None:
    if recipe.batch_size % num_processes:
        least = max(1, recipe.batch_size // num_processes) * num_processes
        raise ValueError(
            f"{name}.batch_size: {recipe.batch_size} cannot be shared by {num_processes} processes; allowed: a "
            f"multiple of their number; use {least}"
        )
    if num_train is not None and recipe.batch_size > num_train:
        raise ValueError(
            f"{name}.batch_size: {recipe.batch_size} is more than there is; allowed: up to the {num_train} training "
            "samples; use a smaller one"
        )


def _num_processes(setup: PointSetup, kind: str) -> int:
    """Processes that share a batch of the stages of a kind."""
    if setup.cluster.name == "debug":
        return 1
    resources = setup.cluster.resources_of(kind, setup.default_gpus)
    return resources.num_nodes * resources.num_tasks_per_node
