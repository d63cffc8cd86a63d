"""A metric of a whole gallery over two devices, each of which sees a share of the samples."""

import socket
import subprocess
import sys

import pytest
import torch

from spp.tasks.task import Evaluator, gather_over_devices

NUM_SAMPLES = 13


class Recall(Evaluator):
    """How often, in percent, the nearest other output of the gallery is one of the same kind."""

    def __init__(self):
        super().__init__()
        self.outputs, self.kinds = [], []

    def update(self, outputs, batch):
        self.outputs.append(outputs)
        self.kinds.append(batch)
        self.num_samples += len(batch)

    def compute(self):
        outputs, kinds = gather_over_devices(torch.cat(self.outputs)), gather_over_devices(torch.cat(self.kinds))
        distances = torch.cdist(outputs, outputs).fill_diagonal_(float("inf"))
        return {"recall": 100 * float((kinds[distances.argmin(1)] == kinds).double().mean())}


def recall_of(rank, num_devices):
    """The recall that one of several devices computes, all of which are at it."""
    generator = torch.Generator().manual_seed(0)
    outputs, kinds = torch.randn(NUM_SAMPLES, 2, generator=generator), torch.arange(NUM_SAMPLES) % 3
    evaluator = Recall()
    share = torch.arange(NUM_SAMPLES)[rank::num_devices]
    for positions in share.split(3):
        evaluator.update(outputs[positions], kinds[positions])
    return evaluator.compute()["recall"]


def test_every_device_computes_the_metric_of_the_whole_gallery():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    devices = [
        subprocess.Popen([sys.executable, __file__, address, str(rank)], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    values = [float(device.communicate(timeout=120)[0]) for device in devices]
    whole = recall_of(0, 1)
    assert values == pytest.approx([whole, whole])
    shares = [recall_of(rank, 2) for rank in range(2)]
    assert sum(shares) / 2 != pytest.approx(whole)


if __name__ == "__main__":
    address, rank = sys.argv[1:]
    torch.distributed.init_process_group("gloo", init_method=address, rank=int(rank), world_size=2)
    print(recall_of(int(rank), 2))
    torch.distributed.destroy_process_group()
