"""A sweep's folder → report.html, report.md, results.csv, results.parquet, figures/; from disk."""

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas

from rose.errors import one_line
from rose.report.answers import read_answers
from rose.report.comparison import compare
from rose.report.origin import question
from rose.report.recall import with_recall
from rose.report.results import read_jobs
from rose.report.selections import SweepSelections, read_selections
from rose.report.suspicions import read_findings
from rose.report.table import render
from rose.report.text import shorten
from rose.stages.disk import replace

log = logging.getLogger(__name__)

MOST_CHARACTERS = 2000  # of a row's text in `rows_read`


@dataclass(frozen=True)
class Report:
    path: Path  # of report.html, or where that failed of report.md
    text: str  # of report.md, which the terminal shows
    changed: bool  # whether the results differ from those of the report that was there
    results: pandas.DataFrame
    rows: pandas.DataFrame  # those at both ends of each method's ranking
    figures: list[Path]  # PNG


def write_report(sweep: Path, redraw: bool = True) -> Report:
    """Writes the report into `sweep`; without `redraw`, a page of the same results stays as it is.

    Raises RoseError where `sweep` is missing or holds no job. A page that cannot be drawn costs a
    warning: the tables are there by then.
    """
    jobs = with_recall(read_jobs(sweep))
    comparison, name = compare(jobs), sweep.resolve().name
    text, csv = render(jobs, comparison, name, question(sweep)), comparison.frame.to_csv(index=False)
    old, selections, path = sweep / "results.csv", SweepSelections(), sweep / "report.html"
    changed = not old.exists() or old.read_text(encoding="utf-8", errors="replace") != csv
    _write(old, csv)
    _write(sweep / "report.md", text)
    try:
        if redraw or changed or not path.exists():
            from rose.report.figures import draw
            from rose.report.page import render_page

            mixed = [name for name, values in comparison.frame.items() if values.dtype == object]
            plain = comparison.frame.astype(dict.fromkeys(mixed, "string"))  # values of several types become text
            replace(sweep / "results.parquet", partial(plain.to_parquet, index=False))
            selections = read_selections(comparison.arms, jobs)
            findings = read_findings(comparison.arms, jobs, comparison.problems)
            answers = read_answers(comparison, jobs)
            plots = draw(comparison, selections, jobs, sweep / "figures")
            _write(path, render_page(sweep, jobs, comparison, selections, answers, findings, plots))
    except Exception as error:
        if os.environ.get("ROSE_DEBUG"):
            raise
        path = sweep / "report.md"
        log.warning("report.html was not written (%s); report.md and results.csv were", one_line(error))
    figures = sorted((sweep / "figures").glob("*.png"))
    return Report(path, text, changed, comparison.frame, rows_read(selections), figures)


def rows_read(selections: SweepSelections) -> pandas.DataFrame:
    """The rows of the page's last part as a table; texts are made printable and cut."""
    columns = ["method", "end", "rank", "score", "id", "source", "text"]
    rows = [
        (arm.label, end, row.rank, row.score, shorten(row.id, 200), shorten(row.source, 200), _text(row.messages))
        for arm in selections.arms
        for end, part in (("top", arm.top), ("bottom", arm.bottom))
        for row in part
    ]
    return pandas.DataFrame(rows, columns=columns)


def _text(messages: list[dict]) -> str:
    turns = (f"{message.get('role')}: {message.get('content')}" for message in messages)
    return shorten("\n\n".join(turns), MOST_CHARACTERS)


def _write(path: Path, text: str) -> None:
    replace(path, lambda part: part.write_text(text, encoding="utf-8", errors="replace"))
