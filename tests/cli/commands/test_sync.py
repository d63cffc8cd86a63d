import os
import re
import socket
import subprocess
import sys
import time

import pytest
import wandb

from spp.cli.commands.sync import BATCH_SIZE
from spp.cli.main import main
from spp.record.wandb_mirror import open_mirror
from spp.store.claim import claim
from spp.store.store import Store


def run_offline(store, kind, key, **result):
    """A process of a stage, as far as W&B sees it."""
    folder = store.stage_dir(kind, key)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"kind": kind, "key": key, "host": os.environ.get("TEST_HOST", "n1")}
    mirror = open_mirror(
        folder, mode="offline", project="study", entity=None, group="point", job_type=kind, run_id=key, name=kind,
        tags=[], config=config,
    )  # fmt: skip
    mirror.log({"loss": 0.5})
    if result:
        mirror.set_result(result)
    mirror.finish()
    wandb.teardown()  # what is finished reaches the disk a moment later


def synced(store):
    return {marker.parents[2].name for marker in store.root.glob("stages/*/*/wandb/*/*.synced")}


@pytest.fixture
def offline(sweep, no_account):
    """A store with a sweep; two of its stages and one of another have an offline run."""
    store, name = sweep
    dense, update = [stage.ref for stage in store.read_plan(name).stages.values()][:2]
    run_offline(store, "dense", dense.key, top1=97.5)
    run_offline(store, "update", update.key, epochs=1)
    run_offline(store, "finetune", "f" * 20, top1=90.0)
    return store, dense.key, update.key


