"""Claims are judged by the clock that stamps the files of a store, not by that of the machine that waits."""

import os
import time

import pytest

from spp.store.clock import server_time


def test_the_time_is_that_of_a_file_just_written(tmp_path):
    (tmp_path / "x").write_text("")
    assert server_time(tmp_path) == pytest.approx((tmp_path / "x").stat().st_mtime, abs=2)
    assert os.listdir(tmp_path) == ["x"]


def test_a_server_that_is_ahead_tells_its_own_time_and_goes_on(tmp_path, server_ahead):
    first = server_time(tmp_path)
    assert first == pytest.approx(time.time() + server_ahead, abs=5)
    time.sleep(0.05)
    assert 0.04 < server_time(tmp_path) - first < 5


def test_where_nothing_can_be_written_it_is_this_machines(tmp_path):
    assert server_time(tmp_path / "none") == pytest.approx(time.time(), abs=5)
