"""How fast networks are: dense ones and what was cut from them, turn by turn, by several runtimes."""

import itertools
import platform
import statistics
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spp.deploy.export import onnx_session, write_onnx
from spp.deploy.named import NamedNetwork, open_network
from spp.deploy.quantize import quantize
from spp.deploy.timing import Circumstances, samples_like, time_calls
from spp.deploy.transformers_folder import towers_of
from spp.structure.cost import Cost, count_cost
from spp.structure.find import example_inputs
from spp.structure.inputs import Inputs, call
from spp.text import reason_of

WHOLE = "whole"
RUNTIMES = ("eager", "compile", "onnxruntime", "int8")
NUM_ROUNDS = 5
"""In each every network has its turn, so that what else the machine does falls on all of them."""
_MAX_COMPILED = 256
_INPUTS, _OUTPUTS = "images", "logits"


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What is to be measured.

    Attributes:
        networks: words of `spp.deploy.named`.
        runtimes: of RUNTIMES.
        batch_sizes: samples of one call.
        num_threads: of the processor.
        devices: cpu, cuda.
        seconds: of the calls of one network in one setting, in all rounds together, at least.
    """

    networks: Sequence[str]
    runtimes: Sequence[str] = RUNTIMES
    batch_sizes: Sequence[int] = (1, 32)
    num_threads: Sequence[int] = (1,)
    devices: Sequence[str] = ("cpu",)
    seconds: float = 5.0


@dataclass(frozen=True)
class Candidate:
    """A network that is measured.

    Attributes:
        name: what tables call it.
        network: on the CPU.
        cost: multiply-adds of a sample, and parameters.
        dense: name of the candidate that it was cut from; None: it is dense.
        part: which of its towers it is; whole: all of it.
        origin: of a member, what is known of where it comes from: method, budget.
    """

    name: str
    network: nn.Module
    cost: Cost
    dense: str | None = None
    part: str = WHOLE
    origin: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One network in one setting.

    Attributes:
        network: its name.
        runtime: of RUNTIMES.
        device: cpu or cuda.
        batch_size: samples of one call.
        num_threads: of the processor; of a GPU those of the host.
        dtype: of the weights; of int8 that of the products.
        median_ms: time of one call; low_ms and high_ms are its quarter and three-quarter quantile.
        num_runs: calls that were timed.
        per_second: samples.
        peak_mb: parameters and what one eager call holds at once at most, in 10^6 bytes; None of other runtimes.
        speed_up: the dense network's time over this one's, median over the rounds; None of a dense one.
        ideal: the speed-up that the multiply-adds promise; None of a dense one.
    """

    network: str
    runtime: str
    device: str
    batch_size: int
    num_threads: int
    dtype: str
    median_ms: float
    low_ms: float
    high_ms: float
    num_runs: int
    per_second: float
    peak_mb: float | None
    speed_up: float | None
    ideal: float | None

    @property
    def of_ideal(self) -> float | None:
        """The share of the ideal speed-up that is reached."""
        return None if self.speed_up is None or self.ideal is None else self.speed_up / self.ideal


@dataclass(frozen=True)
class Benchmark:
    """What came out.

    Attributes:
        machine: processor, its threads, torch, GPU where there is one.
        candidates: the networks.
        rows: one for each network and setting.
        skipped: runtime -> why it was not measured.
    """

    machine: dict[str, Any]
    candidates: list[Candidate]
    rows: list[BenchmarkRow]
    skipped: dict[str, str] = field(default_factory=dict)


def benchmark(request: BenchmarkRequest, tell: Callable[[str], None] = lambda line: None) -> Benchmark:
    """Measure networks beside those that they were cut from.

    Args:
        request: what to measure.
        tell: hears what is being done.

    Raises:
        ValueError: one line, if a network is not known.
    """
    candidates = _candidates([open_network(word) for word in request.networks])
    made = Benchmark(_machine(), candidates, [])
    with tempfile.TemporaryDirectory() as folder:
        for device in request.devices:
            for runtime in request.runtimes:
                if device != "cpu" and runtime in ("onnxruntime", "int8"):
                    continue
                try:
                    _measure_runtime(request, made, runtime, device, Path(folder), tell)
                except _NotHereError as error:
                    made.skipped[runtime] = str(error)
    return made


class _NotHereError(Exception):
    """A runtime does not work on this machine."""


def _candidates(named: Sequence[NamedNetwork]) -> list[Candidate]:
    """The networks, each dense one once and before what was cut from it; towers stand behind what they are of."""
    found: dict[str, Candidate] = {}
    names: dict[str, str] = {}
    for each in named:
        if each.dense is not None and each.dense_config not in names:
            name = names[each.dense_config] = _free(each.dense_name, found)
            found |= _with_towers(name, each.dense, None, {})
        name = _free(each.name, found)
        found |= _with_towers(name, each.network, names.get(each.dense_config), each.origin)
    return list(found.values())


def _with_towers(name: str, network: nn.Module, dense: str | None, origin: Mapping[str, Any]) -> dict[str, Candidate]:
    made = {name: Candidate(name, network, _cost_of(network), dense, WHOLE, origin)}
    for tower, alone in towers_of(network).items():
        own, of_dense = f"{name}, {tower}", None if dense is None else f"{dense}, {tower}"
        made[own] = Candidate(own, alone, _cost_of(alone), of_dense, tower, origin)
    return made


