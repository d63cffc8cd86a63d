import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="session")
def chain(made_once):
    """Store and artifacts of an undisturbed chain; what is forked from this process has all modules loaded."""
    from faults.chain import artifacts_of, run, words_of
    from spp.stages.serve import preload

    def make(root):
        code, text = run(words_of(root))
        assert code == 0, text

    root = made_once("attacked-chain", make)
    preload()
    return root, artifacts_of(root)
