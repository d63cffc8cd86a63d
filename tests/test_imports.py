"""The modules import each other in one direction: no circle, over all rooms, the plugins and the pipelines."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(body: list[ast.stmt]) -> Iterator[str]:
    """Names that run an import when a module is loaded: neither those inside functions nor those for types alone."""
    for statement in body:
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, "imports are absolute"
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from imported(statement.orelse)
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from imported(getattr(statement, part, []))


def import_graph(roots: list[Path]) -> dict[str, set[str]]:
    """The modules below some folders, and which of them each imports."""
    sources: dict[str, str] = {}
    for root in roots:
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text()
    graph = {}
    for module, source in sources.items():
        names = set(imported(ast.parse(source).body))
        # `from a import b` imports the module a.b where there is one, else a.
        graph[module] = {name if name in sources else name.rpartition(".")[0] for name in names} & sources.keys()
    return graph


def test_no_module_imports_itself_on_any_way():
    graph = import_graph([ROOT / "src", ROOT / "pipelines"])
    assert graph["spp.cli.commands.run"] >= {"spp.cli.launch", "spp.cli.points"}
    assert graph["solution_path"] >= {"spp.plan.setup"}
    TopologicalSorter(graph).prepare()


def test_a_circle_is_found_and_what_is_not_loaded_makes_none(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def f():\n    import a\n\nif TYPE_CHECKING:\n    import a\n")
    TopologicalSorter(import_graph([tmp_path])).prepare()
    (tmp_path / "b.py").write_text("try:\n    from a import x\nexcept ImportError:\n    pass\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph([tmp_path])).prepare()
