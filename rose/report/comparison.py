"""What the arms' numbers say: intervals, differences to random and to LESS, verdicts, firm winners.

Arms compete where they were asked the same question of the same amount of data: a setting. The
question of a sweep is planned: is each method better than random, and each that goes by rewards
(target=preference) better than LESS, in the main metric? These comparisons are one family of
Holm's. All others are exploratory: those of the main metric are another family, and those of each
other metric are one.
"""

from dataclasses import dataclass, replace

import numpy
import pandas

from rose.config.choices import Target
from rose.report.arms import REFERENCES, Arm, agree, difference, group, is_seed, item_values, mean, per_seed, show
from rose.report.item_tables import Items
from rose.report.metrics import HEADLINE, MORE, direction, is_quality, stands_for
from rose.report.results import NAMING, JobRecord, naming_columns, tabulate
from rose.report.statistics import MOST_SEEDS, Estimate, holm, more_seeds, wins
from rose.report.text import counted

SIGNIFICANT = 0.05
REWARDING = {"rose": Target.preference}  # where a folder does not say what a method's target is


@dataclass(frozen=True)
class Difference:
    """Of an arm to a reference, in the metric's own sign."""

    metric: str
    arm: Arm
    reference: Arm
    estimate: Estimate
    planned: bool = False  # else exploratory
    p: float = numpy.nan  # after Holm's correction
    family: int = 1  # comparisons corrected for

    @property
    def better(self) -> bool | None:
        """True or False where the difference is told from zero, else None, as with one seed."""
        if not (self.p < SIGNIFICANT) or self.estimate.seeds < 2:
            return None
        return direction(self.metric) * self.estimate.mean > 0

    @property
    def lost_by_correction(self) -> bool:
        """Whether the interval, which is not corrected, leaves zero out where nothing is told."""
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
    main: str  # the first quality metric there is; "" without any
    estimates: dict[str, dict[Arm, Estimate]]  # by metric; every arm has one
    differences: dict[str, list[Difference]]  # by metric
    settings: list[tuple[str, ...]]
    stability: dict[tuple[str, ...], dict[str, float]]  # of `main`: setting (with items) → label → share of wins
    best: dict[str, set[Arm]]  # by metric, those told better than all others of their setting
    problems: list[str]  # files that cannot be read

    def to(self, metric: str, arm: Arm) -> list[Difference]:
        return [difference for difference in self.differences.get(metric, []) if difference.arm is arm]

    def measured(self, metric: str, setting: tuple[str, ...]) -> list[tuple[Arm, Estimate]]:
        """The arms that compete in a setting and have the metric, in the table's order."""
        return [(arm, e) for arm, e in self.estimates.get(metric, {}).items() if e.seeds and _competes(arm, setting)]

    def ranked(self, metric: str, setting: tuple[str, ...]) -> list[tuple[Arm, Estimate]]:
        """The same, the best mean first."""
        return sorted(self.measured(metric, setting), key=lambda pair: -direction(metric) * pair[1].mean)


def compare(jobs: list[JobRecord]) -> Comparison:
    """Reads the jobs' items and works out everything; deterministic."""
    frame, items = tabulate(jobs), Items()
    files = ("items.parquet", "zero_shot_items.parquet")  # of the job's model, and of the base model
    tuned, base = ({job.dir.name: items.read(job.dir / name) for job in jobs} for name in files)
    runs = frame.iloc[: len(jobs)]  # without the zero-shot rows, which come last
    clear = runs[runs[list(NAMING)].notna().any(axis=1)]  # nor jobs whose configuration is lost
    naming = [name for name in dict.fromkeys([*NAMING, *naming_columns(jobs)]) if not is_seed(name)]
    varying = [name for name in naming if len(clear[name].unique()) > 1]
    columns = list(dict.fromkeys(["method", *varying]))
    same = {name: show(value) for name in naming if name not in columns for value in clear[name].head(1)}
    tables = [(tuned if row < len(jobs) else base)[job] for row, job in enumerate(frame["job"])]
    arms = group(frame, tables, columns, {job.dir.name: job for job in jobs})
    filled = [str(name) for name in frame.dropna(axis="columns", how="all")]
    metrics = [name for entry in HEADLINE for name in filled if stands_for(entry, name)]
    more = [name for name in MORE if name in filled]
    main = next(filter(is_quality, metrics), "")
    estimates = {name: {arm: mean(arm, name) for arm in arms} for name in [*metrics, *more]}
    compared = [name for name in estimates if not name.startswith("cost/")]
    differences = {name: _differences(arms, name, _planned(arms, jobs) if name == main else []) for name in compared}
    settings = [one for one in dict.fromkeys(arm.setting for arm in arms) if not _is_part(one, arms)]
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
        stability={one: shares for one in settings if (shares := _stability(arms, one, main))},
        best={name: _best(name, estimates[name], differences.get(name, [])) for name in estimates},
        problems=items.problems,
    )


