import json
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from spp.record.wandb_file import find_segments, read_runs
from spp.record.wandb_mirror import open_mirror, pack, unpack

BLOCK_BYTES = 32768
HEADER = struct.Struct("<IHB")
FULL, FIRST, LAST = 1, 2, 4


def read_records(file):
    """Records of a .wandb file: a header of 7 bytes, then a log in LevelDB's format."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    offset, payload = 7, b""
    while offset < len(content):
        left = BLOCK_BYTES - offset % BLOCK_BYTES
        if left < HEADER.size:
            offset += left
            continue
        _checksum, length, kind = HEADER.unpack_from(content, offset)
        offset += HEADER.size
        piece = content[offset : offset + length]
        offset += length
        payload = piece if kind in (FULL, FIRST) else payload + piece
        if kind in (FULL, LAST):
            yield Record.FromString(payload)


def read_items(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(folder):
    """The only run below `folder`: its description, config and logged rows."""
    # A finished run reaches the disk a few milliseconds later, at the latest with the end of the process.
    wandb.teardown()
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    description, config, rows = None, {}, []
    for record in read_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            description = record.run
            config = read_items(record.run.config.update)
        elif kind == "history":
            row = read_items(record.history.item)
            rows.append({name: value for name, value in row.items() if name == "_step" or name[0] != "_"})
    return description, config, rows


def mirror_of(folder, **changes):
    arguments = {
        "mode": "offline",
        "project": "study",
        "entity": None,
        "group": "point-1",
        "job_type": "prune",
        "run_id": "0123456789abcdef",
        "name": "prune-0.7-s1",
        "tags": ["prune", "sweep-3"],
        "config": {"lr": 0.001, "upstream": {"dense": "fedcba"}},
    }
    return open_mirror(folder, **{**arguments, **changes})


def test_offline_run_holds_the_rows(tmp_path, no_account, capfd):
    mirror = mirror_of(tmp_path)
    for epoch in range(3):
        mirror.log({"epoch": epoch, "loss": 1 / (epoch + 1), "val": {"top1": 90.5}})
    mirror.log({"summary/top1": 91.0}, step=10)
    mirror.finish()
    description, config, rows = read_run(tmp_path)
    assert description.run_id == "0123456789abcdef"
    assert (description.project, description.run_group, description.job_type) == ("study", "point-1", "prune")
    assert (description.display_name, list(description.tags)) == ("prune-0.7-s1", ["prune", "sweep-3"])
    assert config["lr"] == 0.001
    assert config["upstream"] == {"dense": "fedcba"}
    assert [(row["_step"], row["epoch"], row["loss"]) for row in rows[:3]] == [(0, 0, 1), (1, 1, 0.5), (2, 2, 1 / 3)]
    assert rows[3] == {"_step": 10, "summary/top1": 91.0}
    assert capfd.readouterr() == ("", "")


def test_rows_that_cross_blocks(tmp_path, no_account):
    mirror = mirror_of(tmp_path)
    texts = [str(number) * 20_000 for number in range(5)]
    for text in texts:
        mirror.log({"text": text})
    mirror.finish()
    assert [row["text"] for row in read_run(tmp_path)[2]] == texts


def test_images_and_tables(tmp_path, no_account):
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    mirror = mirror_of(tmp_path)
    mirror.log_image("path/mask", pixels, "what it shows")
    mirror.log_table("members", ["budget", "top1"], [(0.5, 97.0), (1_000_000, None)])
    mirror.finish()
    (folder,) = tmp_path.glob("wandb/offline-run-*/files")
    image_row, table_row = read_run(tmp_path)[2]
    assert np.array_equal(np.asarray(Image.open(folder / image_row["path/mask.path"])), pixels)
    assert image_row["path/mask.caption"] == "what it shows"
    content = json.loads((folder / table_row["members.path"]).read_text())
    assert content["columns"] == ["budget", "top1"]
    assert content["data"] == [[0.5, 97.0], [1_000_000, None]]


def test_a_curve_has_its_own_axis(tmp_path, no_account):
    mirror = mirror_of(tmp_path)
    mirror.log({"loss": 1.0}, step=0)
    curve = [{"path/step": step, "path/support": 10.0 * step} for step in (0, 5, 20)]
    mirror.log_curve("path/step", curve)
    mirror.finish()
    wandb.teardown()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    metrics = [record.metric for record in read_records(file) if record.WhichOneof("record_type") == "metric"]
    assert {metric.name: metric.step_metric for metric in metrics} == {"path/step": "", "path/support": "path/step"}
    _, _, rows = read_run(tmp_path)
    assert [{name: row[name] for name in curve[0]} for row in rows] == curve


def test_the_summary_of_a_stage_is_apart_from_the_rows(tmp_path, no_account):
    summary = {"epochs": 3, "test": {"top1": 97.5, "num_images": 297}, "widths": {"blocks.0.mlp": 12}, "support": {}}
    mirror = mirror_of(tmp_path)
    mirror.log({"epochs": 1})
    mirror.set_result(summary)
    mirror.finish()
    wandb.teardown()
    (run,) = read_runs(find_segments(tmp_path))
    assert run.summary["epochs"] == 1
    assert unpack(run.summary["result"]) == summary


def test_empty_dicts_survive_the_upload():
    config = {"recipe": {"augment": {}}, "inputs": {}, "sizes": [{}, 0.5], "name": "x", "seed": None}
    packed = pack(config)
    assert "{}" not in json.dumps(packed).replace('"{}"', "")
    assert unpack(packed) == config


def test_long_names_are_cut_and_stay_apart(tmp_path, no_account):
    names = ["method=spp " * 20 + end for end in ("seed=0", "seed=1")]
    groups = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        mirror_of(folder, group=name, name=name).finish()
        description, _, _ = read_run(folder)
        assert description.display_name == description.run_group
        groups.append(description.run_group)
    assert groups[0] != groups[1]
    assert {len(group) for group in groups} == {128}
    assert all(group[:100] == name[:100] for group, name in zip(groups, names, strict=True))


def test_stages_of_one_process_have_runs_of_their_own(tmp_path, no_account):
    folders = [tmp_path / name for name in ("dense", "prune")]
    mirrors = []
    for folder in folders:
        folder.mkdir()
        mirrors.append(mirror_of(folder, run_id=folder.name))
    for number, mirror in enumerate(mirrors):
        mirror.log({"number": number})
        mirror.finish()
        mirror.log({"number": 100})
    for number, folder in enumerate(folders):
        description, _, rows = read_run(folder)
        assert description.run_id == folder.name
        assert [row["number"] for row in rows] == [number]


def test_disabled_does_not_import_wandb(tmp_path):
    code = """
