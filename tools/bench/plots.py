"""PNG plots of a run: for each group its figures with their spread, and all ratios with the targets marked."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import NullLocator

from bench.figures import Figure, Figures
from bench.targets import TARGETS

BAR, LIMIT, MARK = "#3b6ea5", "#b9c4d0", "#c0392b"
ROW_INCHES = 0.34
DPI = 130
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)


def draw(figures: Figures, out: Path) -> list[str]:
    """Write the plots into `out`; their file names."""
    written = []
    for group in dict.fromkeys(figure.group for figure in figures.by_name.values()):
        members = [figure for figure in figures.by_name.values() if figure.group == group and figure.unit]
        if members:
            _group(group, members, out / f"{group}.png")
            written.append(f"{group}.png")
    rated = [figure for figure in figures.by_name.values() if figure.ratios]
    if rated:
        _ratios(rated, out / "ratios.png")
        written.append("ratios.png")
    return written


def _group(name: str, members: list[Figure], path: Path) -> None:
    units = list(dict.fromkeys(figure.unit for figure in members))
    rows = [[figure for figure in members if figure.unit == unit] for unit in units]
    figure, axes = plt.subplots(
        len(units),
        1,
        figsize=(9, 1.1 * len(units) + ROW_INCHES * len(members)),
        squeeze=False,
        height_ratios=[len(row) + 1 for row in rows],
        layout="constrained",
    )
    for axis, unit, row in zip(axes[:, 0], units, rows, strict=True):
        limits = {member.limit for member in row}
        for at, member in enumerate(row):
            spread = member.spread
            error = [[spread.median - spread.least], [spread.greatest - spread.median]]
            axis.barh(at, spread.median, xerr=error, color=LIMIT if member.name in limits else BAR, capsize=3)
        axis.set_yticks(range(len(row)), [member.what for member in row], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel(f"{unit} ({row[0].better} is better)", fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_xlim(left=min(0.0, *(member.spread.least for member in row)))
    figure.suptitle(f"{name}: median, least and greatest (grey: what others are compared with)", fontsize=9)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _ratios(members: list[Figure], path: Path) -> None:
    bounds = {target.figure: target.bound for target in TARGETS if target.kind == "ratio"}
    figure, axis = plt.subplots(figsize=(9, 1.2 + ROW_INCHES * len(members)), layout="constrained")
    for at, member in enumerate(members):
        ratio = member.ratio
        assert ratio is not None
        error = [[ratio.median - ratio.least], [ratio.greatest - ratio.median]]
        axis.errorbar(ratio.median, at, xerr=error, fmt="o", color=BAR, capsize=3, markersize=5)
        if member.name in bounds:
            axis.plot(bounds[member.name], at, marker="|", markersize=14, markeredgewidth=2, color=MARK)
    names = [f"{member.group}: {member.what} ({member.better} is better)" for member in members]
    axis.set_yticks(range(len(members)), names, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1.0, color="#999999", linewidth=0.8)
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xticks([tick for tick in TICKS if low <= tick <= high], minor=False)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.tick_params(axis="x", labelsize=8)
    axis.set_xlabel("ratio to the limit of the same rounds (red: target)", fontsize=8)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
