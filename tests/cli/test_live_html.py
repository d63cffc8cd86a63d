"""The page that watch --html writes: whole at every moment, without anything from elsewhere, and true."""

import html.parser
import shutil

import pytest

from spp.cli.live_html import HtmlFile, _shared_words
from spp.cli.main import main
from spp.cli.prospects import Estimates, with_prospects
from spp.cli.sweeps import noted_runner, view_sweep
from spp.store.claim import claim
from spp.store.store import Store


class Page(html.parser.HTMLParser):
    """What a browser would see: cells of the tables, words, and what it would load."""

    void = ("meta", "link", "br", "img", "path", "polyline", "circle", "text")

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.loads, self.refresh, self.words, self.lines = [], [], [], None, "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in self.void or tag == "text":
            self.open.append(tag)
        self.loads += [
            value for name, value in attributes if name in ("src", "href") and not value.startswith(("#", "data:"))
        ]
        if tag == "meta" and found.get("http-equiv") == "refresh":
            self.refresh = int(found["content"])
        if tag == "polyline":
            self.lines.append([tuple(map(float, pair.split(","))) for pair in found["points"].split()])
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data
        if "td" in self.open:
            self.cells[-1] += data


def test_what_runs_has_curves_and_what_waits_says_for_what(chain, sweep, tmp_path):
    store, name = sweep
    dense = next(iter(chain.stages.values()))
    file = tmp_path / "pages" / "live.html"
    with noted_runner(store, name, "local"), claim(store, dense.kind, dense.key):
        for epoch, loss in enumerate((2.0, 1.0, 1.5), 1):
            store.append_metrics(dense.kind, dense.key, {"epoch": epoch, "loss": loss, "val_top1": 10.0 * epoch})
        store.write_progress(dense.kind, dense.key, done=3, total=4, unit="epochs", message="<b>&")
        view = with_prospects(store, view_sweep(store, name), Estimates(store))
        assert (view.newest[dense.key].loss, view.newest[dense.key].value) == (1.5, 30.0)
        HtmlFile(store, file, 5.0).write(view, is_last=False)
    page = Page(file.read_text())
    assert (page.refresh, page.loads) == (5, [])
    assert "3/4 epochs  <b>&" in page.cells
    assert f"waits for inputs: dense {dense.key[:8]} running" in page.cells
    assert "1 running, 3 queued" in page.words
    loss, metric = page.lines
    # Lower is further down, so that it has the larger coordinate; epochs are evenly spaced.
    assert loss[1][1] > loss[2][1] > loss[0][1]
    assert metric[0][1] > metric[1][1] > metric[2][1]
    assert loss[1][0] - loss[0][0] == pytest.approx(loss[2][0] - loss[1][0], abs=0.11)
    assert [path.name for path in file.parent.iterdir()] == ["live.html"]


def test_a_finished_sweep_has_its_results_and_is_not_loaded_again(finished, tmp_path, capsys):
    root, sweep = finished
    shutil.copytree(root, tmp_path / "store")
    store = Store(root)
    file = tmp_path / "live.html"
    assert main(["watch", sweep, "--html", str(file), f"paths.store={tmp_path / 'store'}"]) == 0
    page = Page(file.read_text())
    assert (page.refresh, page.loads) == (None, [])
    assert f"{len(store.read_plan(sweep).stages)} done" in page.words
    summary = next(
        store.summary(r.kind, r.key)
        for r in store.read_plan(sweep).stages.values()
        if r.kind == "measure" and "budget" in store.spec(r.kind, r.key)["config"]
    )
    metric = summary["metrics"]["test"][summary["headline"]]
    assert f"{metric['value']:.1f}" in page.cells
    policy = file.read_text().partition("Content-Security-Policy")[2][:200]
    assert "script-src 'none'" in policy


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["seed=0 method=spp x=1", "seed=1 method=spp x=1"], ["method=spp", "x=1"]),
        (["seed=0 method=spp"], []),
        (["a=1", "b=1"], []),
    ],
)
def test_words_that_all_points_share_are_said_once(names, shared):
    assert _shared_words(names) == shared