import pathlib, sys
from spp.record.wandb_file import find_segments, read_runs
from spp.record.wandb_mirror import open_mirror, pack, unpack
names = ("project", "entity", "group", "job_type", "run_id", "name")
mirror = open_mirror(pathlib.Path(sys.argv[1]), mode="disabled", tags=[], config={}, **dict.fromkeys(names, "x"))
mirror.log({"loss": 1.0})
mirror.log_image("image", None, "nothing")
mirror.log_table("table", ["a"], [[1]])
mirror.log_curve("step", [{"step": 1}])
mirror.set_result({"top1": 1.0})
mirror.finish()
print("wandb" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"
    assert list(tmp_path.iterdir()) == []


def test_online_without_an_account_is_kept_offline_and_says_so_once(tmp_path, no_account, caplog):
    started = time.monotonic()
    mirror = mirror_of(tmp_path, mode="online")
    mirror.log({"loss": 1.0})
    mirror.finish()
    assert time.monotonic() - started < 10
    (record,) = [record for record in caplog.records if record.name == "spp.record.wandb_mirror"]
    assert record.levelname == "WARNING"
    assert "W&B cannot be reached (No API key configured" in record.getMessage()
    assert "kept offline for `spp sync`" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_online_runs_reach_the_server(tmp_path, wandb_server):
    for host in ("n1", "n2"):  # a stage that was requeued
        mirror = mirror_of(tmp_path, mode="online", config={"host": host, "recipe": {"augment": {}}})
        mirror.log({"loss": 0.5}, step=0)
        mirror.set_result({"top1": 97.5})
        mirror.finish()
    ((run_id, run),) = wandb_server.runs.items()
    assert (run_id, run["groupName"], run["jobType"]) == ("0123456789abcdef", "point-1", "prune")
    assert unpack({name: run["config"][name] for name in ("host", "recipe")}) == {
        "host": "n2",
        "recipe": {"augment": {}},
    }
    assert run["summary"]["result"] == {"top1": 97.5}


def test_what_wandb_refuses_silences_the_mirror(tmp_path, no_account, caplog):
    mirror = mirror_of(tmp_path)
    mirror.log({"loss": 1.0})
    mirror.log({1: 2.0})
    mirror.log({"loss": 3.0})
    mirror.finish()
    assert [record.name for record in caplog.records].count("spp.record.wandb_mirror") == 1


def test_a_tag_that_wandb_refuses_silences_the_mirror(tmp_path, no_account, caplog):
    mirror = mirror_of(tmp_path, tags=["x" * 65])
    mirror.log({"loss": 1.0})
    mirror.finish()
    assert [record.name for record in caplog.records].count("spp.record.wandb_mirror") == 1


def test_unknown_mode(tmp_path):
    with pytest.raises(ValueError, match=r"^logger\.mode: 'on' is not allowed; allowed: offline, online, disabled;"):
        mirror_of(tmp_path, mode="on")
