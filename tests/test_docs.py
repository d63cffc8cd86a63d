"""The manual's pages are all in its contents, their links lead somewhere, and their commands and snippets work."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from spp.cli.main import parse
from spp.cli.network_sizes import NetworkSizes
from spp.cli.points import compose_points
from spp.cli.specs import Specs
from spp.cli.sweep_plan import plan_sweep
from spp.locations import CONF
from spp.methods.registry import method_names, search_cost
from spp.schedule.estimate import Estimator
from spp.store.store import Store

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("**/*.md"))
OTHERS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "slurm/README.md")
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
SNIPPET = re.compile(r"tests/test_docs.py -->\n```python\n(.*?)```", re.DOTALL)


def contents():
    """Files of mkdocs' contents, however nested."""

    def files(entry):
        if isinstance(entry, str):
            return [entry]
        values = entry if isinstance(entry, list) else entry.values()
        return [file for value in values for file in files(value)]

    return files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])


def anchors(page):
    """What headings can be linked by: as Python-Markdown and GitHub both have it."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def bash_lines(page):
    blocks = re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def commands(page):
    """The words of every `spp ...` in the page's shell blocks."""
    parts = [part.strip() for line in bash_lines(page) for part in re.split(r"&&|\|", line.split(" #")[0])]
    return [shlex.split(part)[1:] for part in parts if re.match(r"(\.venv/bin/)?spp ", part)]


def test_every_page_is_in_the_contents_once():
    named = contents()
    assert len(named) == len(set(named))
    assert {page.relative_to(DOCS).as_posix() for page in PAGES} <= set(named)
    # What else is named lies outside of docs/, at its path in the repository.
    assert [name for name in named if not (DOCS / name).is_file() and not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    dead = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        file, _, anchor = link.partition("#")
        if ":" in file:
            continue
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


def test_a_dead_link_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` c\n```\n# no heading\n```\n[x](page.md#a-b-c) [y](none.md) [z](#no-heading)\n")
    assert anchors(page) == {"a-b-c"}
    with pytest.raises(AssertionError, match=r"none\.md.*no-heading"):
        test_links_lead_somewhere(page)


@pytest.mark.parametrize(
    "page", [page for page in [*PAGES, ROOT / "README.md"] if commands(page)], ids=lambda page: page.name
)
def test_commands_are_understood(page):
    for words in commands(page):
        command, arguments = parse(words)
        # Those of the front page are composed by tests/test_readme.py.
        if command in ("run", "plan") and page.parent == DOCS:
            assert compose_points(arguments.words, arguments.multirun), words


@pytest.mark.parametrize(
    "page", [page for page in PAGES if SNIPPET.search(page.read_text())], ids=lambda page: page.name
)
def test_snippets_run(page):
    for code in SNIPPET.findall(page.read_text()):
        exec(compile(code, page.name, "exec"), {"__name__": page.stem})


def test_written_pages_are_those_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    monkeypatch.delitem(sys.modules, "write_reference", raising=False)
    import write_reference

    stale = [name for name, page in write_reference.PAGES.items() if page() != (DOCS / name).read_text()]
    assert stale == [], "run scripts/write_reference.py"


def test_every_experiment_can_be_reproduced():
    named = re.findall(r"^\| `(\w+)` \|", (DOCS / "reproduce.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))


def test_an_experiment_says_the_gpu_hours_that_the_page_says():
    page = (DOCS / "reproduce.md").read_text()
    hours = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", page, re.MULTILINE))
    headers = {
        file.stem: re.search(r"# GPU-hours:  ([\d.]+) ", file.read_text())
        for file in (CONF / "experiment").glob("*.yaml")
    }
    said = {name: found[1] for name, found in headers.items() if found}
    assert len(said) > 8
    assert said == {name: hours[name] for name in said}


def test_the_hours_of_the_page_are_those_of_the_plan(tmp_path, monkeypatch):
    """Of the experiments whose hours `spp plan` can tell without the data, to the last of their two decimals."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    page = (DOCS / "reproduce.md").read_text()
    said = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+\.\d\d) \|$", page, re.MULTILINE))
    words = ["paths.data=/data", f"paths.store={tmp_path}", "cluster=slurm"]
    words += [f"cluster.resources.default.{word}" for word in ("gpus_per_node=1", "gpu_name=A100")]
    plans = {
        name: plan_sweep(compose_points([f"experiment={name}", *words], False), may_lack_data=True).plan
        for name in said
    }
    store, sizes = Store(tmp_path), NetworkSizes()
    found = {}
    while True:
        for name, plan in plans.items():
            specs = Specs(store, {stage.key: stage.to_json() for stage in plan.stages.values()})
            costs = Estimator(store, specs.of, sizes.size_of, search_cost).estimate(plan.stages.values())
            found[name] = sum(cost.gpu_seconds or 0.0 for cost in costs.values()) / 3600
        if not sizes.ask():
            break
    assert len(said) > 12
    assert {name: f"{hours:.2f}" for name, hours in found.items()} == said


def test_the_front_page_names_every_method():
    table = (ROOT / "README.md").read_text()
    assert [name for name in method_names() if f"`{name}`" not in table] == []
