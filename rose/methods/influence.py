"""What a representation hands to a rule: how much each pool row speaks for each target."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy


class Influence(NamedTuple):
    """values [rows, targets], NaN where a row has none; subtasks [targets], each target's group.

    A representation that knows no targets (lengths, losses) has one column, named by what it measures. vectors: the
    rows' own vectors [k, d] for row numbers [k], whose inner products are the rows' similarities; None where a
    representation has no such thing.
    """

    values: numpy.ndarray
    subtasks: list[str]
    vectors: Callable[[Sequence[int]], numpy.ndarray] | None = None
