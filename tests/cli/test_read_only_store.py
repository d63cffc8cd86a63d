"""What is done needs no store that can be written."""

import errno
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from spp.cli import launch
from spp.cli.commands import report
from spp.cli.sweep_plan import Planned
from spp.plan.cluster import ClusterConfig
from spp.store.store import Store


@pytest.fixture
def planned(sweep, chain, finish):
    """A sweep whose stages are all done."""
    store, _ = sweep
    for stage in chain.stages.values():
        finish(store, stage)
    return Planned(chain, {}, ClusterConfig(name="local"), store.root)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_sweep_that_is_done_is_said_to_be_so(planned, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number), "plan.json")

    monkeypatch.setattr(Store, "write_plan", refuse)
    told, store = io.StringIO(), Store(planned.store)
    console = Console(file=told, width=200)
    assert launch._note_finished(planned, planned.plan, store, "sweep", console)
    assert "the store cannot be written" in told.getvalue()
    assert "0 done, 4 cached, 0 failed, 0 blocked" in told.getvalue()


def test_a_broken_disk_is_no_read_only_store(planned, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EIO, "Input/output error", "plan.json")

    monkeypatch.setattr(Store, "write_plan", refuse)
    with pytest.raises(OSError, match="Input/output"):
        launch._note_finished(planned, planned.plan, Store(planned.store), "sweep", Console(file=io.StringIO()))


def test_reports_of_a_read_only_store_go_beside_the_user(tmp_path, monkeypatch, capsys):
    assert report._folder(tmp_path) == tmp_path / "reports"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert report._folder(tmp_path) == Path("reports")
    assert "cannot be written" in capsys.readouterr().err
