"""What a run that is stopped from outside says and leaves."""

import signal
import subprocess
import sys
import time

import pytest

from spp.store.store import Store


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_a_stopped_run_is_no_success_and_goes_on_with_the_same_words(number, code, tmp_path):
    words = ["run", "debug=fast", "logger=off", "dense.epochs=500", f"paths.store={tmp_path}"]
    command = [sys.executable, "-m", "spp.cli.main", *words]
    # A shell's background job ignores Ctrl-C, and so would its child; the test must not depend on who runs it.
    signal_was = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, signal_was)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("stages/dense/*/progress.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert "interrupted" in errors

    store = Store(tmp_path)
    plan = store.read_plan(store.latest() or "")
    dense = next(iter(plan.stages.values()))
    assert not store.is_done("dense", dense.key)
    assert store.failure("dense", dense.key) is None
    assert not store.artifacts_dir("dense", dense.key).exists()
    assert not [path.name for path in store.stage_dir("dense", dense.key).iterdir() if path.name.startswith(".tmp")]
