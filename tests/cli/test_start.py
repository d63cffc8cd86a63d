"""What commands import before they answer: counted, since a clock would not tell on a busy machine."""

import subprocess
import sys

import pytest

CODE = """
import contextlib, io, sys
from spp.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
heavy = {"torch", "timm", "pytorch_lightning", "hydra", "matplotlib", "wandb", "transformers", "sklearn", "pyarrow"}
print(len(sys.modules), *sorted(heavy & set(sys.modules)))
"""

# A third more than today's, for other versions of Python and of libraries.
FROM_THE_STORE = 560
PARSING = 180
PLANNING = 850


@pytest.mark.parametrize(
    ("words", "most", "allowed"),
    [
        ("--help", PARSING, set()),
        ("list", FROM_THE_STORE, set()),
        ("status", FROM_THE_STORE, set()),
        ("gc", FROM_THE_STORE, set()),
        ("plan", PLANNING, {"hydra"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(words, most, allowed, finished):
    command = [sys.executable, "-c", CODE, words]
    command += [] if words == "--help" else [f"paths.store={finished[0]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    num_modules, *heavy = done.stdout.split()
    assert set(heavy) <= allowed
    assert 0 < int(num_modules) <= most
