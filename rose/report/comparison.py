"""What the arms' numbers say: intervals, differences to random and to LESS, how firm the winner is, a verdict a row.

Arms compete where they were asked the same question of the same amount of data: a setting.
"""

from dataclasses import dataclass, replace

import numpy
import pandas

from rose.report.arms import REFERENCES, Arm, difference, group, is_seed, lower_is_better, mean, same_task, show
from rose.report.item_tables import Items, align, read_items
from rose.report.results import NAMING, JobRecord, naming_columns, tabulate
from rose.report.statistics import MOST_SEEDS, Estimate, holm, more_seeds, wins

# The table's columns, in order, QUALITY being what a reader wants to win at; accuracy_ stands for that of every task.
QUALITY = ("reward", "win_rate", "preference_accuracy", "accuracy_", "chosen_loss")
HEADLINE = (*QUALITY, "precision", "cost/seconds")
MORE = ("win_rate_length_controlled", "preference_accuracy_per_token", "preference_accuracy_vs_base")  # the page's
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Difference:
    """Of an arm to a reference, in the metric's own sign."""

    arm: Arm
    reference: Arm
    estimate: Estimate
    p: float = numpy.nan  # after Holm's correction
    family: int = 1  # comparisons corrected for

    def better(self, metric: str) -> bool | None:
        """True or False where the difference is told from zero, None where not, or with one seed."""
        if not (self.p < SIGNIFICANT) or self.estimate.seeds < 2:
            return None
        return (self.estimate.mean < 0) == lower_is_better(metric)

    @property
    def lost_by_correction(self) -> bool:
        """Whether the interval, which is not corrected, leaves zero out, and the difference cannot be told."""
        outside = self.estimate.low > 0 or self.estimate.high < 0
        return outside and self.p >= SIGNIFICANT and self.estimate.seeds > 1


@dataclass(frozen=True)
class Comparison:
    """All that a report says of a sweep's numbers."""

    frame: pandas.DataFrame  # `tabulate(jobs)`
    columns: list[str]  # of the table: method, and whatever else differs
    same: dict[str, str]  # the other naming columns and swept keys, equal in every job
    arms: list[Arm]
    metrics: list[str]  # of the table
    more: list[str]  # further ones of the page's
    main: str | None  # the first quality metric there is
    estimates: dict[str, list[Estimate]]  # by metric, in the order of the arms
    differences: dict[str, list[Difference]]  # by metric
    settings: list[tuple[str, ...]]
    stability: dict[tuple[str, ...], dict[str, float]]  # of `main`, setting → arm's label → share of wins
    best: dict[str, set[int]]  # by metric, the arms told better than all others of their setting, as every line says
    problems: list[str]  # files that cannot be read

    def to(self, metric: str, arm: Arm) -> list[Difference]:
        return [difference for difference in self.differences.get(metric, []) if difference.arm is arm]

    def of_setting(self, setting: tuple[str, ...]) -> list[int]:
        return [number for number, arm in enumerate(self.arms) if _competes(arm, setting)]


def compare(jobs: list[JobRecord]) -> Comparison:
    """Reads the jobs' items and works out everything; deterministic."""
    frame, items = tabulate(jobs), Items()
    own, base = read_items(jobs, items)
    runs = frame.iloc[: len(jobs)]  # without the zero-shot rows, which come last
    clear = runs[runs[list(NAMING)].notna().any(axis=1)]  # nor jobs whose configuration is lost
    setting = [name for name in dict.fromkeys([*NAMING, *naming_columns(jobs)]) if not is_seed(name)]
    varying = [name for name in setting if clear[name].nunique(dropna=False) > 1]
    columns = list(dict.fromkeys(["method", *varying]))
    same = {name: show(value) for name in setting if name not in columns for value in clear[name].head(1)}
    tables = [own.get(job, {}) for job in runs["job"]] + [base.get(job, {}) for job in frame["job"].iloc[len(jobs) :]]
    arms = group(frame, tables, columns)
    known = [name for name in frame if frame[name].notna().any()]
    metrics = [name for entry in HEADLINE for name in known if stands_for(entry, name)]
    more = [name for name in MORE if name in known]
    main = next((name for name in metrics if is_quality(name)), None)
    estimates = {name: [mean(arm, name, items) for arm in arms] for name in [*metrics, *more]}
    differences = {name: _differences(arms, name, items) for name in estimates if not name.startswith("cost/")}
    settings = [task for task in dict.fromkeys(arm.task for arm in arms) if not _is_part(task, arms)]
    return Comparison(
        frame=frame,
        columns=columns,
        same=same,
        arms=arms,
        metrics=metrics,
        more=more,
        main=main,
        estimates=estimates,
        differences=differences,
        settings=settings,
        stability={task: _stability(arms, task, main, items) for task in settings} if main else {},
        best={name: _best(arms, name, estimates[name], differences.get(name, []), items) for name in estimates},
        problems=items.problems,
    )


def stands_for(entry: str, metric: str) -> bool:
    """Whether `metric` is the entry, or begins with it where that ends with an underscore."""
    return metric == entry or (entry.endswith("_") and metric.startswith(entry))


def is_quality(metric: str) -> bool:
    return any(stands_for(entry, metric) for entry in QUALITY)


