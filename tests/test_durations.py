"""The limit on what a test may take, on a tiny suite of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = "def test_quick(): pass\n"
LONG = "import time\ndef test_long(): time.sleep(0.5)\n"
MARKED = f"import pytest\npytestmark = pytest.mark.slow\n{LONG}"
SETUP = "import pytest, time\n@pytest.fixture\ndef store(): time.sleep(0.5)\ndef test_long(store): pass\n"


@pytest.mark.parametrize(
    ("text", "ci", "code", "is_named"),
    [
        (QUICK, "true", 0, False),
        (LONG, "true", 1, True),
        (LONG, "", 0, True),
        (MARKED, "true", 0, False),
        (SETUP, "true", 0, False),
    ],
    ids=["quick", "long", "long but not in CI", "long and marked", "long set-up"],
)
@pytest.mark.parametrize("words", [[], ["-n", "1"]], ids=["here", "processes"])
def test_an_unmarked_test_that_takes_too_long_fails_ci(tmp_path, text, ci, code, is_named, words):
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: x\n    slurm: x\n    browser: x\n")
    (tmp_path / "tests" / "test_one.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", *words],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "SPP_TEST_LIMIT_S": "0.2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout
    assert "1 passed" in done.stdout
    assert ("test_long took 0.5 s; allowed: 0.2 s" in done.stdout) == is_named
    assert "added up over the processes" in done.stdout
