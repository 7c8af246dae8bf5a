"""How far apart fine-tuning set the answers of test pairs, method against method, and what the pairs could tell.

A pair's `log_ratio_margin` is a number where its accuracy is a yes or no, so that fewer pairs tell
two models apart by it; how many fewer is worked out from the spread that was measured.
"""

import math
from collections.abc import Iterator

from rose.report.arms import Arm
from rose.report.comparison import Comparison
from rose.report.metrics import MARGINS
from rose.report.statistics import NOTHING, Estimate, least_told, least_told_by_prompts, prompts_needed
from rose.report.text import interval, number

MARGIN, _, MATCHED = MARGINS
ACCURACY = "preference_accuracy"
SHORT: dict[str, str] = dict(zip(MARGINS, (MARGIN, "per token", "at matched length"), strict=True))


def headline(comparison: Comparison, arm: Arm) -> Iterator[str]:
    """The arm's margins against each method that it was to be compared with, a sentence each."""
    for one, other, found in _asked(comparison):
        if one is arm:
            parts = [f"{SHORT[metric]} {interval(found[metric], '+')}" for metric in MARGINS if found[metric].seeds]
            yield f"{one.name} against {other.name}: {', '.join(parts)}."


def gains(comparison: Comparison) -> list[list[str]]:
    """Paired differences in the margins and in accuracy as a table, header first; empty without any."""
    metrics = [*_shown(comparison), ACCURACY]
    rows = [
        [one.label, other.label, *(interval(found[metric], "+") for metric in metrics)]
        for one, other, found in _asked(comparison)
    ]
    return [["method", "against", *(SHORT.get(metric, metric) for metric in metrics)], *rows] if rows else []


def power(comparison: Comparison) -> list[list[str]]:
    """What could be told of these differences by margin and by accuracy, header first; empty without any."""
    rows = [
        [one.label, other.label, *_told(found[MARGIN]), *_told(found[ACCURACY])]
        for one, other, found in _asked(comparison)
    ]
    told = [[f"{name}: deviation", "told", "with seeds", "needed"] for name in ("margin", "accuracy")]
    return [["method", "against", *told[0], *told[1]], *rows] if rows else []


def legend(comparison: Comparison) -> Iterator[str]:
    """How to read the two tables; nothing where there are none."""
    asked = [found for _, _, found in _asked(comparison)]
    if asked:
        per_token = "; per token: each over its answer's tokens" if MARGINS[1] in _shown(comparison) else ""
        yield (
            "log_ratio_margin: how much likelier than before fine-tuning the chosen answer is, less the same of the "
            f"rejected one, in nats{per_token}. Paired by prompt, 95 % intervals before correction."
        )
    if MATCHED in _shown(comparison):
        some, every = (_range([found[metric].items for found in asked]) for metric in (MATCHED, MARGIN))
        yield f"At matched length: {some} of {every} pairs; the longer answer has at most 1.2 times the other's tokens."
    if prompts := _range([found[MARGIN].prompts for found in asked]):
        yield (
            f"What {prompts} prompts could tell with 80 % power at a 5 % level (two-sided, before correction), by the "
            "deviation of their paired differences: told, between these models; with seeds, between methods, whose "
            "seeds differ too; needed, prompts that would tell the difference seen between these models."
        )


def _asked(comparison: Comparison) -> list[tuple[Arm, Arm, dict[str, Estimate]]]:
    """The planned comparisons that have a margin: both arms, and their paired differences by metric."""
    result = []
    for planned in filter(lambda entry: entry.planned, comparison.differences.get(comparison.main, [])):
        found = dict.fromkeys((*MARGINS, ACCURACY), NOTHING)
        for metric in found:
            same = [entry for entry in comparison.to(metric, planned.arm) if entry.reference is planned.reference]
            found[metric] = same[0].estimate if same else NOTHING
        if found[MARGIN].seeds:
            result.append((planned.arm, planned.reference, found))
    return result


def _shown(comparison: Comparison) -> list[str]:
    """The margins that any job has: an older job lacks some."""
    return [metric for metric in MARGINS if any(found[metric].seeds for _, _, found in _asked(comparison))]


def _told(found: Estimate) -> list[str]:
    """Deviation of the prompts' paired differences, what it lets be told without and with seeds, and prompts needed."""
    if not found.prompts:
        return [""] * 4
    seeds = least_told(found.seeds, found.seed_variance, found.prompt_variance) if found.seeds > 1 else math.nan
    needed = prompts_needed(found)
    cells = [number(each) for each in (found.deviation, least_told_by_prompts(found.deviation, found.prompts), seeds)]
    return [*("–" if cell == "nan" else cell for cell in cells), "–" if math.isnan(needed) else f"{needed:,.0f}"]


def _range(counts: list[int]) -> str:
    """`200`, or `180–200` where they differ; "" of nothing but noughts."""
    low, high = min(counts, default=0), max(counts, default=0)
    return "" if not high else str(high) if low == high else f"{low}–{high}"
