"""How fast a network is here: torch.utils.benchmark, with the spread."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spp.structure.find import example_inputs
from spp.structure.inputs import Inputs


@dataclass(frozen=True)
class Latency:
    """Time of one call in milliseconds: median, quarter and three-quarter quantile, number of runs, and what each block
    of runs took for one."""

    median_ms: float
    low_ms: float
    high_ms: float
    num_runs: int
    times_ms: tuple[float, ...]


@dataclass(frozen=True)
class Circumstances:
    """Under which latency is measured.

    Attributes:
        device: cpu, or cuda.
        batch_size: samples of one call.
        num_threads: of the processor; 0: as many as torch takes by itself.
    """

    device: str = "cpu"
    batch_size: int = 1
    num_threads: int = 0

    def __post_init__(self) -> None:
        for name, value, lowest in (("batch", self.batch_size, 1), ("threads", self.num_threads, 0)):
            if value < lowest:
                raise ValueError(f"--{name}: {value} is not allowed; allowed: {lowest} or more; use 1")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device: 'cuda' is not here; allowed: cpu; use it, or a machine with a GPU")

    @property
    def label(self) -> str:
        """What tables call it."""
        threads = self.num_threads or torch.get_num_threads()
        place = f"{threads} thread{'s' if threads > 1 else ''}" if self.device == "cpu" else "GPU"
        return f"batch {self.batch_size}, {place}"


def latency(network: nn.Module, where: Circumstances, min_seconds: float = 0.5) -> Latency:
    """Time of one forward pass of a network, which is moved to the device."""
    network = network.to(where.device).eval()
    return time_calls(network, samples_like(network, where.batch_size), where, min_seconds)


def samples_like(network: nn.Module, batch_size: int) -> Inputs:
    """Inputs of a network's own size, device and dtype: one tensor, or several by the names of its forward.

    Images are random; tokens and their masks, on whose values no time depends, are those of its example: whole texts
    without padding.
    """
    made = {}
    for name, example in example_inputs(network).items():
        shape = (batch_size, *example.shape[1:])
        is_real = example.is_floating_point()
        made[name] = torch.randn_like(example.new_empty(shape)) if is_real else example.expand(shape).contiguous()
    return made if len(made) > 1 else next(iter(made.values()))


def time_calls(call: Callable[..., Any], samples: Inputs, where: Circumstances, min_seconds: float) -> Latency:
    """Time of one call, over at least `min_seconds` of them; several samples are handed over by their names."""
    # It looks for a CUDA compiler, which it does not need here, and complains on machines without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    threads = where.num_threads or torch.get_num_threads()
    statement = "call(**samples)" if isinstance(samples, Mapping) else "call(samples)"
    timer = Timer(statement, globals={"call": call, "samples": samples}, num_threads=threads)
    with torch.inference_mode(), _threads(threads):
        timer.timeit(1)
        measured = timer.blocked_autorange(min_run_time=min_seconds)
    times = torch.tensor(measured.times, dtype=torch.float64) * 1e3
    low, median, high = torch.quantile(times, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    return Latency(median, low, high, len(times) * measured.number_per_run, tuple(times.tolist()))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
