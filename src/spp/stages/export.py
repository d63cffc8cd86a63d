"""A member for use elsewhere: as plain weights, as a torch program, or as ONNX; none of them needs spp to run."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spp.stages.member import describe_member, load_member
from spp.structure.find import example_inputs

TOLERANCE = 1e-4
"""Largest difference of any output from the member's, in float32 and relative to the largest output."""

_CHECKED_BATCHES = (1, 3)

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """What was written: the file and its description; the largest relative difference seen, None if it could not run
    here."""

    file: Path
    description: Path
    difference: float | None


def export(member: Path, form: str, out: Path) -> Exported:
    """Write a member to `out` and what it is to a .json beside it; the outputs are compared with the member's.

    Inputs are normalised images, float32 (batch, channels, height, width), for any batch size; outputs are logits,
    (batch, num_classes).

    Args:
        member: its file.
        form: safetensors (for spp.load_member, or any network of these widths), torch (a program of torch.export) or
            onnx.

    Raises:
        ValueError: one line, if the member cannot be read, onnx is not installed, or the outputs differ.
    """
    network, about = load_member(member), describe_member(member)
    out.parent.mkdir(parents=True, exist_ok=True)
    writers = {"safetensors": _write_weights, "torch": _write_program, "onnx": _write_onnx}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn of their own doings; what counts is compared below
        written = writers[form](member, network, out)
    difference = None if written is None else _difference(network, written)
    if difference is not None and difference > TOLERANCE:
        out.unlink(missing_ok=True)
        raise ValueError(
            f"--format: as {form} the outputs of {str(member)!r} differ by {difference:.1e}; allowed: {TOLERANCE:.0e} "
            "of the largest; use another format and report it"
        )
    description = out.with_suffix(".json")
    fields = _describe(network, about, form).items()
    description.write_text("{\n" + ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in fields) + "\n}\n")
    return Exported(out, description, difference)


def _write_weights(member: Path, network: nn.Module, out: Path) -> Network:
    if member.resolve() != out.resolve():
        shutil.copyfile(member, out)
    return load_member(out)


def _write_program(member: Path, network: nn.Module, out: Path) -> Network:
    program = torch.export.export(network, _example(network), dynamic_shapes=_any_batch())
    torch.export.save(program, out)
    return torch.export.load(out).module()


def _write_onnx(member: Path, network: nn.Module, out: Path) -> Network | None:
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it, and its own message names no remedy
    except ImportError:
        raise ValueError(
            "--format: 'onnx' needs packages that are not installed; allowed: safetensors, torch; or pip install "
            "'spp[onnx]'"
        ) from None
    torch.onnx.export(
        network,
        _example(network),
        out,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=_any_batch(),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return _onnx_runtime(out)


def _onnx_runtime(file: Path) -> Network | None:
    """The network as ONNX Runtime runs it, if that is installed."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return None
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _example(network: nn.Module) -> tuple[Tensor]:
    # Two images: with one the exporters would take the batch size for a constant.
    return (example_input(network).expand(2, -1, -1, -1).contiguous(),)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


@torch.no_grad()
def _difference(network: nn.Module, written: Network) -> float:
    """Largest difference of the outputs on random images, relative to the largest output."""
    generator = torch.Generator().manual_seed(0)
    shape = example_input(network).shape[1:]
    worst = 0.0
    for num_images in _CHECKED_BATCHES:
        images = torch.randn(num_images, *shape, generator=generator)
        expected = network(images)
        worst = max(worst, float((written(images) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    return worst


def _describe(network: nn.Module, about: Mapping[str, Any], form: str) -> dict[str, Any]:
    """What a user must know to run the file, and what is needed to build the network again."""
    _, *shape = example_input(network).shape
    inputs = {"name": "images", "shape": ["batch", *shape], "dtype": "float32"}
    outputs = {"name": "logits", "shape": ["batch", about["architecture"]["num_classes"]], "dtype": "float32"}
    return {"format": form, "inputs": inputs, "outputs": outputs, **about}
