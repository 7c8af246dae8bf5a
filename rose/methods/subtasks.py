"""Targets → subtasks: one column per subtask and the best column as the score."""

import numpy
import pandas

from rose.config.schema import Method
from rose.methods.influence import Influence

Ranked = tuple[pandas.DataFrame, pandas.Series]


def mean_max(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """Mean over each subtask's pairs, then the maximum over subtasks (LESS, arXiv 2402.04333, eq. 4; ROSE likewise).

    Subtasks may have different numbers of pairs.
    """
    member = numpy.array(influence.subtasks)
    names = dict.fromkeys(influence.subtasks)
    columns = pandas.DataFrame({name: influence.values[:, member == name].mean(axis=1) for name in names})
    return columns, columns.max(axis=1, skipna=False)


def global_max(method: Method, rows: pandas.DataFrame, influence: Influence) -> Ranked:
    """The greatest influence on any single target; a column holds the greatest within its subtask."""
    member = numpy.array(influence.subtasks)
    names = dict.fromkeys(influence.subtasks)
    columns = pandas.DataFrame({name: influence.values[:, member == name].max(axis=1) for name in names})
    return columns, columns.max(axis=1, skipna=False)
