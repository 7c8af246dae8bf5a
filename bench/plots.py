"""The figures of experiments/README.md, drawn from kept results alone (`bench.tables`)."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy
from matplotlib.figure import Figure

from rose.report.drawing import STYLE, figure_with_legend, nth_style
from rose.report.frontier import Priced, chart
from rose.report.statistics import Estimate


def lines(estimates: Mapping[tuple[str, Any], Estimate], across: str, metric: str) -> str:
    """An SVG of means and 95 % intervals by (line, value of the key `across`), the same bytes each time."""
    labels = list(dict.fromkeys(label for label, _ in estimates))
    values = sorted({value for _, value in estimates})
    numbers = all(isinstance(value, int | float) for value in values)
    place = {value: value if numbers else number for number, value in enumerate(values)}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": across}):
        figure, axes, columns = figure_with_legend(2.9, labels)
        for number, label in enumerate(labels):
            points = [(place[value], mean) for (line, value), mean in estimates.items() if line == label]
            xs, means = zip(*points, strict=True)
            error = numpy.nan_to_num([[mean.mean - mean.low, mean.high - mean.mean] for mean in means]).T
            style = nth_style(number, label) | {"linewidth": 1.2, "markersize": 5, "capsize": 2.5}
            axes.errorbar(xs, [mean.mean for mean in means], yerr=error, label=label, **style)
        if numbers and values[0] > 0 and values[-1] >= 8 * values[0]:
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(list(place.values()), [f"{value:g}" if numbers else str(value) for value in values])
        axes.set(xlabel=across, ylabel=metric)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns, fontsize=8)
        return _svg(figure)


def front(estimates: Mapping[tuple[str, ...], Sequence[Estimate]], cost: str, metric: str) -> str:
    """The same of a metric against a cost: [cost, metric] by the method and what else of its settings differs."""
    priced = [
        Priced(" ".join(filter(None, key)), key[0], *both)
        for key, both in sorted(estimates.items(), key=lambda each: each[1][0].mean)
    ]
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": cost}):
        return _svg(chart(priced, metric, cost))


def _svg(figure: Figure) -> str:
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return svg.getvalue()
