import multiprocessing
import os
import threading
import time
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spp.data.handles import FileHandles
from spp.data.images import pack as module
from spp.data.images.pack import ensure_packed, read_packed
from spp.data.registry import open_source
from spp.process import this_process

IMAGES = [b"image %d" % number * number for number in range(40)]


@pytest.fixture
def table(tmp_path):
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": IMAGES}), file, row_group_size=7, compression="snappy")
    return file


def all_of(pack, count=40):
    handles = FileHandles()
    return [read_packed(handles, pack, row) for row in range(count)]


def test_every_row_is_there(table, tmp_path):
    pack = tmp_path / "cache" / "train.images"
    ensure_packed(table, "image", pack)
    assert all_of(pack) == IMAGES
    assert list(pack.parent.iterdir()) == [pack]


def test_fields_of_a_struct_and_rows_without_an_image(tmp_path):
    file, pack = tmp_path / "train.parquet", tmp_path / "train.images"
    cells = [{"bytes": b"a", "path": "a"}, {"bytes": None, "path": "b"}, None, {"bytes": b"d", "path": None}]
    pq.write_table(pa.table({"img": cells}), file)
    ensure_packed(file, "img.bytes", pack)
    assert all_of(pack, 4) == [b"a", b"", b"", b"d"]


def test_a_torn_row_group_loses_its_own_rows_only(tmp_path):
    file, pack = tmp_path / "train.parquet", tmp_path / "train.images"
    images = [bytes([number]) * 3000 for number in range(12)]
    pq.write_table(pa.table({"image": images}), file, row_group_size=4, compression="snappy", use_dictionary=False)
    chunk = pq.ParquetFile(file).metadata.row_group(1).column(0)
    content = bytearray(file.read_bytes())
    begin = chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    file.write_bytes(content)
    ensure_packed(file, "image", pack)
    assert all_of(pack, 12) == [*images[:4], *[b""] * 4, *images[8:]]


def test_processes_that_come_at_once_copy_once(table, tmp_path):
    pack = tmp_path / "cache" / "train.images"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=ensure_packed, args=(table, "image", pack)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert all_of(pack) == IMAGES
    assert list(pack.parent.iterdir()) == [pack]


def test_a_claim_is_respected_while_it_is_touched(table, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    pack, claim = tmp_path / "train.images", tmp_path / "train.claim"
    claim.touch()
    thread = threading.Thread(target=ensure_packed, args=(table, "image", pack))
    thread.start()
    time.sleep(0.1)
    assert not pack.exists()
    claim.unlink()
    thread.join()
    assert all_of(pack) == IMAGES


def test_a_claim_left_behind_is_taken_over(table, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "CLAIM_SECONDS", 0.05)
    pack, claim = tmp_path / "train.images", tmp_path / "train.claim"
    claim.touch()
    ensure_packed(table, "image", pack)
    assert all_of(pack) == IMAGES
    assert not claim.exists()


def test_a_claim_whose_process_is_gone_is_taken_over_at_once(table, tmp_path):
    pack, claim = tmp_path / "train.images", tmp_path / "train.claim"
    me = this_process()
    claim.write_text(replace(me, start=me.start + 1).tag)
    began = time.monotonic()
    ensure_packed(table, "image", pack)
    assert time.monotonic() - began < module.CLAIM_SECONDS / 2
    assert all_of(pack) == IMAGES
    assert not claim.exists()


def test_who_waits_is_told_for_whom(table, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "CLAIM_SECONDS", 0.1)
    pack, claim = tmp_path / "train.images", tmp_path / "train.claim"
    claim.write_text(this_process().tag)
    ensure_packed(table, "image", pack)
    waiting, _ = [record.getMessage() for record in caplog.records]
    assert waiting.startswith(f"waiting for process {os.getpid()} of {this_process().host}, which copies images")


def test_a_copy_that_fails_leaves_nothing(tmp_path):
    file, pack = tmp_path / "train.parquet", tmp_path / "cache" / "train.images"
    file.write_bytes(b"no table")
    with pytest.raises(pa.ArrowInvalid):
        ensure_packed(file, "image", pack)
    assert list(pack.parent.iterdir()) == []


def test_no_space_is_said_before_anything_is_copied(photographs, tmp_path, monkeypatch):
    root, cache = photographs.make("parquet"), tmp_path / "cache"
    source = open_source("imagefolder", root, cache=cache)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ValueError, match=r"^paths\.store: '.*cache' has 0\.0 GB free, and the images of .*; free some"):
        source.split("train")


def test_a_cache_is_needed(photographs):
    source = open_source("imagefolder", photographs.make("parquet"))
    with pytest.raises(ValueError, match=r"^data\.format: parquet needs a folder for flat copies"):
        source.split("train")


@pytest.mark.parametrize("is_struct", [True, False])
@pytest.mark.parametrize("names", [("image", "label"), ("img", "labels")])
def test_columns_of_tables(photographs, tmp_path, is_struct, names):
    root = photographs.make("parquet")
    for file in root.rglob("*.parquet"):
        image, label = pq.read_table(file).columns
        cells = image.to_pylist()
        pq.write_table(pa.table({names[0]: cells if is_struct else [c["bytes"] for c in cells], names[1]: label}), file)
    train = open_source("imagefolder", root, cache=tmp_path / "cache").split("train")
    assert train[10][1] == 1
    assert train[10][0].size == (60, 47)


@pytest.mark.parametrize("columns", [{"picture": ["ant"], "label": [1]}, {"image": [b""], "label": ["ant"]}])
def test_tables_of_something_else(photographs, columns):
    root = photographs.make("parquet")
    pq.write_table(pa.table(columns), next(root.rglob("train*.parquet")))
    with pytest.raises(ValueError, match=r"^data\.root: '.*\.parquet' has the columns .*; allowed: .*images.*label"):
        open_source("imagefolder", root)
