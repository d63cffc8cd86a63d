"""What a stage on Lightning takes over a plain loop of the same step: python benchmarks/bench_training.py [--width N].

Trains the digits twice in turns: as stage `dense` with its record, checkpoints and W&B offline, and by a loop of a few
lines over the same batches with the same loss, optimizer, moving average and validation. Both are timed for two numbers
of epochs, and the difference counts, so that what a stage takes before its first step stays outside.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from timm.optim import create_optimizer_v2
from timm.utils.model_ema import ModelEmaV3

from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.data.config import DataConfig
from spp.data.loaders import open_data
from spp.models.build import build
from spp.models.config import ModelConfig
from spp.plan.recipes import RecipeConfig
from spp.plan.spec import Stage
from spp.stages.devices import seed_everything
from spp.stages.opening import describe_dense
from spp.stages.worker import run_stage
from spp.store.store import Store
from spp.structure.find import set_drop_path
from spp.tasks.config import TaskConfig
from spp.tasks.registry import build_task

FEW_EPOCHS = 1


def words_of(width: int, num_epochs: int, folder: Path) -> list[str]:
    """A dense network on digits, and as little else as can be planned."""
    return [
        "data=digits",
        f"model.kwargs.embed_dim={width}",
        f"dense.epochs={num_epochs}",
        "dense.warmup_epochs=0",
        "logger=offline",
        "accelerator=cpu",
        f"paths.store={folder}",
    ]


def planned(words: Sequence[str]) -> Stage:
    """The stage `dense` of some words."""
    plan = plan_sweep(compose_points(list(words), multirun=False)).plan
    return next(stage for stage in plan.stages.values() if stage.kind == "dense")


def seconds_of_stage(width: int, num_epochs: int) -> float:
    """What the stage takes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        stage, store = planned(words_of(width, num_epochs, Path(folder))), Store(folder)
        store.put_spec(stage)
        began = time.perf_counter()
        run_stage(store.root, stage.kind, stage.key)
        return time.perf_counter() - began


def seconds_of_loop(width: int, num_epochs: int) -> float:
    """What a plain loop takes."""
    with tempfile.TemporaryDirectory() as folder:
        stage = planned(words_of(width, num_epochs, Path(folder)))
        began = time.perf_counter()
        _plain_loop(stage)
        return time.perf_counter() - began


def _plain_loop(stage: Stage) -> None:
    config, runtime = stage.config, stage.runtime
    recipe = RecipeConfig.from_spec(config["recipe"], "dense")
    seed_everything(0)
    data = open_data(
        DataConfig.from_spec(config["data"], "data"),
        runtime["data"],
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        seed=0,
        num_workers=runtime["num_workers"],
    )
    task = build_task(TaskConfig.from_spec(config["task"], "task"), runtime["task"], data.facts)
    model_config = ModelConfig.from_spec(config["model"], "model")
    model = build(describe_dense(model_config, data, task, runtime["model"]), runtime["model"])
    set_drop_path(model, recipe.drop_path)
    loss_of = task.training_loss(recipe)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    average = ModelEmaV3(model, decay=recipe.ema_decay)
    for _ in range(recipe.epochs):
        model.train()
        for batch in data.train_dataloader():
            inputs, targets = loss_of.prepare(task.inputs(batch), task.targets(batch))
            loss = loss_of(model(inputs), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad)
            optimizer.step()
            optimizer.zero_grad()
            average.update(model)
        evaluator = task.evaluator()
        average.module.eval()
        with torch.inference_mode():
            for batch in data.val_dataloader():
                evaluator.update(average.module(task.inputs(batch)), batch)
        evaluator.compute()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=192, help="of the transformer; steps of a small one are short")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args(argv)
    os.environ["WANDB_MODE"] = "offline"
    ratios, stages, loops = [], [], []
    seconds_of_stage(words.width, FEW_EPOCHS)  # imports and first calls
    for _ in range(words.repeats):
        stage, loop = (
            (of(words.width, words.epochs) - of(words.width, FEW_EPOCHS)) / (words.epochs - FEW_EPOCHS)
            for of in (seconds_of_stage, seconds_of_loop)
        )
        stages.append(stage)
        loops.append(loop)
        ratios.append(stage / loop)
    print(f"width {words.width}, {torch.get_num_threads()} threads; seconds per epoch, medians of {words.repeats}:")
    print(f"  stage {statistics.median(stages):.3f}   loop {statistics.median(loops):.3f}")
    print(f"  ratio {statistics.median(ratios):.3f}   from {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
