"""Arms: the jobs that differ in their seeds alone are one row of a report; their means and paired differences."""

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy
import pandas

from rose.report.item_tables import Items, Table, align
from rose.report.statistics import NOTHING, Estimate, from_items, from_seeds

REFERENCES = ("random", "less")
LOWER_IS_BETTER = ("chosen_loss", "cost/")
SHARES = ("win_rate", "preference_accuracy", "accuracy_", "precision", "longer_wins")  # lie between 0 and 1
# Rows compete only where these agree: the same question asked of the same amount of data.
TASK = ("model", "student", "dataset", "preference", "world", "evaluation", "judge", "tasks", "ratio")
BUDGET = ("selection", "selection.count", "selection.tokens", "selection.slice", "selection.slices")
MEASURED = ("done", "failed")  # a job that failed at its judging was measured by all that came before


@dataclass(frozen=True)
class Result:
    """One measured model: flat metrics, and the items behind them where they are known."""

    name: str
    metrics: dict[str, float]
    items: Table


NO_RESULT = Result("", {}, {})


@dataclass(frozen=True, eq=False)
class Arm:
    key: tuple[str, ...]  # as shown, a cell a column
    task: tuple[str, ...]  # the cells of the columns that say what is measured; the base model's "" agrees with any
    own: str  # the other cells: its name among arms of the same task
    method: str
    done: int
    jobs: int
    runs: dict[tuple, Result]  # by the seeds that differ between jobs
    members: list[str] = field(default_factory=list)  # names of the jobs' folders
    same_as: "Arm | None" = None  # that of its task which is the same measurement, and competes for both

    @property
    def label(self) -> str:
        return " ".join(cell for cell in self.key if cell)

    @property
    def results(self) -> list[Result]:
        """Distinct ones: jobs that share their evaluation were measured once, not several times."""
        return list({result.name: result for result in self.runs.values()}.values())


def lower_is_better(metric: str) -> bool:
    return metric.startswith(LOWER_IS_BETTER)


def is_seed(name: str) -> bool:
    return name == "seed" or name.endswith(".seed")


