"""spp report: tables and figures of a sweep."""

from pathlib import Path

from spp.cli.main import REPORTS
from spp.cli.sweeps import find_sweep
from spp.plan.graph import Plan
from spp.record.rows import member_rows
from spp.store.store import Store

FORMATS = {"family": ("md", "csv"), "compare": ("md", "csv"), "figure2": ("png", "pdf")}


def report(root: Path, name: str, sweep: str | None, only_format: str | None, out: Path | None) -> int:
    """Write what was asked for and say where; the family table is also printed."""
    names = REPORTS if name == "all" else (name,)
    if not set(names) <= set(REPORTS):
        raise ValueError(f"NAME: {name!r} is no report; allowed: {', '.join(REPORTS)}, all; take one of these")
    sweep = find_sweep(root, sweep)
    store = Store(root)
    plan = store.read_plan(sweep)
    folder = out or root / "reports" / sweep
    for report_name in names:
        formats = tuple(f for f in FORMATS[report_name] if only_format in (None, f))
        if not formats and name != "all":
            raise ValueError(
                f"--format: {only_format!r} does not exist for {name}; "
                f"allowed: {', '.join(FORMATS[name])}; leave it out"
            )
        if report_name == "figure2":
            has_paths = any(stage.kind == "update" for stage in plan.stages.values())
            # Methods other than SPP have no path to draw; who asks for everything is told of what there is.
            files = _figure2(store, plan, folder, formats) if formats and (has_paths or name != "all") else []
        else:
            files = _table(report_name, store, plan, folder, formats)
        for file in files:
            print(file)
    return 0


def _table(name: str, store: Store, plan: Plan, out: Path, formats: tuple[str, ...]) -> list[Path]:
    from spp.report.compare import compare_markdown
    from spp.report.family import family_csv, family_markdown

    rows = member_rows(store, plan)
    if not rows:
        raise ValueError("sweep: it has no finished member; allowed: a sweep with one at least; see spp status")
    out.mkdir(parents=True, exist_ok=True)
    markdown = {"family": family_markdown, "compare": compare_markdown}[name]
    texts = {"md": markdown, "csv": family_csv}
    files = []
    for suffix in formats:
        file = out / f"{name}.{suffix}"
        file.write_text(texts[suffix](rows))
        files.append(file)
    print(markdown(rows))
    return files


def _figure2(store: Store, plan: Plan, out: Path, formats: tuple[str, ...]) -> list[Path]:
    from spp.report.figure2 import draw_figure2
    from spp.report.path_data import read_path

    paths = [stage for stage in plan.stages.values() if stage.kind == "update" and store.is_done("update", stage.key)]
    if not paths:
        raise ValueError("sweep: it has no finished path; allowed: a sweep whose update is done; see spp status")
    files = []
    for stage in paths:
        folder = out if len(paths) == 1 else out / f"path-{stage.key}"
        point = next(point for point in plan.points if point.name in plan.points_of(stage.key))
        title = f"Solution path of {point.meta['model']} on {point.meta['data']}, seed {stage.config['seed']}"
        files += draw_figure2(read_path(store.artifacts_dir("update", stage.key)), title, folder, formats)
    return files
