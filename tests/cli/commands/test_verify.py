import json
import os

import pytest

from spp.cli.main import main
from spp.store.claim import claim
from spp.store.marker import ARTIFACTS, DONE


@pytest.fixture
def damaged(sweep):
    """Store, sweep, and its dense stage and path, of which the second has an artifact with a flipped bit."""
    store, name = sweep
    dense, path, *_ = store.read_plan(name).stages.values()
    for stage in (dense, path):
        work = store.begin(stage.kind, stage.key)
        (work / "weights.bin").write_text("abcde")
        store.finish(stage.kind, stage.key, {"seconds": 1.0})
    (store.artifacts_dir(path.kind, path.key) / "weights.bin").write_text("abcdd")
    return store, name, dense, path


def say(*words):
    return lambda store: main([*words, f"paths.store={store.root}"])


def test_verify_names_what_is_damaged_and_changes_nothing(damaged, capsys):
    store, name, _, path = damaged
    for words in (("verify",), ("verify", name)):
        assert say(*words)(store) == 1
        told = capsys.readouterr().out
        assert f"update {path.key}: artifact weights.bin has another sha256 than when it was written" in told
        assert "2 finished stages read, 1 damaged" in told
        assert "spp verify --repair" in told
    assert store.is_done(path.kind, path.key)


def test_verify_of_a_whole_store_says_so(damaged, capsys):
    store, *_, path = damaged
    (store.artifacts_dir(path.kind, path.key) / "weights.bin").write_text("abcde")
    assert say("verify")(store) == 0
    assert capsys.readouterr().out == "2 finished stages read, 0 damaged\n"


def test_repair_sets_aside_so_that_the_next_run_makes_it_again(damaged, capsys):
    store, name, dense, path = damaged
    assert say("verify", "--repair", "--json")(store) == 0
    (row,) = json.loads(capsys.readouterr().out)["damaged"]
    assert (row["stage"], row["key"]) == (path.kind, path.key)
    assert sorted(os.listdir(row["aside"])) == [DONE, ARTIFACTS, "summary.json"]
    assert store.is_done(dense.kind, dense.key)
    assert not store.is_done(path.kind, path.key)
    assert store.begin(path.kind, path.key) is not None
    assert say("verify", name)(store) == 0


@pytest.mark.parametrize("text", ["null", '{"seconds": 2.0}', "", None])
def test_a_damaged_summary_is_named_and_written_again_from_its_copy(damaged, text, capsys):
    store, name, dense, path = damaged
    (store.artifacts_dir(path.kind, path.key) / "weights.bin").write_text("abcde")
    file = store.stage_dir(dense.kind, dense.key) / "summary.json"
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    assert store.summary(dense.kind, dense.key) == {"seconds": 1.0}
    assert say("verify", name)(store) == 1
    assert f"dense {dense.key}: its summary.json is damaged" in capsys.readouterr().out
    assert say("verify", "--repair", "--json")(store) == 0
    (row,) = json.loads(capsys.readouterr().out)["damaged"]
    assert (row["key"], row["aside"], row["restored"]) == (dense.key, None, True)
    assert store.is_done(dense.kind, dense.key)
    assert json.loads(file.read_text())["seconds"] == 1.0
    assert say("verify", name)(store) == 0


def test_where_the_copy_is_damaged_too_the_stage_is_set_aside(damaged, capsys):
    store, _, dense, path = damaged
    (store.artifacts_dir(path.kind, path.key) / "weights.bin").write_text("abcde")
    (store.stage_dir(dense.kind, dense.key) / "summary.json").write_text("null")
    (store.artifacts_dir(dense.kind, dense.key) / ".record.json").write_text("null")
    with pytest.raises(ValueError, match=r"summary\.json is damaged; .*spp verify --repair"):
        store.summary(dense.kind, dense.key)
    assert say("verify", "--repair", "--json")(store) == 0
    (row,) = json.loads(capsys.readouterr().out)["damaged"]
    assert (row["key"], row["restored"]) == (dense.key, False)
    assert not store.is_done(dense.kind, dense.key)


