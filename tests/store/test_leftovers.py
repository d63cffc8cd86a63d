"""What dead processes leave behind goes, on every way on which a stage or a sweep is found."""

import os
import shutil
from dataclasses import replace

import pytest

from spp.cli.main import main
from spp.plan.graph import Plan, Point
from spp.process import this_process
from spp.schedule.ledger import Ledger
from spp.store.claim import claim, holder_of
from spp.store.leftovers import remove_leftovers, remove_unfinished
from spp.store.marker import ARTIFACTS, DONE
from spp.store.store import Store
from spp.temporary import temporary

WHOLE = [DONE, ARTIFACTS, "spec.json", "summary.json"]
LEFT = ("claim-3.released", "claim-4", "ranks-7-0.json", "ranks-7-0.ckpt", "last.ckpt", "progress.json", "FAILED")


def of_a_dead_process(folder):
    """The name of what a process of this machine that is gone was writing."""
    me = this_process()
    return folder / temporary(folder).name.replace(me.tag, replace(me, start=me.start + 1).tag)


@pytest.fixture
def done(store, stage):
    """Folder of a finished stage with all that can be left in it; its last claim names nobody."""
    store.begin(stage.kind, stage.key)
    store.finish(stage.kind, stage.key, {})
    folder = store.stage_dir(stage.kind, stage.key)
    for name in LEFT:
        (folder / name).touch()
    os.utime(folder / "claim-4", (0, 0))
    (folder / "partial").mkdir()
    of_a_dead_process(folder).mkdir()
    of_a_dead_process(folder).touch()
    return folder


def by_a_worker(store, stage):
    with claim(store, stage.kind, stage.key):
        assert Store(store.root).begin(stage.kind, stage.key) is None
    remove_leftovers(store, stage.kind, stage.key, store.stage_files(stage.kind, stage.key))


def by_a_scheduler(store, stage):
    Ledger(Plan.merge([Point("p", (), (stage,))]), store, lambda event: None, 1.0)


@pytest.mark.parametrize("find", [by_a_worker, by_a_scheduler])
def test_a_stage_that_is_found_done_is_tidied(find, store, stage, done):
    find(store, stage)
    assert sorted(os.listdir(done)) == WHOLE


def test_a_run_of_what_is_all_done_tidies_it(finished, tmp_path):
    root, sweep = finished
    shutil.copytree(root, tmp_path / "store")
    store = Store(tmp_path / "store")
    images = store.root / "cache" / "images-0"
    images.mkdir(parents=True)
    before = sorted(path for path in store.root.rglob("*"))
    plan = store.read_plan(sweep)
    for stage in plan.stages.values():
        (store.stage_dir(stage.kind, stage.key) / "claim-2.released").touch()
    for folder in (store.sweep_dir(sweep), store.root / "stages" / "dense", images.parent, images):
        of_a_dead_process(folder).touch()
    assert main(["run", "debug=fast", "logger=off", f"paths.store={store.root}"]) == 0
    assert sorted(path for path in store.root.rglob("*")) == before


def test_what_a_living_process_has_stays(store, stage, done):
    with claim(store, stage.kind, stage.key):
        names = store.stage_files(stage.kind, stage.key)
        remove_leftovers(store, stage.kind, stage.key, names)
        assert sorted(store.stage_files(stage.kind, stage.key)) == sorted(names)
        assert holder_of(done, names)[1]


def test_what_is_being_written_beside_the_stages_stays_and_what_was_goes(store, stage):
    store.write_plan("sweep", Plan.merge([Point("p", (), (stage,))]))
    folders = [store.sweep_dir("sweep"), store.root / "stages" / stage.kind, store.root / "code"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        of_a_dead_process(folder).mkdir()
        for host in ("young", "old"):
            (folder / f".tmp-{host}-0badcafe-1-1-aa").touch()
        temporary(folder).touch()
        os.utime(folder / ".tmp-old-0badcafe-1-1-aa", (0, 0))
    remove_unfinished(store, "sweep")
    for folder in folders:
        left = [name for name in os.listdir(folder) if name.startswith(".tmp-")]
        assert sorted(name.split("-")[1] for name in left) == sorted([this_process().host.split("-")[0], "young"])
