"""Part (b): CIFAR-10 with a network of DeiT-Tiny's kind, all on the device: methods at three budgets, equal epochs."""

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spp
from gpu_study.device_data import DeviceData, cutmix, load
from gpu_study.rows import Rows
from spp.dynamics.budget import Budget, OutOfReachError
from spp.methods.registry import load_method, method_names, read_method
from spp.methods.search import BudgetSearch, OrderSearch, SearchRequest

METHODS = ("spp", "snapvit", "taylor", "magnitude", "random", "upop")
BUDGETS = (0.5, 0.3, 0.2)
SEEDS = (0, 1, 2)
REPAIR_IMAGES = 512


@dataclass(frozen=True)
class Plan:
    """How long everything trains; a method whose search trains the weights has as many epochs less to finetune."""

    kwargs: Mapping[str, Any]
    dense_epochs: int
    search_steps: int
    joint_epochs: int
    finetune_epochs: int
    batch_size: int
    lr: float = 1e-3


FULL = Plan({"img_size": 32, "patch_size": 4}, 150, 150, 5, 10, 500)
TINY = Plan(
    {"img_size": 8, "patch_size": 2, "in_chans": 1, "embed_dim": 32, "depth": 2, "num_heads": 2}, 1, 4, 1, 1, 64
)


