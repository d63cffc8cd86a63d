"""The study that waits for a GPU runs on a CPU at sizes of no meaning, and goes on where it was."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch):
    for folder in ("scripts", "benchmarks"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return importlib.import_module("gpu_study.__main__")


def test_networks_and_layers_are_measured_once(study, tmp_path, capsys):
    words = ["--tiny", "--only", "cifar10", "--only", "language", "--out", str(tmp_path)]
    assert study.main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "cifar10.jsonl").read_text().splitlines()]
    members = [row for row in rows if row["name"] != "dense seed 0" and "out_of_reach" not in row]
    assert {row["name"].split()[0] for row in members} == set(study.cifar10.METHODS)
    budgets = {float(row["name"].split()[1]) for row in members}
    assert budgets == {0.5, 0.3, 0.2}
    for row in members:
        wanted = float(row["name"].split()[1])
        assert 0.5 * wanted < row["macs"] <= wanted
        assert row["repaired_test_kl"] <= row["cut_test_kl"]
    layers = [json.loads(line) for line in (tmp_path / "language.jsonl").read_text().splitlines()]
    assert {row["kept"] for row in layers} == {0.5}
    text = {file.name: file.read_text() for file in tmp_path.glob("*.jsonl")}
    capsys.readouterr()
    assert study.main(words) == 0
    assert {file.name: file.read_text() for file in tmp_path.glob("*.jsonl")} == text


def test_a_study_without_a_gpu_is_refused_in_one_line(study, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        study.main(["--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "--tiny" in capsys.readouterr().err
