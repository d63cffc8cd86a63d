"""Part (a): the search's step beside a training step, and what compact networks take beside dense ones."""

import statistics
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

import spp
from bench_search import Steps, timed
from gpu_study.rows import Rows

REPEATS = 10
BATCHES = (1, 32, 256)


def steps_row(name: str, device: str, batch_size: int, is_bf16: bool, is_compiled: bool) -> Mapping[str, Any]:
    """Milliseconds, ratios and peak memory of the three kinds of steps."""
    steps = Steps(name, device, batch_size, is_bf16, None, is_compiled)
    row: dict[str, Any] = {"batch": batch_size}
    for kind, step in (("dense", steps.train), ("search", steps.search), ("floor", steps.floor)):
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        row[f"{kind}_ms"] = 1e3 * statistics.median(timed(step, device) for _ in range(REPEATS))
        if device == "cuda":
            row[f"{kind}_gib"] = torch.cuda.max_memory_allocated() / 2**30
    row["search_over_dense"] = row["search_ms"] / row["dense_ms"]
    row["floor_over_dense"] = row["floor_ms"] / row["dense_ms"]
    return row


def half_of(model: nn.Module, multiple_of: int) -> nn.Module:
    """A compact copy with half of the units of every pair, rounded up to a multiple."""
    masks = {}
    for pair in spp.find_pairs(model):
        kept = min(pair.size, -(-round(pair.size / 2) // multiple_of) * multiple_of)
        masks[pair.name] = torch.arange(pair.size) < kept
    return spp.compact(model, masks)


def compact_row(name: str, device: str, batch_size: int, is_bf16: bool) -> Mapping[str, Any]:
    """The speed-up of a member over the ideal one, which is the ratio of multiply-adds."""
    model = timm.create_model(name, num_classes=1000).eval()
    small = half_of(model, 8).eval()
    one = torch.zeros(1, 3, *model.patch_embed.img_size)
    ratio = spp.count_cost(model, one).macs / spp.count_cost(small, one).macs
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    models = {"dense": model.to(device, dtype), "member": small.to(device, dtype)}
    images = torch.randn(batch_size, 3, *model.patch_embed.img_size, device=device, dtype=dtype)
    seconds: dict[str, list[float]] = {key: [] for key in models}
    with torch.inference_mode():
        for _ in range(3 + 3 * REPEATS):
            for key, one in models.items():
                seconds[key].append(timed(lambda one=one: one(images), device))
    dense, member = (statistics.median(values[3:]) for values in seconds.values())
    speedup = dense / member
    return {
        "batch": batch_size,
        "dense_ms": 1e3 * dense,
        "member_ms": 1e3 * member,
        "speedup": speedup,
        "ideal": ratio,
        "share_of_ideal": speedup / ratio,
    }


def measure(rows: Rows, device: str, is_tiny: bool) -> None:
    """All rows of the part."""
    names = ["deit_tiny_patch16_224"] if is_tiny else ["deit_small_patch16_224", "deit_base_patch16_224"]
    for name in names:
        for is_bf16 in (False,) if is_tiny else (True, False):
            dtype = "bf16" if is_bf16 else "fp32"
            batch = 2 if is_tiny else 128
            for is_compiled in (False,) if is_tiny else (False, True):
                label = f"steps {name} {dtype}{' compiled' if is_compiled else ''}"
                rows.measure(label, lambda n=name, b=batch, f=is_bf16, c=is_compiled: steps_row(n, device, b, f, c))
            for size in (1,) if is_tiny else BATCHES:
                rows.measure(
                    f"compact {name} {dtype} batch {size}",
                    lambda n=name, s=size, f=is_bf16: compact_row(n, device, s, f),
                )
