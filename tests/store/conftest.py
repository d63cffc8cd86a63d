import subprocess
import sys

import pytest

from spp.plan.spec import Stage
from spp.store.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def stage(store):
    """A stage that is written down in the store."""
    made = Stage("update", {"lr": 0.1})
    store.put_spec(made)
    return made


@pytest.fixture
def start():
    """Starts real processes: start(code, *arguments) runs `python -c code`; the test's end kills them."""
    processes = []

    def start_one(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()
