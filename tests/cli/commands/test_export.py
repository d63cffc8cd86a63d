import json
import re
import shutil
import subprocess
import sys

import pytest
import torch

import spp
from spp.cli.commands.export import find_member
from spp.cli.main import main
from spp.deploy.quality import dense_key_of, open_measured_data
from spp.plan.spec import Stage
from spp.store.store import Store


@pytest.fixture
def member(finished):
    """A finished member: its store, key and file."""
    root, sweep = finished
    key = next(stage.key for stage in Store(root).read_plan(sweep).stages.values() if stage.kind == "finetune")
    return root, key, Store(root).artifacts_dir("finetune", key) / "member.safetensors"


def said(capsys, *words):
    assert main(["export", *map(str, words)]) == 0
    return capsys.readouterr().out


def complaint(capsys, *words):
    assert main(["export", *map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@torch.no_grad()
def test_a_member_by_its_key(member, tmp_path, capsys):
    root, key, file = member
    out = tmp_path / "small"
    printed = said(capsys, key[:6], "--format", "safetensors", "--out", out, f"paths.store={root}")
    assert printed.startswith(f"folder:  {out}\n")
    assert "differ by at most 0.0e+00" in printed
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(spp.load(out)(images), spp.load(file)(images))


@torch.no_grad()
def test_a_program_runs_where_spp_is_not(member, tmp_path, capsys):
    file = member[2]
    said(capsys, file, "--format", "torch", "--out", tmp_path / "small.pt2")
    images = torch.randn(4, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    code = """
import sys, torch
images = torch.load("images.pt", weights_only=True)
torch.save(torch.export.load("small.pt2").module()(images), "logits.pt")
assert "spp" not in sys.modules and "timm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    torch.testing.assert_close(logits, spp.load(file)(images))


@torch.no_grad()
def test_a_member_by_the_folder_of_its_stage_or_artifacts(member, tmp_path, capsys):
    file = member[2]
    images = torch.randn(3, 1, 8, 8)
    for number, source in enumerate((file.parent.parent, file.parent)):
        out = tmp_path / str(number)
        said(capsys, source, "--format", "safetensors", "--out", out)
        assert torch.equal(spp.load(out)(images), spp.load(file)(images))


def test_two_exports_of_what_extract_wrote_share_no_file(finished, tmp_path, capsys, monkeypatch):
    root, sweep = finished
    monkeypatch.chdir(tmp_path)
    assert main(["extract", sweep, "--macs", "0.4", "--out", "cut", f"paths.store={root}"]) == 0
    capsys.readouterr()
    before = {path.name for path in (tmp_path / "cut").iterdir()}
    said(capsys, "cut", "--format", "torch")
    said(capsys, "cut", "--format", "onnx")
    written = {path.name for path in (tmp_path / "cut").iterdir()} - before
    assert written == {"model.pt2", "model.pt2.json", "model.onnx", "model.onnx.json"}
    assert json.loads((tmp_path / "cut" / "model.onnx.json").read_text())["budget"] == {"kind": "macs", "value": 0.4}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dynamic", "static"])
def test_int8_is_measured_beside_float32(finished, tmp_path, capsys, how):
    runtime = pytest.importorskip("onnxruntime")
    root, sweep = finished
    cut, store = tmp_path / "cut", f"paths.store={root}"
    assert main(["extract", sweep, "--macs", "0.5", "--no-measure", "--out", str(cut), store]) == 0
    capsys.readouterr()
    text = said(capsys, cut, "--format", "onnx", "--int8", how, store)
    file = cut / f"model.int8-{how}.onnx"
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    plan = Store(root).read_plan(sweep)
    (measure,) = (s for s in plan.stages.values() if s.kind == "measure" and "0.5" in str(s.config.get("budget")))
    top1 = Store(root).summary("measure", measure.key)["metrics"]["test"]["top1"]["value"]
    (line,) = (line for line in text.splitlines() if line.startswith("top-1 %: "))
    before, after = (float(word) for word in re.findall(r"[\d.]+(?= as)", line))
    assert before == pytest.approx(top1, abs=0.5)
    assert abs(after - before) < 10
    data, _ = open_measured_data(Store(root), dense_key_of(Store(root), cut))
    images = next(data.inputs())
    scores = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    expected = spp.load(cut)(images).detach()
    assert float((scores - expected).norm()) < 0.2 * float(expected.norm())


def test_what_cannot_be_a_member(member, tmp_path, capsys):
    root, key, _ = member
    store = f"paths.store={root}"
    line = complaint(capsys, "ffffffffff", "--format", "torch", store)
    assert line.startswith("spp: MEMBER: 'ffffffffff' is no folder, and no finished member of ")
    assert complaint(capsys, tmp_path, "--format", "torch").startswith(f"spp: MEMBER: '{tmp_path}' has no config.json")
    (tmp_path / "member.safetensors").write_bytes(b"nothing")
    assert "cannot be read" in complaint(capsys, tmp_path, "--format", "torch", "--out", tmp_path / "x.pt2")
    line = complaint(capsys, key, "--format", "onnx", "--out", tmp_path / "x.pt2", store)
    assert "does not fit --format onnx; allowed: a file that ends in .onnx; use " in line
    dense = Store(root).find_stages("")[0]
    assert dense.kind == "dense"
    assert "no finished member" in complaint(capsys, dense.key, "--format", "torch", store)


def test_a_key_that_fits_two_members(member, tmp_path, capsys):
    root, key, _ = member
    twin = key[:-1] + ("0" if key[-1] != "0" else "1")
    shutil.copytree(root, tmp_path / "store")
    tunes = tmp_path / "store" / "stages" / "finetune"
    shutil.copytree(tunes / key, tunes / twin)
    line = complaint(capsys, key[:10], "--format", "torch", f"paths.store={tmp_path / 'store'}")
    assert "fits 2 members" in line
    assert line.endswith("give more of its key")


def test_the_format_must_be_named(member, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["export", member[1]])
    assert ended.value.code == 2
    assert "--format" in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_file_is_refused(member, tmp_path, capsys):
    folder = tmp_path / "small.pt2"
    folder.mkdir()
    line = complaint(capsys, member[2], "--format", "torch", "--out", folder)
    assert "cannot be written" in line


def test_onnx_without_its_packages(member, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    root, key, _ = member
    line = complaint(capsys, key, "--format", "onnx", "--out", tmp_path / "x.onnx", f"paths.store={root}")
    assert line == (
        "spp: --format: 'onnx' needs packages that are not installed; allowed: safetensors, torch; or pip install "
        "'spp[onnx]'"
    )


@pytest.fixture
def measured(tmp_path):
    """A store with members that were measured: finetuned, cut from a family of two, and dense; name -> (key, file)."""
    store = Store(tmp_path / "store")
    dense = Stage("dense", {})
    family = Stage("prune", {"budget": {"kind": "macs", "values": [0.5, 0.3]}}, {"dense": dense})
    budgets = [{"kind": "macs", "value": size} for size in (0.5, 0.3)]
    tuned = Stage("finetune", {"budget": budgets[0]}, {"family": family})
    measures = {
        "tuned": Stage("measure", {"budget": budgets[0]}, {"member": tuned}),
        "cut": Stage("measure", {"budget": budgets[1]}, {"member": family}),
        "dense": Stage("measure", {}, {"member": dense}),
    }
    for stage in (dense, family, tuned, *measures.values()):
        store.put_spec(stage)
        store.begin(stage.kind, stage.key)
        store.finish(stage.kind, stage.key, {})
    files = {
        "tuned": store.artifacts_dir("finetune", tuned.key) / "member.safetensors",
        "cut": store.artifacts_dir("prune", family.key) / "member_0.3.safetensors",
        "dense": None,
    }
    return store.root, {name: (stage.key, files[name]) for name, stage in measures.items()}, tuned.key


@pytest.mark.parametrize("name", ["tuned", "cut"])
def test_the_key_of_a_measure_is_that_of_the_member_it_measured(measured, name):
    root, members, _ = measured
    key, file = members[name]
    assert find_member(root, key) == (file, f"member-{key[:8]}")


def test_a_member_and_its_measure_are_one_member(measured):
    root, members, tuned = measured
    assert find_member(root, tuned)[0] == find_member(root, members["tuned"][0])[0]


def test_a_dense_network_is_no_member_though_it_is_measured(measured):
    root, members, _ = measured
    with pytest.raises(ValueError, match="no finished member"):
        find_member(root, members["dense"][0])
