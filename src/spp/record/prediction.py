"""What a member that was not made would reach: interpolated between the recorded members of the same path."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from spp.record.metrics import DENSE, MetricInfo, headline, value_of
from spp.record.record import read_record
from spp.record.rows import Row
from spp.store.store import Store

_SLACK = 0.005
"""Share of the multiply-adds by which a size may lie outside of what was measured: seeds achieve a budget to a unit."""


@dataclass(frozen=True, kw_only=True)
class RecordedSize:
    """What was measured at one budget.

    Attributes:
        share: multiply-adds over those of the dense network, mean over the seeds.
        value: of the metric, mean over the seeds.
        deviation: the standard deviation over the seeds, where there are several; else that of a share of so many
            samples, sqrt(p (1 - p) / n), of a percentage; None of other metrics.
        num_seeds: members.
        count: samples of one measurement.
    """

    share: float
    value: float
    deviation: float | None
    num_seeds: int
    count: int


@dataclass(frozen=True)
class Prediction:
    """What a member of one size would reach, and its standard deviation where that is known."""

    value: float
    deviation: float | None


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """The recorded members of a path that were made alike, the smallest first.

    Attributes:
        label: how they were made: cut, repaired, walked, finetuned, and what else tells them from others.
        metric: the headline metric of the task.
        sizes: what was measured; the last is the dense network unless the members were trained on.
        basis: what a prediction rests on, in a sentence.
    """

    label: str
    metric: MetricInfo
    sizes: Sequence[RecordedSize]
    basis: str

    def at(self, share: float) -> Prediction | None:
        """The prediction at a share of the multiply-adds; None outside of what was measured.

        Monotone: measured values that fall as the size grows are pooled (isotonic regression, weighted by the number of
        members), and a monotone cubic (PCHIP: Fritsch and Carlson, 1980) leads through them. The deviation is linear
        between those of its neighbours.
        """
        from scipy.interpolate import PchipInterpolator
        from scipy.optimize import isotonic_regression

        shares = [size.share for size in self.sizes]
        if not shares[0] - _SLACK <= share <= shares[-1] + _SLACK:
            return None
        share = min(max(share, shares[0]), shares[-1])
        weights = [size.num_seeds for size in self.sizes]
        values = [size.value for size in self.sizes]
        pooled = isotonic_regression(values, weights=weights, increasing=self.metric.better == "higher").x
        if len(shares) == 1:
            return Prediction(float(pooled[0]), self.sizes[0].deviation)
        return Prediction(float(PchipInterpolator(shares, pooled)(share)), self._deviation_at(share))

    def _deviation_at(self, share: float) -> float | None:
        for low, high in zip(self.sizes, self.sizes[1:], strict=False):
            if share <= high.share:
                if low.deviation is None or high.deviation is None:
                    return None
                way = (share - low.share) / (high.share - low.share)
                return (1 - way) * low.deviation + way * high.deviation
        return self.sizes[-1].deviation


def recorded_treatments(store: Store, search_key: str) -> list[Treatment]:
    """The recorded members of a path, and of the paths that differ from it by their seed alone, as they were made."""
    sweeps = [name for name in store.list_sweeps() if search_key in store.read_plan(name).stages]
    rows = read_record(store, sweeps).rows
    own = {_group(row) for row in rows if row["search_key"] == search_key}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if _group(row) in own:
            groups.setdefault(_group(row), []).append(row)
    return [made for group in groups.values() if (made := treatment(group)) is not None]


def treatment(rows: Sequence[Row]) -> Treatment | None:
    """What the members of one group, of all budgets and seeds, say; None if the headline metric is known of none."""
    metric = headline(rows)
    by_budget: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if value_of(row, metric.name) is not None:
            by_budget.setdefault((row["budget_kind"], row["budget_asked"]), []).append(row)
    # Budgets that ask for the same size in other words are one.
    by_share: dict[float, list[Row]] = {}
    for members in by_budget.values():
        share = mean(row["macs"] / row["dense_macs"] for row in members)
        by_share.setdefault(round(share, 6), []).extend(members)
    sizes = [_recorded(share, members, metric) for share, members in sorted(by_share.items())]
    if not sizes:
        return None
    is_trained = rows[0]["epochs_finetune"] > 0 or rows[0]["epochs_prune"] > 0
    dense = None if is_trained or sizes[-1].share >= 1 else _of_dense(rows, metric)
    basis = _basis(sizes, metric, has_dense=dense is not None)
    sizes += [] if dense is None else [dense]
    return Treatment(
        label=", ".join(part for part in (_label(rows[0]), rows[0]["variant"]) if part),
        metric=metric,
        sizes=sizes,
        basis=basis,
    )


def _recorded(share: float, rows: Sequence[Row], metric: MetricInfo) -> RecordedSize:
    values = [value for row in rows if (value := value_of(row, metric.name)) is not None]
    count = int(rows[0]["metrics"][metric.name]["count"])
    return RecordedSize(
        share=share,
        value=mean(values),
        deviation=_deviation(values, metric, count),
        num_seeds=len(values),
        count=count,
    )


def _of_dense(rows: Sequence[Row], metric: MetricInfo) -> RecordedSize | None:
    """The dense networks, each once: that of a seed is there in the row of every budget."""
    by_key = {row["dense_key"]: row for row in rows}
    values = [value for row in by_key.values() if (value := value_of(row, metric.name, DENSE)) is not None]
    if not values:
        return None
    count = int(rows[0][DENSE][metric.name]["count"])
    deviation = _deviation(values, metric, count)
    return RecordedSize(share=1.0, value=mean(values), deviation=deviation, num_seeds=len(values), count=count)


def _deviation(values: Sequence[float], metric: MetricInfo, count: int) -> float | None:
    if len(values) > 1:
        return stdev(values)
    share = values[0] / 100
    if metric.unit != "%" or not 0 <= share <= 1:
        return None
    return 100 * math.sqrt(share * (1 - share) / count)


def _basis(sizes: Sequence[RecordedSize], metric: MetricInfo, *, has_dense: bool) -> str:
    seeds, counts = ({getattr(size, name) for size in sizes} for name in ("num_seeds", "count"))
    of_seeds = f"{_range(seeds)} {'seed' if seeds == {1} else 'seeds'}"
    spread = "the standard deviation over the seeds"
    if 1 in seeds:
        one = f"that of a share of {_range(counts)} {metric.of}" if sizes[0].deviation is not None else "not known"
        spread = one if seeds == {1} else f"{spread}, of a single one {one}"
    sizes_text = f"{len(sizes)} recorded {'size' if len(sizes) == 1 else 'sizes'}"
    low, high = (f"{100 * size.share:.3g}" for size in (sizes[0], sizes[-1]))
    where = f"at {low} %" if low == high else f"from {low} to {high} %"
    ends = " and the dense network" if has_dense else ""
    return f"{sizes_text} {where} of the FLOPs{ends}, {of_seeds}, test {metric.of}; the deviation is {spread}"


def _range(numbers: Iterable[int]) -> str:
    low, high = min(numbers := list(numbers)), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _group(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What members have in common that differ by budget and seed alone."""
    names = ("method", "preset", "model", "data", "task", "variant")
    return (_label(row), *(str(row[name]) for name in names))


def _label(row: Mapping[str, Any]) -> str:
    parts = ["cut"]
    if row["epochs_prune"]:
        parts.append(f"walked for {row['epochs_prune']:g} epochs")
    if row["repair"] != "none":
        parts.append("repaired")
    if row["epochs_finetune"]:
        parts.append(f"finetuned for {row['epochs_finetune']:g} epochs")
    return ", ".join(parts)
