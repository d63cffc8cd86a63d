"""What a step of SPP's search costs beside a training step: python benchmarks/bench_search.py [--model NAME] [--bf16].

Three steps of one network in turns, so that a busy machine slows all of them alike:
  dense   forward, backward and AdamW's step on all weights
  search  forward and backward with masks on and weights frozen, and the step of the masks
  floor   forward and backward to the input alone, with the weights frozen: what any search by gradients takes at least
Prints medians, their spread (interquartile range over median), ratios to the dense step, peak memory on a GPU, and what
the masks' own step takes.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import spp
from spp.methods.search import SearchRequest
from spp.methods.units.spp.config import SPPConfig
from spp.methods.units.spp.search import SPPMethod

NUM_STEPS = 1000
"""That the search is planned for; as many are not taken."""


class Steps:
    """The three steps on one batch of random images.

    Args:
        name: of a timm model.
        device: cpu or cuda.
        batch_size: images.
        is_bf16: whether the forward runs under bfloat16 autocast.
        img_size: pixels; None: the model's own.
        is_compiled: whether the networks are compiled.
    """

    def __init__(
        self, name: str, device: str, batch_size: int, is_bf16: bool, img_size: int | None, is_compiled: bool
    ) -> None:
        torch.manual_seed(0)
        arguments = {} if img_size is None else {"img_size": img_size}
        self.device, self.is_bf16 = device, is_bf16
        self.dense, self.frozen, searched = (
            timm.create_model(name, num_classes=1000, **arguments).to(device).train() for _ in range(3)
        )
        size = self.dense.patch_embed.img_size
        self.images = torch.randn(batch_size, 3, *size, device=device)
        self.labels = torch.randint(1000, (batch_size,), device=device)
        self.optimizer = torch.optim.AdamW(self.dense.parameters(), lr=1e-4, fused=device == "cuda")
        self.frozen.requires_grad_(False)
        searched.requires_grad_(False)
        self.masked = spp.MaskedModel(searched, spp.find_pairs(searched))
        request = SearchRequest(num_steps=NUM_STEPS, seed=0, batch_size=batch_size)
        self.search_method = SPPMethod().build_search(SPPConfig(), self.masked, request)
        self.search_method.on_epoch_start(0, 1)
        compiled = torch.compile if is_compiled else lambda network: network
        self._dense, self._frozen, self._masked = (compiled(one) for one in (self.dense, self.frozen, self.masked))

    def _loss(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        cast = torch.autocast(self.device, torch.bfloat16) if self.is_bf16 else contextlib.nullcontext()
        with cast:
            return F.cross_entropy(network(images), self.labels)

    def train(self) -> None:
        """One step of AdamW on all weights."""
        self._loss(self._dense, self.images).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def search(self) -> None:
        """One step of the masks."""
        self._loss(self._masked, self.images).backward()
        self.search_method.after_backward()

    def floor(self) -> None:
        """Gradients to the input, and to nothing else."""
        images = self.images.requires_grad_(True)
        self._loss(self._frozen, images).backward()
        images.grad = None
        self.images.requires_grad_(False)


def timed(step: Callable[[], object], device: str) -> float:
    """Seconds of one call."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def mask_update(name: str, device: str, repeats: int) -> float:
    """Median seconds of the masks' step alone, on random gradients."""
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name)
    masks = {pair.name: nn.Parameter(torch.ones(pair.size, device=device)) for pair in spp.find_pairs(model)}
    optimizer = spp.BregmanOptimizer(masks, "textbook", lr=0.01)
    seconds = []
    for _ in range(repeats):
        for mask in masks.values():
            mask.grad = torch.randn_like(mask)
        seconds.append(timed(optimizer.step, device))
    return statistics.median(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--img-size", type=int, help="pixels; the model's own if not given")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="compile the networks first")
    parser.add_argument("--repeats", type=int, default=15)
    words = parser.parse_args(argv)
    steps = Steps(words.model, words.device, words.batch, words.bf16, words.img_size, words.compile)
    kinds = {"dense": steps.train, "search": steps.search, "floor": steps.floor}
    memory = dict.fromkeys(kinds, 0)
    for kind, step in kinds.items():  # warm up, and measure memory apart
        if words.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        if words.device == "cuda":
            memory[kind] = torch.cuda.max_memory_allocated()
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(words.repeats):
        for kind, step in kinds.items():
            seconds[kind].append(timed(step, words.device))
    precision = "bf16" if words.bf16 else "fp32"
    where = f"{words.device}, {torch.get_num_threads()} threads"
    print(f"{words.model}, batch {words.batch}, {precision}, {where}")
    dense = statistics.median(seconds["dense"])
    for kind, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4)
        used = f"   {memory[kind] / 2**30:.2f} GiB" if memory[kind] else ""
        spread, ratio = (high - low) / median, median / dense
        print(f"  {kind:7s} {1e3 * median:9.1f} ms ± {spread:4.0%}   {ratio:5.2f} of dense{used}")
    update = mask_update(words.model, words.device, 4 * words.repeats)
    print(f"  the masks' own step {1e3 * update:.2f} ms")


if __name__ == "__main__":
    main()
