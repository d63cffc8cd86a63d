import numpy as np
import pytest

from spp.record.record import Record
from spp.report.figures import cost, figure1


@pytest.fixture(scope="module")
def drawing(study, published):
    (drawing,) = figure1.draw(study, published)
    return drawing


def bars(axes, names_at=None):
    """Lengths by name, with whether they are hatched; `names_at` is the panel with the names."""
    names = [label.get_text() for label in (names_at or axes).get_yticklabels()]
    return {name: (bar.get_width(), bool(bar.get_hatch())) for name, bar in zip(names, axes.patches, strict=True)}


def test_bars_are_the_epochs_of_all_searches_of_a_seed(drawing):
    found = bars(drawing.figure.axes[1])
    assert found["spp (priced)"] == (40, False)
    assert found["upop"] == (5 * 40, True)
    assert len(found) == 10


def test_the_words_beside_a_bar_count_searches_and_gpu_hours(drawing):
    words = {text.get_text() for text in drawing.figure.axes[1].texts}
    assert words == {"1 search, 8 GPU-h", "5 searches, 40 GPU-h"}  # 28,800 GPU-seconds each


def test_only_members_of_one_search_are_joined(drawing):
    by_marker = {line.get_marker(): line for line in drawing.figure.axes[0].get_lines() if len(line.get_xdata()) == 5}
    assert by_marker["o"].get_linestyle() != "None"
    assert by_marker["^"].get_linestyle() == "None"
    assert by_marker["^"].get_markersize() > by_marker["o"].get_markersize()


def test_lasso_with_a_search_for_each_budget_and_its_path_are_two_series(make_row, published):
    tops = ((0.7, 79.0), (0.5, 78.0), (0.3, 75.0))
    rows = [make_row("lasso", budget, per_budget=True, top1=top1) for budget, top1 in tops]
    rows += [make_row("lasso", budget, variant="pipeline=lasso_path", top1=top1 - 1) for budget, top1 in tops]
    rows += [make_row("spp", 0.5), make_row("spp", 0.3)]
    (drawing,) = figure1.draw(Record(rows, [], [], "store"), published)
    found = bars(drawing.figure.axes[1])
    assert found["lasso"] == (120, True)
    assert found["lasso (pipeline=lasso_path)"] == (40, False)
    assert found["spp (priced)"] == (40, False)
    points = [row for row in drawing.data if row["method"] == "lasso" and not row["variant"]]
    assert np.allclose([(row["flops_g"], row["value"]) for row in points], [(1.38, 75.0), (2.3, 78.0), (3.22, 79.0)])
    assert {row["search_num_searches"] for row in points} == {3}


def test_tidy_data_has_the_cost_of_every_point(drawing):
    for row in drawing.data[:-1]:
        num_searches = 5 if row["method"] in ("upop", "wdpruning", "leap") else 1
        assert row["search_epochs"] == 40 * num_searches
        assert row["search_gpu_seconds"] == 28_800 * num_searches
    *_, dense = drawing.data
    assert (dense["method"], dense["metric"], dense["unit"], dense["value"]) == (
        "dense",
        "top1",
        "%",
        pytest.approx(79.9),
    )


def test_it_is_readable(drawing, check_figure):
    check_figure(drawing.figure)


def test_cost_is_shared_among_the_members_of_a_search(study, published, check_figure):
    (drawing,) = cost.draw(study, published)
    panels = drawing.figure.axes
    of_search, epochs, hours = (bars(axes, panels[0])["spp (priced)"][0] for axes in panels)
    assert (of_search, epochs, hours) == pytest.approx((40, 8, 8 / 5))
    of_search, epochs, hours = (bars(axes, panels[0])["upop"][0] for axes in panels)
    assert (of_search, epochs, hours) == pytest.approx((40, 40, 8))
    assert drawing.figure.axes[2].get_xlabel() == "per member (GPU-hours)"
    check_figure(drawing.figure)


def test_cost_quotes_the_published_epochs_on_imagenet_only(study, make_row, published):
    (drawing,) = cost.draw(study, published)
    diamonds = {line.get_xdata()[0] for line in drawing.figure.axes[0].get_lines() if line.get_marker() == "D"}
    assert diamonds == {40, 60, 50, 100}  # shared/reference/paper.md: SPP, UPop, ViT-Slim, WDPruning
    row = make_row(model="vit_micro", data="digits", search_gpu_seconds=0.0, device="CPU")
    (drawing,) = cost.draw(Record([row], [], [], "store"), published)
    assert not drawing.figure.axes[0].get_lines()
    assert drawing.figure.axes[2].get_xlabel() == "per member (seconds)"
    assert drawing.figure.axes[2].patches[0].get_width() == 7200
    assert "published" not in drawing.caption


def test_tasks_are_drawn_apart(make_row, make_error_row, published, check_figure):
    place = {"model": "deit_small", "data": "imagenet"}
    record = Record([make_row(), make_error_row(**place)], [], [], "store")
    classified, regressed = figure1.draw(record, published)
    assert [drawing.figure.axes[0].get_ylabel() for drawing in (classified, regressed)] == ["top-1 (%)", "error"]
    assert "Left: error (lower is better) on 297 test images" in regressed.caption
    assert [drawing.title for drawing in cost.draw(record, published)] == [
        "Cost of a search: deit_small on imagenet, classification",
        "Cost of a search: deit_small on imagenet, regression",
    ]
    check_figure(regressed.figure)
