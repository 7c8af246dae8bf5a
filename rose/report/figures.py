"""The report's figures, each from what was compared or selected; where there are no data there is no figure."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy

from rose.report.arms import Arm, lower_is_better
from rose.report.comparison import Comparison, is_quality
from rose.report.drawing import (
    FIXED,
    MARKERS,
    OKABE_ITO,
    RULE,
    STYLE,
    Drawing,
    Plot,
    label_rows,
    legend_columns,
    new_figure,
    save,
    short,
    slug,
)
from rose.report.selection_figures import lengths, overlap, sources
from rose.report.selections import Selections
from rose.report.statistics import Estimate
from rose.report.text import number, printable

MOST_ARMS, MOST_LINES = 40, 8


def draw(comparison: Comparison, selections: Selections, folder: Path) -> list[Plot]:
    """Draws what there are data for and writes `folder`/NAME.png and .svg, in place of what was there."""
    import matplotlib

    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.svg")):
        old.unlink()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the PNG lacks it, the page's font may not
        return [save(drawing, folder) for drawing in _all(comparison, selections)]


def _all(comparison: Comparison, selections: Selections) -> list[Drawing]:
    found = []
    for metric in comparison.metrics:
        if is_quality(metric) or metric == "precision":
            found.append(by_method(comparison, metric))
    if comparison.main:
        found += [curve(comparison, column) for column in numeric_columns(comparison)]
        if "cost/seconds" in comparison.metrics:
            found.append(cost_against_quality(comparison))
    found += [sources(selections), lengths(selections), overlap(selections)]
    return [entry for entry in found if entry]


def by_method(comparison: Comparison, metric: str) -> Drawing:
    """A metric's means with their intervals, a row an arm."""
    known = [(arm, e) for arm, e in zip(comparison.arms, comparison.estimates[metric], strict=True) if e.seeds]
    left_out = max(0, len(known) - MOST_ARMS)
    if left_out:
        sign = 1 if lower_is_better(metric) else -1
        known = sorted(known, key=lambda pair: sign * pair[1].mean)[:MOST_ARMS]
    figure, axes = new_figure(0.55 + 0.24 * len(known))
    for row, (arm, estimate) in enumerate(known):
        axes.errorbar(estimate.mean, row, xerr=_error(estimate), **_point(arm, comparison))
    label_rows(axes, [arm.label for arm, _ in known])
    axes.set_xlabel(metric + (" (lower is better)" if lower_is_better(metric) else ""))
    axes.grid(axis="x")
    caption = f"{metric} by method: mean and 95 % interval." + (f" {left_out} further rows left out." * bool(left_out))
    return Drawing(f"{slug(metric)}_by_method", caption, _said(known), figure)


def numeric_columns(comparison: Comparison) -> list[str]:
    """Columns that differ between arms, with numbers alone in them: ratios, slices, shots, dimensions."""
    columns = []
    for index, name in enumerate(comparison.columns):
        values = {arm.key[index] for arm in comparison.arms} - {""}
        if name != "method" and len(values) > 1 and all(_number(value) is not None for value in values):
            columns.append(name)
    return columns