@pytest.fixture
def spp(tmp_path):
    """spp(*words): the command in a process of its own, where no terminal could be asked."""

    def call(*words):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "spp.cli.main", *map(str, words)]
        done = subprocess.run(command, cwd=work, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert list(work.iterdir()) == []  # nothing is left where the user stands
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return call


def test_everything_is_uploaded_once(offline, spp, wandb_server):
    store, dense, update = offline
    words = ("sync", f"paths.store={store.root}")
    assert spp(*words) == (0, ["uploaded 3 of 3 runs"], [])
    runs = wandb_server.runs
    assert runs.keys() == {dense, update, "f" * 20}
    assert {run["groupName"] for run in runs.values()} == {"point"}
    assert (runs[dense]["jobType"], runs[dense]["summary"]["result"]) == ("dense", {"top1": 97.5})
    assert runs[update]["config"]["key"] == update
    assert spp(*words) == (0, ["nothing to upload"], [])
    run_offline(store, "finetune", "e" * 20, top1=80.0)
    assert spp(*words) == (0, ["uploaded 1 of 1 run"], [])
    assert wandb_server.runs["e" * 20]["summary"]["result"] == {"top1": 80}


def test_only_the_runs_of_a_sweep(offline, spp, wandb_server):
    store, dense, update = offline
    assert spp("sync", "spp-vit", f"paths.store={store.root}") == (0, ["uploaded 2 of 2 runs"], [])
    assert wandb_server.runs.keys() == synced(store) == {dense, update}


def test_segments_of_a_requeued_stage_become_one_run(offline, spp, wandb_server, monkeypatch):
    store, _, update = offline
    time.sleep(1.1)  # W&B names folders to the second
    monkeypatch.setenv("TEST_HOST", "n2")
    run_offline(store, "update", update, epochs=2)
    assert spp("sync", f"paths.store={store.root}") == (0, ["uploaded 4 of 4 runs"], [])
    run = wandb_server.runs[update]
    assert (run["config"]["host"], run["summary"]["result"]) == ("n2", {"epochs": 2})
    assert len(list(store.stage_dir("update", update).glob("wandb/offline-*/*.synced"))) == 2


def test_what_still_grows_is_left(offline, spp, wandb_server):
    store, _, update = offline
    words = ("sync", f"paths.store={store.root}")
    with claim(store, "update", update):
        said = ["1 run of stages at work: left for the next time", "uploaded 2 of 2 runs"]
        assert spp(*words) == (0, said, [])
        assert update not in synced(store)
    assert spp(*words) == (0, ["uploaded 1 of 1 run"], [])


def test_wandb_mode_offline_does_not_keep_it_from_uploading(offline, spp, wandb_server, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert spp("sync", f"paths.store={offline[0].root}") == (0, ["uploaded 3 of 3 runs"], [])


def test_more_runs_than_one_call_takes(tmp_path, spp, wandb_server):
    store = Store(tmp_path / "store")
    template = store.stage_dir("dense", "0" * 20)
    run_offline(store, "dense", "0" * 20, top1=97.5)
    (content,) = (file.read_bytes() for file in template.glob("wandb/offline-*/*.wandb"))
    for number in range(1, BATCH_SIZE + 1):
        key = f"{number:020}"
        folder = store.stage_dir("dense", key) / "wandb" / f"offline-run-20260101_000000-{key}"
        folder.mkdir(parents=True)
        (folder / f"run-{key}.wandb").write_bytes(content)
    code, lines, _ = spp("sync", f"paths.store={store.root}")
    total = BATCH_SIZE + 1
    assert (code, lines[-1]) == (0, f"uploaded {total} of {total} runs")
    # Two calls at a time: either may be the first to end.
    assert len(lines) == 2
    assert re.fullmatch(rf"uploaded (1|{BATCH_SIZE}) of {total} runs, about .* to go", lines[0])
    assert len(synced(store)) == total


def test_nothing_to_upload(tmp_path, capsys, no_account):
    assert main(["sync", f"paths.store={tmp_path}"]) == 0
    assert capsys.readouterr().out == "nothing to upload\n"


def test_without_a_login_it_says_so_and_asks_nobody(offline, spp):
    code, lines, errors = spp("sync", f"paths.store={offline[0].root}")
    assert (code, lines) == (1, [])
    assert errors == ["spp: there is no W&B login; say `wandb login` once on this machine, or set WANDB_API_KEY"]
    assert synced(offline[0]) == set()


def test_without_a_network_it_says_so_at_once(offline, spp, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        code, lines, errors = spp("sync", f"paths.store={offline[0].root}")
    assert (code, lines, len(errors)) == (1, [], 1)
    assert errors[0].startswith(f"spp: the W&B server {address} does not answer (")
    assert errors[0].endswith("; say it again where there is a network")
    assert synced(offline[0]) == set()


def test_a_login_that_cannot_be_one(offline, spp, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    code, _, errors = spp("sync", f"paths.store={offline[0].root}")
    assert (code, len(errors)) == (1, 1)
    assert errors[0].startswith("spp: the W&B login cannot be used (")


def test_a_killed_process_has_left_a_torn_run(offline, spp, wandb_server):
    store, _, update = offline
    (file,) = store.stage_dir("update", update).rglob("*.wandb")
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"result") + 3])
    words = ("sync", f"paths.store={store.root}")
    # It was written just now, so it may still grow.
    assert spp(*words) == (0, ["1 run of stages at work: left for the next time", "uploaded 2 of 2 runs"], [])
    an_hour_ago = time.time() - 3600
    os.utime(file, (an_hour_ago, an_hour_ago))
    assert spp(*words) == (0, ["uploaded 1 of 1 run"], [])
    run = wandb_server.runs[update]
    assert (run["config"]["key"], run["summary"]["loss"]) == (update, 0.5)
    assert "result" not in run["summary"]


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_damaged_run_keeps_no_other_from_being_uploaded(offline, spp, wandb_server, share):
    store, dense, update = offline
    (file,) = store.stage_dir("update", update).rglob("*.wandb")
    content = file.read_bytes()
    place = int(share * len(content))
    file.write_bytes(content[:place] + bytes(255 - byte for byte in content[place : place + 4]) + content[place + 4 :])
    code, lines, errors = spp("sync", f"paths.store={store.root}")
    assert (code, lines) == (1, ["uploaded 2 of 2 runs"])
    assert errors == [f"spp: {file.parent} is damaged; remove it, the store has the whole record"]
    assert wandb_server.runs.keys() == {dense, "f" * 20}


def test_a_server_that_refuses(offline, spp, wandb_server):
    """It takes one run, then its disk is full."""
    store, dense, update = offline
    (wandb_server.folder / "refused").write_text(f"{update} {'f' * 20}")
    code, lines, errors = spp("sync", f"paths.store={store.root}")
    assert (code, lines) == (1, ["uploaded 1 of 3 runs"])
    assert len(errors) == 1
    assert errors[0].startswith("spp: wandb sync did not upload the others (")
    assert errors[0].endswith("; say it again to go on")
    (wandb_server.folder / "refused").unlink()
    assert spp("sync", f"paths.store={store.root}") == (0, ["uploaded 2 of 2 runs"], [])
    assert wandb_server.runs.keys() == {dense, update, "f" * 20}


def test_an_unknown_sweep(offline, capsys):
    assert main(["sync", "nothing", f"paths.store={offline[0].root}"]) == 2
    assert capsys.readouterr().err.startswith("spp: SWEEP: 'nothing' is not in ")