def same_task(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(a == b or "" in (a, b) for a, b in zip(one, other, strict=True))


def show(value: Any) -> str:
    return "" if pandas.isna(value) else str(value)


def group(frame: pandas.DataFrame, tables: list[Table], columns: list[str]) -> list[Arm]:
    """The arms of `frame`, which is `tabulate(jobs)`, the base model's first; `tables` are the items of its rows.

    `columns` tell the arms apart.
    """
    seeds = [name for name in frame if is_seed(name)]
    selecting = "model" if "student" in frame else None  # is no part of the task where a student is measured
    task = [name for name in columns if _is_task(name) and name.split(".")[0] != selecting]
    arms = []
    for key, rows in frame.reset_index(drop=True).groupby(columns, dropna=False, sort=False):
        cells = dict(zip(columns, map(show, key), strict=True))
        runs: dict[tuple, Result] = {}
        for index, row in rows[rows["state"].isin(MEASURED)].iterrows():
            run, result = tuple(map(show, row[seeds])), _result(row, tables[index])
            if result.name != runs.get(run, result).name:  # two jobs that name the same run
                run = (*run, result.name)
            runs[run] = result
        done = rows[rows["state"] == "done"]
        shared = len(done) - len({_name(row) for _, row in done.iterrows()})
        arms.append(
            Arm(
                key=tuple(cells.values()),
                task=tuple(cells[name] or ("" if cells["method"] == "zero_shot" else "null") for name in task),
                own=" ".join(cell for name, cell in cells.items() if cell and name not in task),
                method=cells["method"],
                done=len(done) - shared,
                jobs=len(rows) - shared,
                runs=runs,
                members=list(rows["job"]),
            )
        )
    return _merged(sorted(arms, key=lambda arm: arm.method != "zero_shot"))


def _merged(arms: list[Arm]) -> list[Arm]:
    """With `same_as`: an idle key or a second name makes no second rival. A reference stands for the others."""
    stands: dict[Arm, Arm] = {}
    for arm in sorted(arms, key=lambda arm: ((*REFERENCES, arm.method).index(arm.method), -len(arm.runs))):
        alike = (first for other, first in stands.items() if other.task == arm.task and _alike(arm, other))
        stands[arm] = next(alike, arm)
    return [arm if stands[arm] is arm else replace(arm, same_as=stands[arm]) for arm in arms]


def _alike(one: Arm, other: Arm) -> bool:
    """Whether each result of `one` is the other's too: the same directories, or the same items to the last digit."""
    pairs = [(result, other.runs.get(seeds, NO_RESULT)) for seeds, result in one.runs.items()]
    return bool(pairs) and all(a.name == b.name or _same_items(a.items, b.items) for a, b in pairs)


def _same_items(one: Table, other: Table) -> bool:
    alike = (numpy.array_equal(one[name], other[name], equal_nan=True) for name in one)
    return bool(one) and one.keys() == other.keys() and all(alike)


def _result(row: pandas.Series, items: Table) -> Result:
    numbers = {name: value for name, value in row.items() if isinstance(value, Real) and not pandas.isna(value)}
    return Result(_name(row), numbers, items)


def _name(row: pandas.Series) -> str:
    return show(row["result"]) or show(row["job"])


def _bounds(metric: str) -> tuple[float, float] | None:
    if metric.startswith("cost/"):
        return (0.0, numpy.inf)
    return (0.0, 1.0) if metric.startswith(SHARES) else None


def mean(arm: Arm, metric: str, items: Items) -> Estimate:
    """Over the arm's results that have the metric; over their items too, where all of these have them."""
    measured = [result for result in arm.results if metric in result.items or metric in result.metrics]
    if measured and all(metric in result.items for result in measured):
        numbers = _union([result.items for result in measured])
        values = _values([result.items for result in measured], metric, numbers)
        return from_items(values, items.prompts(numbers), _bounds(metric))
    return from_seeds(numpy.array([result.metrics.get(metric, numpy.nan) for result in measured]), _bounds(metric))


def _union(tables: list[Table]) -> numpy.ndarray:
    return numpy.unique(numpy.concatenate([table["item"] for table in tables]))


def _values(tables: list[Table], metric: str, numbers: numpy.ndarray) -> numpy.ndarray:
    return numpy.array([align(table, metric, numbers) for table in tables])


def difference(one: Arm, other: Arm, metric: str, items: Items) -> Estimate:
    """Of their means, over the seeds both have; item by item where both have items."""
    shared = [seeds for seeds in one.runs if seeds in other.runs]
    pairs = {(a.name, b.name): (a, b) for a, b in ((one.runs[seeds], other.runs[seeds]) for seeds in shared)}
    limits = _bounds(metric)
    bounds = (limits[0] - limits[1], limits[1] - limits[0]) if limits else None
    if pairs and all(metric in a.items and metric in b.items for a, b in pairs.values()):
        numbers = _union([result.items for pair in pairs.values() for result in pair])
        own, theirs = (_values([pair[side].items for pair in pairs.values()], metric, numbers) for side in (0, 1))
        estimate = from_items(own - theirs, items.prompts(numbers), bounds)
        if estimate.seeds:
            return estimate
    values = [a.metrics.get(metric, numpy.nan) - b.metrics.get(metric, numpy.nan) for a, b in pairs.values()]
    return from_seeds(numpy.array(values), bounds) if values else NOTHING


def _is_task(name: str) -> bool:
    """Whether a column says what is measured, and on what, rather than how the rows were selected."""
    method_option = name.startswith("preference.") and not name.startswith("preference.pairs")
    return name in BUDGET or (name.split(".")[0] in TASK and not method_option)
