"""report.html: one file that needs no network and no script, escaped by Jinja2."""

from pathlib import Path

import jinja2
import pandas

from rose.report.answers import SideBySide
from rose.report.arms import words
from rose.report.comparison import Comparison, verdict
from rose.report.drawing import Plot
from rose.report.headlines import is_it_real, is_told, what_it_cost, who_won
from rose.report.margins import gains, legend, power
from rose.report.metrics import lower_is_better, meaning
from rose.report.origin import links, origin, question
from rose.report.results import JobRecord
from rose.report.selections import SweepSelections
from rose.report.suspicions import ArmFinding, shared, suspicions
from rose.report.table import not_done, notes, planned
from rose.report.text import counted, number, printable, shorten, shown

HERE = Path(__file__).parent
# Lines of an answer on the first screen; characters and messages of a row to read; jobs that are listed unfolded.
LIMITS = {"most_lines": 6, "most_characters": 600, "most_messages": 4, "most_jobs": 24}
SECTIONS = {
    "unfinished": "Not finished",
    "results": "Results",
    "verdicts": "Against random and LESS",
    "margins": "Margins of the test pairs",
    "figures": "Figures",
    "suspicious": "What looks suspicious",
    "answers": "Answers to read",
    "rows": "Rows to read",
    "costs": "What each stage took",
    "jobs": "Jobs",
}

MARGIN_TABLES = ("Paired differences in the margins and in accuracy", "What these pairs and seeds could tell")


def render_page(
    sweep: Path,
    jobs: list[JobRecord],
    comparison: Comparison,
    selections: SweepSelections,
    answers: SideBySide,
    findings: list[ArmFinding],
    plots: list[Plot],
) -> str:
    """The page as HTML. Every text of other people's is escaped and cut, and made printable."""
    lines, missing = suspicions(comparison, selections, findings, jobs) + answers.problems, not_done(jobs)
    others = {metric: entries for metric, entries in comparison.differences.items() if entries}
    main, done = others.pop(comparison.main, []), sum(job.state == "done" for job in jobs)
    apart = [table for table in (gains(comparison), power(comparison)) if table]
    there = {"unfinished": missing, "verdicts": main, "margins": apart, "figures": plots}
    there |= {"answers": answers.prompts, "rows": selections.arms}
    metrics = comparison.metrics + comparison.more
    return _template().render(
        title=sweep.resolve().name,
        question=question(sweep),
        style=(HERE / "page.css").read_text(),
        count=f"{counted(len(jobs), 'job')}, {'all' if done == len(jobs) else done} done.",
        same=comparison.same,
        summary={
            "Who won?": who_won(comparison),
            "Is it real?": is_it_real(comparison),
            "What did it cost?": what_it_cost(comparison, jobs),
            "What looks suspicious?": lines or ["Nothing that is checked here."],
        },
        told=is_told(comparison),
        planned=planned(comparison),
        sections={anchor: name for anchor, name in SECTIONS.items() if there.get(anchor, True)},
        unfinished=missing,
        comparison=comparison,
        metrics=metrics,
        meanings={metric: said for metric in metrics if (said := meaning(metric))},
        notes=notes(jobs, comparison),
        verdicts=main,
        others=others,
        margins=dict(zip(MARGIN_TABLES, apart, strict=False)),
        legend=legend(comparison),
        stability=[(words(setting), _shares(wins)) for setting, wins in comparison.stability.items()],
        plots=[plot for plot in plots if not plot.folded],
        folded=[plot for plot in plots if plot.folded],
        missing=_missing(selections),
        suspicions=lines,
        findings=shared(findings),
        side_by_side=answers,
        selections=selections,
        jobs=links(sweep, jobs),
        origin=origin(sweep, jobs),
        stages=_stages(jobs),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # Markup is safe
    )
    environment.filters |= {"number": number, "shown": shown, "cut": shorten, "verdict": verdict}
    environment.filters |= {"lower_is_better": lower_is_better}
    environment.globals |= LIMITS
    return environment.get_template("page.html.jinja")


def _shares(shares: dict[str, float]) -> list[tuple[str, str]]:
    """The arms that win at all, most often first."""
    ranked = sorted((arm for arm in shares if shares[arm] > 0), key=lambda arm: -shares[arm])
    return [(arm, f"{shares[arm]:.0%}" if shares[arm] >= 0.01 else "<1%") for arm in ranked]


def _missing(selections: SweepSelections) -> str:
    lacking = []
    if len(selections.pool_sources) == 1:
        lacking.append(f"no source mix, since all rows come from {next(iter(selections.pool_sources))}")
    if not selections.arms:
        lacking.append("no lengths, sources and overlap, since no job holds selected.jsonl")
    return f"Not drawn: {'; '.join(lacking)}." if lacking else ""


def _stages(jobs: list[JobRecord]) -> list[tuple[str, ...]]:
    """Stage, artifacts, jobs that use them, seconds, tokens, GFLOPs, the greatest peak of memory in MiB, MiB on disk;
    the slowest first.
    """
    used = [{"stage": name, "dir": job.dir.name} | stage for job in jobs for name, stage in job.stages.items()]
    sizes = {"seconds": "sum", "tokens_forward": "sum", "flops": "sum", "peak_memory": "max", "bytes": "sum"}
    frame = pandas.DataFrame(used, columns=["stage", "dir", *sizes]).fillna(0)
    artifacts = frame.drop_duplicates(["stage", "dir"], keep="last").groupby("stage")
    table = (artifacts.agg(sizes) / [1, 1, 1e9, 2**20, 2**20]).sort_index().sort_values("seconds", kind="stable")[::-1]
    users, counts = frame["stage"].value_counts(), artifacts.size()
    return [(name, str(counts[name]), str(users[name]), *map(_amount, row)) for name, *row in table.itertuples()]


def _amount(value: float) -> str:
    return "" if not value else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
