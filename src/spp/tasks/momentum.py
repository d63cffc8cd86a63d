"""Momentum distillation with a queue, of retrieval (Li et al. 2021, ALBEF, section 3.2; UPop's released code for CLIP).

A moving average of the network embeds every batch, too. Images and texts are compared with what the average made of the
batch and of earlier ones, and what the average thinks of each match is part of the target. It is there while weights
train and no part of what is kept.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spp.structure.inputs import Inputs, call
from spp.tasks.task import TrainingLoss, gather_over_devices


class Queue(nn.Module):
    """The last so many pairs that were put in, as a ring; what is in it goes into checkpoints.

    Args:
        size: pairs.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.num_put = 0
        self._rows: dict[str, Tensor] = {}

    def keys(self) -> dict[str, Tensor]:
        """What is in it: "images" and "texts" (n, d), "owners" (n,); nothing before the first pair."""
        return {name: rows[: min(self.num_put, self.size)] for name, rows in self._rows.items()}

    def put(self, pairs: Mapping[str, Tensor]) -> None:
        """Put pairs in, (n, ...) each, the first one first; the oldest go out."""
        num = len(pairs["owners"])
        last = {name: rows[max(0, num - self.size) :] for name, rows in pairs.items()}
        first = self.num_put + num - len(last["owners"])
        places = (torch.arange(len(last["owners"])) + first) % max(1, self.size)
        for name, rows in last.items():
            if name not in self._rows:
                self._rows[name] = rows.new_zeros((self.size, *rows.shape[1:]))
            self._rows[name][places.to(rows.device)] = rows
        self.num_put += num

    def get_extra_state(self) -> dict[str, Any]:
        """For Module.state_dict."""
        return {"num_put": self.num_put, "rows": {name: rows.cpu() for name, rows in self._rows.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """For Module.load_state_dict."""
        self.num_put, self._rows = state["num_put"], dict(state["rows"])

    def to_device_of(self, rows: Tensor) -> None:
        """Bring what is in it, such as from a checkpoint, to where new rows are."""
        self._rows = {name: own.to(rows.device) for name, own in self._rows.items()}


class MovingAverage(nn.Module):
    """What momentum distillation keeps beside the network that trains.

    Attributes:
        network: the moving average.
        queue: what it has made of earlier batches.
        num_steps: steps taken.
    """

    def __init__(self, network: nn.Module, queue_size: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.queue = Queue(queue_size)
        self.num_steps = 0

    def get_extra_state(self) -> int:
        """For Module.state_dict."""
        return self.num_steps

    def set_extra_state(self, state: int) -> None:
        """For Module.load_state_dict."""
        self.num_steps = state


class MomentumLoss(TrainingLoss):
    """The contrastive loss against a moving average g of the network f, over the batch of all devices.

    With the keys K of a batch, which are what g makes of it and what is in the queue, the factor s of f, the share
    p of a row among the keys of its image, and the weight a, which rises in a line from 0 in the first epoch,

        loss = mean over rows and both ways of H(a softmax(s g(x) K^T) + (1 - a) p, softmax(s f(x) K^T))

    After a step the batch's keys enter the queue, and g <- decay g + (1 - decay) f. Where UPop's code differs: its
    queue begins with random rows (here it is empty), holds rows of f, and is compared by each device with its own part
    of the batch; its text average takes a norm of f.

    Args:
        plain: what prepares the inputs.
        network: f, whose weights train; it is copied.
        recipe: of the training (spp.plan.recipes.RecipeConfig), with its weight, decay and size of the queue.
        steps_per_epoch: over which the weight rises.

    Attributes:
        average: a module that goes where the network goes, and into checkpoints.
    """

    def __init__(self, plain: TrainingLoss, network: nn.Module, recipe: Any, steps_per_epoch: int) -> None:
        self.average = MovingAverage(network, recipe.momentum_queue)
        self._full_weight: float = recipe.momentum_weight
        self._decay: float = recipe.momentum_decay
        self._plain, self._steps_per_epoch = plain, steps_per_epoch
        self._batch: dict[str, Tensor] = {}

    @property
    def weight(self) -> float:
        """The weight of the average's own view in the running step."""
        return self._full_weight * min(1.0, self.average.num_steps / self._steps_per_epoch)

    @torch.no_grad()
    def prepare(self, inputs: Inputs, targets: Tensor) -> tuple[Inputs, dict[str, Tensor]]:
        """Also lets the average see the batch; targets are then its embeddings, "images" and "texts", and "owners"."""
        inputs, owners = self._plain.prepare(inputs, targets)
        seen = call(self.average.network.eval(), inputs)
        embedded = {name: seen[name].float() for name in ("images", "texts")}
        self._batch = {name: gather_over_devices(rows) for name, rows in {**embedded, "owners": owners}.items()}
        return inputs, {**embedded, "owners": owners}

    def __call__(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        self.average.queue.to_device_of(targets["owners"])
        queued = self.average.queue.keys()
        keys = {name: torch.cat([rows, queued[name]]) if queued else rows for name, rows in self._batch.items()}
        is_own = (targets["owners"][:, None] == keys["owners"][None]).float()
        shares = is_own / is_own.sum(1, keepdim=True)
        scale, weight = outputs["scale"].float(), self.weight
        losses = []
        for side, other in (("images", "texts"), ("texts", "images")):
            with torch.no_grad():
                believed = F.softmax(scale * targets[side] @ keys[other].T, dim=1)
            scores = scale * outputs[side].float() @ keys[other].T
            losses.append(F.cross_entropy(scores, weight * believed + (1 - weight) * shares))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Take in that the weights of the network have moved."""
        self.average.queue.put(self._batch)
        for own, moved in zip(self.average.network.parameters(), network.parameters(), strict=True):
            own.lerp_(moved, 1 - self._decay)
        self.average.num_steps += 1
