"""The plugin as Hydra finds it; every Hydra program of the environment imports this, so it imports little."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class SppOptunaSweeperConf:
    """Fields of hydra.sweeper; what is searched for is the best headline metric of the task on the validation split."""

    _target_: str = "hydra_plugins.spp_optuna_sweeper.sweeper.SppOptunaSweeper"
    n_trials: int = 20
    """Points that shall have a result, those of earlier runs of the study included."""
    n_jobs: int = 2
    """Points proposed at once, which may run side by side."""
    seed: int = 0
    """Seed of the proposals."""
    study_name: str | None = None
    """Name of the study in the store; null: made from the words, so that the same words go on with it."""


ConfigStore.instance().store(group="hydra/sweeper", name="spp_optuna", node=SppOptunaSweeperConf, provider="spp")


class SppOptunaSweeper(Sweeper):
    """Asks Optuna for points, has the launcher run them, tells Optuna the results, until there are enough."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self._loader = hydra_context.config_loader
        self._store = config.paths.store
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> float:
        """Search; returns the best result.

        Raises:
            ValueError: one line for words that span no space, or a study that another process searches.
            PointFailed: if a stage of one of the last points failed, after the others are done.
        """
        from hydra_plugins.spp_optuna_sweeper._search import Search, Settings

        settings = Settings.read(self._settings, "hydra.sweeper")
        return Search(settings, self._store, self._launcher, self._loader, arguments).run()
