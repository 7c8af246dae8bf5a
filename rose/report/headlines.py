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
    """A sentence a setting: the best mean, and whether it is told to be the best."""
    lines = [f"{_where(setting)}{_first(comparison, setting, ranking)}." for setting, ranking in _rankings(comparison)]
    if len(comparison.settings) > MOST_SETTINGS:
        lines.append(f"{len(comparison.settings) - MOST_SETTINGS} further settings are in the table.")
    return lines or ["No job has been measured, so nobody has won."]


def is_told(comparison: Comparison) -> bool:
    """Whether every setting has an arm that is told better than all others."""
    rankings = _rankings(comparison)
    return bool(rankings) and all(ranking[0][0] in comparison.best[comparison.main or ""] for _, ranking in rankings)


def _first(comparison: Comparison, setting: tuple[str, ...], ranking: list[tuple[Arm, Estimate]]) -> str:
    """The best mean; where nothing tells it from the others it leads, and no share of wins says more."""
    (arm, estimate), metric = ranking[0], comparison.main or ""
    best = "lowest" if lower_is_better(metric) else "highest"
    told, before = arm in comparison.best[metric], ""
    if len(ranking) > 1:
        before = f", before {ranking[1][0].name} with {interval(ranking[1][1])}"
    if told:
        share = comparison.stability.get(setting, {}).get(arm.label)
        wins = "" if share is None else f". It wins in {_percent(share)} of resamples of seeds and prompts"
        return f"{arm.name} has the {best} {metric}, {interval(estimate)}{before}, told from all others{wins}"
    if len(ranking) == 1:
        return f"{arm.name} alone was measured: {metric} {interval(estimate)}"
    tested = any(arm in (entry.arm, entry.reference) for entry in comparison.differences[metric])
    doubt = f"{_seeds(estimate.seeds)} cannot tell" if tested else f"without {' or '.join(REFERENCES)} nothing tells"
    return f"{arm.name} leads; {doubt}: it has the {best} {metric}, {interval(estimate)}{before}"


def _seeds(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[count] if count < len(words) else count} seed{'' if count == 1 else 's'}"


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
