"""A store to compare in, and rows to build a record from."""

import fcntl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from spp.record.record import Record, read_record
from spp.store.store import Store

ROW: Mapping[str, Any] = {
    "point": "p", "sweep": "s", "command": "spp run method=spp seed=0", "method": "spp", "preset": "priced",
    "variant": "", "task": "classification", "model": "vit", "data": "digits", "seed": 0,
    "budget_kind": "macs", "budget_asked": 0.5,
    "macs": 50e6, "params": 1_500_000, "dense_macs": 100e6, "dense_params": 3_000_000,
    "dense_top1": 97.0, "dense_top5": 99.5,
    "top1_before": 90.0, "top1": 96.0, "top5": 99.0, "val_top1": 95.0, "num_test": 297, "epochs_search": 40,
    "epochs_update": 10, "epochs_prune": 30, "epochs_finetune": 300, "batch_size": 512, "lr": 8e-4,
    "data_config": {"img_size": 224}, "num_train": 1_281_167,
    "search_seconds": 30.0, "search_gpu_seconds": 0.0, "num_members_of_search": 2,
    "walk_seconds": 5.0, "walk_gpu_seconds": 0.0, "dense_config": {},
    "finetune_seconds": 20.0, "finetune_gpu_seconds": 0.0, "device": "CPU", "key": "k", "member_key": "m",
    "member_kind": "finetune", "search_key": "a",
    "family_key": "f", "path_key": "a", "dense_key": "d0", "git_commit": None, "folder": "", "config": {},
    "method_config": {"kappa": None, "lam": None},
}  # fmt: skip


COLUMNS = {"metrics": "{}", "metrics_before": "{}_before", "dense_metrics": "dense_{}", "val_metrics": "val_{}"}
LABELS = {"top1": "top-1", "top5": "top-5"}


@pytest.fixture(scope="session")
def with_metrics() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Turns top1, top1_before, dense_top1, val_top1, the same of top5, and num_test of a row into metrics of it."""

    def convert(row: Mapping[str, Any]) -> dict[str, Any]:
        shared = {"unit": "%", "better": "higher", "count": row["num_test"], "of": "images"}
        names = {name.format(metric) for name in COLUMNS.values() for metric in LABELS} | {"num_test"}
        columns = {
            column: {
                metric: {"value": row[name.format(metric)], **shared, "label": label}
                for metric, label in LABELS.items()
                if row.get(name.format(metric)) is not None
            }
            for column, name in COLUMNS.items()
        }
        kept = {name: value for name, value in row.items() if name not in names}
        return {"headline": "top1", **columns, **kept}

    return convert


@pytest.fixture
def make_row(with_metrics: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A member of SPP on a GPU-less machine; what is given replaces the default."""

    def make(**changes: Any) -> dict[str, Any]:
        return with_metrics({**ROW, **changes})

    return make


@pytest.fixture
def make_error_row(make_row: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A member of a second task, regression, whose one metric is an error without a unit: lower is better."""

    def make(error: float = 0.0832, before: float = 0.125, dense: float = 0.0811, **changes: Any) -> dict[str, Any]:
        def entry(value: float) -> dict[str, Any]:
            shared = {"unit": "", "better": "lower", "count": 297, "of": "images", "label": "error"}
            return {"error": {"value": value, **shared}}

        own = {"metrics": entry(error), "metrics_before": entry(before), "dense_metrics": entry(dense)}
        return make_row(**{"task": "regression", "headline": "error", **own, "val_metrics": entry(error), **changes})

    return make


@pytest.fixture
def make_record() -> Callable[..., Record]:
    """A record of rows alone."""

    def make(*rows: dict[str, Any], missing: Any = (), out_of_reach: Any = ()) -> Record:
        return Record(list(rows), (), missing, "test", out_of_reach)

    return make


@pytest.fixture(scope="session")
def compared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of digits runs, as short as they can be: spp (priced, released) and magnitude, two seeds, two budgets.

    The processes of one test run share it.
    """
    from spp.cli.main import main

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    root = shared / "compared"
    with open(shared / "compared.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "compared.done").exists():
            words = ["seed=0,1", "debug=fast", "data.num_train=320", "logger=off", f"paths.store={root}"]
            assert main(["run", "-m", "method=spp,magnitude", *words]) == 0
            assert main(["run", "-m", "method.preset=released", *words]) == 0
            (shared / "compared.done").touch()
    return root


@pytest.fixture(scope="session")
def compared(compared_store: Path) -> Record:
    """The record of that store."""
    store = Store(compared_store)
    return read_record(store, store.list_sweeps())
