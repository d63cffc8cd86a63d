"""A member for use elsewhere: as plain weights, as a torch program, or as ONNX; none of them needs spp to run."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spp.models.build import names_of
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


@dataclass(frozen=True)
class _Source:
    """A member: its file, the network in it, its header, and where its factory is found."""

    file: Path
    network: nn.Module
    about: Mapping[str, Any]
    runtime: Mapping[str, Any] | None


def export(member: Path, form: str, out: Path, runtime: Mapping[str, Any] | None = None) -> Exported:
    """Write a member to `out` and what it is to a .json beside it; the outputs are compared with the member's.

    Inputs are samples as the data set has them prepared, float32 (batch, ...), for any batch size; what inputs and
    outputs are called follows from the data and the task.

    Args:
        member: its file.
        form: safetensors (for spp.load_member, or any network of these widths), torch (a program of torch.export) or
            onnx.
        runtime: where to find the factory of one's own network; None: in this folder or on Python's path.

    Raises:
        ValueError: one line, if the member cannot be read, onnx is not installed, or the file does not run or its
            outputs differ; nothing is left of it then.
    """
    network, about = load_member(member, runtime=runtime), describe_member(member)
    out.parent.mkdir(parents=True, exist_ok=True)
    write = {"safetensors": _write_weights, "torch": _write_program, "onnx": _write_onnx}[form]
    # Under its name only when it has passed; the suffix is what torch knows its programs by.
    partial = out.with_name(f".partial-{out.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own doings; what counts is compared below
            difference = _compared(network, write(_Source(member, network, about, runtime), partial), member, form)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    description = out.with_suffix(".json")
    fields = _describe(network, about, form).items()
    description.write_text("{\n" + ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in fields) + "\n}\n")
    return Exported(out, description, difference)


def _compared(network: nn.Module, written: Network | None, member: Path, form: str) -> float | None:
    """The largest relative difference of a written file's outputs, None if it cannot be run here.

    Raises:
        ValueError: one line, if it does not run, or the difference is larger than TOLERANCE.
    """
    if written is None:
        return None
    difference = _difference(network, written)
    if not difference <= TOLERANCE:  # nor is it NaN
        raise ValueError(
            f"--format: as {form} the outputs of {str(member)!r} differ by {difference:.1e}; allowed: {TOLERANCE:.0e} "
            "of the largest; use another format and report it"
        )
    return difference


def _write_weights(source: _Source, out: Path) -> Network:
    shutil.copyfile(source.file, out)
    return load_member(out, runtime=source.runtime)


def _write_program(source: _Source, out: Path) -> Network:
    program = torch.export.export(source.network, _example(source.network), dynamic_shapes=_any_batch())
    torch.export.save(program, out)
    return torch.export.load(out).module()


def _write_onnx(source: _Source, out: Path) -> Network | None:
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it, and its own message names no remedy
    except ImportError:
        raise ValueError(
            "--format: 'onnx' needs packages that are not installed; allowed: safetensors, torch; or pip install "
            "'spp[onnx]'"
        ) from None
    inputs, outputs = names_of(source.about["architecture"])
    torch.onnx.export(
        source.network,
        _example(source.network),
        out,
        input_names=[inputs],
        output_names=[outputs],
        dynamic_shapes=_any_batch(),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return _onnx_runtime(out, inputs)


def _onnx_runtime(file: Path, inputs: str) -> Network | None:
    """The network as ONNX Runtime runs it, if that is installed."""
    try:
        from onnxruntime import InferenceSession
    except ImportError:
        return None
    try:
        session = InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"--format: ONNX Runtime cannot run it ({reason}); allowed: what it runs; use another format and report it"
        ) from None
    return lambda samples: torch.from_numpy(session.run(None, {inputs: samples.numpy()})[0])


def _input(network: nn.Module) -> Tensor:
    """Zeros of the one input of a network, batch 1."""
    (example,) = example_inputs(network).values()
    return example


def _example(network: nn.Module) -> tuple[Tensor]:
    # Two samples: with one the exporters would take the batch size for a constant.
    example = _input(network)
    return (example.expand(2, *example.shape[1:]).contiguous(),)


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


@torch.no_grad()
def _difference(network: nn.Module, written: Network) -> float:
    """Largest difference of the outputs on random inputs, relative to the largest output."""
    generator = torch.Generator().manual_seed(0)
    shape = _input(network).shape[1:]
    worst = 0.0
    for batch_size in _CHECKED_BATCHES:
        samples = torch.randn(batch_size, *shape, generator=generator)
        expected = network(samples)
        worst = max(worst, float((written(samples) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    return worst


def _describe(network: nn.Module, about: Mapping[str, Any], form: str) -> dict[str, Any]:
    """What a user must know to run the file, and what is needed to build the network again."""
    (inputs, outputs), example = names_of(about["architecture"]), _input(network)
    with torch.no_grad():
        result = network(example)
    described = {
        "inputs": {"name": inputs, "shape": ["batch", *example.shape[1:]], "dtype": "float32"},
        "outputs": {"name": outputs, "shape": ["batch", *result.shape[1:]], "dtype": "float32"},
    }
    return {"format": form, **described, **about}
