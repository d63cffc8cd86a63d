import csv
import statistics

import pytest

from spp.report.family import family_csv, family_markdown, group_rows

ROW = {
    "point": "p", "method": "spp", "preset": "priced", "variant": "", "model": "vit", "data": "digits", "seed": 0,
    "budget_kind": "macs", "budget_asked": 0.5, "macs": 50e6, "params": 1_500_000, "dense_macs": 100e6,
    "dense_params": 3_000_000, "dense_top1": 97.0, "top1_before": 90.0, "top1": 96.0, "num_test_images": 297,
    "search_seconds": 30.0, "device": "CPU", "search_key": "a", "dense_key": "d0",
}  # fmt: skip


def table_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_one_row_per_budget_beside_the_dense_model():
    rows = [ROW, {**ROW, "budget_asked": 0.3, "macs": 30e6, "top1": 95.0}]
    head, _, dense, half, third = table_of(family_markdown(rows))
    assert dict(zip(head, dense, strict=True))["FLOPs (G)"] == "0.1"
    assert dict(zip(head, half, strict=True)) == {
        "method": "spp",
        "asked": "macs 50 %",
        "params (M)": "1.5",
        "FLOPs (G)": "0.05",
        "of dense": "50.0 %",
        "top-1 before": "90.0",
        "top-1 after": "96.0",
        "to dense": "-1.0",
    }
    assert dict(zip(head, third, strict=True))["to dense"] == "-2.0"


def test_seeds_become_mean_and_standard_deviation():
    accuracies, dense = [96.0, 95.0, 97.3], [97.0, 98.0, 98.5]
    rows = [
        {**ROW, "seed": s, "top1": a, "dense_top1": d, "dense_key": f"d{s}", "search_key": f"p{s}"}
        for s, (a, d) in enumerate(zip(accuracies, dense, strict=True))
    ]
    head, _, dense_line, line = table_of(family_markdown(rows))
    after = dict(zip(head, line, strict=True))["top-1 after"]
    assert after == f"{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}"
    assert f"{statistics.mean(dense):.1f} ± {statistics.stdev(dense):.1f}" in dense_line
    assert "over 3 seeds" in family_markdown(rows)
    assert "3 searches" in family_markdown(rows)


def test_presets_kinds_models_and_data_are_never_mixed():
    others = [
        {"preset": "released"},
        {"variant": "method.rho=2"},
        {"budget_kind": "params"},
        {"model": "swin"},
        {"data": "cifar10"},
    ]
    rows = [ROW, *({**ROW, **other} for other in others)]
    assert len(group_rows(rows)) == 6
    assert family_markdown(rows).count("\n## ") == 2
    assert "spp (released)" in family_markdown(rows)
    assert "spp (method.rho=2)" in family_markdown(rows)


def test_csv_has_the_rows_as_they_are():
    (read,) = csv.DictReader(family_csv([ROW]).splitlines())
    assert float(read["top1"]) == pytest.approx(ROW["top1"])
    assert read.keys() == ROW.keys()
