"""What a representation hands to a rule: how much each pool row speaks for each target."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy
import pandas

from rose.config.schema import Method


class Influence(NamedTuple):
    """Without targets (lengths, losses) there is one column, named by what it measures."""

    values: numpy.ndarray  # [rows, targets]; NaN where a row has none
    subtasks: list[str]  # of each target
    # of row numbers [k] their vectors [k, d], whose inner products are the rows' similarities
    vectors: Callable[[Sequence[int]], numpy.ndarray] | None = None


def nothing(method: Method, rows: pandas.DataFrame) -> Influence:
    """No representation: all that a random rule needs."""
    return Influence(numpy.zeros((len(rows), 0)), [])


def lengths(method: Method, rows: pandas.DataFrame) -> Influence:
    """Answer tokens of each row: "long is more", the baseline of Zhao et al. (arXiv 2402.04833)."""
    return Influence(rows[["answer_tokens"]].to_numpy(dtype=float), ["answer_tokens"])
