"""What a representation hands to a rule: how much each pool row speaks for each target."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy


class Influence(NamedTuple):
    """Without targets (lengths, losses) there is one column, named by what it measures."""

    values: numpy.ndarray  # [rows, targets]; NaN where a row has none
    subtasks: list[str]  # of each target
    # of row numbers [k] their vectors [k, d], whose inner products are the rows' similarities
    vectors: Callable[[Sequence[int]], numpy.ndarray] | None = None
