"""Rows, paths and a look at what was drawn."""

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from spp.record.record import Record
from spp.report.path_arrays import PathArrays
from spp.report.published import Published, load_published

DENSE_MACS, DENSE_PARAMS = 4.6e9, 22.05e6
WITHOUT_UNIT = {"error", "search step", "layer", "seed", "preset", "kappa", "lambda", "Kendall's tau", "step of entry"}
"""What an axis may show as it is: names, counts and plain numbers."""


@pytest.fixture(scope="session")
def published() -> Published:
    return load_published()


@pytest.fixture(scope="session")
def make_row(with_metrics: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Makes the row of a member with a search of its own for each (method, preset, variant, seed), as SPP has."""

    def make(method: str = "spp", budget: float = 0.5, seed: int = 0, **changes: Any) -> dict[str, Any]:
        preset = changes.get("preset", "priced" if method == "spp" else None)
        names = [str(part) for part in (method, preset, changes.get("variant", ""), seed)]
        if changes.pop("per_budget", False):
            names.append(str(budget))
        row = {
            "point": "-".join(names), "sweep": "s", "command": "spp run", "method": method, "preset": preset,
            "variant": "", "task": "classification", "model": "deit_small", "data": "imagenet", "seed": seed,
            "budget_kind": "macs", "budget_asked": budget, "macs": DENSE_MACS * budget,
            "params": DENSE_PARAMS * (budget + 0.02),
            "dense_macs": DENSE_MACS, "dense_params": DENSE_PARAMS, "dense_top1": 79.8, "top1_before": 60.0,
            "top1": 78.0, "top5": None, "val_top1": 78.0, "num_test": 50_000, "epochs_update": 10,
            "epochs_prune": 30, "epochs_search": 40, "epochs_finetune": 300, "batch_size": 512, "lr": 8e-4,
            "data_config": {"img_size": 224}, "num_train": 1_281_167, "search_seconds": 7200.0,
            "search_gpu_seconds": 28_800.0,
            "num_members_of_search": 5, "finetune_seconds": 1e5, "finetune_gpu_seconds": 4e5, "device": "NVIDIA A100",
            "walk_seconds": 5400.0, "walk_gpu_seconds": 21_600.0, "dense_config": {},
            "key": "-".join([*names, str(budget)]), "member_key": f"m-{'-'.join(names)}",
            "member_kind": "finetune", "family_key": f"f-{'-'.join(names)}",
            "search_key": f"s-{'-'.join(names)}", "path_key": None, "dense_key": f"d{seed}", "git_commit": None,
            "folder": "", "config": {}, "method_config": {"kappa": None, "lam": None, "preset": preset},
        }  # fmt: skip
        return with_metrics({**row, **changes})

    return make


@pytest.fixture(scope="session")
def study(make_row: Callable[..., dict[str, Any]]) -> Record:
    """Ten methods, five budgets, three seeds; upop, wdpruning and leap search once for each budget."""
    chance = random.Random(0)
    methods = ["spp", "upop", "vit_slim", "wdpruning", "dessilbi", "lasso", "leap", "taylor", "magnitude", "random"]
    rows = []
    for loss, method in enumerate(methods):
        per_budget = method in ("upop", "wdpruning", "leap")
        for seed in range(3):
            for budget in (0.7, 0.57, 0.5, 0.4, 0.3):
                drop = (1 - budget) ** 2 * (4 + loss)
                rows.append(
                    make_row(
                        method,
                        budget,
                        seed,
                        per_budget=per_budget,
                        top1=79.8 - drop + chance.gauss(0, 0.1),
                        top1_before=79.8 - 6 * drop + chance.gauss(0, 1),
                        dense_top1=79.8 + seed / 10,
                    )
                )
    return Record(rows, [], [], "store")


@pytest.fixture(scope="session")
def make_path() -> Callable[[int], PathArrays]:
    """Makes a path of two layers by chance; half of the MLP units never enter, and one unit leaves again."""

    def make(seed: int, num_steps: int = 40) -> PathArrays:
        rng = np.random.default_rng(seed)
        sizes = {"qk": 8, "vo": 8, "mlp": 20}
        pairs = [
            {"name": f"blocks.{layer}.{kind}", "kind": kind, "size": size, "macs_per_unit": 2.0, "params_per_unit": 2.0}
            for layer in range(2)
            for kind, size in sizes.items()
        ]
        entry = {pair["name"]: rng.uniform(1, num_steps - 4, pair["size"]) for pair in pairs}
        for name, times in entry.items():
            if name.endswith("mlp"):
                times[10:] = np.inf
        steps = np.arange(0, num_steps + 1, 2)
        gamma = {name: np.maximum(steps[:, None] - times, 0) * 0.05 for name, times in entry.items()}
        gamma["blocks.0.qk"][-1, int(np.argmin(entry["blocks.0.qk"]))] = 0
        V = {name: np.where(np.isfinite(times), 2.0, rng.uniform(0, 0.9, len(times))) for name, times in entry.items()}
        hyper = {"lam": 1.0}
        meta = {"num_steps_taken": num_steps, "preset": "priced", "hyper": hyper, "costs_in_dynamics": True}
        return PathArrays(pairs=pairs, meta=meta, entry=entry, V=V, steps=steps, gamma=gamma)

    return make


@pytest.fixture(scope="session")
def check_figure() -> Callable[[Any], None]:
    """Checks a figure: axes say what they show and in what unit, their numbers are apart, nothing is cut off."""

    def check(figure: Any) -> None:
        figure.draw_without_rendering()
        for axes in (axes for axes in figure.axes if axes.axison):
            assert axes.get_label() == "<colorbar>" or _is_said(axes.get_xlabel()), axes.get_title()
            names = [label.get_text() for label in axes.get_yticklabels()]
            assert _is_said(axes.get_ylabel()) or not any(_is_number(name) for name in names), axes.get_title()
            assert not _overlap(axes), f"numbers of {axes.get_title()}"
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= -0.01, box
        assert box.y0 >= -0.01, box
        assert box.x1 <= width + 0.01, (box, width)
        assert box.y1 <= height + 0.01, (box, height)

    def _overlap(axes: Any) -> bool:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        shown = sorted(
            (box.x0, box.x1) for box in boxes if axes.bbox.x0 - 1 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1 + 1
        )
        return any(left[1] > right[0] for left, right in pairwise(shown))

    def _is_said(label: str) -> bool:
        return label in WITHOUT_UNIT or label.endswith(")")

    def _is_number(text: str) -> bool:
        return text.lstrip("-\N{MINUS SIGN}").replace(".", "").isdigit()

    return check
