"""Deaths at file-system calls and at any time, a small part of `make faults`."""

import os
import signal

import pytest

from faults import deaths
from faults.chain import faults_of, start


@pytest.mark.slow
@pytest.mark.parametrize("how", ["call", "time", "signal"])
def test_a_chain_that_dies_again_and_again_ends_in_the_same_bytes(how, chain, tmp_path):
    _, wanted = chain
    tally = deaths.attack(4, 1, tmp_path, wanted, cluster="debug", how=how)
    assert tally.num_deaths == 4
    assert tally.faults == []


def test_other_bytes_and_left_overs_are_noticed(chain, tmp_path):
    root, wanted = chain
    assert faults_of(root, wanted) == []
    (left,) = [folder / "claim-x" for folder in root.glob("stages/dense/*") if folder.is_dir()]
    left.touch()
    assert "claim-x is left over" in " ".join(faults_of(root, wanted))
    left.unlink()
    assert "x differs" in faults_of(root, {**wanted, "x": "0"})


def test_a_process_dies_at_the_call_that_is_asked_for(tmp_path):
    def write_three():
        deaths.die_at(3, after=True)
        for number in range(5):
            os.mkdir(tmp_path / str(number))

    assert deaths.wait(start(["--version"], tmp_path / "log", write_three)) == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "log"]
