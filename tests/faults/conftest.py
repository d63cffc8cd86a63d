import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Store and artifacts of an undisturbed chain; what is forked from this process has all modules loaded."""
    from faults.chain import artifacts_of, run, words_of

    root = tmp_path_factory.mktemp("chain") / "finished"
    code, text = run(words_of(root))
    assert code == 0, text
    return root, artifacts_of(root)
