import csv
from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

import spp
from spp.record.record import PathSource, Record
from spp.report.drawing import picture, save
from spp.report.figures import figure2
from spp.report.figures.path import NUM_TRAJECTORIES, chosen_units, draw_path, entry_grid, share_that_left
from spp.report.figures.seeds import BUDGETS, draw_seeds, overlap_over_budget, tau_matrix
from spp.report.path_arrays import read_path
from spp.store.store import Store


@pytest.fixture(scope="module")
def folder(finished):
    root, sweep = finished
    update = next(stage for stage in Store(root).read_plan(sweep).stages.values() if stage.kind == "update")
    return Store(root).artifacts_dir("update", update.key)


@pytest.fixture(scope="module")
def source(folder):
    def make(seed=0, **changes):
        columns = {
            "method": "spp",
            "preset": "priced",
            "variant": "",
            "task": "classification",
            "model": "vit_micro",
            "data": "digits",
        }
        return PathSource(key=f"k{seed}", seed=seed, artifacts=folder, **{**columns, **changes})

    return make


def drawn(sources, published):
    return figure2.draw(Record([], sources, [], "store"), published)


def test_lines_hold_the_librarys_support(folder, check_figure):
    path = spp.SolutionPath.load(folder)
    drawing = draw_path(read_path(folder), "figure2", "title")
    for line, kind in zip(drawing.figure.axes[0].get_lines(), ("qk", "vo", "mlp"), strict=True):
        gamma = np.concatenate(
            [path.trace.gamma[pair.name].numpy() for pair in path.pairs if pair.kind == kind], axis=1
        )
        assert line.get_xdata().tolist() == path.trace.steps.tolist()
        assert line.get_ydata() == pytest.approx([100 * np.count_nonzero(sample) / len(sample) for sample in gamma])
    check_figure(drawing.figure)


def test_the_heat_map_holds_every_layers_entries_in_order(make_path):
    path = make_path(0)
    drawing = draw_path(path, "figure2", "title")
    maps = [axes.get_images()[0] for axes in drawing.figure.axes if axes.get_images()]
    for image, kind in zip(maps, ("qk", "vo", "mlp"), strict=True):
        grid = image.get_array()
        assert grid.shape == (2, 100)
        for row, name in zip(grid, path.of_kind(kind), strict=True):
            entered = np.sort(path.entry[name][np.isfinite(path.entry[name])])
            assert np.unique(row[~np.isnan(np.ma.filled(row, np.nan))]).tolist() == entered.tolist()
    assert np.isnan(entry_grid(path, "mlp")[0]).sum() == pytest.approx(50, abs=3)  # half of them never enter


def test_trajectories_run_from_the_first_unit_to_the_last(make_path):
    path = make_path(0)
    drawing = draw_path(path, "figure2", "title")
    entry = np.concatenate([path.entry[name] for name in path.of_kind("mlp")])
    chosen = entry[chosen_units(path, "mlp")]
    assert len(chosen) == NUM_TRAJECTORIES
    assert chosen[0] == entry.min()
    assert chosen[-1] == entry[np.isfinite(entry)].max()
    lines = [line for line in drawing.figure.axes[1].get_lines() if len(line.get_xdata()) == len(path.steps)]
    assert len(lines) == 3 * NUM_TRAJECTORIES
    gamma = np.concatenate([path.gamma[name] for name in path.of_kind("mlp")], axis=1)
    assert lines[-1].get_ydata() == pytest.approx(gamma[:, np.flatnonzero(entry == chosen[-1])[0]])


def test_units_that_left_are_counted_once_and_for_good():
    gamma = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 2, 0], [1, 0, 2, 0.0]])
    assert share_that_left(gamma)[1:] == pytest.approx([0, 50, 100 / 3, 100 / 3])
    assert np.isnan(share_that_left(gamma)[0])


def test_tidy_data_has_all_panels_of_the_path(folder, tmp_path):
    (png, pdf, data) = save(draw_path(read_path(folder), "figure2", "title"), tmp_path, ("png", "pdf"))
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader(data.read_text().splitlines()))
    path = spp.SolutionPath.load(folder)
    entries = {(row["pair"], int(row["unit"])): row["step"] for row in rows if row["panel"] == "entry"}
    for pair in path.pairs:
        for unit, entry in enumerate(path.entry[pair.name].tolist()):
            assert entries.pop((pair.name, unit)) == ("" if entry == float("inf") else str(entry))
    assert not entries
    num_samples = len(path.trace.steps)
    assert sum(row["panel"] == "support" for row in rows) == 3 * num_samples
    times = ((pair.kind, time) for pair in path.pairs for time in path.entry[pair.name].tolist())
    entered = Counter(kind for kind, time in times if time < float("inf"))
    num_lines = sum(min(NUM_TRAJECTORIES, count) for count in entered.values())
    assert sum(row["panel"] == "gamma" for row in rows) == num_lines * num_samples > 0


def test_a_search_in_which_nothing_entered_can_be_drawn(make_path, check_figure):
    path = make_path(0)
    for name in path.entry:
        path.entry[name][:] = np.inf
        path.gamma[name][:] = 0
    drawing = draw_path(path, "nothing", "title")
    check_figure(drawing.figure)
    assert "no unit entered" in [text.get_text() for text in drawing.figure.axes[1].texts]


