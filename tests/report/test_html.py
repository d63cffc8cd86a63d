"""The page as text: what is in it, and that nothing in it can be taken for markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import spp
from spp.dynamics.recorder import Trace
from spp.record.record import MissingMember, PathSource, Record
from spp.report.html import page
from spp.report.published import load_published
from spp.report.reports import REPORTS, Part
from spp.report.table import Cell, Column, Table

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">'&amp;\u2028"


def measured(top1):
    """Metrics of a row, by name."""
    return {"top1": {"value": top1, "unit": "%", "better": "higher", "count": 50_000, "of": "images", "label": "top-1"}}


ROW = {
    "point": "p", "sweep": "s", "command": "spp run seed=0", "method": "spp", "preset": "priced", "variant": "",
    "task": "classification", "model": "deit_small", "data": "imagenet", "seed": 0,
    "budget_kind": "macs", "budget_asked": 0.5, "macs": 2.3e9,
    "params": 11e6, "dense_macs": 4.6e9, "dense_params": 22e6, "headline": "top1",
    "dense_metrics": measured(79.8), "metrics_before": measured(60.0), "metrics": measured(78.0),
    "val_metrics": measured(78.5), "epochs_search": 40, "epochs_finetune": 300,
    "search_seconds": 30.0, "search_gpu_seconds": 0.0, "num_members_of_search": 2, "finetune_seconds": 9.0,
    "finetune_gpu_seconds": 0.0, "device": "CPU", "key": "k0", "member_key": "m0",
    "member_kind": "finetune", "family_key": "f0", "search_key": "u0", "path_key": "u0",
    "dense_key": "d0", "git_commit": "0123456789abcdef", "folder": "/nowhere/stages/measure/k0",
    "config": {"recipe": {"lr": 0.001}, "budget": {"kind": "macs", "value": 0.5}}, "method_config": {"name": "spp"},
    "dense_config": {},
}  # fmt: skip


class Tags(HTMLParser):
    """Every tag with its attributes, and what the scripts hold."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.words = [], [], []
        self.is_in_script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.is_in_script = tag == "script"
        if self.is_in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.is_in_script = False

    def handle_data(self, data):
        if self.is_in_script:
            self.scripts[-1] += data
        else:
            self.words.append(data)


def record_of(rows, paths=(), missing=()):
    return Record(rows, paths, missing, "store")


def page_of(rows, paths=(), parts=(), missing=()):
    return page(record_of(rows, paths, missing), load_published(), parts)


def data_of(text):
    return json.loads(Tags(text).scripts[0])


def table_of(*cells, title="title", todo=()):
    columns = tuple(Column(HOSTILE, is_number=False) for _ in cells)
    return Table("table", title, columns, (cells,), (HOSTILE,), todo)


@pytest.fixture
def source(tmp_path):
    """A path of a narrow pair with one unit that never entered, and of a wide one."""
    generator = np.random.default_rng(0)
    sizes = {"blocks.0.attn.qk": ("qk", 7), "blocks.0.mlp": ("mlp", 1000)}
    pairs = [spp.Pair(name, kind, size, 10, 100.0) for name, (kind, size) in sizes.items()]
    entry = {pair.name: torch.tensor(generator.uniform(1, 90, pair.size)) for pair in pairs}
    entry["blocks.0.attn.qk"][3] = torch.inf
    zeros = {name: torch.zeros_like(times) for name, times in entry.items()}
    steps = torch.arange(0, 100, 10)
    gamma = {name: (steps[:, None] > times).float() for name, times in entry.items()}
    trace = Trace(steps, gamma)
    occupancy = {name: zero.long() for name, zero in zeros.items()}
    spp.SolutionPath(entry, zeros, occupancy, pairs, {"num_steps_taken": 100}, trace).save(tmp_path)
    return PathSource("u0", "spp", "priced", "", "classification", "vit", "digits", 0, tmp_path)


