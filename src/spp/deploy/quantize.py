"""ONNX files with integers of 8 bits, by onnxruntime."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from spp.deploy.onnx_file import cleaned

INT8 = ("dynamic", "static")
NUM_CALIBRATION_BATCHES = 8
_OPERATORS = ["MatMul", "Gemm"]
"""What a transformer spends its time in; the convolution that makes patches is cheap, and loses accuracy."""


def quantize(file: Path, out: Path, how: str, inputs: str, batches: Iterable[Tensor]) -> None:
    """Write an ONNX file whose products are of integers.

    Args:
        file: the ONNX file to start from.
        out: the file to write.
        how: dynamic (activations are scaled as they come) or static (by ranges seen on calibration data).
        inputs: what its input is called.
        batches: calibration data for static, each (batch, ...); the first few are used.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
        common: dict[str, Any] = {"op_types_to_quantize": _OPERATORS, "per_channel": True}
        common["weight_type"] = QuantType.QInt8
        # The products of attention have no weights, and their softmax does not bear a fixed range.
        common["extra_options"] = {"MatMulConstBOnly": True}
        if how == "dynamic":
            quantize_dynamic(str(prepared), str(out), **common)
        else:
            reader = _reader(inputs, batches)
            # In the other form, QDQ, onnxruntime 1.31 computes something else: half of the outputs' norm was off.
            common |= {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8}
            quantize_static(str(prepared), str(out), reader, **common)
    onnx.save(cleaned(onnx.load(str(out))), str(out))


def _reader(inputs: str, batches: Iterable[Tensor]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[Tensor] = iter(batches)
            self._num_left = NUM_CALIBRATION_BATCHES

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self._batches, None) if self._num_left else None
            self._num_left -= 1
            return None if batch is None else {inputs: batch.numpy()}

    return Reader()
