"""Whether a score tells planted faults from the rows that could have had them."""

from typing import NamedTuple

import numpy
import pandas
from scipy.optimize import root_scalar
from scipy.stats import rankdata

Z = 1.959964  # the normal distribution's 97.5 % quantile
GROUPS = ["dataset", "fault"]  # the faults were planted by lot within these


class Auc(NamedTuple):
    """The chance that an intact row scores higher than a faulty one (a tie is half), and its 95 % interval."""

    value: float
    low: float
    high: float


def measured(truth: pandas.DataFrame, table: pandas.DataFrame, selected: set[str]) -> dict[str, float]:
    """The metrics of a selection from a planted pool; those that no rows can tell are absent.

    intact: share of the selected rows that have no fault. auc: of all faulty rows and their
    controls; auc_within: of those of one source and fault alone; auc_<fault>: likewise, of that
    fault; each with _low and _high. `truth` is `rose.data.planting.truth`, `table` a scores.parquet;
    a row without a score, which is never selected, counts as the lowest.
    """
    rows = truth.merge(table[["id", "score"]], on="id")
    metrics = {"intact": float(rows.intact[rows["id"].isin(list(selected))].mean())}
    trials = rows[rows.fault.notna()]
    parts = {"auc": [trials], "auc_within": [group for _, group in trials.groupby(GROUPS)]}
    for fault, of_fault in trials.groupby("fault"):
        parts[f"auc_{fault}"] = [group for _, group in of_fault.groupby("dataset")]
    for name, groups in parts.items():
        if (auc := auc_of(groups)) is not None:
            metrics |= {name: auc.value, f"{name}_low": auc.low, f"{name}_high": auc.high}
    return metrics


def auc_of(groups: list[pandas.DataFrame]) -> Auc | None:
    """Over the pairs of an intact and a faulty row of one group; None where there is no such pair."""
    wins, sizes = 0.0, []
    for group in groups:
        sound = group.intact.to_numpy()
        intact, faulty = int(sound.sum()), int((~sound).sum())
        if intact and faulty:
            ranks = rankdata(group.score.fillna(-numpy.inf))
            wins += ranks[sound].sum() - intact * (intact + 1) / 2  # Mann and Whitney's U
            sizes.append((intact, faulty))
    return interval(wins / sum(intact * faulty for intact, faulty in sizes), sizes) if sizes else None


def interval(value: float, sizes: list[tuple[int, int]]) -> Auc:
    """Newcombe's score interval (method 5; Statistics in Medicine 25:559, 2006), which holds near 0 and 1 too.

    The θ with (value − θ)² = z²V(θ). Of one group of m intact and n faulty rows V(θ) =
    θ(1−θ)[1 + k(1−θ)/(2−θ) + kθ/(1+θ)]/(mn), k = (m+n)/2 − 1; of several, whose `sizes` these are,
    that of their mean weighted by mn.
    """
    shape = numpy.array(sizes, dtype=float)
    pairs, k = shape.prod(1), shape.sum(1) / 2 - 1

    def excess(theta: float) -> float:
        each = theta * (1 - theta) * (1 + k * (1 - theta) / (2 - theta) + k * theta / (1 + theta)) / pairs
        return (value - theta) ** 2 - Z**2 * float((pairs**2 * each).sum()) / float(pairs.sum()) ** 2

    near = 1e-9  # the ends 0 and 1 solve the equation too where the value is one of them
    low = 0.0 if value == 0 else root_scalar(excess, bracket=(0.0, value - near)).root
    high = 1.0 if value == 1 else root_scalar(excess, bracket=(value + near, 1.0)).root
    return Auc(value, float(low), float(high))
