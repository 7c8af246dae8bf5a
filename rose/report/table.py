"""A sweep's results as Markdown: means with 95 % intervals, what they tell, how to read them."""

from collections.abc import Iterable, Iterator

from rose.report.arms import REFERENCES, Arm, is_seed
from rose.report.comparison import Comparison, Difference, verdict
from rose.report.margins import gains, legend, power
from rose.report.metrics import lower_is_better
from rose.report.results import JobRecord, swept_keys
from rose.report.text import interval
from rose.report.trends import orders

SEEDS = ["seed", "warmup.seed", "projection.seed", "selection.seed", "finetune.seed", "evaluation.seed"]
SEEDS += ["preference.pairs.seed", "dataset.seed", "world.seed"]  # do not follow `seed`


def render(jobs: list[JobRecord], comparison: Comparison, title: str, question: str = "") -> str:
    """The table, a verdict a row, notes, what the margins tell, and the jobs that did not finish."""
    same = [f"{name} {value}" for name, value in comparison.same.items()]
    parts = [f"# {title}", question, f"In every job: {', '.join(same)}." if same else ""]
    parts.append(_markdown(cells(comparison), len(comparison.columns)))
    answers = [(arm, answers_of(comparison, arm)) for arm in comparison.arms]
    parts.append(_bullets(f"{arm.label}: {'; '.join(lines)}." for arm, lines in answers if lines))
    parts.append(_bullets([*planned(comparison), *notes(jobs, comparison)]))
    parts += [_markdown(table, 2) for table in (gains(comparison), power(comparison)) if table]
    parts.append(_bullets(legend(comparison)))
    if lines := not_done(jobs):
        parts.append(f"Not finished, {len(lines)} of {len(jobs)} jobs:\n\n{_bullets(lines)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def cells(comparison: Comparison) -> list[list[str]]:
    """The table, header first: the columns that differ, finished jobs, a cell a metric."""
    table = [[*comparison.columns, "n", *comparison.metrics]]
    for arm in comparison.arms:
        row = [*arm.key, str(arm.done) if arm.done == arm.jobs else f"{arm.done} of {arm.jobs}"]
        row += [_cell(comparison, arm, metric) for metric in comparison.metrics]
        table.append([cell.replace("|", "\\|") for cell in row])
    return table


def _cell(comparison: Comparison, arm: Arm, metric: str) -> str:
    if arm.same_as:
        return f"the same as {arm.same_as.label}" if metric == comparison.metrics[0] else ""
    estimate = comparison.estimates[metric][arm]
    text = interval(estimate) + (f", n={estimate.seeds}" if estimate.seeds not in (0, arm.done) else "")
    return f"**{text}**" if arm in comparison.best[metric] else text


def gain(difference: Difference) -> str:
    """The difference as `interval` shows it, and whether the correction alone hides it."""
    text = interval(difference.estimate, "+")
    return f"{text.removesuffix(')')} before correction)" if difference.lost_by_correction else text


def answers_of(comparison: Comparison, arm: Arm, before_advice: str = ", ") -> list[str]:
    """The verdicts on an arm in the main metric: answer, difference and what would tell."""
    lines = []
    for difference in comparison.to(comparison.main, arm):
        (answer, advice), shown = verdict(difference), gain(difference)
        aside = "" if difference.planned else " (exploratory)"
        line = f"better than {difference.reference.name}{aside}: {answer}{f', {shown}' if shown else ''}"
        lines.append(f"{line}{before_advice}{advice}" if advice else line)
    return lines


def notes(jobs: list[JobRecord], comparison: Comparison) -> Iterator[str]:
    """What the numbers are, which seeds differ, and what a reader may take for more than it is."""
    if comparison.metrics:
        lower = [f"lower {name} is better" for name in comparison.metrics if lower_is_better(name)]
        bold = "bold: told better than every other row of its trained model, data and budget, random or LESS among them"
        bold += " (paired differences, Holm's correction over these and all lines: none contradicts it)"
        told = [bold] if len(comparison.arms) > 1 else []
        yield "; ".join([f"Mean ({_over(comparison)})", *told, *lower]) + "."
    if any(arm.method == "full" for arm in comparison.arms):
        yield "full takes the whole pool, whatever the ratio."
    if any(arm.same_as for arm in comparison.arms):
        yield "The same as …: one measurement under two names competes once."
    if any(arm.models < len(arm.results) for arm in comparison.arms):
        yield "n counts models: one that is measured with several evaluation.seed, say, is one seed."
    yield seeds(jobs)
    if "preference_accuracy" in comparison.metrics and "longer_wins" in comparison.frame:
        groups = comparison.frame.dropna(subset="longer_wins").groupby("preference", dropna=False)["longer_wins"]
        text = ", ".join(f"{share.mean():.3f} on {preference}" for preference, share in groups)
        yield f"Longer wins: always taking the longer answer has accuracy {text}."
    yield from orders(comparison)
    yield from comparison.problems
    yield from pools(jobs)
    yield "Every metric of every job: results.csv."


def pools(jobs: Iterable[JobRecord]) -> Iterator[str]:
    """How many rows a ratio is of, and how many no method saw; once for each way a pool was tokenised."""
    whole: set[int] = set()
    for folder, job in sorted({job.directory("tokens"): job for job in jobs if job.directory("tokens")}.items()):
        rows, lost = (int(job.metrics.get(name, 0)) for name in ("pool_rows", "pool_rows_dropped"))
        if lost:
            of, ratio = (f" of {rows:,}", f": a ratio is of the other {rows - lost:,}") if rows else ("", "")
            yield f"{lost:,}{of} pool rows were dropped at tokenising, as {folder}/dropped.jsonl says{ratio}."
        elif rows:
            whole.add(rows)
    if whole:
        yield f"A ratio is of the pool's {' or '.join(f'{rows:,}' for rows in sorted(whole))} rows."


def planned(comparison: Comparison) -> Iterator[str]:
    """Which comparisons answer the sweep's question, and which were found on the way."""
    entries, metric = comparison.differences.get(comparison.main, []), comparison.main
    asked = [entry for entry in entries if entry.planned]
    against = {method: [e.arm.name for e in asked if e.reference.method == method] for method in REFERENCES}
    what = [f"{', '.join(dict.fromkeys(arms))} against {method}" for method, arms in against.items() if arms]
    if entries:
        yield f"Better than …: at the 5 % level after Holm's correction, in {metric}; intervals before correction."
    if what:
        question = "each method against random and those that go by rewards against less"
        yield f"Planned, one family of {len(asked)}: {question}, in {metric} ({'; '.join(what)})."
    if rest := len(entries) - len(asked):
        yield f"Exploratory: the other {rest}, a family of their own, and every other metric."


def not_done(jobs: list[JobRecord]) -> list[str]:
    """Every job that is not done, with its reason; a failed one may have metrics all the same."""
    lines = []
    for job in jobs:
        if job.state != "done":
            reason = (job.error.strip().splitlines() or ["stopped before its end, or is still at work"])[0]
            measured = job.state == "failed" and any("/" not in name for name in job.metrics)
            lines.append(f"{job.dir.name} ({job.state}{', kept what it had measured' * measured}): {reason}")
    return lines


def _over(comparison: Comparison) -> str:
    estimates = [comparison.estimates[name][arm] for name in comparison.metrics for arm in comparison.arms]
    shown = [estimate for estimate in estimates if estimate.has_interval]
    if not shown:
        return "no interval: one seed and no items.parquet"
    if not any(estimate.items for estimate in shown):
        return "95 % interval over seeds"
    if all(estimate.seeds == 1 for estimate in shown):
        return "95 % interval over test prompts: one seed says nothing of other seeds"
    return "95 % interval over seeds and test prompts; over seeds where a metric is not per item"


def seeds(jobs: list[JobRecord]) -> str:
    """Which seeds differ between the jobs, by value: what the intervals are over."""
    in_world = any(job.value(key) is not None for job in jobs for key in ("dataset.world", "preference.pairs.world"))
    named = [name for name in [*SEEDS, *swept_keys(jobs)] if is_seed(name) and (in_world or name != "world.seed")]
    values = {name: sorted({value for job in jobs if (value := job.value(name)) is not None}) for name in named}
    free = [name for name, found in values.items() if len(found) > 1]
    pinned = [f"{name} ({found[0]})" for name, found in values.items() if len(found) == 1]
    if not free:
        return "One seed: no interval here speaks of other seeds."
    text = f"Seeds that differ between jobs: {', '.join(free)} ({', '.join(map(str, values[free[0]]))})."
    if not pinned:
        return f"{text} None is pinned."
    return f"{text} Pinned, so their spread is not in the intervals: {', '.join(pinned)}."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown(table: list[list[str]], text_columns: int) -> str:
    """A padded Markdown table, header first; its first `text_columns` columns are left-aligned."""
    columns = []
    for place, cells in enumerate(zip(*table, strict=True)):
        width, right = max(3, *map(len, cells)), place >= text_columns
        rule = "-" * (width - right) + ":" * right  # GitHub's Markdown wants a dash beside the colon
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in (cells[0], rule, *cells[1:])])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))
