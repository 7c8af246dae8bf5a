"""Rules: influences on single pairs [rows, pairs] → one column per subtask and one score a row."""

import numpy
import pandas

from rose.config import Method, Rule
from rose.seeds import numpy_generator


def mean_max(method: Method, ids: list[str], influence: numpy.ndarray, subtasks: list[str]):
    """Mean over each subtask's pairs, then the maximum over subtasks (LESS, arXiv 2402.04333, eq. 4; ROSE likewise).

    Subtasks may have different numbers of pairs. A row whose influence is NaN has no score.
    """
    names = list(dict.fromkeys(subtasks))
    member = numpy.array(subtasks)
    columns = pandas.DataFrame({name: influence[:, member == name].mean(axis=1) for name in names})
    return columns, columns.max(axis=1, skipna=False)


def random(method: Method, ids: list[str], influence: numpy.ndarray, subtasks: list[str]):
    """A uniformly random order, the same for the same ids and seed."""
    generator = numpy_generator(method.seed, "random selection")
    return pandas.DataFrame(index=range(len(ids))), pandas.Series(generator.random(len(ids)))


RULES = {Rule.mean_max: mean_max, Rule.random: random}
