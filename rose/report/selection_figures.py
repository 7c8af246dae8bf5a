"""Figures of what was selected: sources, lengths, overlap."""

import numpy

from rose.report.drawing import INK, OKABE_ITO, RULE, Plot, figure_with_legend, label_rows, new_figure, short
from rose.report.selections import SweepSelections
from rose.report.text import number

MOST_SOURCES = 7


def sources(selections: SweepSelections) -> Plot | None:
    """Shares of the pool's sources, in it and in each selection; none where it has but one."""
    if len(selections.pool_sources) < 2:
        return None
    names = list(selections.pool_sources)[:MOST_SOURCES]
    rows = [("pool", selections.pool_sources), *((arm.label, arm.sources) for arm in selections.arms if arm.rows)]
    shown = [*names, "other"] if len(selections.pool_sources) > len(names) else names
    figure, axes, columns = figure_with_legend(0.75 + 0.24 * len(rows), shown)
    left = numpy.zeros(len(rows))
    for place, name in enumerate(shown):
        shares = [shares.get(name, 0) if name in names else _rest(shares, names) for _, shares in rows]
        color = OKABE_ITO[place % len(OKABE_ITO)] if name in names else RULE
        axes.barh(range(len(rows)), shares, left=left, color=color, label=short(name), height=0.7, edgecolor="white")
        left += shares
    label_rows(axes, [label for label, _ in rows])
    axes.set(xlim=(0, 1), xlabel="share of rows")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, fontsize=8)
    alt = "; ".join(f"{label}: {', '.join(f'{n} {s.get(n, 0):.0%}' for n in names)}" for label, s in rows)
    return Plot("source_mix", "Where the selected rows come from, and the pool's.", alt, figure)


def lengths(selections: SweepSelections, colors: dict[str, str]) -> Plot | None:
    """Tokens a row: median, middle half, and from the 5th to the 95th of 100; `colors` by label."""
    rows = [("pool", selections.pool_lengths), *((arm.label, arm.lengths) for arm in selections.arms)]
    rows = [(label, quantiles) for label, quantiles in rows if quantiles]
    if not rows:
        return None
    figure, axes = new_figure(0.55 + 0.24 * len(rows))
    for row, (label, (least, low, middle, high, most)) in enumerate(rows):
        color = colors.get(label, INK)
        axes.plot([least, most], [row, row], color=color, linewidth=1)
        axes.plot([low, high], [row, row], color=color, linewidth=5, solid_capstyle="butt", alpha=0.6)
        axes.plot(middle, row, "o", color=color, markersize=5)
    label_rows(axes, [label for label, _ in rows])
    axes.set_xlabel("tokens a row")
    axes.grid(axis="x")
    alt = "; ".join(f"{label}: median {number(q[2])}, {number(q[0])} to {number(q[4])}" for label, q in rows)
    caption = "Length of selected rows beside the pool's: median, middle half (thick), 5th to 95th percentile (thin)."
    return Plot("lengths", caption, alt, figure)


def overlap(selections: SweepSelections) -> Plot | None:
    """Jaccard overlap of selections."""
    labels, matrix = [arm.label for arm in selections.arms], selections.overlap
    if numpy.isnan(matrix).all():
        return None
    figure, axes = new_figure(1.2 + 0.3 * len(labels))
    from matplotlib.colors import LinearSegmentedColormap

    shade = LinearSegmentedColormap.from_list("overlap", [(0.34, 0.71, 0.91, 0.06), (0, 0.45, 0.7, 0.9)])
    axes.pcolormesh(numpy.ma.masked_invalid(matrix), vmin=0, vmax=1, cmap=shade)
    for (row, column), value in numpy.ndenumerate(matrix):
        if not numpy.isnan(value):
            color = "white" if value > 0.6 else INK
            shown = f"{value:.2f}".lstrip("0")
            axes.text(column + 0.5, row + 0.5, shown, ha="center", va="center", fontsize=7, color=color)
    names = [short(label) for label in labels]
    centers = numpy.arange(len(labels)) + 0.5
    axes.set_xticks(centers, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(centers, names)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    chance = sorted({round(arm.chance, 2) for arm in selections.arms if arm.chance < 1})
    expected = f" Random choices overlap by {' or '.join(f'{value:g}' for value in chance[:3])}." if chance else ""
    caption = "Jaccard overlap of selections from one pool: between methods with the same seed, on the diagonal between"
    caption += " seeds; blank where no two share a pool."
    pairs = [(i, j) for i in range(len(labels)) for j in range(i + 1) if not numpy.isnan(matrix[i, j])]
    alt = "; ".join(f"{labels[i]} and {labels[j]} {matrix[i, j]:.2f}" for i, j in pairs[:60])
    return Plot("overlap", caption + expected, alt, figure)


def _rest(shares: dict[str, float], names: list[str]) -> float:
    return max(0.0, 1 - sum(shares.get(name, 0) for name in names))
