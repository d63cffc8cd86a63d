import os
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.fixture
def server_ahead(monkeypatch):
    """A file server whose clock is a day ahead: what is touched there gets its time. Seconds by which it is ahead."""
    touch, day = Path.touch, 86400.0

    def by_the_server(path, *args, **options):
        touch(path, *args, **options)
        os.utime(path, (time.time() + day, time.time() + day))

    monkeypatch.setattr(Path, "touch", by_the_server)
    return day
