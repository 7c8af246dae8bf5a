"""A sweep's folder → report.html, report.md, results.csv, results.parquet and figures/, all from disk."""

import logging
import os
from pathlib import Path

import pandas

from rose.report.comparison import Comparison, compare
from rose.report.diagnostics import read_checks
from rose.report.results import Job, read_jobs, write_text
from rose.report.selections import read_selections
from rose.report.table import render

log = logging.getLogger(__name__)


def write_report(sweep: Path) -> str:
    """Writes the report into `sweep` and returns the text of report.md, which the terminal shows.

    Raises RoseError where `sweep` is missing or holds no job. A page that cannot be drawn costs a warning: the tables
    are there by then.
    """
    jobs = read_jobs(sweep)
    comparison, title = compare(jobs), sweep.resolve().name
    text = render(jobs, comparison, title)
    write_text(sweep / "results.csv", comparison.frame.to_csv(index=False))
    write_text(sweep / "report.md", text)
    try:
        _write_parquet(comparison.frame, sweep / "results.parquet")
        _write_page(sweep, title, jobs, comparison)
    except Exception as error:
        if os.environ.get("ROSE_DEBUG"):
            raise
        reason = (str(error).splitlines() or [""])[0]
        log.warning(
            "report.html was not written (%s: %s); report.md and results.csv were", type(error).__name__, reason
        )
    return text


def _write_page(sweep: Path, title: str, jobs: list[Job], comparison: Comparison) -> None:
    from rose.report.figures import draw
    from rose.report.page import render_page

    selections = read_selections(comparison.arms, jobs)
    checks = read_checks(comparison.arms, jobs, comparison.problems)
    plots = draw(comparison, selections, sweep / "figures")
    write_text(sweep / "report.html", render_page(title, jobs, comparison, selections, checks, plots))


def _write_parquet(frame: pandas.DataFrame, path: Path) -> None:
    """The same table; a column that holds values of several types becomes text."""
    mixed = [name for name in frame if frame[name].dtype == object]
    part = path.with_name(f".{path.name}.{os.getpid()}")
    frame.astype({name: "string" for name in mixed}).to_parquet(part, index=False)
    part.replace(path)
