"""Part (c): one-shot pruning of one decoder layer of Llama-7B's shape, with random weights: seconds and memory."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from gpu_study.rows import Rows
from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.sparsity.pattern import Pattern
from spp.sparsity.problem import LinearProblem, prepare_input
from spp.sparsity.statistics import InputStats

METHODS = ("wanda", "ria", "sparsegpt", "spp_ria")
WIDTHS = {"q": (4096, 4096), "k": (4096, 4096), "v": (4096, 4096), "o": (4096, 4096)}
WIDTHS |= {"gate": (11008, 4096), "up": (11008, 4096), "down": (4096, 11008)}
SHARED = {"k": "q", "v": "q", "up": "gate"}
"""Linears that see the input of another one share its statistics."""


def layer_row(method_name: str, device: str, is_tiny: bool) -> Mapping[str, Any]:
    """Seconds and peak memory for the seven linears of a layer, their inputs' statistics apart."""
    divisor = 64 if is_tiny else 1
    widths = {name: (num_out // divisor, num_in // divisor) for name, (num_out, num_in) in WIDTHS.items()}
    num_batches, num_tokens = (2, 256) if is_tiny else (128, 2048)
    torch.manual_seed(0)
    method = load_weight_method(read_weight_method({"name": method_name}))
    pattern = Pattern(group="block" if method_name == "sparsegpt" else "row")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    statistics_s = choosing_s = 0.0
    kept = total = 0
    stats: dict[str, InputStats] = {}
    for name, (num_out, num_in) in widths.items():
        weight = torch.randn(num_out, num_in, device=device)
        source = SHARED.get(name, name)
        if source not in stats:
            stats.clear()  # the statistics of one input at a time
            began = _now(device)
            stats[source] = InputStats(num_in, device=device)
            for _ in range(num_batches):
                stats[source].add(torch.randn(num_tokens, num_in, device=device))
            statistics_s += _now(device) - began
        began = _now(device)
        known = prepare_input(name, weight, stats[source], damping=0.01)
        choice = method.choose(LinearProblem(weight, known, pattern))
        choosing_s += _now(device) - began
        kept, total = kept + int(choice.mask.sum()), total + weight.numel()
    row = {"kept": kept / total, "statistics_s": statistics_s, "choosing_s": choosing_s}
    return row if device == "cpu" else row | {"gib": torch.cuda.max_memory_allocated() / 2**30}


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(rows: Rows, device: str, is_tiny: bool) -> None:
    """All rows of the part."""
    for name in METHODS:
        rows.measure(f"layer of 7B {name}", lambda n=name: layer_row(n, device, is_tiny))
