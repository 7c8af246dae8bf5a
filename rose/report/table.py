"""A sweep's results as Markdown: means over seeds with their range, and what must be known to read them."""

from dataclasses import dataclass
from pathlib import Path

import pandas

from rose.report.results import NAMING, Job, read_jobs, swept_keys, tabulate, write_text

HEADLINE = ["reward", "win_rate", "preference_accuracy", "chosen_loss", "precision", "cost/seconds"]
LOWER_IS_BETTER = {"chosen_loss", "cost/seconds"}
# Rows compete only where these agree: the same question asked of the same amount of data.
TASK = ("model", "dataset", "preference", "world", "evaluation", "ratio")
SEEDS = ["seed", "warmup.seed", "projection.seed", "selection.seed", "finetune.seed", "evaluation.seed"]


@dataclass(frozen=True)
class Spread:
    """Mean, least and greatest value of a metric over `n` finished jobs that differ in their seeds alone."""

    n: int
    mean: float
    least: float
    greatest: float

    @property
    def text(self) -> str:
        if self.n < 2:
            return f"{self.mean:.3f}" if self.n else ""
        return f"{self.mean:.3f} ({self.least:.3f}–{self.greatest:.3f})"

    def beats(self, other: "Spread", lower_is_better: bool) -> bool:
        """Whether every value here is better than every value there; one value says nothing about a range."""
        if min(self.n, other.n) < 2:
            return False
        return self.greatest < other.least if lower_is_better else self.least > other.greatest


def write_report(sweep: Path) -> str:
    """Writes results.csv and report.md into `sweep` and returns the latter's text.

    Raises RoseError where `sweep` is missing or holds no job.
    """
    jobs = read_jobs(sweep)
    frame = tabulate(jobs)
    text = render(jobs, frame, sweep.resolve().name)
    write_text(sweep / "results.csv", frame.to_csv(index=False))
    write_text(sweep / "report.md", text)
    return text


def render(jobs: list[Job], frame: pandas.DataFrame, title: str) -> str:
    """Markdown of `frame`, which is `tabulate(jobs)`."""
    runs = frame.iloc[: len(jobs)]  # without the zero-shot rows, which come last
    runs = runs[runs[list(NAMING)].notna().any(axis=1)]  # nor jobs whose configuration is lost
    setting = [name for name in [*NAMING, *swept_keys(jobs)] if not _is_seed(name)]
    varying = [name for name in setting if runs[name].nunique(dropna=False) > 1]
    columns = list(dict.fromkeys(["method", *varying]))
    same = [f"{name} {_show(value)}" for name in setting if name not in columns for value in runs[name].head(1)]
    metrics = [name for name in HEADLINE if name in frame.columns and frame[name].notna().any()]
    parts = [f"# {title}", f"In every job: {', '.join(same)}." if same else ""]
    parts.append(_table(frame, columns, metrics))
    parts.append("\n".join(_notes(jobs, frame, metrics)))
    parts.append(_unfinished(jobs))
    return "\n\n".join(part for part in parts if part) + "\n"


def spread(values: pandas.Series) -> Spread:
    known = values.dropna().astype(float)
    return Spread(len(known), known.mean(), known.min(), known.max())


def _table(frame: pandas.DataFrame, columns: list[str], metrics: list[str]) -> str:
    groups = list(frame.groupby(columns, dropna=False, sort=False))
    groups.sort(key=lambda group: str(group[0][0]) != "zero_shot")  # the base model on top
    done = [_results(rows[rows["state"] == "done"]) for _, rows in groups]
    task = [number for number, name in enumerate(columns) if _is_task(name)]
    tasks = [tuple(_show(key[number]) for number in task) for key, _ in groups]
    spreads = {name: [spread(rows[name]) for rows in done] for name in metrics}
    winners = {name: _winners(spreads[name], tasks, name in LOWER_IS_BETTER) for name in metrics}
    table = [[*columns, "n", *metrics]]
    for number, (key, rows) in enumerate(groups):
        n = len(done[number])
        cells = [_show(value) for value in key]
        unfinished = int((rows["state"] != "done").sum())
        cells.append(f"{n} of {n + unfinished}" if unfinished else str(n))
        for name in metrics:
            cells.append(_cell(spreads[name][number], n, number in winners[name]))
        table.append(cells)
    return _markdown(table, len(columns))


