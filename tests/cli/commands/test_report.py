"""spp report on a finished sweep, and on one that has not begun."""

import csv
import re
import shutil
from pathlib import Path

import pytest

from spp.cli.main import main
from spp.cli.points import compose_points
from spp.cli.sweep_plan import plan_sweep
from spp.store.store import Store


def output_of(capsys, *argv):
    assert main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


@pytest.fixture
def started(tmp_path):
    """A store with a sweep of which nothing is done."""
    root = tmp_path / "store"
    plan = plan_sweep(compose_points(["debug=fast", f"paths.store={root}"], multirun=False)).plan
    Store(root).write_plan("sweep", plan)
    return root


def test_report_writes_every_report_in_every_format(finished, tmp_path, capsys):
    root, sweep = finished
    text = output_of(capsys, "report", "all", sweep, "--out", tmp_path, f"paths.store={root}")
    files = {path.name for path in tmp_path.iterdir()}
    lines = [Path(line).name for line in text.splitlines() if line.startswith(str(tmp_path))]
    stems = [re.fullmatch(r"(.*)\.(?:\{(.*)\}|(\w+))", line).groups() for line in lines]
    assert files == {f"{stem}.{suffix}" for stem, some, one in stems for suffix in (some or one).split(",")}
    assert len(lines) == len({Path(file).stem for file in files})
    tables = {"table1", "retrieval", "llm", "cifar10", "table6", "table7", "table8", "cost", "stability"}
    tables |= {"figure1-summary", "figure2-summary", "family", "compare"}
    assert {f"{name}.{suffix}" for name in tables for suffix in ("md", "csv", "tex")} <= files
    pictures = {"accuracy-vit_micro-digits", "figure1", "figure2", "table6", "table7", "retrieval"}
    assert {f"{name}.{suffix}" for name in pictures for suffix in ("png", "pdf")} <= files
    assert "report.html" in files
    rows = list(csv.DictReader((tmp_path / "family.csv").read_text().splitlines()))
    store = Store(root)
    for row in rows:
        measured = store.summary("measure", row["key"])["metrics"]["test"]
        assert {name: float(row[name]) for name in measured} == {name: one["value"] for name, one in measured.items()}
        assert f"{measured['top1']['value']:.1f}" in text
    assert [float(row["budget_asked"]) for row in rows] == [0.5, 0.3]


def test_report_in_one_format(finished, tmp_path, capsys):
    root, sweep = finished
    output_of(capsys, "report", "figure2", sweep, "--format", "pdf", "--out", tmp_path, f"paths.store={root}")
    assert {path.name for path in tmp_path.iterdir()} == {"figure2.pdf", "figure2.csv"}


def test_report_of_a_table_is_printed(finished, tmp_path, capsys):
    root, _ = finished
    text = output_of(capsys, "report", "table1", "--format", "md", "--out", tmp_path, f"paths.store={root}")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["table1-vit_micro-digits.md", "table1.md"]
    assert all(file.read_text().strip() in text for file in files)


def test_report_without_a_sweep_is_of_the_whole_store(finished, tmp_path, capsys):
    root, sweep = finished
    output_of(capsys, "report", "family", "--format", "csv", f"paths.store={root}")
    output_of(capsys, "report", "family", sweep, "--format", "csv", f"paths.store={root}")
    every, one = (root / "reports" / name / "family.csv" for name in ("all", sweep))
    assert every.read_text() == one.read_text()


def test_report_page_of_one_name(finished, tmp_path, capsys):
    root, _ = finished
    output_of(capsys, "report", "cost", "--format", "html", "--out", tmp_path, f"paths.store={root}")
    assert [path.name for path in tmp_path.iterdir()] == ["cost.html"]
    assert "rebuttal" in (tmp_path / "cost.html").read_text()


def test_what_a_store_has_nothing_for_is_left_out_of_all_and_refused_by_name(started, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--format", "md", "--out", str(out), f"paths.store={started}"]
    assert main(["report", "all", *words]) == 0
    captured = capsys.readouterr()
    assert {path.stem for path in out.iterdir()} >= {"table1", "table6", "cost"}
    left_out = [line.split(": ")[2] for line in captured.err.splitlines() if line.startswith("spp: left out: ")]
    assert left_out == ["figure2", "family", "compare"]
    assert "not finished: spp run" in (out / "cost.md").read_text()
    for name in left_out:
        assert main(["report", name, *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "no finished" in line


def test_a_damaged_path_costs_its_figures_alone(finished, tmp_path, capsys):
    root = shutil.copytree(finished[0], tmp_path / "store")
    for file in root.glob("stages/update/*/artifacts/path.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    words = ["--format", "png", "--out", str(tmp_path / "out"), f"paths.store={root}"]
    assert main(["report", "all", *words]) == 0
    assert "left out: path: " in capsys.readouterr().err
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert "figure1.png" in names
    assert "figure2.png" not in names
    assert main(["report", "figure2", *words]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_store_with_a_hole_is_one_line(finished, tmp_path, capsys):
    root = shutil.copytree(finished[0], tmp_path / "store")
    for file in root.glob("stages/finetune/*/summary.json"):
        file.unlink()
        (file.parent / "artifacts" / ".record.json").unlink()
    assert main(["report", "family", "--out", str(tmp_path / "out"), f"paths.store={root}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "summary.json is missing or not whole; allowed: " in line
