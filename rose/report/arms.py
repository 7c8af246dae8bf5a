"""Arms: jobs that differ in their seeds alone are one row; their means and paired differences."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy
import pandas
from scipy.sparse.csgraph import connected_components

from rose.report.metrics import SELECTION, bounds
from rose.report.results import JobRecord
from rose.report.statistics import NOTHING, Estimate, from_items, from_seeds

REFERENCES = ("random", "less")
# Rows compete only where these agree: the same question asked of the same amount of data.
SETTING = ("model", "student", "dataset", "plant", "preference", "world", "evaluation", "judge", "tasks", "ratio")
BUDGET = ("selection", "selection.count", "selection.tokens", "selection.slice", "selection.slices")


@dataclass(frozen=True)
class Result:
    """One measurement of a model: flat metrics, and the items behind them where they are known."""

    name: str
    metrics: dict[str, float]
    items: pandas.DataFrame  # of `Items.read`
    model: str = ""  # directory of what was measured: a model that is tested again is no second one
    selection: str = ""
    trained: bool = True  # False: the base model, which no seed of a method has drawn

    def behind(self, metric: str) -> str:
        """What has the metric: the model, or its selection, which several models may share."""
        return self.selection if metric.startswith(SELECTION) else self.model


@dataclass(frozen=True, eq=False)
class Arm:
    key: tuple[str, ...]  # as shown, a cell a column
    setting: tuple[str, ...]  # cells that say what is measured; the base model's "" agrees with any
    name: str  # the other cells: what tells it apart among arms of the same setting
    method: str
    done: int
    jobs: int
    runs: dict[tuple[str, ...], Result]  # by the seeds that differ between jobs
    members: list[str]  # names of the jobs' folders
    same_as: "Arm | None" = None  # the same measurement in its setting, which competes for both

    @property
    def label(self) -> str:
        return words(self.key)

    @property
    def results(self) -> list[Result]:
        """Distinct ones: jobs that share their evaluation were measured once, not several times."""
        return list({result.name: result for result in self.runs.values()}.values())

    @property
    def models(self) -> int:
        """How many models were measured: the seeds that an interval may speak of."""
        return len({result.model for result in self.results})


def words(cells: Iterable[str]) -> str:
    """The cells that are not blank."""
    return " ".join(filter(None, cells))


def is_seed(name: str) -> bool:
    return name == "seed" or name.endswith(".seed")


def agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(a == b or "" in (a, b) for a, b in zip(one, other, strict=True))


def show(value: Any) -> str:
    return "" if pandas.isna(value) else str(value)


def group(
    frame: pandas.DataFrame, tables: list[pandas.DataFrame], columns: list[str], jobs: Mapping[str, JobRecord]
) -> list[Arm]:
    """The arms of `frame`, which is `tabulate(jobs)`, the base model's first, then in the order of the sweep.

    `tables` are the items of its rows; `columns` tell the arms apart.
    """
    setting = [name for name in columns if _of_setting(name, "student" in frame)]
    seeds = [str(name) for name in frame if is_seed(str(name))]
    rows: dict[tuple[str, ...], list[tuple[Mapping, Result]]] = defaultdict(list)
    for row, items in zip(frame.to_dict("records"), tables, strict=True):
        if not show(row["method"]):  # a job that has not begun, of which only the name is known
            continue
        rows[tuple(show(row[name]) for name in columns)].append((row, _result(row, items, jobs[row["job"]])))
    arms = [_arm(dict(zip(columns, key, strict=True)), setting, seeds, members) for key, members in rows.items()]

    def place(arm: Arm) -> tuple[bool, int]:
        return arm.method != "zero_shot", min(jobs[name].place for name in arm.members)

    return _merged(sorted(arms, key=place))


def _of_setting(name: str, with_students: bool) -> bool:
    """Whether a column says what is measured, and on what, rather than how rows were selected."""
    group = name.split(".")[0]
    if group == "preference":  # its other options are the method's
        return name == group or name.startswith("preference.pairs")
    return name in BUDGET or (group in SETTING and not (group == "model" and with_students))


def _arm(cells: dict[str, str], setting: list[str], seeds: list[str], rows: list[tuple[Mapping, Result]]) -> Arm:
    runs: dict[tuple[str, ...], Result] = {}
    for row, result in rows:
        if show(row["state"]) in ("done", "failed"):  # what failed at its judging was measured by all that came before
            run = tuple(show(row[name]) for name in seeds)
            if result.name != runs.get(run, result).name:  # two jobs that name the same run
                run = (*run, result.name)
            runs[run] = result
    done = [result.model for row, result in rows if show(row["state"]) == "done"]
    blank = "" if cells["method"] == "zero_shot" else "null"
    return Arm(
        key=tuple(cells.values()),
        setting=tuple(cells[name] or blank for name in setting),
        name=words(cell for name, cell in cells.items() if name not in setting),
        method=cells["method"],
        done=len(set(done)),
        jobs=len(rows) - len(done) + len(set(done)),
        runs=runs,
        members=[row["job"] for row, _ in rows],
    )


def _merged(arms: list[Arm]) -> list[Arm]:
    """With `same_as`: a second name makes no second rival. A reference stands for the others."""
    stands: dict[Arm, Arm] = {}
    for arm in sorted(arms, key=lambda arm: ((*REFERENCES, arm.method).index(arm.method), -len(arm.runs))):
        alike = (first for other, first in stands.items() if other.setting == arm.setting and _alike(arm, other))
        stands[arm] = next(alike, arm)
    return [arm if stands[arm] is arm else replace(arm, same_as=stands[arm]) for arm in arms]


def _alike(one: Arm, other: Arm) -> bool:
    """Whether each result of `one` is the other's too: the same directories, or the same items."""
    pairs = [(result, other.runs.get(run)) for run, result in one.runs.items()]
    return bool(pairs) and all(
        b is not None and (a.name == b.name or (len(a.items) > 0 and a.items.equals(b.items))) for a, b in pairs
    )


