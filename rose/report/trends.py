"""Arms along a column of numbers: ratios, slices, dimensions; does the ranking order the models?"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy
from scipy.stats import permutation_test, spearmanr

from rose.report.arms import Arm
from rose.report.comparison import Comparison
from rose.report.metrics import direction, is_quality
from rose.report.statistics import Estimate
from rose.report.text import number, printable

SLICE = "selection.slice"
FEWEST_SLICES = 4  # three have but six orders: p is at least a third
PERMUTATIONS = 10_000  # all of them up to seven slices


class Point(NamedTuple):
    x: float  # NaN where the arm has none
    arm: Arm
    estimate: Estimate


Line = tuple[str, list[Point]]  # its label, and its points by x


def numeric_columns(comparison: Comparison) -> list[str]:
    """Columns that differ between arms, with numbers alone in them: ratios, slices, dimensions."""
    columns = []
    for name, cells in zip(comparison.columns, zip(*(arm.key for arm in comparison.arms), strict=True), strict=True):
        values = set(cells) - {""}
        if name != "method" and len(values) > 1 and not any(math.isnan(_number(value)) for value in values):
            columns.append(name)
    return columns


def lines_along(comparison: Comparison, metric: str, column: str) -> list[Line]:
    """The arms that have the metric, those that differ in `column` alone on one line.

    Its label is the cells that are not blank; a number says nothing without its column's name.
    """
    lines: dict[tuple[tuple[str, str], ...], Line] = {}
    for arm, estimate in comparison.estimates[metric].items():
        if estimate.seeds:
            cells = dict(zip(comparison.columns, arm.key, strict=True))
            x = _number(cells.pop(column))
            named = (cell if math.isnan(_number(cell)) else f"{name} {cell}" for name, cell in cells.items() if cell)
            line = lines.setdefault(tuple(cells.items()), (printable(" ".join(named)), []))
            line[1].append(Point(x, arm, estimate))
    return [(label, sorted(points, key=lambda point: point.x)) for label, points in lines.values()]


def orders(comparison: Comparison) -> Iterator[str]:
    """Whether models trained on better slices of a ranking are better, a sentence a metric of quality."""
    if SLICE not in comparison.columns:
        return
    for metric in filter(is_quality, comparison.metrics):
        found = []
        for label, points in lines_along(comparison, metric, SLICE):
            ranked = [point for point in points if not math.isnan(point.x)]
            qualities = [point.estimate.mean * direction(metric) for point in ranked]
            if len(ranked) >= FEWEST_SLICES and len(set(qualities)) > 1:
                rho, p = order([point.x for point in ranked], qualities)
                found.append(f"{label} {number(rho, '+')} (p {p:.3f}, {len(ranked)} slices)")
        if found:
            yield (
                f"Better slice, better {metric}? Spearman's ρ over the slices' means, +1 where every better slice is "
                f"better, p by permutation, uncorrected: {', '.join(found)}."
            )


def order(slices: Sequence[float], qualities: Sequence[float]) -> tuple[float, float]:
    """Spearman's ρ of a slice's place from the last and its quality, and the two-sided p.

    p is the share of all orders of the qualities whose ρ is as far from 0; of more than seven
    slices, of random orders, the one seen among them.
    """
    places = -numpy.array(slices)
    test = permutation_test(
        (numpy.array(qualities),),
        lambda values: spearmanr(values, places)[0],
        permutation_type="pairings",
        n_resamples=PERMUTATIONS,
        rng=0,
    )
    return float(test.statistic), float(test.pvalue)


def _number(cell: str) -> float:
    """NaN where the cell is none."""
    try:
        return float(cell)
    except ValueError:
        return math.nan