def verdict(difference: Difference) -> tuple[str, str]:
    """Whether the arm is better than its reference, and what would tell, or "".

    The answer is `yes`, `no, …` or `cannot tell …`.
    """
    estimate, better = difference.estimate, difference.better
    if better is not None:
        return "yes" if better else "no, worse", ""
    n = f"cannot tell with n = {counted(estimate.seeds, 'seed')}"
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
    return not arm.same_as and agree(arm.setting, setting)


def _planned(arms: list[Arm], jobs: list[JobRecord]) -> list[tuple[Arm, str]]:
    """The arms, each with the method that it was to be compared with from the outset."""
    targets = {job.dir.name: job.value("method.target") or REWARDING.get(str(job.value("method.name"))) for job in jobs}
    tuned = [arm for arm in arms if arm.method != "zero_shot"]
    by_reward = [arm for arm in tuned if any(targets[name] == Target.preference for name in arm.members)]
    return [(arm, "random") for arm in tuned] + [(arm, "less") for arm in by_reward]


def _differences(arms: list[Arm], metric: str, planned: list[tuple[Arm, str]]) -> list[Difference]:
    """Of every arm to the arms of REFERENCES in its setting; the planned ones are corrected together."""
    entries = []
    for method in REFERENCES:
        for arm in filter(lambda arm: not arm.same_as, arms):
            rivals = [other for other in arms if other.method == method and _competes(other, arm.setting)]
            reverse = method == REFERENCES[-1] and arm.method in REFERENCES  # is there already
            if rivals and arm.runs and arm.method != method and not reverse:
                nearest = max(rivals, key=lambda other: sum(a == b for a, b in zip(other.key, arm.key, strict=True)))
                estimate = difference(arm, nearest, metric)
                entries.append(Difference(metric, arm, nearest, estimate, planned=(arm, method) in planned))
    return _corrected([e for e in entries if e.estimate.seeds or not e.arm.runs.keys() & e.reference.runs.keys()])


def _corrected(entries: list[Difference]) -> list[Difference]:
    """With p after Holm's correction, over the planned ones and over the others."""
    result = list(entries)
    for planned in (True, False):
        places = [place for place, entry in enumerate(entries) if entry.planned is planned]
        corrected = holm([entries[place].estimate.p for place in places])
        family = max(1, int(numpy.isfinite(corrected).sum()))
        for place, p in zip(places, corrected, strict=True):
            result[place] = replace(entries[place], p=p, family=family)
    return result


def _best(metric: str, estimates: dict[Arm, Estimate], differences: list[Difference]) -> set[Arm]:
    """The arms told better than every other of their setting, where that has a reference.

    One seed tells nothing. The best mean is found by looking, so its comparisons are corrected
    together with all `differences`, planned or not: what is told here is told there, and no line
    contradicts it.
    """
    best = set()
    for setting in dict.fromkeys(arm.setting for arm in estimates):
        rivals = [arm for arm in estimates if _competes(arm, setting) and estimates[arm].seeds]
        first = max(rivals, key=lambda arm: direction(metric) * estimates[arm].mean, default=None)
        # What goes with several settings has to win in all of them.
        if first and first.setting == setting and _told_best(first, rivals, metric, differences):
            best.add(first)
    return best


def _told_best(arm: Arm, rivals: list[Arm], metric: str, differences: list[Difference]) -> bool:
    lines = [entry for entry in differences if arm in (entry.arm, entry.reference)]
    met = [arm, *(entry.arm for entry in lines), *(entry.reference for entry in lines)]
    more = [Difference(metric, arm, rival, difference(arm, rival, metric)) for rival in rivals if rival not in met]
    together = _corrected([replace(entry, planned=False) for entry in [*differences, *more]])
    against = [entry for entry in together if arm in (entry.arm, entry.reference)]
    return bool(lines) and all(entry.better is (entry.arm is arm) for entry in against)


def _stability(arms: list[Arm], setting: tuple[str, ...], metric: str) -> dict[str, float]:
    """How often each arm of the setting wins, over the seeds all of them have; {} without items."""
    rivals = [arm for arm in arms if _competes(arm, setting) and arm.runs]
    seeds = [key for key in (rivals[0].runs if rivals else ()) if all(key in arm.runs for arm in rivals)]
    results = [arm.runs[key] for arm in rivals for key in seeds]
    if len(rivals) < 2 or not seeds or not all(metric in result.items for result in results):
        return {}
    values, prompts = item_values(results, metric)
    models = numpy.array([result.model for result in results]).reshape(len(rivals), -1)
    numbers = pandas.factorize(pandas.MultiIndex.from_arrays(list(models)))[0]  # a model tested again is one seed
    values = numpy.array([per_seed(runs, numbers) for runs in values.reshape(*models.shape, -1)])
    some = ~numpy.isnan(values).all(axis=(0, 1))
    if numpy.isnan(values).all(axis=2).any():
        return {}
    shares = wins(direction(metric) * values[:, :, some], prompts[some])
    return {arm.label: float(share) for arm, share in zip(rivals, shares, strict=True)}


def _is_part(setting: tuple[str, ...], arms: list[Arm]) -> bool:
    """Whether a setting with blanks is but a row that goes with others."""
    return "" in setting and any(arm.setting != setting and agree(arm.setting, setting) for arm in arms)
