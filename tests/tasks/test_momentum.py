"""Momentum distillation: loss, queue and moving average against the recurrence written out, and over two processes."""

import copy
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spp.data.facts import DataFacts
from spp.plan.recipes import RecipeConfig
from spp.tasks.classification import Classification
from spp.tasks.momentum import Queue
from spp.tasks.retrieval import Retrieval

TASK = Retrieval(DataFacts(name="pictures", samples="images with captions"))
RECIPE = RecipeConfig(epochs=2, batch_size=4, lr=0.1, momentum_weight=0.4, momentum_decay=0.8, momentum_queue=6)
STEPS_PER_EPOCH, LR = 2, 0.5
OWNERS = [[0, 1, 0, 2], [3, 1, 4, 5], [6, 7, 8, 0], [1, 2, 6, 7], [0, 3, 4, 8]]


class Towers(nn.Module):
    """Two maps and a factor."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image_map = nn.Parameter(torch.randn(5, 3, generator=generator))
        self.text_map = nn.Parameter(torch.randn(4, 3, generator=generator))
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images, texts):
        return {
            "images": F.normalize(images @ self.image_map, dim=1),
            "texts": F.normalize(texts @ self.text_map, dim=1),
            "scale": self.log_scale.exp(),
        }


def batches():
    generator = torch.Generator().manual_seed(1)
    for owners in OWNERS:
        num = len(owners)
        inputs = {"images": torch.randn(num, 5, generator=generator), "texts": torch.randn(num, 4, generator=generator)}
        yield inputs, torch.tensor(owners)


def train(network, momentum, part=slice(None), average=lambda gradient: gradient, steps=slice(None)):
    """The losses of some steps of gradient descent."""
    losses = []
    for inputs, owners in list(batches())[steps]:
        prepared, targets = momentum.prepare({name: rows[part] for name, rows in inputs.items()}, owners[part])
        loss = momentum(network(**prepared), targets)
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for weight in network.parameters():
                weight -= LR * average(weight.grad)
        momentum.after_step(network)
        losses.append(float(average(loss.detach().clone())))
    return losses


def by_hand():
    """The same, number by number: losses, and the weights of the network and of its average."""
    network = Towers().double()
    average = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    queue, losses = [], []
    for step, (inputs, owners) in enumerate(batches()):
        inputs = {name: rows.double() for name, rows in inputs.items()}
        out = network(**inputs)
        with torch.no_grad():
            of_average = torch.func.functional_call(network, average, (), inputs)
        batch = list(zip(of_average["images"], of_average["texts"], owners.tolist(), strict=True))
        keys = batch + queue
        alpha = 0.4 * min(1.0, step / STEPS_PER_EPOCH)
        scale, total = out["scale"], 0.0
        for own, side, other in (("images", 0, 1), ("texts", 1, 0)):
            for row, owner in enumerate(owners.tolist()):
                believed = [math.exp(float(scale.detach() * batch[row][side] @ key[other])) for key in keys]
                is_right = [key[2] == owner for key in keys]
                scores = torch.stack([scale * out[own][row] @ key[other] for key in keys])
                logs = scores - torch.logsumexp(scores, 0)
                for place, log in enumerate(logs):
                    soft = believed[place] / sum(believed)
                    total = total - (alpha * soft + (1 - alpha) * is_right[place] / sum(is_right)) * log
        loss = total / (2 * len(owners))
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(network.parameters(), gradients, strict=True):
                weight -= LR * gradient
            for name, weight in network.named_parameters():
                average[name] = 0.8 * average[name] + 0.2 * weight.detach()
        queue = (batch[::-1] + queue)[:6]  # the newest first
        losses.append(float(loss.detach()))
    return losses, dict(network.named_parameters()), average


def test_losses_weights_and_average_are_those_of_the_recurrence():
    network = Towers()
    momentum = TASK.momentum_loss(network, RECIPE, STEPS_PER_EPOCH)
    losses = train(network, momentum)
    expected, weights, average = by_hand()
    assert losses == pytest.approx(expected, rel=1e-5)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight, weights[name].float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(momentum.average.network.get_parameter(name), average[name].float())
    assert not any(weight.requires_grad for weight in momentum.average.parameters())


def test_it_goes_on_from_a_checkpoint(tmp_path):
    network = Towers()
    momentum = TASK.momentum_loss(network, RECIPE, STEPS_PER_EPOCH)
    whole = train(network, momentum)

    network = Towers()
    momentum = TASK.momentum_loss(network, RECIPE, STEPS_PER_EPOCH)
    assert train(network, momentum, steps=slice(3)) == whole[:3]
    torch.save(momentum.average.state_dict(), tmp_path / "average.pt")

    other = copy.deepcopy(network)
    resumed = TASK.momentum_loss(other, RECIPE, STEPS_PER_EPOCH)
    resumed.average.load_state_dict(torch.load(tmp_path / "average.pt"))
    assert train(other, resumed, steps=slice(3, None)) == whole[3:]


@pytest.mark.parametrize("sizes", [[2, 2, 3], [7], [1] * 9, [5, 5]])
def test_the_queue_holds_the_last_pairs(sizes):
    queue, put = Queue(4), []
    for size in sizes:
        owners = torch.arange(len(put), len(put) + size)
        put += owners.tolist()
        queue.put({"images": owners[:, None] / 10, "texts": owners[:, None] * 1.0, "owners": owners})
        keys = queue.keys()
        assert sorted(keys["owners"].tolist()) == put[-4:]
        torch.testing.assert_close(keys["images"][:, 0] * 10, keys["texts"][:, 0])


def test_without_a_queue_and_a_weight_for_the_average_rows_are_compared_with_the_batch_alone():
    network = Towers()
    recipe = RecipeConfig(epochs=1, batch_size=4, lr=0.1, momentum_weight=1e-9)
    momentum = TASK.momentum_loss(network, recipe, 1)
    inputs, owners = next(iter(batches()))
    prepared, targets = momentum.prepare(inputs, owners)
    plain = TASK.training_loss(recipe)(network(**inputs), owners)  # the average is the network itself
    torch.testing.assert_close(momentum(network(**prepared), targets), plain)


def test_other_tasks_refuse_it():
    task = Classification(DataFacts(name="digits", samples="images", inputs={}, num_classes=10))
    with pytest.raises(ValueError, match=r"momentum_weight: 0.4 is not for classification; allowed: 0; leave it out"):
        task.check_momentum(0.4)
    with pytest.raises(ValueError, match=r"momentum_queue: 8 is not allowed; allowed: 0 without a momentum_weight"):
        RecipeConfig(epochs=1, batch_size=4, lr=0.1, momentum_queue=8)


def _one_rank(rank, folder):
    """A process of two: half of each batch, gradients averaged as DDP does."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

    def average(value):
        torch.distributed.all_reduce(value)
        return value / 2

    network = Towers()
    momentum = TASK.momentum_loss(network, RECIPE, STEPS_PER_EPOCH)
    losses = train(network, momentum, slice(2 * rank, 2 * rank + 2), average)
    state = momentum.average.state_dict()
    torch.save((losses, network.state_dict(), state), f"{folder}/found{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_as_one(tmp_path):
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    network = Towers()
    momentum = TASK.momentum_loss(network, RECIPE, STEPS_PER_EPOCH)
    losses = train(network, momentum)
    for rank in range(2):
        found, weights, state = torch.load(tmp_path / f"found{rank}.pt")
        assert found == pytest.approx(losses, rel=1e-5)
        torch.testing.assert_close(weights, dict(network.state_dict()))
        torch.testing.assert_close(dict(state), dict(momentum.average.state_dict()))


if __name__ == "__main__":
    _one_rank(int(sys.argv[1]), sys.argv[2])
