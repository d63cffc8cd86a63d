"""The modules import each other in one direction: no circle, over all rooms, the plugins and the pipelines."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(folder.name for folder in (ROOT / "src" / "spp").iterdir() if (folder / "__init__.py").is_file())


def imported(node: ast.AST, *, when_called: bool) -> Iterator[str]:
    """Names that are imported when a module is loaded or, with `when_called`, also by its functions; not for types."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from imported(ast.Module(child.orelse, []), when_called=when_called)
        elif when_called or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(child, when_called=when_called)


def import_graph(*roots: Path, when_called: bool = False) -> dict[str, set[str]]:
    """The modules below some folders, and which of them each imports."""
    sources: dict[str, str] = {}
    for root in roots:
        for file in root.rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file.read_text()
    graph = {}
    for module, source in sources.items():
        names = set(imported(ast.parse(source), when_called=when_called))
        # `from a import b` imports the module a.b where there is one, else a.
        graph[module] = {name if name in sources else name.rpartition(".")[0] for name in names} & sources.keys()
    return graph


def test_loading_a_module_never_comes_back_to_it():
    graph = import_graph(ROOT / "src", ROOT / "pipelines")
    assert graph["spp.cli.commands.run"] >= {"spp.cli.launch", "spp.cli.points"}
    assert graph["solution_path"] >= {"spp.plan.setup"}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("room", ROOMS)
def test_within_a_room_functions_make_no_circle_either(room):
    graph = import_graph(ROOT / "src", when_called=True)
    inside = {module for module in graph if module.startswith(f"spp.{room}.")}
    TopologicalSorter({module: graph[module] & inside for module in inside}).prepare()


def test_a_circle_is_found_and_imports_for_types_make_none(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def f():\n    import a\n\nif TYPE_CHECKING:\n    import a\n")
    TopologicalSorter(import_graph(tmp_path)).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path, when_called=True)).prepare()
    (tmp_path / "b.py").write_text("try:\n    from a import x\nexcept ImportError:\n    pass\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path)).prepare()
