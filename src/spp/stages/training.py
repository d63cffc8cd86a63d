"""Training and evaluation of a classifier on Lightning's Trainer; dense, prune and finetune share it."""

from collections.abc import Sized
from typing import Any

import pytorch_lightning as pl
import torch
from timm.data.mixup import Mixup
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from spp.data.images.module import ImageData
from spp.plan.config import DataConfig, RecipeConfig, RuntimeConfig, UpdateConfig
from spp.stages.context import StageRun
from spp.stages.fitting import Trainable, build_trainer, known_warnings, run_fit

WARMUP_START_LR = 1e-6


class Classifier(Trainable):
    """A network that maps images (B, C, H, W) to class scores, trained by a recipe.

    After `fit`, `kept` holds the weights the recipe asks for: those of the best validation epoch, or the last ones.
    """

    def __init__(self, model: nn.Module, recipe: RecipeConfig, num_classes: int, num_steps: int, run: StageRun) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.num_steps = num_steps
        self.run = run
        self.ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)
        self.mixup = _mixup(recipe, num_classes)
        self.train_loss = _loss(recipe, self.mixup is not None)
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_top1 = 0.0
        self.kept: dict[str, Tensor] | None = None
        self.best_accuracy = -1.0

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts: the moving average where there is one."""
        return self.ema.module if self.ema is not None else self.model

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (B, num_classes)."""
        scores: Tensor = self.evaluated(images)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Mean loss of one batch after noise and mixing."""
        images, labels = batch
        images = add_noise(images, self.recipe.input_noise)
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        loss: Tensor = self.train_loss(self.model(images), labels)
        self.mean_loss.add(loss)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the moving average and the progress."""
        if self.ema is not None:
            self.ema.update(self.model)
        self.run.progress(self.global_step, self.num_steps, "steps", f"epoch {self.current_epoch + 1}")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count the right answers of one batch."""
        images, labels = batch
        self.accuracy.update(self(images), labels)

    def on_validation_epoch_end(self) -> None:
        """Keep the weights if they are the best so far."""
        self.val_top1 = 100 * float(self.accuracy.compute())
        self.accuracy.reset()
        if self.val_top1 > self.best_accuracy:
            self.best_accuracy = self.val_top1
            if self.recipe.select == "best":
                self.kept = _copy_weights(self.evaluated)

    def on_train_epoch_end(self) -> None:
        """One row of the record per epoch."""
        self.run.log(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "lr": self.trainer.optimizers[0].param_groups[0]["lr"],
                "loss": self.mean_loss.take(self.trainer),
                "val_top1": self.val_top1,
                **self.metrics(),
            }
        )

    def metrics(self) -> dict[str, float]:
        """What else belongs into the row of an epoch."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What is neither weights nor the optimizer's."""
        checkpoint["classifier"] = {
            "kept": self.kept,
            "best_accuracy": self.best_accuracy,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        state = checkpoint["classifier"]
        self.kept, self.best_accuracy = state["kept"], state["best_accuracy"]

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
        optimizer = create_optimizer_v2(
            self.trained_network(), opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        warmup_steps = round(self.num_steps * recipe.warmup_epochs / recipe.epochs)
        scheduler = CosineLRScheduler(
            optimizer,
            t_initial=max(1, self.num_steps - warmup_steps),
            lr_min=recipe.min_lr,
            warmup_t=warmup_steps,
            warmup_lr_init=WARMUP_START_LR,
            warmup_prefix=True,
            t_in_epochs=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedulers count updates themselves."""
        scheduler.step_update(self.global_step)


def add_noise(images: Tensor, std: float) -> Tensor:
    """`images` plus Gaussian noise of standard deviation `std`."""
    return images + std * torch.randn_like(images) if std else images


def fit(module: Classifier, data: ImageData, run: StageRun) -> dict[str, Tensor]:
    """Train `module` for its recipe's epochs with a validation after each; returns the weights to keep."""
    recipe = module.recipe
    run_fit(
        module,
        data,
        run,
        precision=recipe.precision,
        max_epochs=recipe.epochs,
        gradient_clip_val=recipe.clip_grad,
        default_root_dir=run.artifacts,
    )
    assert module.kept is not None
    return module.kept


def evaluate(model: nn.Module, loader: Sized, num_classes: int, run: StageRun) -> dict[str, float]:
    """Top-1 and top-5 in percent, mean cross entropy, and the number of images they are of."""
    module = _Evaluation(model, num_classes, len(loader), run)
    trainer = build_trainer(run.runtime, precision="32-true", inference_mode=True)
    with known_warnings():
        trainer.test(module, dataloaders=loader, verbose=False)
    return {
        "top1": 100 * float(module.accuracy.compute()),
        "top5": 100 * float(module.accuracy_of_five.compute()),
        "loss": float(module.loss_sum) / module.num_images,
        "num_images": module.num_images,
    }


class _Evaluation(pl.LightningModule):
    def __init__(self, model: nn.Module, num_classes: int, num_batches: int, run: StageRun) -> None:
        super().__init__()
        self.model = model
        self.num_batches = num_batches
        self.run = run
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.accuracy_of_five = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))
        self.loss_sum = 0.0
        self.num_images = 0

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        scores = self.model(images)
        self.accuracy.update(scores, labels)
        self.accuracy_of_five.update(scores, labels)
        self.loss_sum += float(nn.functional.cross_entropy(scores, labels, reduction="sum"))
        self.num_images += len(labels)
        self.run.progress(batch_idx + 1, self.num_batches, "batches", "measuring accuracy")


def build_data(data: DataConfig, recipe: RecipeConfig | UpdateConfig, seed: int, runtime: RuntimeConfig) -> ImageData:
    """The data module of a stage: the data set with the recipe's transforms and batch size."""
    return ImageData(
        name=data.name,
        root=runtime.data_root,
        download=runtime.download,
        format=runtime.data_format,
        on_error=runtime.data_on_error,
        cache=runtime.cache,
        img_size=data.img_size,
        batch_size=recipe.batch_size,
        val_fraction=data.val_fraction,
        split_seed=data.split_seed,
        seed=seed,
        augment=recipe.augment,
        num_workers=runtime.num_workers,
        num_train=data.num_train,
    )


def _mixup(recipe: RecipeConfig, num_classes: int) -> Mixup | None:
    if not recipe.mixup and not recipe.cutmix:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mixup_prob,
        switch_prob=recipe.mixup_switch_prob,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def _loss(recipe: RecipeConfig, has_soft_targets: bool) -> nn.Module:
    if has_soft_targets:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(recipe.label_smoothing) if recipe.label_smoothing else nn.CrossEntropyLoss()


def _copy_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
