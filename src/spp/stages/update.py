"""Stage `update`: the weights stand still, the mask dynamics run once, and the order of entry is recorded."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from spp.dynamics.bregman import BregmanOptimizer
from spp.dynamics.path import SolutionPath
from spp.dynamics.recorder import PathRecorder
from spp.methods import spp as method
from spp.methods.spp import SPPConfig
from spp.plan.config import UpdateConfig
from spp.stages.context import StageRun
from spp.stages.dense import open_dense
from spp.stages.fitting import Trainable, run_fit
from spp.stages.media import log_path
from spp.stages.training import add_noise
from spp.structure.masked import MaskedModel


class MaskSearch(Trainable):
    """Runs the dynamics on the masks of a frozen network; the clean labels and the network's own loss drive it."""

    def __init__(
        self, masked: MaskedModel, recipe: UpdateConfig, config: SPPConfig, num_batches: int, run: StageRun
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.masked = masked
        self.recipe = recipe
        self.config = config
        self.run = run
        self.num_calibration_batches = num_calibration_batches(recipe, config, num_batches)
        self.num_calibrated = 0
        self.num_steps = num_batches - self.num_calibration_batches
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.dynamics = method.build_optimizer(config, masked.masks, self.num_steps)
        self.recorder = PathRecorder(self.dynamics)
        self.base_lr = float(self.dynamics.param_groups[0]["lr"])
        self.is_resumed = False

    def configure_optimizers(self) -> BregmanOptimizer:
        """The dynamics themselves."""
        return self.dynamics

    def on_train_start(self) -> None:
        """The path starts with nothing in the support."""
        if not self.is_resumed:
            self.recorder.record()

    def on_train_epoch_start(self) -> None:
        """Set the step size of the epoch."""
        assert self.trainer.max_epochs is not None
        lr = method.learning_rate(self.config, self.base_lr, self.current_epoch, self.trainer.max_epochs)
        self.dynamics.param_groups[0]["lr"] = lr

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One batch: the first ones measure the gradient scale at the dense masks, the others move the masks."""
        images, labels = batch
        loss: Tensor = self.loss(self.masked(add_noise(images, self.recipe.input_noise)), labels)
        self.manual_backward(loss)
        self.mean_loss.add(loss)
        if self.num_calibrated < self.num_calibration_batches:
            self.num_calibrated += 1
            self.dynamics.calibrate()
            self.dynamics.zero_grad()
            return
        self.optimizers().step()  # type: ignore[union-attr]
        self.dynamics.zero_grad()
        if batch_idx % self.recipe.occupancy_interval == 0:
            self.dynamics.sample_occupancy()
        self.recorder.record()
        if self.run.progress_is_due:  # a look at Gamma makes a GPU wait
            share = float((self.dynamics.gamma() != 0).float().mean())
            self.run.progress(self.global_step, self.num_steps, "steps", f"{100 * share:.0f} % of units entered")

    def support(self) -> dict[str, float]:
        """Share of units in the support of Gamma, over all and for each kind of pair."""
        inside: dict[str, list[Tensor]] = {}
        for pair in self.masked.masks.pairs:
            active = self.dynamics.state_of(pair.name)["Gamma"] != 0
            inside.setdefault(pair.kind, []).append(active)
            inside.setdefault("all", []).append(active)
        return {kind: float(torch.cat(parts).float().mean()) for kind, parts in inside.items()}

    def on_train_epoch_end(self) -> None:
        """One row of the record per epoch."""
        support = {f"support_{kind}": share for kind, share in self.support().items()}
        mean_mask = float(torch.cat([mask.detach() for mask in self.masked.masks.values()]).mean())
        self.run.log(
            {
                "epoch": self.current_epoch + 1,
                "step": self.global_step,
                "loss": self.mean_loss.take(self.trainer),
                "mean_mask": mean_mask,
                **support,
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What is neither masks nor the dynamics'."""
        checkpoint["search"] = {
            "num_calibrated": self.num_calibrated,
            "recorder": self.recorder.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from there."""
        state = checkpoint["search"]
        self.is_resumed = True
        self.num_calibrated = state["num_calibrated"]
        self.recorder.load_state_dict(state["recorder"])


def num_calibration_batches(recipe: UpdateConfig, config: SPPConfig, num_batches: int) -> int:
    """Batches of a search that only measure; never more than a tenth of them."""
    return min(recipe.calibration_batches, math.ceil(num_batches / 10)) if config.preset == "priced" else 0


def run(stage: StageRun) -> dict[str, Any]:
    """Search once and write the path."""
    recipe = UpdateConfig.read(stage.config["recipe"], "update")
    config = SPPConfig.read(stage.config["method"], "method")
    data, model, pairs = open_dense(stage, recipe)
    model.requires_grad_(False)
    num_batches = recipe.epochs * data.steps_per_epoch
    search = MaskSearch(MaskedModel(model, pairs), recipe, config, num_batches, stage)
    run_fit(
        search,
        data,
        stage,
        precision=recipe.precision,
        max_epochs=recipe.epochs,
        default_root_dir=stage.artifacts,
    )

    path = SolutionPath.from_optimizer(
        search.dynamics, pairs, trace=search.recorder.trace(), meta={"stage": stage.key, "seed": stage.config["seed"]}
    )
    path.save(stage.artifacts)
    log_path(stage.mirror, path)
    support = search.support()
    if support["all"] == 0:
        warnings.warn(
            f"no unit entered the support in {search.num_steps} steps: the order rests on V alone; lower method.lam or "
            "raise update.epochs",
            stacklevel=2,
        )
    return {
        "num_steps": search.num_steps,
        "num_units": sum(pair.size for pair in pairs),
        "support": support,
        "epochs": recipe.epochs,
        "search_seconds": stage.fit_seconds,
    }
