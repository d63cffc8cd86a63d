"""The training of a dense network that may begin with its head alone."""

from typing import Any

from torch import nn

from spp.models.new_head import head_parameters
from spp.plan.recipes import DenseConfig
from spp.stages.context import StageRun
from spp.stages.training import WeightTraining
from spp.tasks.task import Batch, Task


class DenseTraining(WeightTraining):
    """Trains the head for `head_epochs` while the rest stands still, and then all of the network.

    A head that begins anew would otherwise send its first, wrong gradients through weights that are good already.

    Args:
        model: the dense network.
        recipe: of the training.
        task: what the network is for.
        num_steps: steps of both parts together.
        run: of the stage.
        teacher: see WeightTraining.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: DenseConfig,
        task: Task,
        num_steps: int,
        run: StageRun,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__(model, recipe, task, num_steps, run, teacher)
        self.layer_decay = recipe.layer_decay
        self.head_epochs = recipe.head_epochs
        self.num_steps_before = num_steps * recipe.head_epochs // (recipe.head_epochs + recipe.epochs)
        self.has_idle_parameters = recipe.head_epochs > 0
        head = set(head_parameters(model)) if recipe.head_epochs else set()
        self._body = tuple(name for name, _ in model.named_parameters() if name not in head)
        self._is_frozen = False

    def configure_optimizers(self) -> Any:
        """As of every training, with a cosine for the head before that of the whole."""
        made = super().configure_optimizers()
        if self.num_steps_before:
            self._head_schedule = self.cosine(made["optimizer"], self.num_steps_before, 0)
            self._head_schedule.step_update(0)
        return made

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """The cosine of the part that is running."""
        step = self.global_step - self.num_steps_before
        if step < 0:
            self._head_schedule.step_update(self.global_step)
        else:
            scheduler.step_update(step)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let the rest stand still as long as the head trains alone, also after an interruption."""
        self._freeze(self.current_epoch < self.head_epochs)

    def on_train_end(self) -> None:
        """Leave the network as it came."""
        self._freeze(False)
        super().on_train_end()

    def _freeze(self, is_frozen: bool) -> None:
        if is_frozen != self._is_frozen:
            for name in self._body:
                self.model.get_parameter(name).requires_grad_(not is_frozen)
            self._is_frozen = is_frozen
