import numpy as np
import pytest

import spp
from spp.report.path_arrays import read_path, support_share
from spp.store.store import Store


@pytest.fixture(scope="module")
def folder(finished):
    root, sweep = finished
    update = next(stage for stage in Store(root).read_plan(sweep).stages.values() if stage.kind == "update")
    return Store(root).artifacts_dir("update", update.key)


def test_the_reports_path_is_the_librarys_path(folder):
    path, expected = read_path(folder), spp.SolutionPath.load(folder)
    for name, entry in expected.entry.items():
        assert np.array_equal(path.entry[name], entry.numpy())
        assert np.array_equal(path.V[name], expected.V[name].numpy())
        assert np.array_equal(path.gamma[name], expected.trace.gamma[name].numpy())
    assert path.num_steps == expected.meta["num_steps_taken"]


def test_support_is_the_share_of_units_whose_gamma_is_not_0(folder):
    path = read_path(folder)
    for kind in ("qk", "vo", "mlp"):
        last = np.concatenate([path.gamma[name][-1] for name in path.of_kind(kind)])
        assert support_share(path, kind)[-1] == pytest.approx(100 * np.count_nonzero(last) / len(last))
        assert support_share(path, kind)[0] == 0


def test_a_missing_path_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_path(tmp_path)


def test_a_torn_file_is_refused_by_name(folder, tmp_path):
    (tmp_path / "path.safetensors").write_bytes((folder / "path.safetensors").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"path\.safetensors is damaged .*; allowed: "):
        read_path(tmp_path)
