import statistics

import numpy as np
import pytest

from spp.record.record import PathSource, Record
from spp.report.figures import stability, table8, table_picture
from spp.report.figures.seeds import BUDGETS, overlap_over_budget, tau_matrix
from spp.report.path_arrays import read_path
from spp.report.table import Cell, Column, Table
from spp.store.store import Store


@pytest.fixture(scope="module")
def grid(make_row):
    """kappa x lambda with two seeds, where the pair of the largest of both was not run."""
    settings = [(kappa, lam) for kappa in (None, 0.5, 2) for lam in (0.2, 0.8) if (kappa, lam) != (2, 0.8)]
    rows = [
        make_row(
            seed=seed,
            budget=budget,
            top1=70 + 10 * budget + (kappa or 1) - lam + seed,
            variant=" ".join(([f"method.kappa={kappa}"] if kappa else []) + [f"method.lam={lam}"]),
            method_config={"kappa": kappa, "lam": lam},
        )
        for kappa, lam in settings
        for budget in (0.5, 0.3)
        for seed in (0, 1)
    ]
    return Record(rows, [], [], "store")


def test_a_cell_is_the_mean_over_seeds_of_its_kappa_and_lambda(grid, published, check_figure):
    (drawing,) = table8.draw(grid, published)
    assert drawing.name == "table8"
    half, third = drawing.figure.axes
    assert [axes.get_title() for axes in (half, third)] == ["top-1 (%), budget 50 %", "top-1 (%), budget 30 %"]
    expected = [[75 + (kappa or 1) - lam + 0.5 for lam in (0.2, 0.8)] for kappa in (None, 0.5, 2)]
    expected[2][1] = np.nan
    values = np.ma.filled(half.get_images()[0].get_array(), np.nan)
    assert np.allclose(values, expected, equal_nan=True)
    assert [text.get_text() for text in half.texts] == [f"{x:.1f}" for x in np.ravel(expected) if np.isfinite(x)]
    assert [label.get_text() for label in half.get_yticklabels()] == ["default", "0.5", "2"]
    assert [label.get_text() for label in half.get_xticklabels()] == ["0.2", "0.8"]
    check_figure(drawing.figure)


def test_the_cells_data_have_deviation_and_number_of_seeds(grid, published):
    (drawing,) = table8.draw(grid, published)
    assert len(drawing.data) == 5 * 2
    for row in drawing.data:
        assert row["deviation"] == pytest.approx(statistics.stdev([0, 1]))
        assert row["num_seeds"] == 2