class Trainer:
    """Trains and measures on one device, under bf16 autocast where that is a GPU."""

    def __init__(self, data: DeviceData, plan: Plan, device: str) -> None:
        self.data, self.plan, self.device = data, plan, device
        self.steps_per_epoch = len(data.images) // plan.batch_size

    def cast(self) -> Any:
        """The precision of forward passes."""
        return torch.autocast("cuda", torch.bfloat16) if self.device == "cuda" else contextlib.nullcontext()

    def build(self) -> nn.Module:
        """The dense network, untrained."""
        model = timm.create_model("deit_tiny_patch16_224", num_classes=self.data.num_classes, **self.plan.kwargs)
        return model.to(self.device)

    def train(self, model: nn.Module, num_epochs: int, lr: float, *, mixes: bool) -> None:
        """AdamW with a cosine; `mixes`: with CutMix on every other batch."""
        if num_epochs == 0:
            return
        num_steps = num_epochs * self.steps_per_epoch
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, fused=self.device == "cuda")
        warmup = max(1, num_steps // 20)
        factor = lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / num_steps)))  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        network = torch.compile(model) if self.device == "cuda" and mixes else model
        model.train()
        for _ in range(num_epochs):
            for number, (images, labels) in enumerate(self.data.batches(self.plan.batch_size)):
                wanted: Tensor = labels
                if mixes and number % 2:
                    images, wanted = cutmix(images, labels, self.data.num_classes)
                with self.cast():
                    loss = F.cross_entropy(network(images), wanted, label_smoothing=0.1 if wanted is labels else 0.0)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
        model.eval()

    @torch.inference_mode()
    def top1(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Percent of images of the right class."""
        model.eval()
        with self.cast():
            hits = [(model(part).argmax(1) == wanted).sum() for part, wanted in _parts(images, labels)]
        return 100 * float(sum(int(one) for one in hits)) / len(labels)

    @torch.inference_mode()
    def kl(self, model: nn.Module, dense: nn.Module) -> float:
        """Mean KL divergence of the member from the dense network on the test images, in nats."""
        total = 0.0
        with self.cast():
            for part, _ in _parts(self.data.test_images, self.data.test_labels):
                wanted, found = dense(part).float().log_softmax(1), model(part).float().log_softmax(1)
                total += float(F.kl_div(found, wanted, log_target=True, reduction="sum"))
        return total / len(self.data.test_labels)

    def search(self, model: nn.Module, name: str, budget: float | None, seed: int) -> OrderSearch | BudgetSearch:
        """Run a method's search on a network, whose weights it may train."""
        config = read_method({"name": name})
        pairs = spp.find_pairs(model, per_head=config.needs_heads)
        masked = spp.MaskedModel(model, pairs)
        num_steps = self.plan.joint_epochs * self.steps_per_epoch if config.trains_weights else self.plan.search_steps
        asked = None if budget is None else Budget("macs", budget)
        search = load_method(name).build_search(
            config, masked, SearchRequest(num_steps=num_steps, seed=seed, batch_size=self.plan.batch_size, budget=asked)
        )
        for parameter in model.parameters():
            parameter.requires_grad_(config.trains_weights)
        weights = torch.optim.AdamW(model.parameters(), lr=self.plan.lr / 2) if config.trains_weights else None
        num_epochs = -(-num_steps // self.steps_per_epoch)
        masked.train()
        for epoch in range(num_epochs):
            search.on_epoch_start(epoch, num_epochs)
            for images, labels in self.data.batches(self.plan.batch_size):
                if search.num_steps_taken >= num_steps:
                    break
                search.before_forward()
                with self.cast():
                    outputs = masked(images)
                    if search.samples_targets:
                        labels = torch.distributions.Categorical(logits=outputs.detach().float()).sample()
                    loss = F.cross_entropy(outputs, labels)
                loss.backward()
                search.after_backward()
                if weights is not None:
                    weights.step()
                    weights.zero_grad()
        model.eval()
        model.requires_grad_(True)
        assert isinstance(search, OrderSearch | BudgetSearch)
        return search


def _parts(images: Tensor, labels: Tensor) -> Any:
    return zip(images.split(1000), labels.split(1000), strict=True)


class Study:
    """The rows of the part, and the dense networks behind them."""

    def __init__(self, rows: Rows, trainer: Trainer, folder: Path) -> None:
        self.rows, self.trainer, self.folder = rows, trainer, folder

    def dense(self, seed: int) -> nn.Module | None:
        """The dense network of a seed, trained or read; None if the time is over."""
        model, file = self.trainer.build(), self.folder / f"dense-{seed}.pt"

        def make() -> Mapping[str, Any]:
            torch.manual_seed(seed)
            fresh = self.trainer.build()
            self.trainer.train(fresh, self.trainer.plan.dense_epochs, self.trainer.plan.lr, mixes=True)
            torch.save(fresh.state_dict(), file)
            return {"epochs": self.trainer.plan.dense_epochs, **self.measured(fresh)}

        if self.rows.measure(f"dense seed {seed}", make) is None:
            return None
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()

    def measured(self, model: nn.Module, dense: nn.Module | None = None) -> dict[str, Any]:
        """Accuracy on the validation and the test images, and the divergence from the dense network."""
        data = self.trainer.data
        row = {
            "val_top1": self.trainer.top1(model, data.val_images, data.val_labels),
            "test_top1": self.trainer.top1(model, data.test_images, data.test_labels),
        }
        return row if dense is None else row | {"test_kl": self.trainer.kl(model, dense)}

    def family(self, dense: nn.Module, name: str, seed: int) -> None:
        """All members of a method: cut, repaired, and finetuned."""
        plan = self.trainer.plan
        config, found = read_method({"name": name}), {}
        for budget in BUDGETS:
            label = f"{name} {budget:g} seed {seed}"
            if self.rows.find(label) is not None:
                continue

            def make(budget: float = budget) -> Mapping[str, Any]:
                torch.manual_seed(seed)
                key = budget if config.kinds[0] == "budget" else None
                if key not in found:
                    network = self.trainer.build()
                    network.load_state_dict(dense.state_dict())
                    found[key] = (network, self.trainer.search(network, name, key, seed))
                network, search = found[key]
                if isinstance(search, BudgetSearch):
                    masks = search.final_masks()
                else:
                    path = search.order({})
                    masks = load_method(name).select(config, path, "macs", budget)
                small = spp.compact(network, {pair: mask.cpu() for pair, mask in masks.items()}).to(self.trainer.device)
                one = self.trainer.data.images[:1]
                row = {"macs": spp.count_cost(small, one).macs / spp.count_cost(network, one).macs}
                row |= {f"cut_{key}": value for key, value in self.measured(small, dense).items()}
                batches = list(self.trainer.data.images[:REPAIR_IMAGES].split(128))
                small = spp.repair(small, network, batches)
                row |= {f"repaired_{key}": value for key, value in self.measured(small, dense).items()}
                epochs = plan.finetune_epochs - (plan.joint_epochs if config.trains_weights else 0)
                self.trainer.train(small, epochs, plan.lr / 2, mixes=False)
                return row | {"finetune_epochs": epochs, **self.measured(small, dense)}

            self.rows.measure(label, lambda member=make: _unless_out_of_reach(member))


def _unless_out_of_reach(member: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of a member, or why a method that cuts whole heads cannot make one of that size."""
    try:
        return member()
    except OutOfReachError as error:
        return {"out_of_reach": str(error)}


def measure(rows: Rows, device: str, root: Path | None, is_tiny: bool, folder: Path) -> None:
    """All rows of the part, seed by seed; magnitude and random have no search."""
    plan = TINY if is_tiny else FULL
    data = load("digits" if is_tiny else "cifar10", None if is_tiny else root, device)
    study = Study(rows, Trainer(data, plan, device), folder)
    for seed in SEEDS[:1] if is_tiny else SEEDS:
        dense = study.dense(seed)
        if dense is None:
            return
        for name in METHODS:
            if name in method_names():
                study.family(dense, name, seed)