def test_nothing_is_loaded_and_the_policy_allows_the_one_script_alone():
    text = page_of([ROW])
    tags = Tags(text)
    assert not re.search(r"@import|url\(", text)
    for _, attributes in tags.tags:
        assert not {name for name in attributes if name.startswith("on")}
        for name in ("src", "href"):
            assert re.match(r"#|data:", attributes.get(name, "#"))
    (policy,) = [found["content"] for _, found in tags.tags if "Content-Security-Policy" in found.values()]
    digest = base64.b64encode(hashlib.sha256(tags.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_same_record_gives_the_same_page(source):
    assert page_of([ROW], [source]) == page_of([dict(ROW)], [source])


def test_whatever_a_user_named_is_text_and_nothing_else():
    names = ("point", "sweep", "command", "method", "variant", "task", "model", "data", "device")
    row = {**ROW, **dict.fromkeys(names, HOSTILE), "config": {HOSTILE: HOSTILE}}
    missing = MissingMember(*[HOSTILE] * 6, 0, "macs", 0.5, "p", HOSTILE, "failed", HOSTILE, "a")
    table = table_of(Cell(HOSTILE, marks=HOSTILE, hint=HOSTILE), title=HOSTILE, todo=(HOSTILE,))
    tags = Tags(page_of([row], parts=[Part(REPORTS["family"], [table], [])], missing=[missing]))
    assert not [tag for tag, _ in tags.tags if tag == "img"]
    assert [tag for tag, _ in tags.tags].count("script") == 2
    data = json.loads(tags.scripts[0])
    assert data["panels"][0]["series"][0]["method"] == HOSTILE
    assert HOSTILE in data["pool"]
    assert HOSTILE in tags.words
    (hint,) = [found["title"] for _, found in tags.tags if found.get("class") == "hint"]
    assert hint == HOSTILE


def test_points_hold_the_members_of_one_series_and_budget():
    changes = [
        {"seed": seed, "method": method, "budget_asked": budget, "key": f"{method}{seed}{budget}"}
        for seed in (0, 1)
        for method in ("spp", "upop")
        for budget in (0.5, 0.3)
    ]
    rows = [{**ROW, **change} for change in changes] + [{**ROW, "budget_kind": "params"}, {**ROW, "model": "swin_tiny"}]
    data = data_of(page_of(rows))
    first, by_params, swin = data["panels"]
    found = {
        (series["method"], tuple(point["members"])) for series in first["series"] for point in series.get("points", ())
    }
    assert found == {("spp", (0, 4)), ("spp", (1, 5)), ("upop", (2, 6)), ("upop", (3, 7))}
    assert by_params["series"][0]["points"][0]["members"] == [8]
    assert swin["series"][0]["points"][0]["members"] == [9]
    assert [member["key"] for member in data["members"]][:8] == [row["key"] for row in rows[:8]]


def test_every_member_tells_its_config_and_shares_what_is_equal():
    rows = [{**ROW, "config": {**ROW["config"], "seed": seed}} for seed in (0, 1)]
    data = data_of(page_of(rows))
    for member, row in zip(data["members"], rows, strict=True):
        assert {name: data["pool"][place] for name, place in member["config"].items()} == row["config"]
        assert data["pool"][member["command"]] == row["command"]
    assert data["members"][0]["config"]["recipe"] == data["members"][1]["config"]["recipe"]


def test_stages_are_linked_where_their_folders_are(tmp_path):
    folder = tmp_path / "stages" / "measure" / "k0"
    folder.mkdir(parents=True)
    data = data_of(page_of([{**ROW, "folder": str(folder)}]))
    found = {f"{kind}/{key}": data["pool"][place] for kind, key, place in data["members"][0]["stages"]}
    assert list(found) == ["measure/k0", "finetune/m0", "prune/f0", "update/u0", "dense/d0"]
    assert found["measure/k0"] == {"path": str(folder), "link": folder.as_uri()}
    assert found["dense/d0"] == {"path": str(tmp_path / "stages" / "dense" / "d0"), "link": None}


def test_a_search_for_one_budget_is_one_stage():
    data = data_of(page_of([{**ROW, "path_key": None, "family_key": "u0"}]))
    assert [kind for kind, _, _ in data["members"][0]["stages"]] == ["measure", "finetune", "search", "dense"]


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"member_kind": "prune", "member_key": "f0"}, ["measure", "prune", "update", "dense"]),
        (
            {"member_kind": "search", "member_key": "u0", "family_key": "u0", "path_key": None},
            ["measure", "search", "dense"],
        ),
    ],
)
def test_a_member_that_was_not_trained_has_no_stage_for_that(changes, kinds):
    data = data_of(page_of([{**ROW, **changes}]))
    assert [kind for kind, _, _ in data["members"][0]["stages"]] == kinds


