"""What a representation hands to a rule: how much each pool row speaks for each target."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy
import pandas

from rose.config.schema import Method
from rose.data import files
from rose.errors import RoseError

STEP = 1 << 14  # rows whose influence is computed at once where no rule needs all


class Influence:
    """Without targets (lengths, losses) there is one column, named by what it measures.

    `found` is [rows, targets], NaN where a row has none; or, lest all be in memory, a function that computes
    those of rows start to stop, start being a multiple of `step`. `subtasks` are those of each target,
    `vectors` makes of row numbers [k] their vectors [k, d], whose inner products are the rows' similarities.
    """

    def __init__(
        self,
        found: numpy.ndarray | Callable[[int, int | None], numpy.ndarray],
        subtasks: list[str],
        vectors: Callable[[Sequence[int]], numpy.ndarray] | None = None,
        step: int = STEP,
    ) -> None:
        self.found, self.subtasks, self.vectors, self.step = found, subtasks, vectors, step

    @cached_property
    def values(self) -> numpy.ndarray:
        return self.found(0, None) if callable(self.found) else self.found

    def part(self, start: int, stop: int) -> "Influence":
        """That of rows start to stop alone."""
        values = self.found(start, stop) if callable(self.found) else self.found[start:stop]
        return Influence(values, self.subtasks)


def nothing(method: Method, rows: pandas.DataFrame) -> Influence:
    """No representation: all that a random rule needs."""
    return Influence(numpy.zeros((len(rows), 0)), [])


def lengths(method: Method, rows: pandas.DataFrame) -> Influence:
    """Answer tokens of each row: "long is more", the baseline of Zhao et al. (arXiv 2402.04833)."""
    return Influence(rows[["answer_tokens"]].to_numpy(dtype=float), ["answer_tokens"])


def rewards(method: Method, rows: pandas.DataFrame, rewards: Path) -> Influence:
    """What a reward model says of each row's last answer (`rose.evaluation.rewards`)."""
    found = pandas.read_parquet(rewards / "rewards.parquet").set_index("id")["reward"]
    return Influence(found.loc[rows["id"]].to_numpy(dtype=float)[:, None], ["reward"])


def column(method: Method, rows: pandas.DataFrame, pool: Path) -> Influence:
    """The number that a row has in `method.column`; rows without one have no score.

    Raises RoseError where it is no number, or no row has one.
    """
    name, found = str(method.column), {}
    for row in files.load(pool / "pool.jsonl"):
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise RoseError(f"method.column={name}: row {row['id']} has {value!r}; must be a number or nothing")
        found[row["id"]] = math.nan if value is None else float(value)
    values = numpy.array([found[name] for name in rows["id"]])
    if numpy.isnan(values).all():
        others = sorted({key for row in files.load(pool / "pool.jsonl") for key in row} - {"id", "dataset", "messages"})
        raise RoseError(f"method.column={name}: no row of the pool has it; its columns: {', '.join(others) or 'none'}")
    return Influence(values[:, None], [name])
