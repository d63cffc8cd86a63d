"""What keeps the start of a worker quick, tested by what it imports and not by a clock."""

import gc
import subprocess
import sys

import pytest

from spp.stages.quick_imports import quick_imports

CODE = """
import sys
from spp.stages.worker import work_of
work_of("measure")
heavy = {"pytorch_lightning", "torchmetrics", "scipy", "matplotlib", "sklearn", "pyarrow", "hydra"}
print(sorted(heavy & set(sys.modules)))
"""


def test_what_trains_nothing_loads_neither_lightning_nor_what_that_brings():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_collector_rests_while_modules_come_and_goes_on_after():
    assert gc.isenabled()
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_the_collector_goes_on_after_an_import_that_fails():
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import no_such_module_anywhere  # noqa: F401
    assert gc.isenabled()
