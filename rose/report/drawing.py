"""What the figures share: style, axes, PNG and SVG on disk, and SVG in the page's own text colour.

One column wide, so that the text stays readable on a phone. Colours are Okabe and Ito's (2008),
told apart by colour-blind readers too, and no figure says anything by colour alone. matplotlib is
imported late: half a second.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from rose.report.arms import Arm
from rose.report.statistics import Estimate
from rose.report.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

WIDTH = 5.0  # inches
INK, RULE = "#1b1f24", "#9aa4b0"  # text, which the page gives its own colour, and lines
OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
FIXED = {"rose": "#d55e00", "less": "#0072b2", "random": "#8a8f98", "zero_shot": "#8a8f98", "full": "#8a8f98"}
MARKERS = "osD^vPX*<>"
STYLE: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,  # names come from configurations
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Plot:
    name: str  # of its files, once they are written
    caption: str
    alt: str
    figure: "Figure"
    svg: str = ""  # for the page
    folded: bool = False  # shown there only to who asks


def new_figure(height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def label_rows(axes: "Axes", labels: list[str]) -> None:
    axes.set_yticks(range(len(labels)), [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.spines["left"].set_visible(False)


def figure_with_legend(height: float, labels: list[str]) -> tuple["Figure", "Axes", int]:
    """One that is higher by the legend's rows; the last number is that of its columns."""
    columns = max(1, min(3, 66 // (max((len(short(label)) for label in labels), default=0) + 6)))
    return *new_figure(height + 0.19 * -(-len(labels) // columns)), columns


def nth_style(place: int, method: str = "") -> dict[str, Any]:
    """A colour and a marker; some methods have a colour of their own."""
    color = FIXED.get(method, OKABE_ITO[place % len(OKABE_ITO)])
    return {"color": color, "marker": MARKERS[place % len(MARKERS)]}


def styles(arms: Sequence[Arm]) -> dict[str, dict[str, Any]]:
    """By label, the same in every figure: a colour and a marker a method."""
    methods = list(dict.fromkeys(arm.method for arm in arms))
    return {arm.label: nth_style(methods.index(arm.method), arm.method) for arm in arms}


def short(label: str) -> str:
    """Cut in the middle: arms that have a beginning in common differ at the end."""
    text = printable(label)
    return text if len(text) <= 28 else f"{text[:13]}…{text[-14:]}"


def save(plot: Plot, folder: Path) -> Plot:
    """Writes `folder`/NAME.svg and .png; returns the plot with its SVG for the page."""
    import matplotlib

    name = re.sub(r"\W+", "_", plot.name).strip("_").lower()
    with matplotlib.rc_context({"svg.hashsalt": name}):  # the same figure, the same file
        plot.figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None})
    plot.figure.savefig(folder / f"{name}.png", dpi=150, facecolor="white")
    return replace(plot, name=name, svg=inline((folder / f"{name}.svg").read_text(), name))


def inline(svg: str, name: str) -> str:
    """The <svg> element for a page: in its text colour and font, with ids no other figure has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\1{name}-", svg)
    svg = svg.replace(INK, "currentColor").replace("'DejaVu Sans'", "inherit")
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2).replace("xlink:href", "href")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true" focusable="false">', svg
    )


def error_bar(estimate: Estimate) -> numpy.ndarray:
    """How far the interval goes below and above the mean, [2, 1]; nothing where there is none."""
    sides = numpy.array([[estimate.mean - estimate.low], [estimate.high - estimate.mean]])
    return numpy.nan_to_num(numpy.maximum(sides, 0))