def curve(comparison: Comparison, column: str) -> Drawing | None:
    """The main metric against a column of numbers, a line for each combination of the others; blanks are levels."""
    metric, index = comparison.main, comparison.columns.index(column)
    lines: dict[tuple[str, ...], list[tuple[float, Arm, Estimate]]] = {}
    for arm, estimate in zip(comparison.arms, comparison.estimates[metric], strict=True):
        if estimate.seeds:
            others = tuple(cell for place, cell in enumerate(arm.key) if place != index)
            lines.setdefault(others, []).append((_number(arm.key[index]) or numpy.nan, arm, estimate))
    across = sorted({x for points in lines.values() for x, *_ in points if not numpy.isnan(x)})
    if len(across) < 2:
        return None
    shown = list(lines.items())[:MOST_LINES]
    labels = [short(" ".join(filter(None, others))) for others, _ in shown]
    columns = legend_columns(labels)
    figure, axes = new_figure(2.9 + 0.19 * -(-len(shown) // columns))
    alike = len({points[0][1].method for _, points in shown}) < len(shown)  # lines of one method need other colours
    for place, (_, points) in enumerate(shown):
        points.sort(key=lambda point: point[0])
        style = _point(points[0][1], comparison) | {
            "label": printable(" ".join(filter(None, others))),
            "linestyle": "-",
        }
        if alike:
            style |= {"color": OKABE_ITO[place % len(OKABE_ITO)], "marker": MARKERS[place % len(MARKERS)]}
        if len(points) == 1 and numpy.isnan(points[0][0]):
            axes.axhline(points[0][2].mean, color=style["color"], label=style["label"], linestyle=":", linewidth=1.2)
            continue
        error = numpy.array([_error(estimate)[:, 0] for *_, estimate in points]).T
        axes.errorbar([x for x, *_ in points], [e.mean for *_, e in points], yerr=error, **style)
    if across[0] > 0 and across[-1] >= 8 * across[0]:
        axes.set_xscale("log")
        axes.set_xticks(across, [f"{x:g}" for x in across])
        axes.minorticks_off()
    axes.set(xlabel=column, ylabel=metric)
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns, fontsize=8)
    left_out = f" {len(lines) - len(shown)} further lines left out." if len(lines) > len(shown) else ""
    caption = f"{metric} against {column}: mean and 95 % interval.{left_out}"
    points = [(arm, estimate) for _, line in shown for _, arm, estimate in line]
    return Drawing(f"{slug(metric)}_against_{slug(column)}", caption, _said(points), figure)


def cost_against_quality(comparison: Comparison) -> Drawing | None:
    """The main metric against the seconds of the method's own stages; the line joins what nothing beats in both."""
    metric = comparison.main
    pairs = zip(comparison.arms, comparison.estimates["cost/seconds"], comparison.estimates[metric], strict=True)
    known = [(arm, cost, quality) for arm, cost, quality in pairs if cost.seeds and quality.seeds][:MOST_ARMS]
    if len(known) < 2:
        return None
    front = pareto([cost.mean for _, cost, _ in known], [q.mean for *_, q in known], lower_is_better(metric))
    figure, axes = new_figure(3.2)
    ordered = sorted((known[index] for index in front), key=lambda entry: entry[1].mean)
    steps = [(cost.mean, quality.mean) for _, cost, quality in ordered]
    axes.plot(*zip(*steps, strict=True), color=RULE, linewidth=1, zorder=1)
    for arm, cost, quality in known:
        axes.errorbar(cost.mean, quality.mean, xerr=_error(cost), yerr=_error(quality), **_point(arm, comparison))
        axes.annotate(printable(arm.label), (cost.mean, quality.mean), (5, 5), textcoords="offset points", fontsize=8)
    axes.set(xlabel="seconds of the method's own stages", ylabel=metric)
    if max(cost.mean for _, cost, _ in known) >= 8 * min(max(cost.mean, 1e-9) for _, cost, _ in known):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid()
    labels = ", ".join(arm.label for arm, *_ in ordered)
    said = "; ".join(f"{a.label} {number(c.mean)} s, {number(q.mean)}" for a, c, q in known)
    caption = f"Cost against {metric}. The line joins the Pareto front, which nothing beats in both: {labels}."
    return Drawing("cost_against_quality", caption, said, figure)


def pareto(costs: Sequence[float], qualities: Sequence[float], lower_is_better: bool = False) -> list[int]:
    """The positions that no other beats: none costs at most as much and is at least as good, and better in one."""
    sign = -1 if lower_is_better else 1
    points = [(cost, -sign * quality) for cost, quality in zip(costs, qualities, strict=True)]
    return [
        index
        for index, own in enumerate(points)
        if not any(other != own and other[0] <= own[0] and other[1] <= own[1] for other in points)
    ]


def _point(arm: Arm, comparison: Comparison) -> dict:
    methods = list(dict.fromkeys(other.method for other in comparison.arms))
    place = methods.index(arm.method)
    return {
        "color": FIXED.get(arm.method, OKABE_ITO[place % len(OKABE_ITO)]),
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": "none",
        "linewidth": 1.2,
        "markersize": 5,
        "capsize": 2.5,
    }


def _error(estimate: Estimate) -> numpy.ndarray:
    sides = numpy.array([[estimate.mean - estimate.low], [estimate.high - estimate.mean]])
    return numpy.nan_to_num(numpy.maximum(sides, 0))


def _said(known: Sequence[tuple[Arm, Estimate]]) -> str:
    return "; ".join(f"{arm.label} {number(e.mean)} ({number(e.low)} to {number(e.high)})" for arm, e in known)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
