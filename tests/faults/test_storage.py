"""Damaged files of a store, a small part of `make faults`."""

import pytest

from faults import storage


@pytest.mark.slow
def test_a_damaged_file_is_made_again(chain, tmp_path):
    root, wanted = chain
    tally = storage.attack(10, 7, tmp_path, root, wanted)
    assert sum(tally.made.values()) == 10
    assert tally.faults == []
