"""A language model as stages open it: layer by layer, its activations for all windows in host memory or on disk."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spp.models.causal import build_from
from spp.models.decoder import DecoderModel
from spp.models.given import folder_of
from spp.models.pretrained import check_unchanged
from spp.stages.context import StageRun
from spp.stages.finite import NotFiniteError
from spp.store.store import Store
from spp.structure.cost import Cost
from spp.temporary import remove, temporary

TOKENS_PER_BATCH = 2048
"""Tokens that go through a layer at once; sums over batches depend on it in their last bits."""
MAX_MEMORY_SHARE = 0.5
"""Of the memory that is available: activations that need more of it lie on disk."""

_log = logging.getLogger(__name__)


def dense_of(store: Store, spec: Mapping[str, Any], role: str) -> tuple[dict[str, Any], Path]:
    """Summary and artifacts of the dense network behind an input, which is that network or a member of it."""
    ref = spec["inputs"][role]
    if ref["kind"] != "dense":
        ref = store.spec(ref["kind"], ref["key"])["inputs"]["dense"]
    return store.summary(ref["kind"], ref["key"]), store.artifacts_dir(ref["kind"], ref["key"])


def given_folder(store: Store, spec: Mapping[str, Any], role: str) -> Path | None:
    """The folder of the given model behind an input, converted and checked; None where it was trained here.

    Raises:
        ValueError: one line, if its files are gone, or are others than those of the dense stage.
    """
    return checked_folder(store, spec["runtime"]["model"], dense_of(store, spec, role)[0])


def checked_folder(store: Store, runtime: Mapping[str, Any], summary: Mapping[str, Any]) -> Path | None:
    """The folder of the given model that a dense stage with this summary has noted; None where it was trained here.

    Args:
        store: of the stage.
        runtime: how a worker finds the network's files.
        summary: of the dense stage.

    Raises:
        ValueError: as `given_folder`.
    """
    if "files" not in summary:
        return None
    folder = folder_of(runtime)
    check_unchanged(folder, summary["files"], store.root / "cache")
    return folder


def model_folder(store: Store, spec: Mapping[str, Any], role: str) -> Path:
    """Where the weights of the dense network behind an input lie, as transformers saves a model."""
    return given_folder(store, spec, role) or dense_of(store, spec, role)[1]


def open_model(stage: StageRun, folder: Path) -> DecoderModel:
    """The network in a folder, in the numbers of the stage, on its device."""
    use_gpu = torch.cuda.is_available() and stage.runtime.accelerator != "cpu"
    device = torch.device("cuda" if use_gpu else "cpu")
    return DecoderModel(folder, getattr(torch, stage.config["dtype"]), device)


def count_language_cost(folder: Path, length: int) -> Cost:
    """Multiply-adds of one window and parameters of the model in a folder; no weight is read.

    What `spp.structure.cost` counts, by arithmetic: a multiply-add for each weight of a linear and token, and for each
    pair of tokens and number of a query in both products of the attention. (The models of transformers look at
    numbers in their masks, so they cannot be run without any.)
    """
    import transformers

    configuration: Any = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    with torch.device("meta"):
        network = build_from(configuration)
    linears = [module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear)]
    heads = configuration.num_attention_heads
    head_width = getattr(configuration, "head_dim", None) or configuration.hidden_size // heads
    attention = 2 * configuration.num_hidden_layers * heads * head_width * length**2
    num_params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(macs=float(length * sum(linears) + attention), params=num_params)


class HostBuffer:
    """Numbers in host memory or, where they do not fit into it, in a file.

    Args:
        what: they are, for the log.
        shape: of `values`.
        dtype: of `values`.
        folder: for the file.

    Attributes:
        values: the tensor.
        num_bytes: that they take.
        place: where they are, in words.

    Raises:
        OSError: the disk has no room for the file.
    """

    def __init__(self, what: str, shape: Sequence[int], dtype: torch.dtype, folder: Path) -> None:
        self.num_bytes = prod(shape) * dtype.itemsize
        is_in_memory = self.num_bytes <= MAX_MEMORY_SHARE * _available_bytes()
        self.place = "in memory" if is_in_memory else "on disk"
        _log.info("%s of %s take %.2f GB %s", what, tuple(shape), self.num_bytes / 1e9, self.place)
        if is_in_memory:
            self.values = torch.empty(*shape, dtype=dtype)
        else:
            self.values = _in_file(shape, dtype, folder)

    def close(self) -> None:
        """Give back what they take."""
        del self.values


def _in_file(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    """A tensor in a file that has no name any more, so that nothing is left of it, however the process ends."""
    file = temporary(folder)
    try:
        with open(file, "xb") as created:
            # A process that writes to a part of a file for which there is no room is killed.
            os.posix_fallocate(created.fileno(), 0, prod(shape) * dtype.itemsize)
        return torch.from_file(str(file), shared=True, size=prod(shape), dtype=dtype).view(*shape)
    finally:
        remove(file)


class Activations:
    """The hidden states of all windows between two decoder layers; a layer's outputs take the place of its inputs.

    Args:
        model: whose activations they are.
        windows: tokens (windows, length).
        folder: for a file, where they do not fit into memory.

    Attributes:
        buffer: that holds them.
    """

    def __init__(self, model: DecoderModel, windows: Tensor, folder: Path) -> None:
        self.model, self.windows = model, windows
        count, length = windows.shape
        if length > model.max_length:
            raise ValueError(
                f"length: {length} tokens are more than the model takes, {model.max_length}; allowed: up to that; use "
                "a smaller data.length or calibration.length"
            )
        self.buffer = HostBuffer("activations", (count, length, model.hidden_size), model.dtype, folder)
        self._step = max(1, TOKENS_PER_BATCH // length)
        for where in self.places():
            self.hidden[where] = model.embed(windows[where]).cpu()

    @property
    def hidden(self) -> Tensor:
        """(windows, length, hidden_size), in host memory."""
        return self.buffer.values

    def places(self) -> Iterator[slice]:
        """The windows of each batch that goes through a layer at once."""
        for start in range(0, len(self.windows), self._step):
            yield slice(start, min(start + self._step, len(self.windows)))

    def outputs(self, layer: nn.Module) -> Iterator[Tensor]:
        """The outputs of a layer batch by batch, on the device; the activations stay."""
        for where in self.places():
            yield self.model.run_layer(layer, self.hidden[where].to(self.model.device))

    def advance(self, layer: nn.Module, index: int) -> None:
        """Go through a layer.

        Raises:
            NotFiniteError: one line with the name of the layer, if a number that it puts out is NaN or infinite.
        """
        for where in self.places():
            outputs = self.model.run_layer(layer, self.hidden[where].to(self.model.device))
            if not bool(outputs.isfinite().all()):
                raise NotFiniteError(
                    f"layers.{index}: its outputs hold NaN or infinity in {self.model.dtype}; allowed: finite numbers; "
                    "use model.dtype=bfloat16 or float32, or look at the weights"
                )
            self.hidden[where] = outputs.cpu()

    def logits(self) -> Iterator[tuple[Tensor, Tensor]]:
        """After the last layer: logits and tokens batch by batch, on the device."""
        for where in self.places():
            hidden = self.hidden[where].to(self.model.device)
            yield self.model.logits(hidden), self.windows[where].to(self.model.device)

    def close(self) -> None:
        """Give back what they take."""
        self.buffer.close()


def walk(
    model: DecoderModel,
    activations: Activations,
    change: Callable[[int, nn.Module], None],
    after: Callable[[int], None],
) -> None:
    """Let activations go through all layers.

    Args:
        model: whose layers.
        activations: of its first layer.
        change: what is done to a layer, in place, before they go through it.
        after: called after each layer, with its place.
    """
    for index in range(model.num_layers):
        layer = model.load_layer(index)
        change(index, layer)
        activations.advance(layer, index)
        after(index)


def _available_bytes() -> float:
    """Memory that can be had without swapping; infinite where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found else float("inf")
