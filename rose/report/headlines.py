"""The first screen: who won, is it real, what did it cost, as sentences."""

from rose.report.arms import REFERENCES, Arm
from rose.report.comparison import Comparison
from rose.report.metrics import lower_is_better
from rose.report.results import JobRecord
from rose.report.statistics import Estimate
from rose.report.table import answers_of, interval
from rose.report.text import number

MOST_SETTINGS = 12
SECONDS = "cost/seconds"


def who_won(comparison: Comparison) -> list[str]:
    """A sentence a setting: the best mean, and its share of wins when all is drawn again."""
    best = "lowest" if comparison.main and lower_is_better(comparison.main) else "highest"
    lines = []
    for setting, ranking in _rankings(comparison):
        arm, estimate = ranking[0]
        line = f"{arm.name} has the {best} {comparison.main}, {interval(estimate)}"
        if len(ranking) > 1:
            line += f", before {ranking[1][0].name} with {interval(ranking[1][1])}"
        share = comparison.stability.get(setting, {}).get(arm.label)
        if share is not None:
            line += f". It wins in {_percent(share)} of resamples of seeds and prompts"
        lines.append(f"{_where(setting)}{line}.")
    if len(comparison.settings) > MOST_SETTINGS:
        lines.append(f"{len(comparison.settings) - MOST_SETTINGS} further settings are in the table.")
    return lines or ["No job has been measured, so nobody has won."]


def is_it_real(comparison: Comparison) -> list[str]:
    """The verdicts on the best arm of each setting."""
    lines = []
    for setting, ((arm, _), *_) in _rankings(comparison):
        answers = [f", {line}" for line in answers_of(comparison, arm, "; ")]
        answers = answers or [f" has nothing to be compared with ({' or '.join(REFERENCES)} in its setting)"]
        lines += [f"{_where(setting)}{arm.name}{answer}." for answer in answers]
    return lines or ["There is nothing to compare."]


def what_it_cost(comparison: Comparison, jobs: list[JobRecord]) -> list[str]:
    """What the best arm's own stages take beside random's, and what the whole sweep took."""
    lines = []
    for setting, ((arm, _), *_) in _rankings(comparison) if SECONDS in comparison.estimates else ():
        costs = comparison.measured(SECONDS, setting)
        random = [cost.mean for other, cost in costs if other.method == "random" and other is not arm]
        for cost in [cost.mean for other, cost in costs if other is arm]:
            beside = f", {cost / random[0]:.1f} times what random takes" if random and random[0] else ""
            lines.append(f"{_where(setting)}{arm.name} takes {duration(cost)} by itself{beside}.")
    stages = [stage for job in jobs for stage in job.stages.values() if "dir" in stage and "seconds" in stage]
    total = sum({stage["dir"]: stage["seconds"] for stage in stages}.values())
    fresh = sum({stage["dir"]: stage["seconds"] for stage in stages if stage.get("state") == "computed"}.values())
    if total:
        lines.append(f"The sweep's {len(jobs)} jobs rest on {duration(total)} of computing, shared stages counted once")
        lines[-1] += f"; {duration(fresh)} of it their last runs did." if 0 < fresh < total else "."
    return lines or ["No stage has recorded what it took."]


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(round(seconds, 1 if seconds >= 10 else 2)).rstrip('0').rstrip('.')} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _rankings(comparison: Comparison) -> list[tuple[tuple[str, ...], list[tuple[Arm, Estimate]]]]:
    """The first settings in which anything was measured, with their arms, the best first."""
    if comparison.main is None:
        return []
    rankings = [(setting, comparison.ranked(comparison.main, setting)) for setting in comparison.settings]
    return [(setting, ranking) for setting, ranking in rankings[:MOST_SETTINGS] if ranking]


def _percent(share: float) -> str:
    return "all" if share >= 0.9995 else f"{100 * share:.1f} %" if share > 0.99 else f"{share:.0%}".replace("%", " %")


def _where(setting: tuple[str, ...]) -> str:
    text = " ".join(filter(None, setting))
    return f"{text}: " if text else ""
