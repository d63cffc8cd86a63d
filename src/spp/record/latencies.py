"""What `spp benchmark --keep` has measured, as rows: one network in one setting on one machine."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from spp.record.rows import Row

_SETTING = ("network", "part", "macs", "params", "runtime", "device", "processor", "batch_size", "num_threads", "dtype")
"""What two measurements have in common of which the later one takes the place of the earlier."""


def latency_rows(kept: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows of what was kept (`spp.store.benchmarks.read_benchmarks`), each setting once.

    A row has what `spp benchmark --json` says of it, and of its network: part, macs, params, dense, origin,
    dense_macs, dense_params; processor is the name of what it ran on, a GPU or a processor.
    """
    found: dict[tuple[Any, ...], Row] = {}
    for measured in kept:
        for row in _rows(measured):
            setting = tuple(row[name] for name in _SETTING)
            found.pop(setting, None)
            found[setting] = row
    return list(found.values())


def _rows(measured: Mapping[str, Any]) -> Iterator[Row]:
    networks = {network["name"]: network for network in measured["networks"]}
    machine = measured["machine"]
    for row in measured["rows"]:
        network = networks[row["network"]]
        dense = networks[network["dense"] or network["name"]]
        yield {
            **row,
            **{name: value for name, value in network.items() if name != "name"},
            "dense_macs": dense["macs"],
            "dense_params": dense["params"],
            "processor": machine["gpu"] if row["device"] == "cuda" else machine["processor"],
            "torch": machine["torch"],
            "measured_at": measured["measured_at"],
        }
