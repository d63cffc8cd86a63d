"""The plugin as Hydra finds it; every Hydra program of the environment imports this, so it imports little."""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass
class SppLauncherConf:
    """Fields of hydra.launcher; where stages run is the business of the group `cluster`."""

    _target_: str = "hydra_plugins.spp_launcher.launcher.SppLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="spp", node=SppLauncherConf, provider="spp")


class SppLauncher(Launcher):
    """Plans all points that a sweeper hands over at once, merges them, and runs or submits what is missing.

    The task function of the program is not called: what a point does is its pipeline's stages.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from spp.cli.cached_composer import Composer

        self._composer = Composer(hydra_context.config_loader, config.hydra.job.config_name)
        self._sweeper = config.hydra.sweeper._target_

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One return per point: nothing if it was submitted, else its objective; see spp.cli.hydra_multirun."""
        from spp.cli.hydra_multirun import launch

        needs_values = self._sweeper != BASIC_SWEEPER
        if needs_values and initial_job_idx == 0:
            name = self._sweeper.rpartition(".")[2]
            print(f"{name} chooses by results: this process stays until the last of them is there")
        return launch(self._composer, job_overrides, needs_values=needs_values)