def _results(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One row a result: jobs that share their evaluation were measured once, not several times."""
    known = rows["result"].fillna("") != ""
    return pandas.concat([rows[known].drop_duplicates("result"), rows[~known]])


def _winners(spreads: list[Spread], tasks: list[tuple[str, ...]], lower_is_better: bool) -> set[int]:
    """The rows whose every value beats every value of all other rows on the same task; blank is any."""
    winners = set()
    for number, own in enumerate(spreads):
        rivals = [
            other
            for index, other in enumerate(spreads)
            if index != number and other.n and _same_task(tasks[index], tasks[number])
        ]
        if rivals and all(own.beats(other, lower_is_better) for other in rivals):
            winners.add(number)
    return winners


def _same_task(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(a == b or "" in (a, b) for a, b in zip(one, other, strict=True))


def _cell(value: Spread, jobs: int, winner: bool) -> str:
    text = value.text if value.n in (0, jobs) else f"{value.text}, n={value.n}"
    return f"**{text}**" if winner else text


def _notes(jobs: list[Job], frame: pandas.DataFrame, metrics: list[str]) -> list[str]:
    notes = []
    if metrics:
        lower = [f"lower {name} is better" for name in metrics if name in LOWER_IS_BETTER]
        bold = "bold: every job of the row beats every job of all rows with its model, data and ratio"
        notes.append("; ".join(["Mean (least–greatest) over n finished jobs", bold, *lower]) + ".")
    notes.append(_seeds(jobs))
    if "preference_accuracy" in metrics and "longer_wins" in frame.columns:
        by_preference = frame.groupby("preference", dropna=False)["longer_wins"]
        shares = [f"{_longer_wins(spread(values))} on {preference}" for preference, values in by_preference]
        notes.append(f"Longer wins: always taking the longer answer has accuracy {', '.join(shares)}.")
    notes.append("Every metric of every job: results.csv.")
    return [f"- {note}" for note in notes]


def _longer_wins(share: Spread) -> str:
    """Without the range where every job was tested on the same pairs."""
    return share.text if share.greatest > share.least else f"{share.mean:.3f}"


def _seeds(jobs: list[Job]) -> str:
    """Which seeds differ between the jobs, by value: what the range of a row is a range over."""
    swept = [key for key in swept_keys(jobs) if _is_seed(key)]
    values = {
        name: sorted({value for job in jobs if (value := job.value(name)) is not None})
        for name in dict.fromkeys([*SEEDS, *swept])
    }
    free = [name for name, seeds in values.items() if len(seeds) > 1]
    pinned = [f"{name} ({seeds[0]})" for name, seeds in values.items() if len(seeds) == 1]
    if not free:
        return "One seed: no range to show."
    text = f"Seeds that differ between jobs: {', '.join(free)}"
    text += f" ({', '.join(map(str, values[free[0]]))})."
    if not pinned:
        return text + " None is pinned."
    return text + f" Pinned, so their spread is not in the ranges: {', '.join(pinned)}."


def _unfinished(jobs: list[Job]) -> str:
    lines = []
    for job in jobs:
        if job.state != "done":
            reason = (job.error.strip().splitlines() or ["stopped before its end, or is still at work"])[0]
            lines.append(f"- {job.dir.name} ({job.state}): {reason}")
    return "\n".join([f"Not finished, {len(lines)} of {len(jobs)} jobs:", "", *lines]) if lines else ""


def _is_seed(name: str) -> bool:
    return name == "seed" or name.endswith(".seed")


def _is_task(name: str) -> bool:
    """Whether a column says what is measured, and on what, rather than how the rows were selected."""
    method_option = name.startswith("preference.") and not name.startswith("preference.pairs")
    return name.split(".")[0] in TASK and not method_option


def _show(value: object) -> str:
    return "" if pandas.isna(value) else str(value).replace("|", "\\|")


def _markdown(table: list[list[str]], text_columns: int) -> str:
    """A padded Markdown table of `table`, header first; the first `text_columns` columns are left-aligned."""
    widths = [max(3, *(len(row[column]) for row in table)) for column in range(len(table[0]))]  # GFM wants a dash
    rule = ["-" * width for width in widths]
    rule[text_columns:] = [dashes[:-1] + ":" for dashes in rule[text_columns:]]
    lines = []
    for row in [table[0], rule, *table[1:]]:
        cells = [
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