def _free(name: str, taken: Container[str]) -> str:
    """The name, numbered if another network has it already."""
    numbered = (f"{name} ({number})" for number in itertools.count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)


def _cost_of(network: nn.Module) -> Cost:
    return count_cost(network, example_inputs(network))


def _measure_runtime(
    request: BenchmarkRequest, made: Benchmark, runtime: str, device: str, folder: Path, tell: Callable[[str], None]
) -> None:
    if runtime == "compile":
        torch.compiler.reset()
        # One function serves all networks of a class, and is compiled for each of them and each batch size.
        torch._dynamo.config.recompile_limit = _MAX_COMPILED
    for num_threads in request.num_threads if device == "cpu" else (0,):
        prepared = list(_prepared(made.candidates, runtime, device, num_threads, folder))
        for batch_size in request.batch_sizes:
            where = Circumstances(device, batch_size, num_threads)
            tell(f"{runtime}, {where.label}")
            made.rows.extend(_measure_setting(made.candidates, prepared, runtime, where, request.seconds))


def _prepared(
    candidates: Sequence[Candidate], runtime: str, device: str, num_threads: int, folder: Path
) -> Iterator[Callable[..., Any]]:
    for number, candidate in enumerate(candidates):
        network = candidate.network.to(device).eval()
        if runtime == "eager":
            yield network
        elif runtime == "compile":
            yield _compiled(network)
        else:
            yield _session(network, folder / f"{number}.onnx", runtime, num_threads)


def _compiled(network: nn.Module) -> Callable[..., Any]:
    compiled: Any = torch.compile(network, dynamic=False)
    try:
        with torch.inference_mode():
            call(compiled, samples_like(network, 1))
    except Exception as error:
        raise _NotHereError(reason_of(error)) from None
    return compiled  # type: ignore[no-any-return]


def _session(network: nn.Module, file: Path, runtime: str, num_threads: int) -> Callable[..., Any]:
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise _NotHereError("onnxruntime is not installed; pip install 'spp[onnx]'") from None
    if not file.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # exporters warn of their own doings
            write_onnx(network, file, inputs=_INPUTS, outputs=_OUTPUTS)
    if runtime == "int8":
        small = file.with_suffix(".int8.onnx")
        if not small.exists():
            quantize(file, small, "dynamic", _INPUTS, ())
        file = small
    session = onnx_session(file, num_threads)
    names = {each.name for each in session.get_inputs()}  # without those that nothing depends on

    def run(samples: Any = None, **several: Any) -> Any:
        given = several or {_INPUTS: samples}
        return session.run(None, {name: value.numpy() for name, value in given.items() if name in names})

    return run


def _measure_setting(
    candidates: Sequence[Candidate],
    calls: Sequence[Callable[..., Any]],
    runtime: str,
    where: Circumstances,
    seconds: float,
) -> Iterator[BenchmarkRow]:
    samples = [samples_like(candidate.network, where.batch_size) for candidate in candidates]
    times: list[list[tuple[float, ...]]] = [[] for _ in candidates]
    for _ in range(NUM_ROUNDS):
        for number, run in enumerate(calls):
            times[number].append(time_calls(run, samples[number], where, seconds / NUM_ROUNDS).times_ms)
    medians = {
        candidate.name: [statistics.median(each) for each in rounds]
        for candidate, rounds in zip(candidates, times, strict=True)
    }
    costs = {candidate.name: candidate.cost for candidate in candidates}
    for candidate, sample, rounds in zip(candidates, samples, times, strict=True):
        speed_up = ideal = None
        if candidate.dense is not None:
            pairs = zip(medians[candidate.dense], medians[candidate.name], strict=True)
            speed_up = statistics.median(dense / small for dense, small in pairs)
            ideal = costs[candidate.dense].macs / candidate.cost.macs
        every = [time for one in rounds for time in one]
        low, median, high = statistics.quantiles(every, n=4) if len(every) > 1 else every * 3
        yield BenchmarkRow(
            network=candidate.name,
            runtime=runtime,
            device=where.device,
            batch_size=where.batch_size,
            num_threads=where.num_threads or torch.get_num_threads(),
            dtype=runtime if runtime == "int8" else _dtype_of(candidate.network),
            median_ms=median,
            low_ms=low,
            high_ms=high,
            num_runs=len(every),
            per_second=1e3 * where.batch_size / median,
            peak_mb=peak_bytes(candidate.network, sample) / 1e6 if runtime == "eager" else None,
            speed_up=speed_up,
            ideal=ideal,
        )


def _dtype_of(network: nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")


@torch.inference_mode()
def peak_bytes(network: nn.Module, samples: Inputs) -> int:
    """Bytes of the parameters and buffers, and the most that tensors of one call hold at once beside them."""
    held = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    if next(network.parameters()).is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(network, samples)
        return held + torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call(network, samples)
    running = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            running += event.nbytes()
            peak = max(peak, running)
    return held + peak


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gpu": gpu,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
