"""The page in headless Chromium: what a reader does with it, and what must not happen."""

import json
import os
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch

import spp
from spp.dynamics.recorder import Trace
from spp.record.record import PathSource, Record
from spp.report.html import page
from spp.report.published import load_published
from spp.report.reports import REPORTS, Part
from spp.report.table import Cell, Column, Table

BROWSER, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\">"
BUDGETS, SEEDS = (0.7, 0.5, 0.3), (0, 1, 2)
VALUES = (3.0, None, -1.5, 10.0, 2.25, None, 0.0, 1e9)
NAMES = ("upop", "spp", "", "Lasso", "dsp", "magnitude", "random", "leap")


def measured(top1):
    """Metrics of a row, by name."""
    return {"top1": {"value": top1, "unit": "%", "better": "higher", "count": 297, "of": "images", "label": "top-1"}}


def make_rows(folder):
    """Members of three methods, one of them with a hostile variant; made up, but all different."""
    generator = np.random.default_rng(0)
    rows = []
    for method, variant in (("spp", ""), ("upop", HOSTILE), ("random", "")):
        for seed in SEEDS:
            for budget in BUDGETS:
                number = len(rows)
                rows.append({
                    "point": f"p{number}", "sweep": "s", "command": f"spp run method={method} seed={seed}",
                    "method": method, "preset": "priced" if method == "spp" else None, "variant": variant,
                    "task": "classification", "model": "vit", "data": "digits", "seed": seed,
                    "budget_kind": "macs", "budget_asked": budget,
                    "macs": 1e8 * (budget - 0.01 * generator.random()), "params": 3e6 * budget, "dense_macs": 1e8,
                    "dense_params": 3e6, "headline": "top1", "dense_metrics": measured(97.0 + seed),
                    "metrics_before": measured(60 + 20 * generator.random()),
                    "metrics": measured(80 + 15 * generator.random()), "val_metrics": measured(90.0),
                    "epochs_search": 2, "epochs_finetune": 8, "search_seconds": 30.0 + seed,
                    "search_gpu_seconds": 0.0, "num_members_of_search": 3, "finetune_seconds": 9.0,
                    "finetune_gpu_seconds": 0.0, "device": "CPU", "key": f"k{number}", "member_key": f"m{number}",
                    "member_kind": "finetune", "search_key": f"u{method}{seed}",
                    "family_key": f"f{method}{seed}", "path_key": f"u{method}{seed}", "dense_key": f"d{seed}",
                    "git_commit": f"c0ffee{number}", "folder": str(folder / "stages" / "measure" / f"k{number}"),
                    "config": {"recipe": {"lr": 0.001}, "seed": seed}, "method_config": {"name": method},
                    "dense_config": {},
                })  # fmt: skip
    return rows


def make_error_row(row):
    """The same as a member of a second task, whose error is better where it is lower."""
    shared = {"unit": "", "better": "lower", "count": 297, "of": "images", "label": "error"}
    after, before, dense = ({"error": {"value": value, **shared}} for value in (0.0832, 0.125, 0.0811))
    metrics = {"metrics": after, "metrics_before": before, "dense_metrics": dense, "val_metrics": after}
    return {**row, **metrics, "task": "regression", "headline": "error", "method": "taylor", "preset": None}


def make_path(folder):
    """A search of two layers, in which one unit of the first never entered."""
    generator = np.random.default_rng(1)
    pairs = [spp.Pair(f"blocks.{layer}.attn.qk", "qk", 8, 10, 100.0) for layer in (0, 1)]
    entry = {pair.name: torch.tensor(generator.uniform(1, 90, pair.size)) for pair in pairs}
    entry["blocks.0.attn.qk"][5] = torch.inf
    steps = torch.arange(0, 100, 10)
    trace = Trace(steps, {name: (steps[:, None] > times).float() for name, times in entry.items()})
    zeros = {name: torch.zeros_like(times) for name, times in entry.items()}
    occupancy = {name: zero.long() for name, zero in zeros.items()}
    spp.SolutionPath(entry, zeros, occupancy, pairs, {"num_steps_taken": 100}, trace).save(folder)
    return PathSource("u0", "spp", "priced", "", "classification", "vit", "digits", 0, folder)