def test_one_drawing_for_each_search_and_one_over_the_seeds(source, published, check_figure):
    drawings = drawn([source(0), source(1), source(0, preset="released")], published)
    assert [drawing.name for drawing in drawings] == [
        "figure2",
        "figure2-spp-released-seed0",
        "figure2-spp-priced-seed1",
        "figure2-seeds-spp-priced",
    ]
    for drawing in drawings:
        check_figure(drawing.figure)


def test_a_sweep_of_many_searches_is_not_drawn_whole(source, published):
    drawings = drawn([source(seed) for seed in range(figure2.MAX_DRAWINGS + 3)], published)
    assert len(drawings) == figure2.MAX_DRAWINGS + 1
    assert "3 more pictures were not drawn" in drawings[0].caption
    assert len({drawing.name for drawing in drawings}) == len(drawings)


def test_paths_that_are_elsewhere_are_counted(source, published, tmp_path):
    lost = replace(source(1), artifacts=tmp_path)
    (drawing,) = drawn([source(0), lost], published)
    assert "1 recorded paths are not on this machine" in drawing.caption
    assert drawn([lost], published) == []


def test_searches_that_only_their_keys_tell_apart_have_files_of_their_own(source, published):
    twins = [replace(source(0), key=f"{letter}{'0' * 19}") for letter in "abc"]
    names = [drawing.name for drawing in drawn(twins, published)]
    assert names[:3] == ["figure2", "figure2-b0000000", "figure2-c0000000"]


def test_no_path_no_picture(published):
    assert drawn([], published) == []


def test_tau_is_the_share_of_concordant_less_discordant_pairs(make_path):
    paths = {seed: make_path(seed) for seed in (0, 1, 2)}
    matrix = tau_matrix(paths)
    for a, b in product(range(3), repeat=2):
        x, y = (np.concatenate([paths[s].entry[p["name"]] for p in paths[s].pairs]) for s in (a, b))
        both = [np.where(np.isinf(times), 1e9, times) for times in (x, y)]  # never is a tie, behind all others
        signs = [
            (np.sign(both[0][i] - both[0][j]), np.sign(both[1][i] - both[1][j]))
            for i, j in combinations(range(len(x)), 2)
        ]
        score = sum(p * q for p, q in signs)
        norm = np.sqrt(sum(p != 0 for p, _ in signs) * sum(q != 0 for _, q in signs))
        assert matrix[a, b] == pytest.approx(score / norm)


def test_overlap_is_that_of_the_best_units_at_equal_flops(make_path):
    paths = {0: make_path(0), 7: make_path(7)}
    found = overlap_over_budget(paths)[0, 7]
    orders = []
    for path in paths.values():
        entry = np.concatenate([path.entry[pair["name"]] for pair in path.pairs])
        value = np.concatenate([path.V[pair["name"]] for pair in path.pairs])
        orders.append(sorted(range(len(entry)), key=lambda unit: (entry[unit], -value[unit])))
    num_units = len(orders[0])
    for budget, (overlap, chance) in zip(BUDGETS, found, strict=True):
        num_kept = int(budget * num_units + 1e-9)  # all units of these paths cost the same
        kept = [set(order[:num_kept]) for order in orders]
        assert overlap == pytest.approx(len(kept[0] & kept[1]) / len(kept[0] | kept[1]))
        share = num_kept / num_units
        assert chance == pytest.approx(share / (2 - share))


def test_the_drawing_over_seeds_shows_what_was_computed(make_path, check_figure):
    paths = {seed: make_path(seed) for seed in (0, 1, 2)}
    drawing = draw_seeds(paths, "figure2-seeds", "title")
    _, matrix, overlap, _ = drawing.figure.axes
    assert np.allclose(matrix.get_images()[0].get_array(), tau_matrix(paths))
    numbers = [text.get_text() for text in matrix.texts]
    assert numbers == [f"{tau:.2f}" for tau in tau_matrix(paths).flat]
    mean = np.mean(list(overlap_over_budget(paths).values()), axis=0)
    ours, chance = overlap.get_lines()
    assert ours.get_ydata() == pytest.approx(100 * mean[:, 0])
    assert chance.get_ydata() == pytest.approx(100 * mean[:, 1])
    assert chance.get_xdata() == pytest.approx(100 * BUDGETS)
    assert sum(row["panel"] == "tau" for row in drawing.data) == 3
    assert sum(row["panel"] == "overlap" for row in drawing.data) == 3 * len(BUDGETS)
    check_figure(drawing.figure)


def test_searches_of_different_models_are_not_compared(make_path):
    other = make_path(1)
    pairs = [{**pair, "name": f"other.{pair['name']}"} for pair in other.pairs]
    with pytest.raises(ValueError, match="different units"):
        draw_seeds({0: make_path(0), 1: type(other)(**{**vars(other), "pairs": pairs})}, "n", "t")


def test_the_picture_is_the_same_every_time(folder):
    assert len({picture(draw_path(read_path(folder), "n", "t"), "png") for _ in range(2)}) == 1
