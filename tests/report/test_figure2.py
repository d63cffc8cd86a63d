import csv

import numpy as np
import pytest

import spp
from spp.report.figure2 import draw_figure2
from spp.report.path_data import read_path, support_share
from spp.store.store import Store


@pytest.fixture(scope="module")
def folder(finished):
    root, sweep = finished
    update = next(stage for stage in Store(root).read_plan(sweep).stages.values() if stage.kind == "update")
    return Store(root).artifacts_dir("update", update.key)


def test_the_figures_path_is_the_librarys_path(folder):
    path, expected = read_path(folder), spp.SolutionPath.load(folder)
    for name, entry in expected.entry.items():
        assert np.array_equal(path.entry[name], entry.numpy())
    assert path.num_steps == expected.meta["num_steps_taken"]


def test_support_is_the_share_of_units_that_have_entered(folder):
    """A unit of preset priced is in the support from its entry on as long as Gamma is not 0."""
    path = read_path(folder)
    for kind in ("qk", "vo", "mlp"):
        last = np.concatenate([path.gamma[name][-1] for name in path.of_kind(kind)])
        assert support_share(path, kind)[-1] == pytest.approx(100 * np.count_nonzero(last) / len(last))
        assert support_share(path, kind)[0] == 0


def test_files_are_whole_and_the_data_tidy(folder, tmp_path):
    files = draw_figure2(read_path(folder), "title", tmp_path)
    assert [file.name for file in files] == ["figure2.png", "figure2.pdf", "figure2.csv"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader(files[2].read_text().splitlines()))
    path = spp.SolutionPath.load(folder)
    assert len(rows) == sum(pair.size for pair in path.pairs)
    entered = sum(row["entry_step"] != "" for row in rows)
    assert entered == sum(int(entry.isfinite().sum()) for entry in path.entry.values())


def test_a_search_in_which_nothing_entered_can_be_drawn(folder, tmp_path):
    path = read_path(folder)
    for name in path.entry:
        path.entry[name][:] = np.inf
        path.gamma[name][:] = 0
    draw_figure2(path, "nothing", tmp_path, ("png",))


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_path(tmp_path)
