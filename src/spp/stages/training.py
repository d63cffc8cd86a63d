"""A pass of a network over the training samples on Lightning's Trainer: the task's loss, weights by a recipe."""

from collections.abc import Sequence
from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.optim import Optimizer

from spp.data.module import DataModule
from spp.models.finite import first_not_finite
from spp.plan.recipes import PassConfig, RecipeConfig
from spp.stages.context import StageRun
from spp.stages.distillation import Distillation
from spp.stages.finite import NotFiniteError, first_layer, require_finite_numbers, tensors_of
from spp.stages.fitting import LightningData, Trainable, run_fit
from spp.structure.inputs import call
from spp.tasks.momentum import MomentumLoss
from spp.tasks.task import Batch, Evaluator, Task, TrainingLoss

WARMUP_START_LR = 1e-6


class TrainingPass(Trainable):
    """Lets a network see the training samples under the loss of its task; what moves by that is for subclasses to say.

    Args:
        model: the network; outputs are what the task expects.
        recipe: of the pass.
        task: what the network is for.
        num_steps: steps of the whole pass.
        run: of the stage.
        teacher: a frozen network that the recipe has this one compared with; None: there is none.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: PassConfig,
        task: Task,
        num_steps: int,
        run: StageRun,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.pass_recipe = recipe
        self.task = task
        self.num_steps = num_steps
        self.run = run
        self.loss = task.training_loss(recipe)
        # No module, so that the teacher is no part of this one: checkpoints and gradients are none of its business.
        self.distillation = None if teacher is None else Distillation(model, teacher, recipe, task)

    def on_fit_start(self) -> None:
        """Bring the teacher to where the network is."""
        if self.distillation is not None:
            self.distillation.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of one batch as the recipe prepares it."""
        judge, distillation = self.loss_of_step(), self.distillation_of_step()
        inputs, targets = judge.prepare(self.task.inputs(batch), self.task.targets(batch))
        if distillation is None:
            outputs, lesson = call(self.model, inputs), None
        else:
            outputs, lesson = distillation.show(self.model, inputs)
        targets = self.judged_by(outputs, targets)
        heads = [outputs, *self.further_outputs()]
        losses = [judge(head, targets) for head in heads]
        self.see_losses(losses)
        loss = losses[0]
        for further in losses[1:]:
            loss = loss + further
        if distillation is not None and lesson is not None:
            loss = distillation.mixed(loss, heads, lesson)
        self.mean_loss.add(loss)
        self.finite_steps.note(loss)
        return loss

    def loss_of_step(self) -> TrainingLoss:
        """What prepares the next batch and judges the outputs for it."""
        return self.loss

    def distillation_of_step(self) -> Distillation | None:
        """That of the recipe, if the next step has it."""
        return self.distillation

    def judged_by(self, outputs: Any, targets: Any) -> Any:
        """The targets that outputs are compared with."""
        return targets

    def see_losses(self, losses: Sequence[Tensor]) -> None:
        """Look at the losses of all heads against the targets, the network's own first."""

    def further_outputs(self) -> Any:
        """Outputs of heads that are trained along, for the batch that the network has just seen."""
        return ()

    def on_after_backward(self) -> None:
        """Look at the gradients; what a subclass does with them comes after."""
        self.finite_steps.note_gradients(self.model.parameters())

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Tell how far it is."""
        self.finite_steps.end_step()
        if self.finite_steps.is_due or self.trainer.is_last_batch:
            self.require_finite(batch)
        if self.run.progress_is_due or self.global_step >= self.num_steps:
            self.run.progress(self.global_step, self.num_steps, "steps", self.progress_note())

    def require_finite(self, batch: Batch | None = None) -> None:
        """Stop where the training has diverged; waits for the device.

        Args:
            batch: of the last step, to find the layer with.

        Raises:
            NotFiniteError: a loss, a gradient, a weight or a mask is NaN or infinite.
        """
        num_bad = self.finite_steps.num_bad()
        parameter = first_not_finite(self)
        if not num_bad and parameter is None:
            return
        step = self.global_step - max(0, num_bad - 1)
        epoch, place = divmod(max(0, step - 1), int(self.trainer.num_training_batches))
        what = "a loss or a gradient" if num_bad else "a weight or a mask"
        layer = self._first_layer(batch) or parameter or "the loss"
        has_lr = isinstance(self.pass_recipe, RecipeConfig)
        remedy = f"a smaller {self.run.kind}.lr" if has_lr else "a smaller step of the method"
        raise NotFiniteError(
            f"{self.run.kind}: {what} is not finite at step {step} (batch {place + 1} of epoch {epoch + 1}), first in "
            f"{layer.removeprefix('model.').removeprefix('model.')}; allowed: finite numbers; use {remedy}, or check "
            "the data; the last good checkpoint is kept"
        )

    def _first_layer(self, batch: Batch | None) -> str | None:
        if batch is None:
            return None
        inputs = self.task.inputs(batch)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors_of(inputs)):
            return f"the inputs ({self.task.facts.samples})"
        with self.trainer.precision_plugin.forward_context():
            return first_layer(self.model, lambda: call(self.model, inputs))

    def progress_note(self) -> str:
        """A few words beside the number of steps."""
        return f"epoch {self.current_epoch + 1}"

    def on_train_epoch_end(self) -> None:
        """One row of the record per epoch."""
        self.run.log(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "loss": self.mean_loss.take(self.trainer),
                **self.metrics(),
            }
        )

    def metrics(self) -> dict[str, float]:
        """What else belongs into the row of an epoch."""
        return {}


class WeightTraining(TrainingPass):
    """Trains the weights by a recipe, with a validation after each epoch.

    After `fit`, `kept` holds the weights the recipe asks for: those of the best validation epoch, or the last ones.

    Attributes:
        layer_decay: factor of the learning rate from a layer to the one before it; None: all have one.
        num_steps_before: steps that come before those of the recipe's cosine.
    """

    layer_decay: float | None = None
    num_steps_before = 0

    def __init__(
        self,
        model: nn.Module,
        recipe: RecipeConfig,
        task: Task,
        num_steps: int,
        run: StageRun,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__(model, recipe, task, num_steps, run, teacher)
        self.recipe = recipe
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        self.evaluator: Evaluator = task.evaluator()
        task.check_momentum(recipe.momentum_weight)
        self.momentum: MomentumLoss | None = None
        self.kept: dict[str, Tensor] | None = None
        self.val_value = self.best_value = task.headline_metric.worst

    def configure_model(self) -> None:
        """Copy the weights as they are at the start, for a recipe with a moving average; checkpoints are read later."""
        if self.recipe.momentum_weight and self.momentum is None:
            num_steps = self._samples.steps_per_epoch
            self.momentum = self.task.momentum_loss(self.trained_network(), self.recipe, num_steps)
            self.moving_average = self.momentum.average

    def loss_of_step(self) -> TrainingLoss:
        """That of the recipe, against a moving average where it has one."""
        return super().loss_of_step() if self.momentum is None else self.momentum

    @property
    def _samples(self) -> DataModule:
        samples: LightningData = self.trainer.datamodule  # type: ignore[attr-defined]
        return samples.data

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts: the moving average where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Update the moving averages and the progress."""
        if self.momentum is not None:
            self.momentum.after_step(self.trained_network())
        if self.ema is not None:
            self.ema.update(self.model)
        super().on_train_batch_end(outputs, batch, batch_idx)

    def on_validation_epoch_start(self) -> None:
        """Begin anew, whatever an interrupted validation has seen."""
        self.evaluator = self.task.evaluator()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Take in one batch."""
        self.evaluator.update(call(self.evaluated, self.task.inputs(batch)), batch)

    def on_validation_epoch_end(self) -> None:
        """Keep the weights if they are the best so far."""
        headline = self.task.headline_metric
        values = self.evaluator.compute()
        require_finite_numbers(values, f"{self.run.kind}: val")
        self.val_value = values[headline.name]
        if headline.is_better(self.val_value, self.best_value):
            self.best_value = self.val_value
            if self.recipe.select == "best":
                self.kept = _copy_weights(self.evaluated)

    def metrics(self) -> dict[str, float]:
        """The learning rate and the headline metric on the validation split."""
        return {
            "lr": max(group["lr"] for group in self.trainer.optimizers[0].param_groups),
            f"val_{self.task.headline}": self.val_value,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What is neither weights nor the optimizer's."""
        checkpoint["training"] = {"kept": self.kept, "best_value": self.best_value}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        state = checkpoint["training"]
        self.kept, self.best_value = state["kept"], state["best_value"]

    def on_train_end(self) -> None:
        """Keep the last weights where nothing better is asked for."""
        if self.kept is None:
            self.kept = _copy_weights(self.evaluated)

    def trained_network(self) -> nn.Module:
        """The network whose weights the optimizer moves."""
        return self.model

    def configure_optimizers(self) -> Any:
        """AdamW with timm's weight-decay groups, and a cosine per step after a linear warm-up."""
        recipe = self.recipe
        # Lightning refuses to clip in mixed precision where the optimizer could unscale gradients by itself.
        can_fuse = recipe.clip_grad is None or recipe.precision == "32-true"
        optimizer = create_optimizer_v2(
            self.trained_network(),
            opt="adamw",
            lr=recipe.lr,
            weight_decay=recipe.weight_decay,
            layer_decay=self.layer_decay,
            fused=can_fuse,
        )
        schedule = self.cosine(optimizer, self.num_steps - self.num_steps_before, recipe.warmup_epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def cosine(self, optimizer: Optimizer, num_steps: int, warmup_epochs: float) -> CosineLRScheduler:
        """The learning rate over so many steps: up to the recipe's in a line, down to its smallest in a cosine."""
        warmup_steps = min(num_steps, round(warmup_epochs * self._samples.steps_per_epoch))
        return CosineLRScheduler(
            optimizer,
            t_initial=max(1, num_steps - warmup_steps),
            lr_min=self.recipe.min_lr,
            warmup_t=warmup_steps,
            warmup_lr_init=WARMUP_START_LR,
            warmup_prefix=True,
            t_in_epochs=False,
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers count updates themselves."""
        scheduler.step_update(self.global_step)


def fit(module: TrainingPass, data: DataModule, run: StageRun) -> None:
    """Let a network make the whole pass of its recipe."""
    recipe = module.pass_recipe
    num_epochs, num_steps_left = divmod(module.num_steps, data.steps_per_epoch)
    run_fit(
        module,
        data,
        run,
        precision=recipe.precision,
        max_epochs=num_epochs + bool(num_steps_left),
        max_steps=module.num_steps if num_steps_left else -1,
        gradient_clip_val=recipe.clip_grad if isinstance(recipe, RecipeConfig) else None,
        default_root_dir=run.artifacts,
    )


def train(module: WeightTraining, data: DataModule, run: StageRun) -> dict[str, Tensor]:
    """Train a network by its recipe; returns the weights to keep."""
    fit(module, data, run)
    assert module.kept is not None
    return module.kept


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