def test_published_points_have_the_sizes_of_their_source():
    (panel,) = data_of(page_of([ROW]))["panels"]
    found = {
        (series["method"], kind, size, value)
        for series in panel["series"]
        for point in series.get("published", ())
        for kind, size in point["size"].items()
        for value in point["metric"].values()
    }
    assert ("spp", "macs", 2.6e9, 78.9) in found
    assert ("spp", "params", 0.706 * ROW["dense_params"], 80.2) in found
    assert ("upop", "macs", 3.2e9, 80.2) in found


def test_a_number_that_was_not_measured_stays_unknown():
    data = data_of(page_of([{**ROW, "metrics": measured(float("nan")), "git_commit": None}]))
    assert data["members"][0]["metrics"] == {"metrics/top1": None, "metrics_before/top1": 60.0}
    assert [metric["id"] for metric in data["panels"][0]["metrics"]] == ["metrics_before/top1"]
    assert data["pool"][data["members"][0]["git_commit"]] is None


def test_heat_maps_hold_the_times_of_entry(source):
    ((narrow, wide),) = [path["kinds"] for path in data_of(page_of([], [source]))["paths"]]
    entry = spp.SolutionPath.load(source.artifacts).entry
    units = sorted(range(7), key=lambda unit: entry["blocks.0.attn.qk"][unit].item())
    (layer,) = narrow["layers"]
    assert layer["units"] == units
    assert layer["entry"] == [round(entry["blocks.0.attn.qk"][unit].item(), 1) for unit in units[:6]] + [None]
    assert layer["num_entered"] == 6
    (layer,) = wide["layers"]
    assert len(layer["entry"]) == 200
    times = np.sort(entry["blocks.0.mlp"].numpy()).reshape(200, 5)  # five units to a column
    assert np.allclose(layer["entry"], np.median(times, axis=1), atol=0.05)
    assert narrow["support"][-1] == [90, pytest.approx(100 * 6 / 7, abs=0.01)]


def test_it_says_so_when_there_is_nothing(tmp_path):
    words = " ".join(Tags(page_of([])).words)
    assert "No member is finished yet." in words
    assert "No path is recorded" in words
    assert "All that was asked for is finished." in words
    lost = PathSource("u0", "spp", "priced", "", "classification", "vit", "digits", 0, tmp_path)
    assert "does not exist" in " ".join(Tags(page_of([ROW], [lost])).words)


def test_of_what_was_not_run_the_command_is_copied():
    line = (
        "upop, deit_small on imagenet: spp run experiment=upop_deit_small (about 310 GPU-hours, as measured on a (b))"
    )
    missing = [
        MissingMember(
            "spp",
            "priced",
            "",
            "classification",
            "vit",
            "digits",
            1,
            "macs",
            budget,
            "p",
            "s",
            "not finished",
            "spp run seed=1",
            "a",
        )
        for budget in (0.5, 0.3)
    ]
    parts = [Part(REPORTS["family"], [table_of(Cell("x"), todo=(line,))], [])]
    tags = Tags(page_of([ROW], parts=parts, missing=missing))
    copied = [found["data-copy"] for _, found in tags.tags if "data-copy" in found]
    assert sorted(copied) == ["spp run experiment=upop_deit_small", "spp run seed=1"]
    assert "about 310 GPU-hours, as measured on a (b)" in tags.words
    assert "2 members of 1 point" in tags.words


