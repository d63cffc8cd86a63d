"""How long the stages of a plan may take: what each computes, over the speed that such stages have had.

The time by a device's nominal peak is corrected by what finished stages took, compared with their own nominal time:
those of the same kind on the same device whose steps were nearest in size. Where there are none it is the nominal time.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from spp.plan.compare import Spec
from spp.plan.spec import Stage
from spp.plan.work import KINDS, CostOf, SizeOf, Work, work_of
from spp.schedule.devices import CPU, DEFAULT_GPU, Device, device_of
from spp.store.store import Store

NUM_RECENT = 40
"""Finished stages of a kind that are looked at, the newest."""

_NUM_NEAREST = 5

MEASURED, NOMINAL, UNKNOWN = "measured", "nominal", "unknown"


@dataclass(frozen=True)
class Estimate:
    """Expected cost of a stage; None where nothing is known. `by` is measured, nominal or unknown, `basis` says by
    what, in words; `macs` are its multiply-adds in all."""

    seconds: float | None
    gpu_seconds: float | None
    by: str
    basis: str
    macs: float | None = None


@dataclass(frozen=True)
class _Measured:
    """A finished stage: what it computed, what it took, and what it should have taken by its device's peak."""

    kind: str
    device: str
    macs_per_step: float
    seconds: float
    nominal: float

    def distance(self, macs_per_step: float) -> float:
        return abs(math.log(max(1.0, self.macs_per_step)) - math.log(max(1.0, macs_per_step)))


class Estimator:
    """Estimates for one store; what was measured is read once.

    Args:
        store: where finished stages lie.
        spec_of: specs of stages, also of planned ones.
        size_of: sizes of dense networks.
        cost_of: costs of searches.
    """

    def __init__(
        self, store: Store, spec_of: Callable[[str, str], Spec | None], size_of: SizeOf, cost_of: CostOf
    ) -> None:
        self._store = store
        self._spec_of = spec_of
        self._size_of = size_of
        self._cost_of = cost_of
        self._of_kind: dict[str, list[_Measured]] = {}

    def estimate(self, stages: Iterable[Stage]) -> dict[str, Estimate]:
        """Expected cost by key."""
        for kind in KINDS:
            if kind not in self._of_kind:
                self._of_kind[kind] = list(self._measured(kind))
        return {stage.key: self._of(stage) for stage in stages}

    def _of(self, stage: Stage) -> Estimate:
        num_gpus = _num_gpus(stage.resources)
        name = str(stage.resources.get("gpu_name") or self._usual_gpu()) if num_gpus else CPU
        device = device_of(name)
        work = work_of(stage.to_json(), self._spec_of, self._size_of, self._cost_of)
        if work is None or device is None:
            what = f"nobody has told what {name} can do" if device is None else "its network or data are not known yet"
            return self._by_kind(stage, name, num_gpus, what)
        workers = num_gpus or _num_threads(stage.runtime)
        nominal = _nominal_seconds(work, device, workers)
        alike = self._alike(stage.kind, name, work.macs / max(1.0, work.num_steps))
        if alike:
            factor = median(one.seconds / one.nominal for one in alike)
            kinds = {one.kind for one in alike}
            like_it = "stage like it" if len(alike) == 1 else "stages like it"
            of = like_it if kinds == {stage.kind} else f"finished {', '.join(sorted(kinds))}"
            by, basis = MEASURED, f"{len(alike)} {of} on {name}"
        else:
            factor, by, basis = 1.0, NOMINAL, device.basis(work.is_bf16)
        seconds = nominal * factor
        return Estimate(seconds, seconds * num_gpus, by, basis, work.macs)

    def _by_kind(self, stage: Stage, name: str, num_gpus: int, problem: str) -> Estimate:
        """What stages of the kind took on the device, whatever they computed."""
        rows = self._store.recent_costs(stage.kind, NUM_RECENT)
        values = [
            row["seconds"] for row in rows if row.get("seconds") and bool(row.get("gpu_seconds")) == bool(num_gpus)
        ]
        if not values:
            return Estimate(None, None if num_gpus else 0.0, UNKNOWN, problem)
        seconds = float(median(values))
        return Estimate(seconds, seconds * num_gpus, MEASURED, f"{len(values)} {stage.kind} of any size; {problem}")

    def _alike(self, kind: str, device: str, macs_per_step: float) -> list[_Measured]:
        """The nearest finished stages on the device: of the kind, else of any."""
        everywhere = [one for measured in self._of_kind.values() for one in measured if _is_same(one.device, device)]
        found = [one for one in everywhere if one.kind == kind] or everywhere
        return sorted(found, key=lambda one: one.distance(macs_per_step))[:_NUM_NEAREST]

    def _usual_gpu(self) -> str:
        """The GPU of the stages that were finished here."""
        names = [one.device for measured in self._of_kind.values() for one in measured if one.device != CPU]
        return names[-1] if names else DEFAULT_GPU

    def _measured(self, kind: str) -> Iterable[_Measured]:
        for row in self._store.recent_costs(kind, NUM_RECENT):
            seconds, key = row.get("seconds"), str(row.get("key"))
            try:
                spec, summary = self._store.spec(kind, key), self._store.summary(kind, key)
            except (FileNotFoundError, ValueError, KeyError):
                continue  # removed since, or damaged: others tell as well
            work = work_of(spec, self._spec_of, self._size_of, self._cost_of)
            name = str(summary.get("device", CPU))
            device = device_of(name)
            if not seconds or work is None or device is None or work.macs <= 0:
                continue
            runtime = spec["runtime"]
            workers = _num_threads(runtime) if device.name == CPU else _num_processes(runtime)
            nominal = _nominal_seconds(work, device, workers)
            yield _Measured(kind, name, work.macs / max(1.0, work.num_steps), float(seconds), nominal)


def _nominal_seconds(work: Work, device: Device, workers: int) -> float:
    """Seconds by the device's peak; `workers` GPUs, or threads, share the work of every step."""
    computing = 2 * work.macs / (device.flops(work.is_bf16) * max(1, workers))
    stepping = work.num_steps * device.step_seconds
    return device.start_seconds + (max(computing, stepping) if device.hides_steps else computing + stepping)


def _num_gpus(resources: Mapping[str, Any]) -> int:
    return int((resources.get("gpus_per_node") or 0) * (resources.get("num_nodes") or 1))


def _num_processes(runtime: Mapping[str, Any]) -> int:
    return int(runtime.get("devices", 1) * runtime.get("num_nodes", 1))


def _num_threads(runtime: Mapping[str, Any]) -> int:
    return int(runtime.get("num_threads", 1) * _num_processes(runtime))


def _is_same(left: str, right: str) -> bool:
    one, other = device_of(left), device_of(right)
    return left == right or (one is not None and one is other)
