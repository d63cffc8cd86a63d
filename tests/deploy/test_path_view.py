"""What spp path show says, against counts of its own: networks that are cut, and masks of the path itself."""

import contextlib
import io
import json
import re
import shutil

import pytest
import torch

import spp
from spp.cli.main import main
from spp.dynamics.path import SolutionPath
from spp.stages.extract import OpenedPath
from spp.store.store import Store


@pytest.fixture(scope="module")
def shown(finished, tmp_path_factory):
    """The store, the sweep, and where the command writes its page."""
    root, sweep = finished
    return root, sweep, tmp_path_factory.mktemp("page") / "path.html"


@pytest.fixture(scope="module")
def told(shown):
    """What the command prints as JSON for --macs 0.4, having written its page."""
    root, sweep, page = shown
    words = ["path", "show", sweep, "--macs", "0.4", "--html", str(page), "--json", f"paths.store={root}"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(words) == 0
    return json.loads(printed.getvalue())


def test_sizes_are_those_of_the_networks_that_are_cut(shown, told):
    root, sweep, _ = shown
    opened = OpenedPath(Store(root), sweep)
    path = SolutionPath.load(Store(root).artifacts_dir(told["kind"], told["key"]))
    assert len(told["sizes"]) >= 6
    for size in (told["chosen"], told["sizes"][0], told["sizes"][4], told["sizes"][-1]):
        masks = path.masks(macs=size["macs"])
        assert {name: int(mask.sum()) for name, mask in masks.items()} == size["widths"]
        cost = spp.count_cost(opened.cut(masks).network, torch.zeros(1, 1, 8, 8))
        assert (cost.macs, cost.params) == (size["macs"], size["params"])
        assert size["num_units"] == sum(size["widths"].values())
    assert 0.38 < told["chosen"]["share"] <= 0.4


def test_what_leaves_first_is_what_the_order_has_last(shown, told):
    root = shown[0]
    path = SolutionPath.load(Store(root).artifacts_dir(told["kind"], told["key"]))
    left = {pair.name: pair.size for pair in path.pairs}
    num_units, half_at = dict(left), {}
    macs, dense = told["dense"]["macs"], told["dense"]["macs"]
    for number, _ in path.order().flip(0).tolist():
        pair = path.pairs[number]
        left[pair.name] -= 1
        macs -= pair.macs_per_unit
        if 2 * left[pair.name] <= num_units[pair.name]:
            half_at.setdefault(pair.name, macs / dense)
    for layer in told["layers"]:
        if layer["half_gone"] is not None:
            assert layer["half_gone"] == pytest.approx(half_at[layer["name"]], abs=0.02)
    shares = [layer["half_gone"] or 0 for layer in told["layers"]]
    assert shares == sorted(shares, reverse=True)


def test_expected_is_what_was_measured_where_a_member_was(shown, told):
    root, sweep, _ = shown
    store = Store(root)
    measured = [
        store.summary("measure", stage.key)
        for stage in store.read_plan(sweep).stages.values()
        if stage.kind == "measure" and "budget" in stage.config
    ]
    recorded = sorted((one["macs"], one["metrics"]["test"]["top1"]["value"]) for one in measured)
    (members,) = told["members"]
    assert [size["value"] for size in members["recorded"]][: len(recorded)] == [value for _, value in recorded]
    assert [size["share"] for size in members["recorded"]][: len(recorded)] == pytest.approx(
        [macs / told["dense"]["macs"] for macs, _ in recorded], abs=1e-6
    )


def test_the_page_needs_nothing_else_and_has_every_number(shown, told):
    page = shown[2].read_text()
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)
    assert "<script" not in page
    for size in told["sizes"]:
        assert f"{size['params']:,}" in page


def test_where_nothing_was_measured_it_says_so(shown, tmp_path, capsys):
    """Only the search and the dense network are there."""
    root = shown[0]
    copy = tmp_path / "store"
    for kind in ("dense", "update"):
        shutil.copytree(root / "stages" / kind, copy / "stages" / kind)
    key = next(ref.key for ref in Store(copy).find_stages("") if ref.kind == "update")
    assert main(["path", "show", key, f"paths.store={copy}"]) == 0
    assert "No member of this path was measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--macs", "0.4", "--units", "0.4"], "--macs, --units: 2 are given; "),
        (["--macs", "0.0001"], "macs: 0.0001 cannot be reached; "),
    ],
)
def test_wrong_words_are_one_line(shown, words, line, capsys):
    root, sweep, _ = shown
    assert main(["path", "show", sweep, *words, f"paths.store={root}"]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"spp: {line}")


def test_a_path_that_no_stage_has_made_is_shown_by_its_file(shown, told, tmp_path, capsys):
    root, _, _ = shown
    shutil.copy(
        Store(root).artifacts_dir(told["kind"], told["key"]) / "path.safetensors", tmp_path / "mine.safetensors"
    )
    words = ["path", "show", str(tmp_path / "mine.safetensors"), "--macs", "0.4", f"paths.store={tmp_path / 'none'}"]
    assert main([*words, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    sizes = [{name: value for name, value in size.items() if name != "expected"} for size in alone["sizes"]]
    assert sizes == [{name: value for name, value in size.items() if name != "expected"} for size in told["sizes"]]
    assert (alone["layers"], alone["members"]) == (told["layers"], [])
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(
        "file mine.safetensors, method that is not recorded; the dense network has"
    )
