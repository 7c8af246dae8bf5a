"""The first screen: who won, is it real, what did it cost, as sentences."""

from rose.report.arms import REFERENCES, Arm, lower_is_better
from rose.report.comparison import Comparison, verdict
from rose.report.results import JobRecord
from rose.report.statistics import Estimate
from rose.report.table import gain, interval
from rose.report.text import number

MOST_SETTINGS = 12


def who_won(comparison: Comparison) -> list[str]:
    """A sentence a setting: the best mean, and how often it wins when seeds and prompts are drawn again."""
    lines = []
    for setting in comparison.settings[:MOST_SETTINGS]:
        ranking = ranked(comparison, setting)
        if not ranking:
            continue
        arm, estimate = ranking[0]
        line = f"{arm.own} has the {_best(comparison)} {comparison.main}, {interval(estimate)}"
        if len(ranking) > 1:
            line += f", before {ranking[1][0].own} with {interval(ranking[1][1])}"
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
    for setting in comparison.settings[:MOST_SETTINGS]:
        ranking = ranked(comparison, setting)
        differences = comparison.to(comparison.main, ranking[0][0]) if ranking else []
        for difference in differences:
            answer, advice = verdict(difference, comparison.main)
            line = f"{ranking[0][0].own}, better than {difference.reference.own}: {answer}"
            shown = gain(difference)
            line += f", {shown}" if shown else ""
            lines.append(f"{_where(setting)}{line}{f'; {advice}' if advice else ''}.")
        if ranking and not differences:
            lines.append(f"{_where(setting)}{ranking[0][0].own} has nothing to be compared with {_references()}.")
    return lines or ["There is nothing to compare."]


def what_it_cost(comparison: Comparison, jobs: list[JobRecord]) -> list[str]:
    """What the best arm's own stages take beside random's, and what the whole sweep took."""
    lines = []
    costs = comparison.estimates.get("cost/seconds", [])
    for setting in comparison.settings[:MOST_SETTINGS] if costs else ():
        for arm, _ in ranked(comparison, setting)[:1]:
            own = costs[comparison.arms.index(arm)]
            if own.seeds:
                lines.append(
                    f"{_where(setting)}{arm.own} takes {duration(own.mean)} by itself{_beside(comparison, arm, own)}."
                )
    total = sum({stage["dir"]: stage["seconds"] for job in jobs for stage in _timed(job)}.values())
    fresh = sum({s["dir"]: s["seconds"] for job in jobs for s in _timed(job) if s.get("state") == "computed"}.values())
    if total:
        lines.append(f"The sweep's {len(jobs)} jobs rest on {duration(total)} of computing, shared stages counted once")
        lines[-1] += f"; {duration(fresh)} of it their last runs did." if 0 < fresh < total else "."
    return lines or ["No stage has recorded what it took."]


def ranked(comparison: Comparison, setting: tuple[str, ...]) -> list[tuple[Arm, Estimate]]:
    """The arms of a setting that were measured, the best mean first."""
    if not comparison.main:
        return []
    means = comparison.estimates[comparison.main]
    known = [(comparison.arms[place], means[place]) for place in comparison.of_setting(setting) if means[place].seeds]
    sign = 1 if lower_is_better(comparison.main) else -1
    return sorted(known, key=lambda pair: sign * pair[1].mean)


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{number(round(seconds, 1 if seconds >= 10 else 2)).rstrip('0').rstrip('.')} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _timed(job: JobRecord) -> list[dict]:
    return [stage for stage in job.stages.values() if "dir" in stage and "seconds" in stage]


def _beside(comparison: Comparison, arm: Arm, own: Estimate) -> str:
    for place in comparison.of_setting(arm.task):
        other, cost = comparison.arms[place], comparison.estimates["cost/seconds"][place]
        if other.method == "random" and other is not arm and cost.mean > 0:
            return f", {own.mean / cost.mean:.1f} times what random takes"
    return ""


def _best(comparison: Comparison) -> str:
    return "lowest" if lower_is_better(comparison.main) else "highest"


def _percent(share: float) -> str:
    return "all" if share >= 0.9995 else f"{100 * share:.1f} %" if share > 0.99 else f"{share:.0%}".replace("%", " %")


def _where(setting: tuple[str, ...]) -> str:
    text = " ".join(filter(None, setting))
    return f"{text}: " if text else ""


def _references() -> str:
    return f"({' or '.join(REFERENCES)} in its setting)"
