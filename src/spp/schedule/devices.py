"""What devices can do by their makers' word, and how much of it a training gets out of them."""

from dataclasses import dataclass

CPU = "CPU"
"""What summaries call a stage's device where it has no GPU."""


@dataclass(frozen=True)
class Device:
    """A kind of device.

    peak_fp32, peak_bf16: floating-point operations per second, two per multiply-add; of a CPU those of one thread.
    share_fp32, share_bf16: the part of it that a training of a transformer gets.
    step_seconds: what a training step takes however small the network; start_seconds: what a stage takes before it.
    hides_steps: whether the device works while the next step is prepared, so that the longer of both counts.
    """

    name: str
    peak_fp32: float
    peak_bf16: float
    share_fp32: float = 0.6
    share_bf16: float = 0.3
    step_seconds: float = 0.01
    start_seconds: float = 15.0
    hides_steps: bool = True

    def flops(self, is_bf16: bool) -> float:
        """Operations per second that a training is taken to get."""
        return self.peak_bf16 * self.share_bf16 if is_bf16 else self.peak_fp32 * self.share_fp32

    def basis(self, is_bf16: bool) -> str:
        """What `flops` rests on, in words."""
        share, peak, what = (
            (self.share_bf16, self.peak_bf16, "bf16") if is_bf16 else (self.share_fp32, self.peak_fp32, "fp32")
        )
        per = " per thread" if self.name == CPU else ""
        return f"{100 * share:.0f} % of the {what} peak of {self.name} ({peak / 1e12:g} TFLOPS{per})"


# Dense peaks of the data sheets: SXM where there are several; bf16 on the tensor cores, of V100 fp16, which it has
# instead. A share of 30 % is that of ViT-B in training on an A100; fp32 loses less, as it waits less for memory.
_GPUS = (
    Device("H200", 67e12, 989e12),
    Device("H100", 67e12, 989e12),
    Device("A100", 19.5e12, 312e12),
    Device("A40", 37.4e12, 149.7e12),
    Device("L40S", 91.6e12, 362e12),
    Device("V100", 15.7e12, 125e12),
    Device("T4", 8.1e12, 65e12),
    Device("RTX 4090", 82.6e12, 165.2e12),
    Device("RTX 3090", 35.6e12, 71e12),
)
# Of a thread with AVX-512 the share is 60 %; a stage starts in a worker that is there already
# (benchmarks/bench_estimate.py).
_CPU = Device(CPU, 100e9, 100e9, share_fp32=0.6, step_seconds=0.005, start_seconds=0.5, hides_steps=False)
DEFAULT_GPU = "A100"


def device_of(name: str) -> Device | None:
    """The device whose name is in `name`, such as NVIDIA A100-SXM4-80GB; None for one that is not known."""
    if name == CPU:
        return _CPU
    words = name.upper().replace("-", " ").replace("_", " ")
    return next((device for device in _GPUS if device.name in words), None)


def gpu_names() -> tuple[str, ...]:
    """GPUs whose peaks are known."""
    return tuple(device.name for device in _GPUS)