def test_repair_leaves_a_stage_that_somebody_holds(damaged, start, capsys):
    store, _, _, path = damaged
    with claim(store, path.kind, path.key):
        assert say("verify", "--repair")(store) == 1
    assert f"left, as it is held by process {os.getpid()}" in capsys.readouterr().out
    assert store.is_done(path.kind, path.key)


@pytest.mark.parametrize("harm", ["emptied DONE", "cut", "other spec"])
def test_every_kind_of_damage_is_found(damaged, harm, capsys):
    store, _, dense, _ = damaged
    folder = store.stage_dir(dense.kind, dense.key)
    if harm == "emptied DONE":
        (folder / DONE).write_text("")
    elif harm == "cut":
        (folder / ARTIFACTS / "weights.bin").write_text("abc")
    else:
        spec = json.loads((folder / "spec.json").read_text())
        (folder / "spec.json").write_text(json.dumps({**spec, "config": {"seed": 9}}))
    assert say("verify")(store) == 1
    assert f"dense {dense.key}: " in capsys.readouterr().out


def test_verify_without_a_store_is_refused(tmp_path, capsys):
    assert main(["verify", f"paths.store={tmp_path / 'none'}"]) == 2
    assert "is no folder; allowed: a store" in capsys.readouterr().err


def test_status_says_what_is_damaged(damaged, capsys):
    store, name, dense, _ = damaged
    (store.artifacts_dir(dense.kind, dense.key) / "weights.bin").unlink()
    assert say("status", name, "--json")(store) == 0
    shown = {stage["key"]: stage for stage in json.loads(capsys.readouterr().out)["stages"]}
    assert shown[dense.key]["state"] == "failed"
    assert shown[dense.key]["error"].startswith("artifact weights.bin is missing; the next spp run")


def test_unlock_frees_what_a_machine_that_is_gone_holds(damaged, capsys):
    store, _, _, path = damaged
    folder = store.stage_dir(path.kind, path.key)
    process = {"host": "gone", "machine": "00000000", "pid": 12, "start": 1}
    (folder / "claim-1").write_text(json.dumps({"process": process, "job": "", "restarts": 0, "since": 1.5}))
    assert say("unlock", path.key[:12])(store) == 0
    assert capsys.readouterr().out == f"update {path.key} is free; it was held by process 12 on gone\n"
    assert say("unlock", path.key)(store) == 2
    with claim(store, path.kind, path.key):
        assert say("unlock", path.key)(store) == 2
    assert "which lives" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "verify", "retry", "report"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stages": [{}], "points": [{}]}'])
@pytest.mark.parametrize("file", ["plan.json", "points.json"])
def test_a_damaged_sweep_ends_in_one_line(damaged, command, file, text, capsys):
    store, name, *_ = damaged
    (store.sweep_dir(name) / file).write_text(text)
    words = [command, "all", name] if command == "report" else [command, name]
    assert say(*words)(store) == 2
    told = capsys.readouterr().err
    assert told.startswith("spp: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    "row", ["{}", "[1]", '{"runner": 3}', '{"batch": "../x"}', '{"awaits": 7}', '{"tender": {}}', "\0"]
)
def test_a_damaged_row_of_jobs_is_passed_over_or_refused_in_one_line(damaged, row, capsys):
    store, name, *_ = damaged
    (store.sweep_dir(name) / "jobs.jsonl").write_text(row + "\n")
    assert say("status", name)(store) in (0, 2)
    assert capsys.readouterr().err.count("\n") <= 1


@pytest.mark.parametrize("place", ["/proc/spp", "/dev/null/store", "x" * 300])
def test_a_store_where_none_can_be_ends_in_one_line(place, capsys):
    for words in (["verify"], ["status"], ["unlock", "00"], ["export", "0" * 300, "--format", "torch"]):
        assert main([*words, f"paths.store={place}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
