import numpy as np
import pytest
import wandb

from spp.record.wandb_file import find_segments, is_finished, read_file, read_runs
from spp.record.wandb_mirror import open_mirror

PLAIN = {"project": "study", "entity": None, "group": "point", "job_type": "prune", "name": "prune", "tags": []}


def write_run(folder, run_id, config, rows=(), result=None):
    """A run that wandb has written."""
    folder.mkdir(parents=True, exist_ok=True)
    mirror = open_mirror(folder, mode="offline", run_id=run_id, config=config, **PLAIN)
    for row in rows:
        mirror.log(row)
    if result is not None:
        mirror.set_result(result)
    mirror.finish()
    wandb.teardown()  # what is finished reaches the disk a moment later


def test_runs_in_the_order_of_their_start(tmp_path, no_account):
    for number, name in enumerate(("c", "a", "b")):
        write_run(
            tmp_path / name, f"run{name}", {"number": number}, [{"loss": 0.5}], {"top1": 97.5, "params": {"a.b": 3}}
        )
    # W&B names folders to the second, so their names alone do not tell.
    runs = read_runs(find_segments(tmp_path))
    assert [run.id for run in runs] == ["runc", "runa", "runb"]
    assert [run.config["number"] for run in runs] == [0, 1, 2]
    assert all(run.summary["result"] == {"top1": 97.5, "params": {"a.b": 3}} for run in runs)
    assert all(run.summary["loss"] == 0.5 for run in runs)
    assert [folder.parent.parent.name for run in runs for folder in run.folders] == ["c", "a", "b"]


def test_segments_of_one_run_are_joined(tmp_path, no_account):
    # Named against their order, as after a move.
    write_run(tmp_path / "z", "same", {"host": "n1", "only": 1}, [{"loss": 0.9}])
    write_run(tmp_path / "a", "same", {"host": "n2"}, [{"loss": 0.1}], {"top1": 97.5})
    (run,) = read_runs(reversed(find_segments(tmp_path)))
    assert [folder.parent.parent.name for folder in run.folders] == ["z", "a"]
    assert (run.config["host"], run.config["only"]) == ("n2", 1)
    assert (run.summary["loss"], run.summary["result"]) == (0.1, {"top1": 97.5})


def test_a_torn_tail_loses_only_the_last_record(tmp_path, no_account):
    texts = [str(number) * 20_000 for number in range(4)]  # several records cross the blocks of 32 KiB
    write_run(tmp_path / "whole", "torn", {"lr": 0.1}, [{"text": text} for text in texts])
    (file,) = tmp_path.rglob("run-torn.wandb")
    content, whole = file.read_bytes(), read_file(file)
    assert sum(map(len, whole.records)) > 80_000
    assert (whole.num_bytes, whole.is_damaged, is_finished(whole)) == (len(content), False, True)
    cut = tmp_path / "cut.wandb"
    for length in np.random.default_rng(0).integers(7, len(content), 60):
        cut.write_bytes(content[:length])
        found = read_file(cut)
        assert found.records == whole.records[: len(found.records)]
        # Only one record was begun, so all but one of those whose bytes are there were found.
        lost = whole.records[len(found.records) :]
        assert sum(map(len, lost[1:])) <= len(content) - length
        assert found.num_bytes <= length
        assert (found.is_damaged, is_finished(found)) == (False, False)
        # The whole part by itself is a file in order.
        cut.write_bytes(content[: found.num_bytes])
        assert read_file(cut) == found


def test_a_damaged_file_is_read_up_to_the_damage(tmp_path, no_account):
    write_run(tmp_path, "damaged", {"lr": 0.1}, [{"loss": 0.5}], {"top1": 97.5})
    (file,) = tmp_path.rglob("run-damaged.wandb")
    content, whole = file.read_bytes(), read_file(file)
    place = content.index(b"top1")
    file.write_bytes(content[:place] + b"TOP1" + content[place + 4 :])
    found = read_file(file)
    assert found.is_damaged
    assert found.num_bytes < place
    assert 0 < len(found.records) < len(whole.records)
    assert found.records == whole.records[: len(found.records)]


def test_a_torn_run_is_known_by_what_it_wrote(tmp_path, no_account):
    write_run(tmp_path, "killed", {"lr": 0.1}, [{"loss": 0.5}], {"top1": 97.5})
    (file,) = tmp_path.rglob("run-killed.wandb")
    content = file.read_bytes()
    file.write_bytes(content[: content.index(b"top1")])
    (run,) = read_runs(find_segments(tmp_path))
    assert run.config["lr"] == 0.1
    assert "result" not in run.summary


def test_folders_without_a_readable_run_are_passed_over(tmp_path, no_account):
    write_run(tmp_path / "good", "good", {"lr": 0.1})
    for name, content in {"empty": b"", "other": b"GIF89a and more", "header": b":W&B\xe1\xbe\x00"}.items():
        folder = tmp_path / name / "wandb" / f"offline-run-20260101_000000-{name}"
        folder.mkdir(parents=True)
        (folder / f"run-{name}.wandb").write_bytes(content)
    assert len(find_segments(tmp_path)) == 4
    assert [run.id for run in read_runs(find_segments(tmp_path))] == ["good"]


def test_what_is_no_file_of_wandb(tmp_path):
    (tmp_path / "x.wandb").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match=r"x\.wandb is not a file of W&B; allowed: run-ID\.wandb"):
        read_file(tmp_path / "x.wandb")
