"""list, rm, gc, diff and why on real sweeps: names, tags and notes are no part of any key."""

import json
import os
import shutil
import time

import pytest

from spp.cli.main import main
from spp.cli.sweeps import noted_runner
from spp.store.store import Store

WORDS = ["debug=fast", "logger=off"]


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished store that the test may change, and the name of its sweep."""
    root, sweep = finished
    shutil.copytree(root, tmp_path / "store")
    return Store(tmp_path / "store"), sweep


@pytest.fixture
def said(capsys):
    """said(*words): what a command printed; said.json for its JSON."""

    def text(*words, code=0):
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        return capsys.readouterr().out

    text.json = lambda *words, code=0: json.loads(text(*words, "--json", code=code))
    return text


def test_a_name_tags_and_a_note_leave_every_key_alone_and_are_listed(copied, said):
    store, sweep = copied
    where = f"paths.store={store.root}"
    told = ["name=first-try", "tags=[paper,week-48]", "note=lr as in the paper, wd not: see 3"]
    text = said("run", *WORDS, *told, where)
    assert f"sweep {sweep}, called first-try" in text
    assert "0 done, 9 cached" in text
    (row,) = said.json("list", where)["sweeps"]
    expected = ("first-try", ["paper", "week-48"], "lr as in the paper, wd not: see 3", "done")
    assert (row["name"], row["tags"], row["note"], row["state"]) == expected
    assert (row["num_points"], row["num_points_done"], row["num_stages_done"]) == (1, 1, 9)
    on_disk = sum(file.stat().st_size for file in store.root.glob("stages/*/*/**/*") if file.is_file())
    assert row["bytes"] == row["bytes_of_its_own"] == on_disk
    summaries = [store.summary(ref.kind, ref.key) for ref in store.find_stages("") if ref.kind == "measure"]
    values = [one["metrics"]["test"][one["headline"]]["value"] for one in summaries]
    assert row["result"]["num_members"] == len(values) - 1
    assert min(values) <= row["result"]["lowest"] <= row["result"]["highest"] <= max(values)
    # Said once, it stays; the name serves wherever a sweep is named.
    said("run", *WORDS, where)
    assert said.json("list", where)["sweeps"][0]["name"] == "first-try"
    assert sweep in said("status", "first-try", where)
    text = said("list", "--tag", "paper", where)
    assert "first-try" in text
    assert "#paper #week-48" in text
    assert said.json("list", "--tag", "other", where)["sweeps"] == []


def test_a_name_is_taken_over_by_the_next_sweep_that_gets_it(sweep, chain):
    from spp.cli.sweeps import find_sweep
    from spp.plan.about import AboutConfig
    from spp.store.about import write_about

    store, name = sweep
    time.sleep(0.01)
    store.write_plan("later", chain, {"name": "local"})
    for one in (name, "later"):
        write_about(store, one, AboutConfig(name="study"))
    assert find_sweep(store.root, "study") == "later"
    assert find_sweep(store.root, name) == name


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("name=a/b", "name"),
        ("name=-x", "name"),
        ("tags=[a b]", "tags"),
        ("tags=paper", "tags"),
        (f"note={'x' * 1001}", "note"),
    ],
)
def test_words_that_nobody_could_find_again_are_refused(tmp_path, capsys, word, field):
    assert main(["plan", *WORDS, word, f"paths.store={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"spp: {field}: ")
    assert "allowed: " in error
    assert error.count("\n") == 1


def test_rm_forgets_a_sweep_that_has_ended_and_gc_removes_what_was_its_alone(copied, said, capsys):
    store, sweep = copied
    where = f"paths.store={store.root}"
    with noted_runner(store, sweep, "local"):
        (store.stage_dir("measure", "f" * 20)).mkdir()
        assert said.json("gc", where)["busy"] == [sweep]
    said("rm", sweep, where)
    assert store.list_sweeps() == []
    assert "no sweep yet" in said("list", where)
    for folder in store.root.glob("stages/*/*"):
        if folder.is_dir():
            os.utime(folder, (1, 1))
    found = said.json("gc", where)
    assert (len(found["found"]), found["num_removed"]) == (10, 0)
    assert "nothing was removed yet" in said("gc", where)
    assert said.json("gc", "--yes", where)["num_removed"] == 10
    assert not [path for path in store.root.glob("stages/*/*") if path.is_dir()]


def test_rm_leaves_a_sweep_that_is_at_work(sweep, capsys):
    store, name = sweep
    with noted_runner(store, name, "local"):
        assert main(["rm", name, f"paths.store={store.root}"]) == 2
    assert "is at work" in capsys.readouterr().err
    assert main(["rm", f"paths.store={store.root}"]) == 2
    assert store.list_sweeps() == [name]


def test_diff_and_why_name_the_field_in_the_users_words(copied, said):
    store, _ = copied
    where = f"paths.store={store.root}"
    words = [*WORDS, "finetune.lr=0.01", where]
    plan = said.json("plan", *words)["stages"]
    queued = [row["key"] for row in plan if row["state"] == "queued" and row["stage"] == "finetune"]
    for key in queued:
        answer = said.json("why", key[:10], *words)
        assert not answer["done"]
        (difference,) = answer["differences"]
        assert (difference["field"], difference["left"]) == ("finetune.lr", 0.01)
        # The member of the same budget is nearer than that of another.
        spec = store.spec("finetune", answer["nearest"])
        assert difference["right"] == spec["config"]["recipe"]["lr"]
    tuned = [ref.key for ref in store.find_stages("") if ref.kind == "finetune"]
    assert [d["field"] for d in said.json("diff", *tuned, where)["differences"]] == ["budget.values"]
    assert "equal in every field" in said("diff", tuned[0], tuned[0], where)
    assert "is done" in said("why", tuned[0], where)


def test_an_unknown_key_is_one_line(copied, capsys):
    store, _ = copied
    for words in (["why", "zzzz"], ["diff", "zz", "yy"], ["diff", "aa"]):
        assert main([*words, f"paths.store={store.root}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