def make_table():
    columns = (Column("name", is_number=False), Column("value (%)"), *(Column(f"column {i}") for i in range(12)))
    rows = tuple(
        (
            Cell(name),
            Cell("" if value is None else f"{value:.1f}", value, hint="from its source"),
            *[Cell("1.0", 1.0)] * 12,
        )
        for name, value in zip(NAMES, VALUES, strict=True)
    )
    return Table(
        "family",
        "A wide table",
        columns,
        rows,
        ("A sentence.",),
        (f"{HOSTILE}: spp run seed=3 (no estimate)",),
        data=({"key": "k"},),
    )


class Site:
    """Two pages on disk and a browser that is looking at one of them."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder
        self.rows = make_rows(folder)
        self.rows.append(make_error_row(self.rows[0]))
        (folder / "stages" / "measure" / "k0").mkdir(parents=True)
        self.path = make_path(folder / "path")
        parts = [Part(REPORTS["family"], [make_table()], [])]
        published = load_published()
        (folder / "page.html").write_text(page(Record(self.rows, [self.path], [], "store"), published, parts))
        (folder / "empty.html").write_text(page(Record([], [], [], "store"), published, []))

    def open(self, name="page.html", width=1366, height=768):
        is_phone = width < 500
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.browser.get((self.folder / name).as_uri())

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (found,) = self.find(selector)
        return found

    def run(self, script, *words):
        return self.browser.execute_script(script, *words)

    def show(self, element):
        """Scrolls an element to the middle of the screen and waits until the page has taken note."""
        script = "arguments[0].scrollIntoView({block: 'center'}); const done = arguments[1];"
        self.browser.execute_async_script(script + "requestAnimationFrame(() => requestAnimationFrame(done))", element)

    def hover(self, element, x=0, y=0):
        """Puts the pointer on the middle of an element, or so many pixels off it."""
        self.show(element)
        self.actions().move_to_element_with_offset(element, x, y).perform()

    def actions(self):
        from selenium.webdriver import ActionChains

        return ActionChains(self.browser, duration=0)

    def tip(self):
        """The lines of the tooltip, names and numbers of a line apart."""
        tip = self.one("#tip")
        assert tip.is_displayed()
        return tip.text.splitlines()

    def fact(self, name):
        lines = self.tip()
        return lines[lines.index(name) + 1]

    def marker(self, series, index):
        return self.find(f'.chart [data-series="{series}"] .marker')[index]

    def choose(self, label, option):
        from selenium.webdriver.support.ui import Select

        (box,) = [box for box in self.find(".choice") if box.text.startswith(label)]
        Select(box.find_element("css selector", "select")).select_by_visible_text(option)

    def requests(self):
        """The URLs that the browser has asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        return [
            found["params"]["request"]["url"] for found in messages if found["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    missing = [str(file) for file in (BROWSER, DRIVER) if not file.exists()]
    if missing:
        reason = f"not there: {', '.join(missing)}; remedy: scripts/install_browser.sh as root"
        (pytest.fail if os.environ.get("SPP_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "localhost,127.0.0.1")  # the driver is on this machine
        browser = Chrome(options, Service(str(DRIVER)))
        try:
            browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
            yield Site(browser, tmp_path_factory.mktemp("site"))
        finally:
            browser.quit()


@pytest.fixture
def opened(site):
    site.open()
    return site


def members(site, method, budget):
    return [row for row in site.rows if (row["method"], row["budget_asked"]) == (method, budget)]


@pytest.mark.parametrize("name", ["page.html", "empty.html"])
def test_it_opens_without_an_error_and_asks_the_network_for_nothing(site, name):
    site.browser.get("about:blank")  # away from the browser's own first page
    site.browser.get_log("browser")
    site.requests()
    site.open(name)
    assert site.browser.get_log("browser") == []
    requests = site.requests()
    assert (site.folder / name).as_uri() in requests
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_what_a_user_named_does_not_run(opened):
    title = opened.browser.title
    assert title.startswith("s · ")
    assert opened.find("img") == []
    opened.hover(opened.find(".chart .series:not([data-series^=spp]):not([data-series=random]) .marker")[0])
    assert opened.fact("method") == "upop"
    assert opened.browser.title == title


@pytest.mark.parametrize("key", [None, "\ue007"])  # a click, and Enter
def test_a_column_is_sorted_both_ways_and_back(opened, key):
    def press(head):
        head.send_keys(key) if key else head.click()

    def column(index):
        return [row.find_elements("css selector", "td")[index].text for row in opened.find(".box tbody tr")]

    known = [value for value in VALUES if value is not None]
    empty = [""] * VALUES.count(None)
    head = opened.find(".box th button")[1]
    for order, values in (("ascending", sorted(known)), ("descending", sorted(known, reverse=True))):
        press(head)
        assert opened.find(".box th")[1].get_attribute("aria-sort") == order
        # A cell without text still has a hint to point at.
        assert [text.replace("·", "") for text in column(1)] == [f"{value:.1f}" for value in values] + empty
    press(head)
    assert opened.find(".box th")[1].get_attribute("aria-sort") == "none"
    assert column(0) == list(NAMES)
    press(opened.find(".box th button")[0])
    assert column(0) == [*sorted(filter(None, NAMES)), ""]


def test_the_filter_hides_the_line_of_a_method(opened):
    def shown():
        return [group.get_attribute("data-series") for group in opened.find("#plot-app .chart .series")]

    assert "random" in shown()
    opened.one('#plot-app input[data-series="random"]').click()
    assert len(shown()) == 2
    assert "random" not in shown()
    none, every = [button for word in ("none", "all") for button in opened.find("button") if button.text == word]
    none.click()
    assert shown() == []
    every.click()
    assert len(shown()) == 3


def test_hover_tells_the_numbers_of_the_record(opened):
    (label,) = {group.get_attribute("data-series") for group in opened.find(".chart [data-series^=spp]")}
    for index, budget in enumerate(sorted(BUDGETS)):
        rows = members(opened, "spp", budget)
        opened.hover(opened.marker(label, index))
        accuracies = [row["metrics"]["top1"]["value"] for row in rows]
        share = 100 * mean(row["macs"] for row in rows) / 1e8
        assert opened.fact("asked") == f"{100 * budget:g} % of FLOPs"
        assert opened.fact("top-1 after finetuning (%)") == f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}"
        assert opened.fact("FLOPs").endswith(f"({share:.1f} % of dense)")
        assert opened.fact("preset") == "priced"
        assert opened.fact("seeds") == "0, 1, 2"
        assert opened.fact("time of search") == "31 s for 3 members"


def test_axes_can_be_chosen(opened):
    opened.choose("vertical", "top-1 before finetuning (%)")
    opened.choose("horizontal", "params")
    assert "params of the member" in opened.one("#plot-app .chart").text
    opened.hover(opened.marker("random", 0))
    accuracies = [row["metrics_before"]["top1"]["value"] for row in members(opened, "random", 0.3)]
    assert opened.fact("top-1 before finetuning (%)") == f"{mean(accuracies):.2f} ± {stdev(accuracies):.2f}"
    assert opened.fact("params") == "900 k (30.0 % of dense)"


def test_a_panel_of_another_task_offers_its_own_metrics(opened):
    opened.choose("vertical", "top-1 before finetuning (%)")
    opened.choose("model, data and budget", "vit on digits, regression, budgets in FLOPs")
    (choice,) = [box for box in opened.find(".choice") if box.text.startswith("vertical")]
    assert [option.text for option in choice.find_elements("css selector", "option")] == [
        "error after finetuning (lower is better)",
        "error before finetuning (lower is better)",
    ]
    assert "dense 0.0811" in opened.one("#plot-app .chart").text
    opened.hover(opened.marker("taylor", 0))
    assert opened.fact("error after finetuning (lower is better)") == "0.08320"
    opened.actions().click().perform()
    (card,) = opened.find("#pinned article")
    assert "seed 0: 0.08320" in card.text
    assert "%" not in card.text
    opened.choose("model, data and budget", "vit on digits, classification, budgets in FLOPs")
    assert "top-1 after finetuning (%)" in opened.one("#plot-app .chart").text


def test_a_click_shows_where_a_point_came_from(opened):
    (label,) = {group.get_attribute("data-series") for group in opened.find(".chart [data-series^=spp]")}
    opened.hover(opened.marker(label, 2))
    opened.actions().click().perform()
    rows = members(opened, "spp", 0.7)
    cards = opened.find("#pinned article")
    assert len(cards) == len(rows)
    for card, row in zip(cards, rows, strict=True):
        assert f"seed {row['seed']}: {row['metrics']['top1']['value']:.2f} %" in card.text
        assert row["git_commit"] in card.text
        assert card.find_element("css selector", ".command code").text == row["command"]
        config = card.find_element("css selector", "pre").get_attribute("textContent")
        assert json.loads(config) == row["config"]
    (link,) = opened.find("#pinned .stages a")  # of all folders this one is there
    assert link.get_attribute("href") == (opened.folder / "stages" / "measure" / "k0").as_uri()
    opened.one("#pinned .close").click()
    assert opened.find("#pinned article") == []


def test_the_plot_is_used_with_keys_alone(opened):
    from selenium.webdriver import Keys

    (first,) = opened.find("#plot-app .marker[tabindex='0']")
    opened.run("arguments[0].focus()", first)
    assert opened.fact("asked") == "30 % of FLOPs"
    opened.actions().send_keys(Keys.ARROW_RIGHT).perform()
    assert opened.fact("asked") == "50 % of FLOPs"
    opened.actions().send_keys(Keys.ENTER).perform()
    assert len(opened.find("#pinned article")) == len(SEEDS)


def test_a_command_is_copied(opened):
    from selenium.webdriver.support.ui import WebDriverWait

    permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    opened.browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    button = opened.one("#report-family .copy")
    button.click()
    WebDriverWait(opened.browser, 10).until(lambda _: button.text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0])"
    assert opened.browser.execute_async_script(read) == "spp run seed=3"


def test_the_heat_map_tells_layer_unit_and_step(opened):
    entry = spp.SolutionPath.load(opened.path.artifacts).entry
    canvas = opened.one("canvas")
    for layer in (0, 1):
        times = entry[f"blocks.{layer}.attn.qk"]
        order = sorted(range(8), key=lambda unit, times=times: times[unit].item())
        for rank, unit in enumerate(order):
            offset = (rank + 0.5) / 8 - 0.5
            width, height = canvas.size["width"], canvas.size["height"]
            opened.hover(canvas, round(offset * width), round((layer / 2 - 0.25) * height))
            step = times[unit].item()
            when = f"entered at step {round(step, 1):g}" if step < torch.inf else "never entered"
            assert opened.tip() == [
                f"layer {layer + 1} (blocks.{layer}.attn.qk)",
                f"unit {unit}, rank {rank + 1} of 8",
                when,
            ]


def test_hints_show_to_a_finger(opened):
    hint = opened.find(".hint")[0]
    opened.show(hint)
    hint.click()
    assert opened.tip() == ["3.0", "from its source"]


@pytest.mark.parametrize("name", ["page.html", "empty.html"])
@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_the_page_is_no_wider_than_the_screen(site, name, width, height):
    site.open(name, width, height)
    assert site.run("return document.documentElement.scrollWidth") <= width
    if name == "page.html":
        site.hover(site.marker("random", 0))
        place = site.one("#tip").rect
        assert place["x"] >= 0
        assert place["x"] + place["width"] <= width
        # What is wider scrolls in its own box.
        assert site.run("const box = document.querySelector('.box'); return box.scrollWidth > box.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_those_of_the_reader(opened, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colours = opened.run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    text, ground = [mean(map(int, colour.strip("rgb()").split(", "))) for colour in colours]
    assert (text < 80 and ground > 220) if scheme == "light" else (text > 200 and ground < 60)
