"""The share of the weights that goes from each decoder layer, from passes through the dense network.

`owl` asks for the outliers of each layer, in one pass forward. `fisher` asks for gradients at the outputs of all
linears: the inputs of all layers are kept, and go backward through them, so that here, too, one layer at a time is on
the device. Its mean squares settle quickly, so it looks at the first windows alone.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spp.models.decoder import DecoderModel
from spp.sparsity.allocation import allocate, fisher_curve, outlier_share
from spp.sparsity.config import SparsityConfig
from spp.sparsity.statistics import InputStats
from spp.stages.context import StageRun
from spp.stages.language import Activations, HostBuffer
from spp.tasks.language import window_losses

MAX_FISHER_TOKENS = 2**15
"""Tokens whose gradients are taken; of Llama-2-7B the inputs of all layers take 9 GB for them."""


def layer_shares(stage: StageRun, model: DecoderModel, windows: Tensor, axes: SparsityConfig) -> list[float]:
    """The share that goes from each layer, in their order.

    Args:
        stage: whose progress it is; its folder takes what does not fit into memory.
        model: the dense network.
        windows: to calibrate with, (windows, length).
        axes: the kind of allocation, the mean share and its cap.
    """
    names = [str(index) for index in range(model.num_layers)]
    if axes.allocation == "uniform":
        return [axes.share] * model.num_layers
    measure = _outliers if axes.allocation == "owl" else _curves
    figures, sizes = measure(stage, model, windows)
    found = allocate(axes.allocation, figures, sizes, axes.share, axes.allocation_cap)
    return [found[name] for name in names]


def collect_statistics(
    model: DecoderModel, layer: nn.Module, activations: Activations, needs: frozenset[str]
) -> dict[str, InputStats]:
    """The statistics of the inputs of a layer's linears over all windows; linears of one input share them."""
    with ExitStack() as hooks:
        stats = _statistics_of(model, layer, needs, hooks)
        for _ in activations.outputs(layer):
            pass
    return stats


def _outliers(stage: StageRun, model: DecoderModel, windows: Tensor) -> tuple[dict[str, float], dict[str, int]]:
    """Shares of outliers and numbers of weights by layer."""
    activations = Activations(model, windows, stage.artifacts.parent)
    figures, sizes = {}, {}
    try:
        for index in range(model.num_layers):
            layer = model.load_layer(index)
            stats = collect_statistics(model, layer, activations, frozenset({"norms"}))
            found = {
                name: outlier_share(linear.weight, stats[model.inputs[name]])
                for name, linear in model.linears(layer).items()
            }
            sizes[str(index)], weights = _sizes(model.linears(layer))
            figures[str(index)] = sum(weights[name] * share for name, share in found.items())
            activations.advance(layer, index)
            stage.progress(index + 1, model.num_layers, "layers", "looking for outliers")
    finally:
        activations.close()
    return figures, sizes


def _curves(stage: StageRun, model: DecoderModel, windows: Tensor) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Curves of marginal losses and numbers of weights by layer."""
    folder, num_layers = stage.artifacts.parent, model.num_layers
    # First the hidden states before a layer, then the gradients of the loss at them.
    flow = Activations(model, windows[: max(1, MAX_FISHER_TOKENS // windows.shape[1])], folder)
    inputs = HostBuffer("inputs", (num_layers, *flow.hidden.shape), model.dtype, folder)
    figures, sizes = {}, {}
    try:
        for index in range(num_layers):
            inputs.values[index] = flow.hidden
            flow.advance(model.load_layer(index), index)
            stage.progress(index + 1, 2 * num_layers, "layers", "forward, for gradients")
        for where in flow.places():
            loss = partial(_sum_of_losses, flow.windows[where].to(model.device))
            flow.hidden[where] = model.gradient_at_end(flow.hidden[where].to(model.device), loss).cpu()
        for index in reversed(range(num_layers)):
            layer = model.load_layer(index)
            figures[str(index)], sizes[str(index)] = _curve_of_layer(model, layer, inputs.values[index], flow)
            stage.progress(2 * num_layers - index, 2 * num_layers, "layers", "backward, for gradients")
    finally:
        flow.close()
        inputs.close()
    return figures, dict(reversed(sizes.items()))


def _curve_of_layer(model: DecoderModel, layer: nn.Module, inputs: Tensor, flow: Activations) -> tuple[Tensor, int]:
    """The curve of a layer and its number of weights; gradients at its outputs become those at its inputs."""
    linears = model.linears(layer)
    squares = {name: torch.zeros(linear.out_features, device=linear.weight.device) for name, linear in linears.items()}
    with ExitStack() as hooks:
        stats = _statistics_of(model, layer, frozenset({"norms"}), hooks)
        for name, linear in linears.items():
            hooks.enter_context(linear.register_forward_hook(_adding_gradients_to(squares[name])))
        for where in flow.places():
            hidden, gradient = (values[where].to(model.device) for values in (inputs, flow.hidden))
            flow.hidden[where] = model.gradient_before(layer, hidden, gradient).cpu()
    size, weights = _sizes(linears)
    curves = [
        weights[name] * fisher_curve(linear.weight, known, squares[name] / known.num_tokens)
        for name, linear in linears.items()
        if (known := stats[model.inputs[name]])
    ]
    return torch.stack(curves).sum(0), size


def _statistics_of(
    model: DecoderModel, layer: nn.Module, needs: frozenset[str], hooks: ExitStack
) -> dict[str, InputStats]:
    """Statistics that what goes through a layer adds to, for as long as the hooks are there."""
    stats: dict[str, InputStats] = {}
    for name, linear in model.linears(layer).items():
        source = model.inputs[name]
        if source not in stats:
            stats[source] = InputStats(linear.in_features, needs, linear.weight.device)
            hooks.enter_context(linear.register_forward_pre_hook(_adding_to(stats[source])))
    return stats


def _adding_to(stats: InputStats) -> Any:
    def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        stats.add(args[0])

    return add


def _adding_gradients_to(squares: Tensor) -> Any:
    def add(gradient: Tensor) -> None:
        squares.add_(gradient.float().square().flatten(0, -2).sum(0))

    def watch(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(add)  # type: ignore[no-untyped-call]

    return watch


def _sum_of_losses(tokens: Tensor, logits: Tensor) -> Tensor:
    """Of all tokens, so that neither the length nor the number of windows scales a token's gradient."""
    return window_losses(logits, tokens).sum() * (tokens.shape[1] - 1)


def _sizes(linears: Mapping[str, nn.Linear]) -> tuple[int, dict[str, float]]:
    """The number of weights of a layer, and the share of each linear."""
    numbers = {name: linear.weight.numel() for name, linear in linears.items()}
    total = sum(numbers.values())
    return total, {name: number / total for name, number in numbers.items()}
