"""Targets → subtasks: one column per subtask and the best column as the score."""

from collections.abc import Callable

import numpy
import pandas

from rose.config.schema import Method
from rose.errors import RoseError
from rose.methods.influence import Influence
from rose.seeds import numpy_generator

Ranked = tuple[pandas.DataFrame, pandas.Series]  # a column a subtask, and the score


def mean_max(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Mean over each subtask's pairs, then the maximum over subtasks, as in ROSE.

    That is LESS's eq. 4 (arXiv 2402.04333). Subtasks may have different numbers of pairs.
    """
    return _best_subtask(influence, numpy.mean)


def global_max(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """The greatest influence on any single target; a column holds that within its subtask."""
    return _best_subtask(influence, numpy.max)


def _best_subtask(influence: Influence, reduce: Callable[..., numpy.ndarray]) -> Ranked:
    member, names = numpy.array(influence.subtasks), dict.fromkeys(influence.subtasks)
    columns = pandas.DataFrame({name: reduce(influence.values[:, member == name], axis=1) for name in names})
    return columns, columns.max(axis=1, skipna=False)


def generator(method: Method, name: str) -> numpy.random.Generator:
    """For a rule that draws."""
    if method.seed is None:
        raise RoseError(f"method.seed=null: must be an integer where method.rule={method.rule} draws")
    return numpy_generator(method.seed, name)


def spearman(one: pandas.Series, other: pandas.Series) -> float | None:
    """The rank correlation; None where either is constant."""
    if one.nunique() < 2 or other.nunique() < 2:
        return None
    return float(one.corr(other, method="spearman"))