def test_metrics_tell_unit_and_direction_and_panels_of_other_tasks_offer_their_own(make_error_row):
    errors = [make_error_row(seed=seed, model="deit_small", data="imagenet") for seed in (0, 1)]
    classified, regressed = data_of(page_of([ROW, *errors]))["panels"]
    assert classified["title"] == "deit_small on imagenet, classification, budgets in FLOPs"
    assert regressed["title"] == "deit_small on imagenet, regression, budgets in FLOPs"
    assert [metric["title"] for metric in classified["metrics"]] == [
        "top-1 after finetuning (%)",
        "top-1 before finetuning (%)",
    ]
    after, before = regressed["metrics"]
    assert (after["title"], before["title"]) == (
        "error after finetuning (lower is better)",
        "error before finetuning (lower is better)",
    )
    assert (after["unit"], after["digits"], after["dense"]) == ("", 5, 0.0811)
    assert [point["members"] for series in regressed["series"] for point in series["points"]] == [[1, 2]]
    # The paper's numbers of this model are of another metric.
    assert any("published" in series for series in classified["series"])
    assert not any("published" in series for series in regressed["series"])


def test_a_page_of_one_task_is_headed_by_what_it_measured(make_error_row):
    assert "Accuracy over size" in page_of([ROW])
    assert "Error over size" in page_of([make_error_row()])
    assert "Metrics over size" in page_of([ROW, make_error_row()])


def test_what_was_run_comes_first_and_what_was_not_is_folded_at_the_end():
    ran = Table("family", "Family", (Column("a"),), ((Cell("1"),),), (), data=({"key": "k", "a": 1},))
    published = Table("table1", "Table 1", (Column("a"),), ((Cell("80"),),), (), data=({"published": 80.0},))
    parts = [Part(REPORTS["table1"], [published], []), Part(REPORTS["family"], [ran], [])]
    page = page_of([ROW], parts=parts)
    places = [page.index(f'id="{name}"') for name in ("report-family", "plot", "missing", "not-run", "report-table1")]
    assert places == sorted(places)
    assert page.index("<details", places[3]) < places[4]
    title = page.split("<title>")[1].split("</title>")[0]
    assert all(word in title for word in (ROW["sweep"], ROW["model"], ROW["data"], ROW["git_commit"][:10]))


def test_beside_what_was_run_a_table_that_only_quotes_is_folded_and_no_heading_stands_twice():
    ran = Table("table1-b", "As Table 1", (Column("a"),), ((Cell("1"),),), ("`a`: <b>.",), data=({"key": "k", "a": 1},))
    quoted = Table("table1", "Table 1", (Column("a"),), ((Cell("80"),),), (), data=({"published": 80.0},))
    family = Table("family", REPORTS["family"].title, ran.columns, ran.rows, (), data=ran.data)
    parts = [Part(REPORTS["table1"], [quoted, ran], []), Part(REPORTS["family"], [family], [])]
    page = page_of([ROW], parts=parts)
    section = page[page.index('id="report-table1"') :].split("</section>")[0]
    assert section.index(">As Table 1<") < section.index("<details") < section.index(">Table 1<")
    assert "<code>a</code>: &lt;b&gt;." in section
    shown = page[page.index('id="report-family"') :].split("</section>")[0]
    assert re.search(r'<h3 id="[^"]*" class="unseen">', shown)
    assert 'class="unseen">' not in section.split("<details")[0]