def test_numbers_in_cells_can_be_read_in_grey(grid, published):
    (drawing,) = table8.draw(grid, published)
    image = drawing.figure.axes[0].get_images()[0]
    colors = image.cmap(image.norm(image.get_array().compressed()))[:, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert ((luminance + 0.05) / 0.05 >= 4.5).all()  # contrast of black text, WCAG 2 level AA


def test_one_setting_is_no_grid(make_row, published):
    assert table8.draw(Record([make_row(), make_row(seed=1)], [], [], "store"), published) == []


def test_deviations_over_seeds_are_drawn_over_flops(study, published, check_figure):
    (drawing,) = stability.draw(study, published)
    rows = {}
    for row in study.rows:
        rows.setdefault((row["method"], row["budget_asked"]), []).append(row["metrics"]["top1"]["value"])
    line = next(line for line in drawing.figure.axes[0].get_lines() if line.get_marker() == "h")
    assert line.get_ydata() == pytest.approx([statistics.stdev(rows["random", b]) for b in (0.3, 0.4, 0.5, 0.57, 0.7)])
    assert len(drawing.figure.axes) == 1  # no paths
    check_figure(drawing.figure)


def test_paths_of_several_seeds_stand_beside_them(finished, make_row, published, check_figure):
    root, sweep = finished
    update = next(stage for stage in Store(root).read_plan(sweep).stages.values() if stage.kind == "update")
    folder = Store(root).artifacts_dir("update", update.key)
    place = {"model": "vit_micro", "data": "digits"}
    rows = [make_row("spp", b, s, top1=90 + s, macs=5.24e6 * b, **place) for s in (0, 1) for b in (0.7, 0.5, 0.2)]
    sources = [
        PathSource(f"k{s}", "spp", "priced", "", "classification", **place, seed=s, artifacts=folder) for s in (0, 1)
    ]
    (drawing,) = stability.draw(Record(rows, sources, [], "store"), published)
    paths = {seed: read_path(folder) for seed in (0, 1)}
    _, taus, overlap = drawing.figure.axes
    assert taus.get_lines()[0].get_ydata() == pytest.approx([tau_matrix(paths)[0, 1]])
    ours, chance = overlap.get_lines()
    expected = 100 * overlap_over_budget(paths)[0, 1]
    assert np.allclose(ours.get_xydata(), np.column_stack([100 * BUDGETS, expected[:, 0]]))
    assert np.allclose(chance.get_ydata(), expected[:, 1])
    check_figure(drawing.figure)


def test_one_seed_has_no_stability(make_row, published):
    assert stability.draw(Record([make_row()], [], [], "store"), published) == []


def table(num_rows=3):
    columns = (Column("method", is_number=False), Column("search cost, all budgets, per seed"), Column("top-1 (%)"))
    long = "spp (priced, method.kappa=0.5 method.lam=0.25 prune.epochs=3 data.root=$HOME$)"
    rows = tuple((Cell(long), Cell("26.7 GPU-h"), Cell("79.0 ± 0.2", 79.0, "ab")) for _ in range(num_rows))
    legend = ("Top-1 in percent. " * 12, "a: other epochs than the paper's.")
    return Table("table1", "A table", columns, rows, legend, ("one: spp run",), ({"method": "spp", "top1": 79.0},))


def test_a_table_becomes_a_picture_with_all_its_words(check_figure):
    drawing = table_picture.draw(table())
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert texts.count("79.0 ± 0.2 (ab)") == 3
    assert "A table" in texts
    assert " ".join(texts).count("Top-1 in percent.") == 12
    assert any("Not run: 1" in text for text in texts)
    assert (drawing.name, drawing.data) == ("table1", ({"method": "spp", "top1": 79.0},))
    check_figure(drawing.figure)


def test_no_two_words_of_a_tables_picture_overlap():
    drawing = table_picture.draw(table())
    drawing.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in drawing.figure.axes[0].texts]
    for number, box in enumerate(boxes):
        for other in boxes[number + 1 :]:
            beside = box.x1 <= other.x0 or other.x1 <= box.x0
            overlap = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert beside or overlap <= 0.25 * min(box.height, other.height)


def test_a_long_table_says_what_it_leaves_out():
    drawing = table_picture.draw(table(table_picture.MAX_ROWS + 7))
    assert any("7 more rows" in text.get_text() for text in drawing.figure.axes[0].texts)


def test_an_error_over_kappa_and_lambda_and_over_seeds(make_error_row, published, check_figure):
    rows = [
        make_error_row(
            seed=seed,
            error=0.08 + lam / 100 + seed / 1000,
            variant=f"method.lam={lam}",
            method_config={"kappa": None, "lam": lam},
        )
        for lam in (0.2, 0.8)
        for seed in (0, 1)
    ]
    record = Record(rows, [], [], "store")
    (drawing,) = table8.draw(record, published)
    (axes,) = drawing.figure.axes
    assert axes.get_title() == "error, budget 50 %"
    assert [text.get_text() for text in axes.texts] == ["0.0825", "0.0885"]
    check_figure(drawing.figure)
    (drawing,) = stability.draw(record, published)
    assert drawing.figure.axes[0].get_ylabel() == "standard deviation"
    assert drawing.caption.startswith("Standard deviation of error after finetuning over up to 2 seeds, over")
