"""Quality against price: which methods nothing beats in both."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rose.report.arms import mean
from rose.report.comparison import Comparison
from rose.report.drawing import RULE, Plot, error_bar, figure_with_legend, nth_style, short
from rose.report.metrics import direction
from rose.report.statistics import Estimate
from rose.report.text import number, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

FLOPS = "cost/flops"
LEAST = 1.25  # the dearest method costs at least so many times the cheapest, else there is no price to compare
MOST = 40  # arms


class Priced(NamedTuple):
    """A method, or a setting of one."""

    label: str
    method: str
    cost: Estimate
    quality: Estimate


def frontier(comparison: Comparison, metric: str) -> Plot | None:
    """A metric against the FLOPs of each arm's own stages; none where all cost about the same."""
    arms = [arm for arm in comparison.arms if not arm.same_as and comparison.estimates[metric][arm].seeds]
    priced = [Priced(arm.label, arm.method, mean(arm, FLOPS), comparison.estimates[metric][arm]) for arm in arms]
    priced = [each for each in priced if each.cost.seeds and each.cost.mean > 0][:MOST]
    costs = [each.cost.mean for each in priced]
    if len(costs) < 2 or max(costs) < LEAST * min(costs):
        return None
    front = on_front(priced, metric)
    labels = ", ".join(each.label for each in front)
    caption = f"FLOPs against {metric}. The line joins the Pareto front, which nothing beats in both: {labels}."
    alt = "; ".join(f"{each.label} {each.cost.mean:.3g} FLOPs, {number(each.quality.mean)}" for each in priced)
    return Plot(f"{metric}_against_flops", caption, alt, chart(priced, metric, "FLOPs of the method's own stages"))


def chart(priced: Sequence[Priced], metric: str, what: str) -> "Figure":
    """Means and 95 % intervals, costs on a logarithmic axis; what is on the front is filled, joined and named there."""
    figure, axes, columns = figure_with_legend(3.4, [each.label for each in priced])
    front = on_front(priced, metric)
    steps = [(each.cost.mean, each.quality.mean) for each in front]
    axes.plot(*zip(*steps, strict=True), color=RULE, linewidth=1, zorder=1)
    names = []
    for place, each in enumerate(priced):
        style = nth_style(place, each.method) | {"linestyle": "none", "linewidth": 1.2, "markersize": 5, "capsize": 2.5}
        style |= {} if each in front else {"markerfacecolor": "none"}
        axes.errorbar(each.cost.mean, each.quality.mean, yerr=error_bar(each.quality), label=short(each.label), **style)
        if each in front:
            place_of = (each.cost.mean, each.quality.mean)
            label = printable(each.label)
            names.append(axes.annotate(label, place_of, (5, 5), textcoords="offset points", fontsize=8))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # no formulas: the style shows text as it is
    axes.xaxis.set_minor_formatter(lambda value, _: "")
    axes.set(xlabel=what, ylabel=metric)
    axes.grid()
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.18), ncols=columns, fontsize=8)
    _hide_covered(names, figure)
    return figure


def _hide_covered(names: Sequence["Annotation"], figure: "Figure") -> None:
    """Leaves out a name that would stand on another; the legend has it too."""
    figure.draw_without_rendering()  # only then is known where they stand
    boxes = []
    for name in names:
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in boxes):
            name.set_visible(False)
        else:
            boxes.append(box)


def on_front(priced: Sequence[Priced], metric: str) -> list[Priced]:
    """Those on the Pareto front, the cheapest first."""
    front = pareto([each.cost.mean for each in priced], [direction(metric) * each.quality.mean for each in priced])
    return sorted((priced[place] for place in front), key=lambda each: each.cost.mean)


def pareto(costs: Sequence[float], qualities: Sequence[float]) -> list[int]:
    """The positions that no other beats: by costing no more, being as good, and better in one."""
    points = [(cost, -quality) for cost, quality in zip(costs, qualities, strict=True)]
    return [
        index
        for index, point in enumerate(points)
        if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)
    ]
