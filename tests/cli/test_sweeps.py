import pytest

from spp.cli.sweeps import command, find_sweep, noted_runner, runners, view_sweep
from spp.process import this_process
from spp.store.claim import claim

RUNNER = """
import sys
from spp.cli.sweeps import noted_runner
from spp.store.store import Store
with noted_runner(Store(sys.argv[1]), sys.argv[2], "local"):
    print("noted", flush=True)
    sys.stdin.readline()
"""


def test_a_sweep_is_found_by_its_name_and_by_how_it_begins(chain, sweep):
    store, name = sweep
    store.write_plan(f"{name}-2", chain, {})
    store.write_plan("other", chain, {})
    assert find_sweep(store.root, name) == name
    assert find_sweep(store.root, "oth") == "other"
    assert find_sweep(store.root, None) == "other"
    with pytest.raises(ValueError, match=r"SWEEP: 'spp-' fits 2 sweeps; allowed: .*; give more"):
        find_sweep(store.root, "spp-")
    with pytest.raises(ValueError, match=r"SWEEP: 'x' is not in .* allowed: other"):
        find_sweep(store.root, "x")


def test_commands_name_the_store_only_where_it_is_not_the_usual_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SPP_STORE", str(tmp_path))
    assert command("watch", "name", tmp_path) == "spp watch name"
    assert command("watch", "name", tmp_path / "my store") == f"spp watch name paths.store='{tmp_path}/my store'"


def test_a_runner_is_known_as_long_as_it_runs(sweep):
    store, name = sweep
    assert view_sweep(store, name).surely_abandoned
    with noted_runner(store, name, "local"):
        assert runners(store, name) == [this_process()]
        assert not view_sweep(store, name).abandoned
    assert runners(store, name) == []


def test_a_runner_that_was_killed_runs_nothing(sweep, start):
    store, name = sweep
    process = start(RUNNER, store.root, name)
    assert process.stdout.readline() == "noted\n"
    assert not view_sweep(store, name).abandoned
    process.kill()
    process.wait()
    assert view_sweep(store, name).surely_abandoned


def test_a_sweep_settles_when_nothing_can_go_on(chain, sweep, finish):
    store, name = sweep
    dense, update, *tunes = chain.stages.values()
    finish(store, dense)
    with claim(store, update.kind, update.key):
        view = view_sweep(store, name)
        assert (view.settled, view.abandoned, view.ok) == (False, False, False)
    store.fail(update.kind, update.key, "ValueError: no")
    view = view_sweep(store, name)
    assert (view.settled, view.ok, [stage.key for stage in view.failures]) == (True, False, [update.key])
    store.clear_failed(update.kind, update.key)
    assert not view_sweep(store, name).settled
    for stage in (update, *tunes):
        finish(store, stage)
    view = view_sweep(store, name)
    assert (view.settled, view.ok, view.failures) == (True, True, [])
