"""What several rooms test against: one short run of the whole chain, made once per test process."""

import os
from pathlib import Path

import pytest

os.environ["WANDB_MODE"] = "offline"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Store and name of a finished sweep: digits, everything as short as it can be."""
    from spp.cli.main import main
    from spp.store.store import Store

    root = tmp_path_factory.mktemp("finished") / "store"
    assert main(["run", "debug=fast", "logger=off", f"paths.store={root}"]) == 0
    sweep = Store(root).latest()
    assert sweep is not None
    return root, sweep