def verdict(difference: Difference, metric: str) -> tuple[str, str]:
    """Whether the arm is better than its reference: `yes`, `no, …` or `cannot tell …`; and what would tell, or ""."""
    estimate, known = difference.estimate, difference.better(metric)
    if known is not None:
        return "yes" if known else "no, worse", ""
    n = f"cannot tell with n = {estimate.seeds} seed{'' if estimate.seeds == 1 else 's'}"
    if not estimate.seeds:
        return "cannot tell, no seed in common", ""
    if estimate.seeds < 2:
        return n, "one seed says nothing of others: run at least 3"
    if estimate.items and estimate.mean == estimate.low == estimate.high == 0:
        return "no, the same on every item", ""
    if numpy.isnan(estimate.p):
        return n, "every seed shows the same difference, so there is no spread to judge it by"
    more = more_seeds(estimate, difference.family)
    if more == numpy.inf:
        return n, "more test prompts would tell, more seeds would not"
    if numpy.isnan(more):
        return n, f"more than {MOST_SEEDS} more would be needed"
    return n, f"about {more:.0f} more would tell"


def _competes(arm: Arm, setting: tuple[str, ...]) -> bool:
    return not arm.same_as and same_task(arm.task, setting)


def _differences(arms: list[Arm], metric: str, items: Items) -> list[Difference]:
    """Of every arm to the arms of REFERENCES in its setting, corrected together."""
    found = []
    for method in REFERENCES:
        for arm in (arm for arm in arms if not arm.same_as):
            rivals = [other for other in arms if other.method == method and _competes(other, arm.task)]
            reverse = method == REFERENCES[-1] and arm.method in REFERENCES  # is there already
            if rivals and arm.runs and arm.method != method and not reverse:
                nearest = max(rivals, key=lambda other: sum(a == b for a, b in zip(other.key, arm.key, strict=True)))
                found.append(Difference(arm, nearest, difference(arm, nearest, metric, items)))
    return _corrected(
        [entry for entry in found if entry.estimate.seeds or not entry.arm.runs.keys() & entry.reference.runs.keys()]
    )


def _corrected(found: list[Difference]) -> list[Difference]:
    p = holm([entry.estimate.p for entry in found])
    family = max(1, int(numpy.isfinite(p).sum()))
    return [replace(entry, p=own, family=family) for entry, own in zip(found, p, strict=True)]


def _best(
    arms: list[Arm], metric: str, estimates: list[Estimate], differences: list[Difference], items: Items
) -> set[int]:
    """The arms told better than every other of their setting, where that has a reference; one seed tells nothing.

    The best mean is found by looking, so its comparisons are corrected together with all `differences`: what is told
    here is told there, and no line contradicts it.
    """
    sign, best = -1 if lower_is_better(metric) else 1, set()
    for task in dict.fromkeys(arm.task for arm in arms):
        numbers = [i for i, arm in enumerate(arms) if _competes(arm, task) and estimates[i].seeds]
        if len(numbers) < 2:
            continue
        first = max(numbers, key=lambda number: sign * estimates[number].mean)
        if arms[first].task == task and _told_best(arms[first], [arms[i] for i in numbers], metric, differences, items):
            best.add(first)  # what goes with several settings has to win in all of them
    return best


def _told_best(arm: Arm, setting: list[Arm], metric: str, differences: list[Difference], items: Items) -> bool:
    lines = [entry for entry in differences if arm in (entry.arm, entry.reference)]
    met = [arm, *(entry.arm for entry in lines), *(entry.reference for entry in lines)]
    others = [Difference(arm, rival, difference(arm, rival, metric, items)) for rival in setting if rival not in met]
    own = [entry for entry in _corrected([*differences, *others]) if arm in (entry.arm, entry.reference)]
    return bool(lines) and all(entry.better(metric) is (entry.arm is arm) for entry in own)


def _stability(arms: list[Arm], task: tuple[str, ...], metric: str, items: Items) -> dict[str, float]:
    """How often each arm of the setting wins, over the seeds that all of them have; {} where there are no items."""
    rivals = [arm for arm in arms if _competes(arm, task) and arm.runs]
    seeds = [key for key in (rivals[0].runs if rivals else ()) if all(key in arm.runs for arm in rivals)]
    results = [[arm.runs[key] for key in seeds] for arm in rivals]
    if len(rivals) < 2 or not seeds or not all(metric in result.items for row in results for result in row):
        return {}
    numbers = numpy.unique(numpy.concatenate([result.items["item"] for row in results for result in row]))
    values = numpy.array([[align(result.items, metric, numbers) for result in row] for row in results])
    some = ~numpy.isnan(values).all(axis=(0, 1))
    if numpy.isnan(values).all(axis=2).any():
        return {}
    sign = -1 if lower_is_better(metric) else 1
    share = wins(sign * values[:, :, some], items.prompts(numbers[some]))
    return {arm.label: float(value) for arm, value in zip(rivals, share, strict=True)}


def _is_part(task: tuple[str, ...], arms: list[Arm]) -> bool:
    """Whether a setting with blanks is but a row that goes with others."""
    return "" in task and any(arm.task != task and same_task(arm.task, task) for arm in arms)
