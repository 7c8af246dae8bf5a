"""The report's figures, each from what was compared or selected; without data there is none."""

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from rose.report.arms import Arm
from rose.report.comparison import Comparison
from rose.report.drawing import (
    RULE,
    STYLE,
    Plot,
    error_bar,
    figure_with_legend,
    label_rows,
    new_figure,
    nth_style,
    save,
    short,
    styles,
)
from rose.report.frontier import frontier, pareto
from rose.report.metrics import direction, is_quality, lower_is_better
from rose.report.results import JobRecord
from rose.report.selection_figures import lengths, overlap, sources
from rose.report.selections import SweepSelections
from rose.report.statistics import Estimate
from rose.report.text import interval, number
from rose.report.training import training
from rose.report.trends import lines_along, numeric_columns

MOST_ARMS, MOST_LINES = 40, 8
DODGE = 2.5  # points between lines


def draw(comparison: Comparison, selections: SweepSelections, jobs: list[JobRecord], folder: Path) -> list[Plot]:
    """Writes `folder`/NAME.png and .svg of what there are data for, in place of what was there."""
    import matplotlib

    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.svg")):
        old.unlink(missing_ok=True)  # another report of this sweep may be at it
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the page's font may have it
        return [save(plot, folder) for plot in _plots(comparison, selections, jobs) if plot]


def _plots(comparison: Comparison, selections: SweepSelections, jobs: list[JobRecord]) -> Iterator[Plot | None]:
    for metric in comparison.metrics:
        if is_quality(metric) or metric == "precision":
            yield by_method(comparison, metric)
    if comparison.main:
        for column in numeric_columns(comparison):
            yield curve(comparison, comparison.main, column)
        if "cost/seconds" in comparison.metrics:
            yield cost_against_quality(comparison, comparison.main)
        yield frontier(comparison, comparison.main)
    colors = {label: style["color"] for label, style in styles(comparison.arms).items()}
    yield from (sources(selections), lengths(selections, colors), overlap(selections))
    yield from training(comparison.arms, jobs, comparison.problems)


def by_method(comparison: Comparison, metric: str) -> Plot:
    """A metric's means with their intervals, a row an arm."""
    rows = [(arm, estimate) for arm, estimate in comparison.estimates[metric].items() if estimate.seeds]
    left_out = max(0, len(rows) - MOST_ARMS)
    if left_out:
        rows = sorted(rows, key=lambda pair: -direction(metric) * pair[1].mean)[:MOST_ARMS]
    figure, axes = new_figure(0.55 + 0.24 * len(rows))
    for place, (arm, estimate) in enumerate(rows):
        axes.errorbar(estimate.mean, place, xerr=error_bar(estimate), **_point(arm, comparison))
    label_rows(axes, [arm.label for arm, _ in rows])
    axes.set_xlabel(metric + (" (lower is better)" if lower_is_better(metric) else ""))
    axes.grid(axis="x")
    caption = f"{metric} by method: mean and 95 % interval." + (f" {left_out} further rows left out." * bool(left_out))
    return Plot(f"{metric}_by_method", caption, _alt(rows), figure)


