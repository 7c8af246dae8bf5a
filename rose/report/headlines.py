"""The first screen: who won, is it real, what did it cost, as sentences."""

from collections.abc import Iterator

from rose.report.arms import REFERENCES, Arm, words
from rose.report.comparison import Comparison
from rose.report.margins import headline
from rose.report.metrics import lower_is_better
from rose.report.results import JobRecord
from rose.report.statistics import Estimate
from rose.report.table import answers_of
from rose.report.text import counted, interval, number

MOST_SETTINGS = 12
SECONDS = "cost/seconds"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def who_won(comparison: Comparison) -> list[str]:
    """A sentence a setting: the best mean, and whether it is told to be the best."""
    lines = [f"{where}{_first(comparison, setting, ranking)}." for where, setting, ranking in _rankings(comparison)]
    if len(comparison.settings) > MOST_SETTINGS:
        lines.append(f"{len(comparison.settings) - MOST_SETTINGS} further settings are in the table.")
    return lines or ["No job has been measured, so nobody has won."]


def is_told(comparison: Comparison) -> bool:
    """Whether every setting has an arm that is told better than all others."""
    firsts = [ranking[0][0] for _, _, ranking in _rankings(comparison)]
    return bool(firsts) and all(arm in comparison.best[comparison.main] for arm in firsts)


def _first(comparison: Comparison, setting: tuple[str, ...], ranking: list[tuple[Arm, Estimate]]) -> str:
    """The best mean; where nothing tells it from the others it leads, and no share of wins says more."""
    (arm, estimate), metric = ranking[0], comparison.main
    if len(ranking) == 1 and arm not in comparison.best[metric]:
        return f"{arm.name} alone was measured: {metric} {interval(estimate)}"
    tied = [other for other, beside in ranking if number(beside.mean) == number(estimate.mean)]
    mean = f"the {'lowest' if lower_is_better(metric) else 'highest'} {metric}, {interval(estimate)}"
    if len(ranking) > len(tied):
        (other, beside), more = ranking[len(tied)], len(ranking) > len(tied) + 1
        mean += f", before {other.name} with {interval(beside)}" + " and the others" * more
    if arm in comparison.best[metric]:
        share = comparison.stability.get(setting, {}).get(arm.label)
        wins = "" if share is None else f". It wins in {_percent(share)} of resamples of seeds and prompts"
        return f"{arm.name} has {mean}, told from all others{wins}"
    tested = any(one in (entry.arm, entry.reference) for entry in comparison.differences[metric] for one in tied)
    count = comparison.estimates[metric][_leader(ranking)].seeds
    seeds = counted(NUMBERS[count] if count < len(NUMBERS) else count, "seed")
    doubt = f"{seeds} cannot tell" if tested else f"without {' or '.join(REFERENCES)} nothing tells"
    who = f"{arm.name} leads" if len(tied) == 1 else "Nobody leads"
    if any(one.method == "zero_shot" for one in tied):
        who = "No method is ahead of the base model"
    has = "it has" if who.startswith(arm.name) else f"{arm.name} has" if len(tied) == 1 else f"{_all(tied)} share"
    return f"{who}; {doubt}: {has} {mean}"


def _all(arms: list[Arm]) -> str:
    *others, last = [arm.name for arm in arms]
    return f"{', '.join(others)} and {last}"


def _leader(ranking: list[tuple[Arm, Estimate]]) -> Arm:
    """The best of the methods; the base model where nothing else was measured."""
    return next((arm for arm, _ in ranking if arm.method != "zero_shot"), ranking[0][0])


def is_it_real(comparison: Comparison) -> list[str]:
    """The verdicts on the best method of each setting, and its margins."""
    lines = []
    for where, _, ranking in _rankings(comparison):
        arm = _leader(ranking)
        answers = [f", {line}" for line in answers_of(comparison, arm, "; ")]
        answers = answers or [f" has nothing to be compared with ({' or '.join(REFERENCES)} in its setting)"]
        lines += [f"{where}{arm.name}{answer}." for answer in answers]
        lines += [f"{where}{line}" for line in headline(comparison, arm)]
    return lines or ["There is nothing to compare."]


def what_it_cost(comparison: Comparison, jobs: list[JobRecord]) -> list[str]:
    """What the best method's own stages take beside random's, and what the whole sweep took."""
    lines = []
    for where, setting, ranking in _rankings(comparison):
        arm = _leader(ranking)
        costs = comparison.measured(SECONDS, setting)
        random = [cost.mean for other, cost in costs if other.method == "random" and other is not arm]
        for cost in [cost.mean for other, cost in costs if other is arm]:
            beside = f", {cost / random[0]:.1f} times what random takes" if random and random[0] else ""
            lines.append(f"{where}{arm.name} takes {duration(cost)} by itself{beside}.")
    stages = [stage for job in jobs for stage in job.stages.values() if "dir" in stage and "seconds" in stage]
    total = sum({stage["dir"]: stage["seconds"] for stage in stages}.values())
    fresh = sum({stage["dir"]: stage["seconds"] for stage in stages if stage.get("state") == "computed"}.values())
    if total:
        lines.append(f"The sweep's {len(jobs)} jobs rest on {duration(total)} of computing, shared stages counted once")
        part = duration(fresh) if 0 < fresh < total else duration(total)
        lines[-1] += f"; {part} of it their last runs did." if part != duration(total) else "."
    return lines or ["No stage has recorded what it took."]


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(round(seconds, 1 if seconds >= 10 else 2)).rstrip('0').rstrip('.')} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _rankings(comparison: Comparison) -> Iterator[tuple[str, tuple[str, ...], list[tuple[Arm, Estimate]]]]:
    """The first settings with a measurement: how a line on it begins, the setting, and its arms, the best first."""
    for setting in comparison.settings[:MOST_SETTINGS]:
        if ranking := comparison.ranked(comparison.main, setting):
            yield f"{words(setting)}: " if any(setting) else "", setting, ranking


def _percent(share: float) -> str:
    return "all" if share >= 0.9995 else f"{100 * share:.{int(share > 0.99)}f} %"
