"""What mkdocs must be told: pages link to files outside of docs/, which come into the site as they are.

A file docs/X is X in the site, every other file keeps its path in the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages of the site or its contents link to, and what those pages link to in their turn."""
    waiting = [f"docs/{file.src_uri}" for file in files if file.is_documentation_page()]
    waiting += [name for name in _names(config["nav"]) if not (ROOT / "docs" / name).exists()]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if not name.startswith("docs/"):
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
        if name.endswith(".md"):
            waiting += [target for target in _targets(name) if (ROOT / target).is_file()]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between files of the site."""
    name = _repository_name(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        target = _target(name, match[1])
        if target is None or not (ROOT / target).exists():
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return f"]({posixpath.relpath(_site_name(target), here or '.')}{match[2] or ''})"

    return LINK.sub(moved, markdown)


def _names(nav: list[object]) -> list[str]:
    """The files of mkdocs' nested contents."""
    names: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            names += _names(value) if isinstance(value, list) else [value]
    return names


def _targets(name: str) -> list[str]:
    links = LINK.findall((ROOT / name).read_text())
    return [target for link, _ in links if (target := _target(name, link)) is not None]


def _target(name: str, link: str) -> str | None:
    """The file of the repository that a link in another one means; None for an address."""
    if ":" in link:
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), link))


def _site_name(name: str) -> str:
    return name.removeprefix("docs/")


def _repository_name(site_name: str) -> str:
    return f"docs/{site_name}" if (ROOT / "docs" / site_name).exists() else site_name