def curve(comparison: Comparison, metric: str, column: str) -> Plot | None:
    """A metric against a column of numbers, a line for each combination of the other cells.

    A line with a blank in that column is a level. Lines stand a little aside, so that no interval
    hides another.
    """
    from matplotlib.transforms import Bbox, ScaledTranslation

    lines = lines_along(comparison, metric, column)
    across = sorted({point.x for _, points in lines for point in points if not math.isnan(point.x)})
    if len(across) < 2:
        return None
    shown = lines[:MOST_LINES]
    figure, axes, columns = figure_with_legend(2.9, [label for label, _ in shown])
    looks = _looks([points[0].arm for _, points in shown], comparison)
    corners: list[tuple[float, float]] = []
    for place, ((label, points), style) in enumerate(zip(shown, looks, strict=True)):
        means = [point.estimate.mean for point in points]
        if len(points) == 1 and math.isnan(points[0].x):
            corners.append((across[0], means[0]))
            axes.axhline(means[0], color=style["color"], label=label, linestyle=":", linewidth=1.2)
            continue
        error = numpy.hstack([error_bar(point.estimate) for point in points])
        for point, mean, (low, high) in zip(points, means, error.T, strict=True):
            corners += [(point.x, mean - low), (point.x, mean + high)]
        aside = ScaledTranslation(DODGE / 72 * (place - (len(shown) - 1) / 2), 0, figure.dpi_scale_trans)
        style |= {"linestyle": "-", "elinewidth": 0.8, "transform": axes.transData + aside}
        axes.errorbar([point.x for point in points], means, yerr=error, label=label, **style)
    axes.dataLim.set(Bbox.null())  # what stands aside has widened it
    axes.update_datalim(corners)
    axes.autoscale_view()
    if across[0] > 0 and across[-1] >= 8 * across[0]:
        axes.set_xscale("log")
        axes.set_xticks(across, [f"{x:g}" for x in across])
        axes.minorticks_off()
    axes.set(xlabel=column, ylabel=metric)
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns, fontsize=8)
    left_out = f" {len(lines) - len(shown)} further lines left out." if len(lines) > len(shown) else ""
    caption = f"{metric} against {column}: mean and 95 % interval.{left_out}"
    alt = _alt([(point.arm, point.estimate) for _, points in shown for point in points])
    return Plot(f"{metric}_against_{column}", caption, alt, figure)


def _looks(arms: list[Arm], comparison: Comparison) -> list[dict[str, Any]]:
    """A colour and a marker an arm: its method's, unless several are of one method."""
    looks = [_point(arm, comparison) for arm in arms]
    if len({arm.method for arm in arms}) == len(arms):
        return looks
    return [style | nth_style(place) for place, style in enumerate(looks)]


def cost_against_quality(comparison: Comparison, metric: str) -> Plot | None:
    """A metric against the seconds of the method's own stages.

    The line joins what nothing beats in both.
    """
    seconds, means = comparison.estimates["cost/seconds"], comparison.estimates[metric]
    measured = [arm for arm in comparison.arms if seconds[arm].seeds and means[arm].seeds]
    points = [(arm, seconds[arm], means[arm]) for arm in measured[:MOST_ARMS]]
    if len(points) < 2:
        return None
    costs = [cost.mean for _, cost, _ in points]
    front = pareto(costs, [direction(metric) * quality.mean for *_, quality in points])
    joined = [points[place] for place in sorted(front, key=lambda place: costs[place])]
    arms = [arm for arm, *_ in points]
    names = [arm.label if len(arms) <= MOST_LINES else arm.method for arm in arms]
    looks = _looks(arms, comparison) if len(arms) <= MOST_LINES else [_point(arm, comparison) for arm in arms]
    figure, axes, columns = figure_with_legend(2.9, list(dict.fromkeys(names)))
    steps = [(cost.mean, quality.mean) for _, cost, quality in joined]
    axes.plot(*zip(*steps, strict=True), color=RULE, linewidth=1, zorder=1)
    for place, ((_, cost, quality), style) in enumerate(zip(points, looks, strict=True)):
        style |= {"elinewidth": 0.8, "label": short(names[place]) if names.index(names[place]) == place else "_"}
        axes.errorbar(cost.mean, quality.mean, xerr=error_bar(cost), yerr=error_bar(quality), **style)
    axes.set(xlabel="seconds of the method's own stages", ylabel=metric)
    if max(costs) >= 8 * max(min(costs), 1e-9):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid()
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns, fontsize=8)
    labels = ", ".join(arm.label for arm, *_ in joined)
    alt = "; ".join(f"{arm.label} {number(cost.mean)} s, {number(quality.mean)}" for arm, cost, quality in points)
    caption = f"Cost against {metric}. The line joins the Pareto front, which nothing beats in both: {labels}."
    return Plot("cost_against_quality", caption, alt, figure)


def _point(arm: Arm, comparison: Comparison) -> dict[str, Any]:
    return styles(comparison.arms)[arm.label] | {"linestyle": "none", "linewidth": 1.2, "markersize": 5, "capsize": 2.5}


def _alt(means: Sequence[tuple[Arm, Estimate]]) -> str:
    return "; ".join(f"{arm.label} {interval(estimate)}" for arm, estimate in means)
