"""A member for use elsewhere: as the folder that loads without spp, as a torch program, or as ONNX."""

import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spp.deploy.folder import write_folder
from spp.deploy.onnx_file import cleaned
from spp.deploy.quality import OpenedData
from spp.deploy.quantize import NUM_CALIBRATION_BATCHES, quantize
from spp.deploy.source import Member, open_member
from spp.deploy.timing import Circumstances, time_calls
from spp.structure.find import example_inputs
from spp.structure.inputs import call
from spp.text import reason_of

TOLERANCE = 1e-4
"""Largest difference of any output from the member's, in float32 and relative to the largest output."""

_CHECKED_BATCHES = (3, 5)
RANDOM = "random inputs"

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        file: the file or folder.
        description: of a file, what is said of it.
        difference: the largest relative difference of outputs that was seen, None if it could not run here.
        checked_on: on which inputs.
        compared: of INT8, its numbers beside those of the ONNX file in float32: name -> (float32, INT8).
    """

    file: Path
    description: Path | None
    difference: float | None
    checked_on: str = RANDOM
    compared: dict[str, tuple[float, float]] = field(default_factory=dict)


def export(
    where: Path,
    form: str,
    out: Path,
    *,
    opset: int | None = None,
    int8: str | None = None,
    runtime: Mapping[str, Any] | None = None,
    data: OpenedData | None = None,
    force: bool = False,
) -> Exported:
    """Write a member to `out` and, of a file, what it is to OUT.json beside it; the outputs are compared.

    Inputs are samples as the data set has them prepared, float32 (batch, ...), for any batch size; what inputs and
    outputs are called follows from the data and the task.

    Args:
        where: its folder, or its file in a store.
        form: safetensors (the folder of `spp.save_member`), torch (a program of torch.export) or onnx.
        out: the folder, or the file.
        opset: of ONNX; None: what torch writes.
        int8: dynamic or static, for an ONNX file whose products are of integers; None: for one of float32.
        runtime: where to find the factory of one's own network; None: on Python's path.
        data: what the member is for: it is compared on its validation images, INT8 is calibrated on some of them and
            measured on its test set; None: random inputs.
        force: whether a member's folder may be overwritten.

    Raises:
        ValueError: one line, if the member cannot be read, onnx is not installed, or the file does not run or its
            outputs differ; nothing is left of it then.
    """
    member = open_member(where, runtime, data)
    if form == "safetensors":
        return Exported(out, None, write_folder(out, member.network, member.facts, force=force))
    names = list(example_inputs(member.network))
    if len(names) > 1:
        raise ValueError(
            f"--format: {form!r} is not allowed for a network of several inputs ({', '.join(names)}); allowed: "
            "safetensors; load its folder, and give torch's own exporter what it is called with"
        )
    batches = _random_batches(member.network) if data is None else list(islice(data.inputs(), NUM_CALIBRATION_BATCHES))
    out.parent.mkdir(parents=True, exist_ok=True)
    # Under its name only when it has passed; the suffix is what torch knows its programs by.
    partial = out.with_name(f".partial-{out.name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own doings; what counts is compared below
            written = _write_program(member, partial) if form == "torch" else _write_onnx(member, partial, opset)
            difference = _compared(member.network, written, where, form, batches)
            compared = {} if int8 is None else _quantized(member, partial, int8, batches, data)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    description = Path(f"{out}.json")
    described = {**_describe(member, form), **({} if int8 is None else {"int8": {"how": int8, "numbers": compared}})}
    description.write_text(json.dumps(described, indent=2) + "\n")
    return Exported(out, description, difference, RANDOM if data is None else "images of the validation set", compared)


def _compared(
    network: nn.Module, written: Network | None, where: Path, form: str, batches: Sequence[Tensor]
) -> float | None:
    """The largest relative difference of a written file's outputs, None if it cannot be run here.

    Raises:
        ValueError: one line, if it does not run, or the difference is larger than TOLERANCE.
    """
    if written is None:
        return None
    difference = _difference(network, written, batches)
    if not difference <= TOLERANCE:  # nor is it NaN
        raise ValueError(
            f"--format: as {form} the outputs of {str(where)!r} differ by {difference:.1e}; allowed: {TOLERANCE:.0e} "
            "of the largest; use another format and report it"
        )
    return difference


def _write_program(member: Member, out: Path) -> Network:
    program = torch.export.export(member.network, _example(member.network), dynamic_shapes=_any_batch())
    torch.export.save(program, out)
    module = torch.export.load(out).module()
    return lambda samples: call(module, samples)


def write_onnx(network: nn.Module, out: Path, *, inputs: str, outputs: str, opset: int | None = None) -> None:
    """Write a network as ONNX in float32, for any batch size, with nothing in it about this machine.

    Args:
        network: in evaluation mode, on the CPU.
        out: the file.
        inputs: what its input is called; several have the names of its forward.
        outputs: what the output of a network of one input is called.
        opset: of ONNX; None: what torch writes.

    Raises:
        ValueError: one line, if onnx is not installed or the opset cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it, and its own message names no remedy
    except ImportError:
        raise ValueError(
            "--format: 'onnx' needs packages that are not installed; allowed: safetensors, torch; or pip install "
            "'spp[onnx]'"
        ) from None
    try:
        with sdpa_kernel(SDPBackend.MATH):  # ONNX has the products written out, which need no equal widths
            program = torch.onnx.export(
                network,
                **_arguments(network, inputs, outputs),
                dynamo=True,
                verbose=False,
                opset_version=opset,
            )
        assert program is not None
        model = cleaned(program.model_proto)
    except Exception as error:
        if opset is None:
            raise
        raise ValueError(
            f"--opset: {opset} cannot be written ({str(error).splitlines()[0]}); allowed: 18 to what your torch knows; "
            "leave it out"
        ) from None
    onnx.save(model, out)


