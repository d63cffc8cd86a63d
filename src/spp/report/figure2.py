"""Figure 2: the solution path. Who enters the support, when, and with what weight."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from spp.report.path_data import FAMILIES, PathData, support_share

# Okabe and Ito's colours, told apart without red-green vision; the line styles do the same job in grey.
STYLES = {"qk": ("#0072B2", "-"), "vo": ("#E69F00", "--"), "mlp": ("#009E73", "-.")}
NUM_TRAJECTORIES = 4
FORMATS = ("png", "pdf")


def draw_figure2(path: PathData, title: str, out: Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Draw the figure and write its data beside it; returns the files written.

    Panels: share of each family in the support over the search; Gamma of some units; time of entry of every unit, one
    row per layer with its units sorted by time.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    kinds = [kind for kind in FAMILIES if path.of_kind(kind)]
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=[1, 1.1])[:, 0]
    support_axes, gamma_axes = top.subplots(1, 2)
    _draw_support(support_axes, path, kinds)
    _draw_trajectories(gamma_axes, path, kinds)
    _draw_entries(bottom, path, kinds)
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"figure2.{suffix}" for suffix in formats]
    for file in files:
        figure.savefig(file, dpi=160)
    data = out / "figure2.csv"
    _write_data(path, kinds, data)
    return [*files, data]


def _draw_support(axes: Any, path: PathData, kinds: list[str]) -> None:
    for kind in kinds:
        color, style = STYLES[kind]
        axes.plot(path.steps, support_share(path, kind), color=color, linestyle=style, label=FAMILIES[kind])
    axes.set(
        title="Support of $\\Gamma$",
        xlabel="search step",
        ylabel="units in the support (%)",
        ylim=(0, None),
        xlim=(0, None),
    )
    axes.legend(title="pair", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_trajectories(axes: Any, path: PathData, kinds: list[str]) -> None:
    """Gamma of units spread evenly over the order of entry of their family."""
    for kind in kinds:
        color, style = STYLES[kind]
        entry = np.concatenate([path.entry[name] for name in path.of_kind(kind)])
        gamma = np.concatenate([path.gamma[name] for name in path.of_kind(kind)], axis=1)
        entered = np.argsort(entry, kind="stable")[: int(np.isfinite(entry).sum())]
        if len(entered) == 0:
            continue
        chosen = entered[np.linspace(0, len(entered) - 1, min(NUM_TRAJECTORIES, len(entered))).astype(int)]
        axes.plot(path.steps, gamma[:, chosen], color=color, linestyle=style, linewidth=1)
        axes.plot([], [], color=color, linestyle=style, label=f"{FAMILIES[kind]} ({len(chosen)} units)")
    axes.set(title="Trajectories", xlabel="search step", ylabel="$\\Gamma$", xlim=(0, None))
    axes.axhline(0, color="0.7", linewidth=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))  # room for the legend
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="first to last to enter", frameon=False, fontsize="small", loc="upper left")
    else:
        axes.text(0.5, 0.5, "no unit entered", transform=axes.transAxes, ha="center")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_entries(figure: Any, path: PathData, kinds: list[str]) -> None:
    panels = np.atleast_1d(figure.subplots(1, len(kinds)))
    image = None
    for axes, kind in zip(panels, kinds, strict=True):
        rows = [np.sort(path.entry[name]) for name in path.of_kind(kind)]
        width = max(len(row) for row in rows)
        grid = np.full((len(rows), 100), np.nan)
        for index, row in enumerate(rows):
            grid[index] = row[np.linspace(0, len(row) - 1, 100).round().astype(int)]
        grid[~np.isfinite(grid)] = np.nan
        axes.set_facecolor("0.85")
        image = axes.imshow(
            grid,
            aspect="auto",
            interpolation="nearest",
            cmap="cividis",
            vmin=0,
            vmax=path.num_steps,
            extent=(0, 100, len(rows) + 0.5, 0.5),
        )
        axes.set(
            title=f"{FAMILIES[kind]} ({width} per layer)",
            xlabel="units by time of entry (%)",
            ylabel="layer" if axes is panels[0] else "",
        )
        axes.set_yticks(np.unique(np.linspace(1, len(rows), min(len(rows), 12)).round().astype(int)))
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels), label="step of entry")
    bar.ax.set_title("grey: never", fontsize="small")


def _write_data(path: PathData, kinds: list[str], file: Path) -> None:
    """Tidy data: one line per unit with the time of its entry, empty if it never entered."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["pair", "kind", "unit", "entry_step", "final_gamma"])
        for kind in kinds:
            for name in path.of_kind(kind):
                for unit, (entry, gamma) in enumerate(zip(path.entry[name], path.gamma[name][-1], strict=True)):
                    writer.writerow([name, kind, unit, f"{entry:.6f}" if np.isfinite(entry) else "", f"{gamma:.6g}"])
