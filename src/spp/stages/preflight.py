"""What can be found out in seconds before hours are spent: can the model be built, pruned, and made this small?"""

from pathlib import Path

import timm
import torch

from spp.data.transforms import Augment
from spp.dynamics.budget import absolute_size
from spp.methods.spp import SPPConfig, build_optimizer
from spp.plan.setup import Setup
from spp.stages.models import build_for, load_weights, read_checkpoint
from spp.stages.training import build_data
from spp.structure.masked import MaskedModel
from spp.structure.pairs import find_pairs


def check(setup: Setup) -> None:
    """Build model, data and dynamics of a setup, and compare the sizes within reach with the budgets.

    Raises:
        ValueError: one line, if the model is unknown, cannot be pruned, or cannot be that small.
    """
    data = build_data(setup.data, setup.update, setup.seed, setup.runtime)
    for stage in ("dense", "update", "prune", "finetune"):
        recipe = getattr(setup, stage)
        Augment.read(recipe.augment)
        if recipe.epochs > 0 and recipe.batch_size > data.num_train_samples:
            raise ValueError(
                f"{stage}.batch_size: {recipe.batch_size} is more than there is; allowed: up to the "
                f"{data.num_train_samples} training images; use a smaller one"
            )
    with torch.random.fork_rng():
        model = build_for(setup.model, data)
    if setup.model.weights == "pretrained":
        _check_classes(setup, data.num_classes)
    if setup.runtime.weights_file is not None:
        load_weights(model, read_checkpoint(Path(setup.runtime.weights_file)), setup.runtime.weights_file)
    pairs = find_pairs(model, per_head=setup.model.per_head)
    if isinstance(setup.method, SPPConfig):
        num_steps = setup.update.epochs * data.steps_per_epoch
        build_optimizer(setup.method, MaskedModel(model, pairs).masks, num_steps)
    min_units = getattr(setup.method, "min_units", 1)
    for size in setup.budget.values:
        absolute_size(pairs, setup.budget.kind, size, min_units, field="budget.values")


def _check_classes(setup: Setup, num_classes: int) -> None:
    published = timm.get_pretrained_cfg(setup.model.name)
    if published is None or published.num_classes != num_classes:
        known = published.num_classes if published else 0
        raise ValueError(
            f"model.weights: 'pretrained' knows {known} classes and {setup.data.name} has {num_classes}; "
            "allowed: train, or a checkpoint trained on this data; train one first"
        )
