"""Stage `sparsify`: masks of single weights, decoder layer by decoder layer.

Activations go through a layer twice: as it is, for the statistics of its inputs, and pruned, so that the next layer
sees what it will see in the member. After each layer there is a checkpoint. A stage that goes on from one reads the
finished layers back and sends the activations through them, which gives the same bytes.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from torch import Tensor, nn

from spp.methods.weights.registry import load_weight_method, read_weight_method
from spp.models.decoder import DecoderModel
from spp.sparsity.config import SparsityConfig
from spp.sparsity.permutation import TiedHeads
from spp.sparsity.problem import MaskChooser
from spp.sparsity.prune_layer import LinearResult, prune_and_forget, statistics_needed
from spp.stages.context import StageRun
from spp.stages.language import Activations, model_folder, open_model
from spp.stages.layer_shares import collect_statistics, layer_shares
from spp.stages.sparse_member import apply_layer, layer_file, save_layer
from spp.stages.tokens import load_windows

HEADS_INPUT = "heads"
"""The input that the values of the attention make."""

_log = logging.getLogger(__name__)


def run(stage: StageRun) -> dict[str, Any]:
    """Prune all layers, and write a file for each."""
    stage.leave_to_leader()
    axes = SparsityConfig.from_spec(stage.config["sparsity"], "sparsity")
    method = load_weight_method(read_weight_method(stage.config["method"]))
    model = open_model(stage, model_folder(stage.store, stage.spec, "dense"))
    windows = load_windows(stage, model.vocab_size)["calibration"]
    shares = layer_shares(stage, model, windows, axes)
    with stage.interruptions.deferred():
        num_weights, num_kept = _Sparsification(stage, model, method, axes, shares).run(windows)
    return {
        "epochs": 0,
        "num_weights": num_weights,
        "num_kept": num_kept,
        "achieved_sparsity": round(1 - num_kept / num_weights, 4),
        "shares": shares,
        "members": {f"{stage.config['budget']['value']:.10g}": {"macs": None, "params": num_kept}},
    }


class _Sparsification:
    """One pass through the layers."""

    def __init__(
        self, stage: StageRun, model: DecoderModel, method: MaskChooser, axes: SparsityConfig, shares: list[float]
    ) -> None:
        self.stage, self.model, self.method, self.axes, self.shares = stage, model, method, axes, shares
        self.num_done = 0 if stage.saved is None else int(stage.saved["num_layers"])
        stage.saved = None
        self.needs = statistics_needed(method, axes)

    def run(self, windows: Tensor) -> tuple[int, int]:
        """The number of weights in the linears of all layers, and of those that stay."""
        stage, model = self.stage, self.model
        activations = Activations(model, windows, stage.artifacts.parent)
        stage.progress(0, model.num_layers, "layers", self._sizes(activations))
        _log.info("%s", self._sizes(activations))
        num_weights = num_kept = 0
        began = time.monotonic()
        try:
            for index in range(model.num_layers):
                layer = model.load_layer(index)
                file = layer_file(stage.artifacts, index)
                if index >= self.num_done:
                    self._prune(index, layer, activations, file)
                num_kept += apply_layer(model.linears(layer), file)
                num_weights += sum(linear.weight.numel() for linear in model.linears(layer).values())
                activations.advance(layer, index)
                if index >= self.num_done:
                    stage.save_at_boundary({"num_layers": index + 1})
                    left = (time.monotonic() - began) / (index + 1) * (model.num_layers - index - 1)
                    stage.progress(index + 1, model.num_layers, "layers", f"{left / 60:.0f} min to go")
        finally:
            activations.close()
        return num_weights, num_kept

    def _sizes(self, activations: Activations) -> str:
        """What a layer takes at least; the factors of one input at a time come on top of its statistics."""
        widths = self.model.input_widths() if self.needs else {}
        num_sums = sum(width * width if "gram" in self.needs else width for width in widths.values())
        parts = {
            "a layer": self.model.layer_bytes(),
            "statistics of its inputs": 4 * num_sums,
            f"activations {activations.buffer.place}": activations.buffer.num_bytes,
        }
        return ", ".join(f"{what} {num_bytes / 1e9:.2g} GB" for what, num_bytes in parts.items() if num_bytes)

    def _prune(self, index: int, layer: nn.Module, activations: Activations, file: Path) -> None:
        model, began = self.model, time.monotonic()
        linears = model.linears(layer)
        named = {name: f"layers.{index}.{name}" for name in linears}
        stats = collect_statistics(model, layer, activations, self.needs) if self.needs else {}
        results = prune_and_forget(
            {named[name]: linear.weight for name, linear in linears.items()},
            stats,
            {named[name]: source for name, source in model.inputs.items()},
            self.method,
            self.axes,
            self.shares[index],
            {HEADS_INPUT: TiedHeads(model.num_kv_heads, model.num_heads // model.num_kv_heads)},
        )
        by_name = {name: results[full] for name, full in named.items()}
        save_layer(file, by_name, model.dtype)
        self.stage.log({"layer": index, "seconds": time.monotonic() - began, **_figures(by_name)})


def _figures(results: Mapping[str, LinearResult]) -> dict[str, float]:
    """Means over the linears of a layer of what all of them tell."""
    shared = set.intersection(*(set(result.figures) for result in results.values())) - {"seconds"}
    return {name: mean(result.figures[name] for result in results.values()) for name in sorted(shared)}