def _result(row: Mapping, items: pandas.DataFrame, job: JobRecord) -> Result:
    """Where its folder does not say what was measured, each measurement is of a model of its own."""
    numbers = {name: float(value) for name, value in row.items() if isinstance(value, Real) and value == value}
    name, trained = show(row["result"]) or show(row["job"]), show(row["method"]) != "zero_shot"
    model = (job.directory("finetune") if trained else job.directory("student_base", "base")) or name
    return Result(name, numbers, items, model, job.directory("selection") or model, trained)


def seeds_of(runs: Sequence[Sequence[Result]], metric: str) -> numpy.ndarray:
    """The number of each run's seed: runs that share a model are one, as a model tested again tells no more.

    A run is a measurement, or those that are compared with each other. The base model is given,
    not drawn: where it is compared with trained ones, these are the seeds.
    """
    models = [{(side, result.behind(metric)) for side, result in enumerate(run) if result.trained} for run in runs]
    given = [{(side, result.behind(metric)) for side, result in enumerate(run)} for run in runs]
    models = [trained or others for trained, others in zip(models, given, strict=True)]
    return connected_components(numpy.array([[bool(one & other) for other in models] for one in models]))[1]


def per_seed(values: numpy.ndarray, seeds: numpy.ndarray) -> numpy.ndarray:
    """The means of the known `values` [runs, …] of each seed."""
    known = numpy.where(numpy.isfinite(values), values, numpy.nan)
    return numpy.asarray(pandas.DataFrame(known).groupby(seeds).mean())


def item_values(results: Sequence[Result], metric: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Values [results, items], NaN where a result lacks an item, and the number of each item's prompt."""
    table = pandas.concat([result.items[metric] for result in results], axis=1, sort=True)
    return numpy.asarray(table).T, numpy.asarray(table.index.get_level_values(0))


def mean(arm: Arm, metric: str) -> Estimate:
    """Over the models that have the metric; over their items too, where all have them."""
    measured = [result for result in arm.results if metric in result.items or metric in result.metrics]
    if not measured:
        return NOTHING
    seeds = seeds_of([[result] for result in measured], metric)
    if all(metric in result.items for result in measured):
        values, prompts = item_values(measured, metric)
        return from_items(per_seed(values, seeds), prompts, bounds(metric))
    values = numpy.array([result.metrics.get(metric, numpy.nan) for result in measured])
    return from_seeds(per_seed(values, seeds), bounds(metric))


def difference(one: Arm, other: Arm, metric: str) -> Estimate:
    """Of their means, over the seeds both have; item by item where both have items."""
    shared = [(one.runs[seeds], other.runs[seeds]) for seeds in one.runs if seeds in other.runs]
    pairs = list({(a.name, b.name): (a, b) for a, b in shared}.values())
    if not pairs:
        return NOTHING
    seeds, (ours, theirs) = seeds_of(pairs, metric), zip(*pairs, strict=True)
    least, most = bounds(metric)
    limits = (least - most, most - least)
    if all(metric in result.items for result in (*ours, *theirs)):
        values, prompts = item_values([*ours, *theirs], metric)
        estimate = from_items(per_seed(values[: len(pairs)] - values[len(pairs) :], seeds), prompts, limits)
        if estimate.seeds:
            return estimate
    values = numpy.array([a.metrics.get(metric, numpy.nan) - b.metrics.get(metric, numpy.nan) for a, b in pairs])
    return from_seeds(per_seed(values, seeds), limits)
