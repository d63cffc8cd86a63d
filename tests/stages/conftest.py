"""Stages of a small finished chain, to be done again under disturbance."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from spp.store.atomic import write_json
from spp.store.store import Store

SMALL = [
    "data.num_train=500",
    *(f"{stage}.batch_size=32" for stage in ("dense", "update", "search", "prune", "finetune")),
]
"""14 batches an epoch, 2 of validation."""

RANDOM = [
    *SMALL,
    "dense.epochs=2",
    "dense.mixup=0.4",
    "dense.augment={hflip: 0.5}",
    "prune.epochs=2",
    "prune.interval=2",
    "finetune.epochs=2",
    "budget.values=[0.8,0.3]",
]
"""Two epochs, every source of random numbers (with the recipe's noise and stochastic depth), a member on the way."""


PLAIN = [
    *SMALL,
    "budget.values=[0.5]",
    "dense.drop_path=0",
    "dense.input_noise=0",
    "update.drop_path=0",
    "update.input_noise=0",
    "prune.drop_path=0",
    "prune.input_noise=0",
    "finetune.epochs=0",
]
"""No random numbers within a batch: processes that see different images cannot draw the same ones."""


@dataclass(frozen=True)
class Undisturbed:
    """A finished store and one stage in it."""

    store: Store
    kind: str
    key: str

    def again(self, root: Path, **runtime) -> Store:
        """A copy of the store in which this stage is still to be done, with changes of its runtime."""
        shutil.copytree(self.store.root, root)
        store = Store(root)
        folder = store.stage_dir(self.kind, self.key)
        spec = store.spec(self.kind, self.key)
        shutil.rmtree(folder)
        folder.mkdir()
        spec["runtime"].update(runtime)
        write_json(folder / "spec.json", spec)
        return store

    def assert_same(self, store: Store) -> None:
        """The same artifacts to the bit, the same record, the same numbers but for times; and nothing left."""
        assert store.done(self.kind, self.key)["artifacts"] == self.store.done(self.kind, self.key)["artifacts"]
        rows, others = (which.stage_dir(self.kind, self.key) / "metrics.jsonl" for which in (store, self.store))
        assert rows.read_bytes() == others.read_bytes()
        expected, actual = (
            {name: value for name, value in which.summary(self.kind, self.key).items() if "seconds" not in name}
            for which in (self.store, store)
        )
        assert actual == expected
        left = {path.name for path in store.stage_dir(self.kind, self.key).iterdir()}
        assert left == {"spec.json", "provenance.json", "metrics.jsonl", "summary.json", "artifacts", "DONE"}


def chain(made_once: Callable[..., Path], name: str, words: list[str]) -> dict[str, Undisturbed]:
    """Run the chain once for all test processes; its stages by kind."""

    def make(root: Path) -> None:
        from spp.cli.main import main

        assert main(["run", "debug=fast", "logger=off", *words, f"paths.store={root}"]) == 0

    store = Store(made_once(name, make))
    plan = store.read_plan(store.latest() or "")
    return {stage.kind: Undisturbed(store, stage.kind, stage.key) for stage in plan.stages.values()}


@pytest.fixture(scope="session")
def random_chain(made_once: Callable[..., Path]) -> dict[str, Undisturbed]:
    """The stages of a chain that draws random numbers wherever it can."""
    return chain(made_once, "random", RANDOM)


@pytest.fixture(scope="session")
def plain_chain(made_once: Callable[..., Path]) -> dict[str, Undisturbed]:
    """The stages of a chain whose batches may be cut into shares."""
    return chain(made_once, "plain", PLAIN)


@pytest.fixture
def signals_at(monkeypatch):
    """Send this process SIGUSR2 at some of the boundaries, counted over all restarts, while submitit's handler
    (here: one that only exits, as submitit's does) is in place."""
    from spp.stages import fitting

    stops, calls, seen = set(), [], []
    boundary = fitting._Watch._boundary

    def counted(self, trainer, num_batches):
        if len(seen) in stops:
            stops.discard(len(seen))
            os.kill(os.getpid(), signal.SIGUSR2)
        seen.append((trainer.current_epoch, num_batches))
        boundary(self, trainer, num_batches)

    def requeue(number, frame):
        calls.append(number)
        sys.exit(-1)

    monkeypatch.setattr(fitting._Watch, "_boundary", counted)
    before = signal.signal(signal.SIGUSR2, requeue)
    yield lambda places: (stops.update(places), calls, seen)[1:]
    signal.signal(signal.SIGUSR2, before)
