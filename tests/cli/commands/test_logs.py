import json
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spp.cli.commands import logs as module
from spp.cli.commands.logs import tail
from spp.cli.main import main
from spp.store.claim import claim


def write_log(store, stage, name, text):
    folder = store.logs_dir(stage.kind, stage.key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@given(lines=st.lists(st.text("abcä", max_size=9), max_size=12), ends=st.booleans(), num=st.integers(0, 15))
def test_tail_is_the_end_of_the_file(tmp_path_factory, lines, ends, num):
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    file = tmp_path_factory.mktemp("tail") / "log"
    file.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        # Small blocks, so that lines lie across them.
        patch.setattr(module, "_BLOCK_BYTES", 5)
        expected = text.split("\n")
        if expected[-1] == "":
            expected.pop()
        assert tail(file, num) == expected[max(0, len(expected) - num) :]


def test_the_newest_log_of_the_stage_that_the_letters_begin(chain, sweep, capsys):
    store, _ = sweep
    stage = next(iter(chain.stages.values()))
    write_log(store, stage, "1-job7-r0.log", "old\n")
    time.sleep(0.01)
    file = write_log(store, stage, "2-job7-r1.log", "one\ntwo\nthree\n")
    time.sleep(0.01)
    write_log(store, stage, "2-job7-r1-rank1.log", "the second process\n")
    words = [stage.key[:10], f"paths.store={store.root}"]
    assert main(["logs", *words]) == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    assert main(["logs", "-n", "1", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "stage": stage.kind,
        "key": stage.key,
        "file": str(file),
        "lines": ["three"],
        "note": None,
    }


def test_a_failure_in_the_process_of_spp_run_is_shown_though_it_has_no_log(chain, sweep, capsys):
    store, _ = sweep
    stage = next(iter(chain.stages.values()))
    where = f"paths.store={store.root}"
    assert main(["logs", stage.key, where]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "has no log, and has recorded nothing: it is queued, it waits for nobody works on the sweep" in said.err
    store.append_metrics(stage.kind, stage.key, {"epoch": 1, "loss": 2.25})
    store.fail(stage.kind, stage.key, "Traceback\nValueError: no")
    for words in ([stage.key], []):  # without a name what has failed in the newest sweep
        assert main(["logs", *words, where]) == 0
        assert capsys.readouterr().out == "epoch 1: loss 2.25\nTraceback\nValueError: no\n"


def test_a_log_that_is_empty_is_said_to_be_and_the_record_stands_in(chain, sweep, capsys):
    store, name = sweep
    stage = next(iter(chain.stages.values()))
    write_log(store, stage, "1.log", "\n")
    store.append_metrics(stage.kind, stage.key, {"epoch": 7, "loss": 0.5})
    assert main(["logs", stage.key[:9], "--json", f"paths.store={store.root}"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["lines"] == ["epoch 7: loss 0.5"]
    assert "has printed nothing into" in told["note"]
    assert main(["logs", name[:5], f"paths.store={store.root}"]) == 0
    assert capsys.readouterr().out


def test_without_a_name_it_is_what_runs_and_then_what_was_done_last(chain, sweep, finish, capsys):
    store, _ = sweep
    first, second, *_ = chain.stages.values()
    finish(store, first)
    for stage in (first, second):
        write_log(store, stage, "1.log", f"this is {stage.kind}\n")
    where = f"paths.store={store.root}"
    assert main(["logs", where]) == 0
    assert capsys.readouterr().out == "this is dense\n"
    with claim(store, second.kind, second.key):
        assert main(["logs", where]) == 0
    said = capsys.readouterr()
    assert said.out == "this is update\n"
    assert "running" in said.err


def test_letters_that_fit_several_stages_list_them(sweep, capsys):
    store, _ = sweep
    keys = ["ab" + str(n) * 18 for n in range(3)]
    for key in keys:
        store.stage_dir("prune", key).mkdir(parents=True)
    assert main(["logs", "ab", f"paths.store={store.root}"]) == 2
    error = capsys.readouterr().err
    assert [key for key in keys if key not in error] == []
    assert error.count("\n") == 1


@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_following_goes_on_through_a_restart_until_the_stage_ends(chain, sweep, finish, fails, code):
    store, _ = sweep
    stage = next(iter(chain.stages.values()))
    file = write_log(store, stage, "1.log", "zero\none\npart")
    command = [sys.executable, "-m", "spp.cli.main", "logs", "-f", "-n", "2", stage.key, f"paths.store={store.root}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "one\n"
    with open(file, "a") as log:
        log.write("ial\nthree\n")
    assert process.stdout.readline() == "partial\n"
    assert process.stdout.readline() == "three\n"
    write_log(store, stage, "2.log", "after the restart\nno newline")
    assert process.stdout.readline() == "after the restart\n"
    if fails:
        store.fail(stage.kind, stage.key, "ValueError: no")
    else:
        finish(store, stage)
    rest, _ = process.communicate(timeout=60)
    assert rest == "no newline\n"
    assert process.returncode == code
