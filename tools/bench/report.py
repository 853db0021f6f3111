"""The report: results.json for programs, results.md for people, and plots where matplotlib is installed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.context import Options
from bench.figures import Figure, Figures, Spread
from bench.groups import GROUPS
from bench.targets import Judged, judge
from shardfs.core.units import format_size

Draw = Callable[[Figures, Path], list[str]]
draw: Draw | None
try:
    from bench.plots import draw
except ModuleNotFoundError as missing:
    if missing.name != "matplotlib":
        raise
    draw = None

HOW_TO_READ = (
    "The model has {size}. Each figure: **median** (least - greatest) of {runs} rounds in which all cases of a group "
    "take turns. A ratio is made within each round, so it can be compared between machines; absolute figures cannot. "
    "Memory is touched before each run."
)
NO_PLOTS = "plots: left out, matplotlib is not installed (the extra `bench` brings it)"


def write_report(
    options: Options, machine: Mapping[str, object], figures: Figures, seconds: Mapping[str, float]
) -> None:
    """Write all files anew into `options.out`."""
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    plots = draw(figures, out) if draw is not None else []
    notes = [*figures.notes, *([] if draw is not None else [NO_PLOTS])]
    judged = judge(figures)
    _write(out / "results.json", json.dumps(_document(options, machine, figures, seconds, judged, notes), indent=2))
    _write(out / "results.md", _page(options, machine, figures, judged, notes, plots))


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip() + "\n")


def repeat(options: Options, group: str) -> str:
    """The command that measures a group again."""
    how = "--quick" if options.quick else f"--size {format_size(options.size).replace(' ', '')} --runs {options.runs}"
    return f"tools/bench/run --only {group} {how}"


# ------------------------------------------------------------------------------------------------------------ JSON


def _document(
    options: Options,
    machine: Mapping[str, object],
    figures: Figures,
    seconds: Mapping[str, float],
    judged: list[Judged],
    notes: list[str],
) -> dict[str, object]:
    return {
        "format": "shardfs-bench-1",
        "machine": machine,
        "options": {"size": options.size, "runs": options.runs, "quick": options.quick},
        "figures": {name: _figure(options, figure) for name, figure in figures.by_name.items()},
        "targets": [
            {
                "what": j.target.what,
                "figure": j.target.figure,
                "kind": j.target.kind,
                "sense": j.target.sense,
                "bound": j.target.bound,
                "unit": j.target.unit,
                "measured": j.measured,
                "verdict": j.verdict,
                "why": j.why,
            }
            for j in judged
        ],
        "group_seconds": {name: round(value, 1) for name, value in seconds.items()},
        "notes": notes,
    }


def _figure(options: Options, figure: Figure) -> dict[str, object]:
    ratio = figure.ratio
    return {
        "what": figure.what,
        "unit": figure.unit,
        "better": figure.better,
        **_spread(figure.spread),
        "values": figure.values,
        "limit": figure.limit,
        "ratio": _spread(ratio) if ratio else None,
        "command": repeat(options, figure.group),
    }


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "min": spread.least, "max": spread.greatest}


# -------------------------------------------------------------------------------------------------------- Markdown


def _page(
    options: Options,
    machine: Mapping[str, object],
    figures: Figures,
    judged: list[Judged],
    notes: list[str],
    plots: list[str],
) -> str:
    versions = machine["versions"]
    assert isinstance(versions, dict)
    lines = [
        "# shardfs benchmark",
        "",
        f"{machine['date']}. {machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, Linux "
        f"{machine['kernel']}, Python {machine['python']}, {'root' if machine['root'] else 'not root'}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f". Nodes and client share these cores, over loopback; congestion control {machine['congestion_control']}.",
        "",
        HOW_TO_READ.format(size=format_size(options.size), runs=options.runs),
        "",
    ]
    if options.quick:
        lines += ["**`--quick`: these figures show that the benchmark works, nothing else.**", ""]
    lines += ["## Targets", "", "| target | bound | measured | |", "|---|---|---|---|"]
    lines += [_target_row(j) for j in judged]
    for group in dict.fromkeys(figure.group for figure in figures.by_name.values()):
        lines += ["", f"## {group}: {GROUPS[group].what}", "", f"`{repeat(options, group)}`", ""]
        lines += ["| what | figure | ratio | to |", "|---|---|---|---|"]
        lines += [_row(figure, figures) for figure in figures.by_name.values() if figure.group == group]
        lines += [f"\n![{group}]({plot})" for plot in plots if plot == f"{group}.png"]
    if "ratios.png" in plots:
        lines += ["", "## All ratios", "", "![ratios](ratios.png)"]
    if notes:
        lines += ["", "## Left out and failed", ""]
        lines += [f"- {note}" for note in dict.fromkeys(notes)]
    return "\n".join(lines)


def _target_row(judged: Judged) -> str:
    target = judged.target
    bound = f"{'>=' if target.sense == 'at least' else '<='} {target.bound:g} {target.unit}".strip()
    measured = "" if judged.measured is None else number(judged.measured)
    verdict = f"{judged.verdict}: {judged.why}" if judged.why else judged.verdict
    return f"| {target.what} | {bound} | {measured} | {verdict} |"


def _row(figure: Figure, figures: Figures) -> str:
    limit = figures.by_name[figure.limit].what if figure.ratios and figure.limit else ""
    ratio = shown(figure.ratio) if figure.ratio else ""
    return f"| {figure.what} | {shown(figure.spread)} {figure.unit} | {ratio} | {limit} |"


def shown(spread: Spread) -> str:
    if spread.least == spread.greatest:
        return number(spread.median)
    return f"**{number(spread.median)}** ({number(spread.least)} - {number(spread.greatest)})"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.3f}"