def _arguments(network: nn.Module, inputs: str, outputs: str) -> dict[str, Any]:
    """What a network is called with, and by which names, as torch.onnx.export wants it."""
    examples = {name: _two_of(example) for name, example in example_inputs(network).items()}
    if len(examples) == 1:
        args = tuple(examples.values())
        return {"args": args, "input_names": [inputs], "output_names": [outputs], "dynamic_shapes": _any_batch()}
    (any_batch,) = _any_batch()
    return {"args": (), "kwargs": examples, "dynamic_shapes": dict.fromkeys(examples, any_batch)}


def _write_onnx(member: Member, out: Path, opset: int | None) -> Network | None:
    write_onnx(member.network, out, inputs=member.inputs, outputs=member.outputs, opset=opset)
    return _onnx_runtime(out, member.inputs)


def _onnx_runtime(file: Path, inputs: str) -> Network | None:
    """The network as ONNX Runtime runs it, if that is installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    try:
        session = onnx_session(file)
    except Exception as error:
        reason = reason_of(error)
        raise ValueError(
            f"--format: ONNX Runtime cannot run it ({reason}); allowed: what it runs; use another format and report it"
        ) from None
    return lambda samples: torch.from_numpy(session.run(None, {inputs: samples.numpy()})[0])


def onnx_session(file: Path, num_threads: int = 0) -> Any:
    """ONNX Runtime's session of a file on the CPU, with so many threads; 0: as many as it takes by itself."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = num_threads
    return InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _input(network: nn.Module) -> Tensor:
    """Zeros of the one input of a network, batch 1."""
    (example,) = example_inputs(network).values()
    return example


def _example(network: nn.Module) -> tuple[Tensor]:
    return (_two_of(_input(network)),)


def _two_of(example: Tensor) -> Tensor:
    # With one sample the exporters would take the batch size for a constant.
    return example.expand(2, *example.shape[1:]).contiguous()


def _any_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _random_batches(network: nn.Module) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = _input(network).shape[1:]
    return [torch.randn(batch_size, *shape, generator=generator) for batch_size in _CHECKED_BATCHES]


@torch.no_grad()
def _difference(network: nn.Module, written: Network, batches: Sequence[Tensor]) -> float:
    """Largest difference of the outputs, relative to the largest output."""
    worst = 0.0
    for samples in (batches[0], batches[0][:1], *batches[1:2]):
        expected = call(network, samples)
        worst = max(worst, float((written(samples) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)))
    return worst


def _quantized(
    member: Member, file: Path, how: str, batches: Sequence[Tensor], data: OpenedData | None
) -> dict[str, tuple[float, float]]:
    """Replace an ONNX file by one of integers; what it does beside the one that it replaces.

    Raises:
        ValueError: one line, without onnxruntime, or without data for a static one.
    """
    if how == "static" and data is None:
        raise ValueError(
            "--int8: 'static' needs images to calibrate on, and the data of this member are not known; allowed: "
            "dynamic; or name its store by paths.store=DIR"
        )
    before = _onnx_runtime(file, member.inputs)
    if before is None:
        raise ValueError("--int8: onnxruntime is not installed; allowed: float32; or pip install 'spp[onnx]'")
    numbers = _numbers(before, batches, data)
    quantize(file, file, how, member.inputs, batches)
    after = _onnx_runtime(file, member.inputs)
    assert after is not None
    after_numbers = _numbers(after, batches, data)
    return {name: (value, after_numbers[name]) for name, value in numbers.items()}


def _numbers(network: Network, batches: Sequence[Tensor], data: OpenedData | None) -> dict[str, float]:
    values: dict[str, float] = {}
    if data is not None:
        described = data.measure(network)
        values = {f"{each['label']} {each['unit']}".strip(): each["value"] for each in described.values()}
    timed = time_calls(network, batches[0][:1], Circumstances(), min_seconds=0.3)
    return {**values, "latency ms, batch 1": timed.median_ms}


@torch.no_grad()
def _describe(member: Member, form: str) -> dict[str, Any]:
    """What a user must know to run the file."""
    example = _input(member.network)
    result = call(member.network, example)
    facts = member.facts
    return {
        "format": form,
        "inputs": {"name": member.inputs, "shape": ["batch", *example.shape[1:]], "dtype": "float32"},
        "outputs": {"name": member.outputs, "shape": ["batch", *result.shape[1:]], "dtype": "float32"},
        "class_names": None if facts.class_names is None else list(facts.class_names),
        "preprocessing": dict(facts.preprocessing),
        **{name: value for name, value in facts.origin.items() if name != "sha256"},
    }
