import statistics
from dataclasses import replace

import numpy as np
import pytest

from spp.record.record import Record
from spp.report.drawing import picture
from spp.report.figures import accuracy
from spp.report.palette import Series, styles


def lines(axes, color, marker):
    """The lines of a method in a panel, told by what they look like."""
    found = [line for line in axes.get_lines() if line.get_color() == color and line.get_marker() == marker]
    return [line for line in found if len(line.get_xdata())]


@pytest.fixture(scope="module")
def drawing(study, published):
    (drawing,) = accuracy.draw(study, published)
    return drawing


def values(study, method, budget, column="metrics"):
    rows = [row for row in study.rows if (row["method"], row["budget_asked"]) == (method, budget)]
    return [row[column]["top1"]["value"] for row in rows]


@pytest.mark.parametrize(("place", "column"), [(0, "metrics"), (1, "metrics_before")])
def test_a_line_holds_means_over_seeds_at_achieved_flops(study, drawing, place, column):
    look = styles([Series("taylor")])[Series("taylor")]
    (line,) = lines(drawing.figure.axes[place], look.color, look.marker)
    expected = []
    for budget in (0.3, 0.4, 0.5, 0.57, 0.7):
        rows = [row for row in study.rows if (row["method"], row["budget_asked"]) == ("taylor", budget)]
        size = statistics.mean(row["macs"] for row in rows) / 1e9
        expected.append((size, statistics.mean(values(study, "taylor", budget, column))))
    assert np.allclose(line.get_xydata(), expected)


def test_bars_are_standard_deviations(study, drawing):
    found = values(study, "spp", 0.3)
    mean, deviation = statistics.mean(found), statistics.stdev(found)
    ends = [
        tuple(segment[:, 1])
        for collection in drawing.figure.axes[0].collections
        for segment in collection.get_segments()
    ]
    assert any(pair == pytest.approx((mean - deviation, mean + deviation)) for pair in ends)


def test_published_values_are_hollow_markers_at_their_flops(drawing):
    hollow = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in drawing.figure.axes[0].get_lines()
        if line.get_markerfacecolor() == "none"
    }
    assert hollow == {(2.6, 78.4), (2.6, 78.9), (3.2, 80.2)}  # shared/reference/paper.md, DeiT-Small with known FLOPs
    assert "rebuttal" in drawing.caption
    assert not any(line.get_markerfacecolor() == "none" for line in drawing.figure.axes[1].get_lines())


def test_the_dense_network_is_a_level_at_its_mean(drawing):
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert "dense (79.9 %)" in labels  # 79.8, 79.9, 80.0
    assert any(
        line.get_ydata()[0] == line.get_ydata()[-1] == pytest.approx(79.9)
        for line in drawing.figure.axes[0].get_lines()
    )


def test_tidy_data_has_every_point_with_its_source(study, drawing, published):
    measured = [row for row in drawing.data if row["source"] == "measured" and row["method"] != "dense"]
    assert len(measured) == 10 * 5 * 2
    assert {row["num_seeds"] for row in measured} == {3}
    assert {row["metric"] for row in measured} == {"top1"}
    wanted = ("upop", 0.5, "after finetuning")
    one = next(row for row in measured if (row["method"], row["budget_asked"], row["when"]) == wanted)
    found = values(study, "upop", 0.5)
    assert (one["value"], one["deviation"]) == pytest.approx((statistics.mean(found), statistics.stdev(found)))
    assert {row["source"] for row in drawing.data} - {"measured"} <= {value.source for value in published.values}


def test_it_is_readable(drawing, check_figure):
    check_figure(drawing.figure)


def test_models_data_and_kinds_of_budget_have_pictures_of_their_own(make_row, published, check_figure):
    rows = [make_row(), make_row(model="vit_micro", data="digits"), make_row(budget_kind="params")]
    drawings = accuracy.draw(Record(rows, [], [], "store"), published)
    assert [drawing.name for drawing in drawings] == [
        "accuracy-deit_small-imagenet",
        "accuracy-vit_micro-digits",
        "accuracy-deit_small-imagenet-params",
    ]
    assert drawings[2].figure.axes[0].get_xlabel() == "parameters (M)"
    hollow = [line for line in drawings[2].figure.axes[0].get_lines() if line.get_markerfacecolor() == "none"]
    # SPP at 70.6 % of the parameters, UPop at 15.7 M
    assert sorted(line.get_xdata()[0] for line in hollow) == pytest.approx([0.706 * 22.05, 15.7])
    for drawing in drawings:
        check_figure(drawing.figure)


def test_a_grid_of_variants_does_not_flood_the_legend(make_row, published):
    rows = [make_row(variant=f"method.rho={rho}") for rho in range(40)] + [make_row("upop")]
    (drawing,) = accuracy.draw(Record(rows, [], [], "store"), published)
    labels = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert "upop" in labels
    assert sum(label.startswith("spp (priced") for label in labels) == accuracy.MAX_SERIES - 1
    assert f"{41 - accuracy.MAX_SERIES} more variants are in the data" in drawing.caption
    assert len({row["variant"] for row in drawing.data if row["method"] == "spp" and row["source"] == "measured"}) == 40


def test_members_without_a_measure_are_left_out(make_row, published):
    rows = [make_row(top1_before=None), make_row("upop", top1_before=None)]
    (drawing,) = accuracy.draw(Record(rows, [], [], "store"), published)
    assert [axes.get_title() for axes in drawing.figure.axes] == ["after finetuning"]


def test_an_empty_record_has_no_picture(study, published):
    assert accuracy.draw(replace(study, rows=[]), published) == []


def test_the_picture_is_the_same_every_time(study, published):
    assert len({picture(accuracy.draw(study, published)[0], "pdf") for _ in range(2)}) == 1


def test_a_second_task_has_a_picture_of_its_own_with_its_label_and_direction(
    make_row, make_error_row, published, check_figure
):
    errors = [
        make_error_row(model="deit_small", data="imagenet", seed=seed, error=0.08 + seed / 100) for seed in (0, 1)
    ]
    classified, regressed = accuracy.draw(Record([make_row(), *errors], [], [], "store"), published)
    assert [drawing.name for drawing in (classified, regressed)] == [
        "accuracy-classification-deit_small-imagenet",
        "accuracy-regression-deit_small-imagenet",
    ]
    assert classified.figure.axes[0].get_ylabel() == "top-1 (%)"
    axes = regressed.figure.axes[0]
    assert (regressed.title, axes.get_ylabel()) == ("Error of deit_small on imagenet, regression", "error")
    assert "dense (0.0811)" in [text.get_text() for text in regressed.figure.legends[0].get_texts()]
    assert regressed.caption.startswith("Error (lower is better) on 297 test images over the achieved FLOPs (G) of one")
    # The paper's accuracies of this model are no errors.
    assert not any(line.get_markerfacecolor() == "none" for line in axes.get_lines())
    measured = [row for row in regressed.data if row["method"] == "spp" and row["when"] == "after finetuning"]
    assert [(row["metric"], row["value"], row["num_seeds"]) for row in measured] == [("error", pytest.approx(0.085), 2)]
    check_figure(regressed.figure)
