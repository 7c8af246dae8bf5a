"""report.html: one file that needs no network and no script, escaped by Jinja2."""

from collections import Counter
from pathlib import Path

import jinja2

from rose.report.arms import words
from rose.report.comparison import Comparison, Difference, verdict
from rose.report.drawing import Plot
from rose.report.headlines import is_it_real, is_told, what_it_cost, who_won
from rose.report.metrics import lower_is_better
from rose.report.results import JobRecord, StageEntry
from rose.report.selections import SweepSelections
from rose.report.suspicions import ArmFinding, suspicions
from rose.report.table import not_done, notes, planned
from rose.report.text import number, printable, shorten

HERE = Path(__file__).parent
# Lines of an answer on the first screen; characters and messages of a row to read.
LIMITS = {"most_lines": 6, "most_characters": 600, "most_messages": 4}
SECTIONS = {
    "unfinished": "Not finished",
    "results": "Results",
    "verdicts": "Against random and LESS",
    "figures": "Figures",
    "suspicious": "What looks suspicious",
    "rows": "Rows to read",
    "costs": "What each stage took",
}


def render_page(
    title: str,
    jobs: list[JobRecord],
    comparison: Comparison,
    selections: SweepSelections,
    findings: list[ArmFinding],
    plots: list[Plot],
) -> str:
    """The page as HTML. Every text of other people's is escaped and cut, and made printable."""
    lines, missing = suspicions(comparison, selections, findings, jobs), not_done(jobs)
    answers = {metric: _verdicts(comparison, metric) for metric in comparison.differences}
    main = answers.pop(comparison.main, [])
    there = {"unfinished": missing, "verdicts": main, "figures": plots, "rows": selections.arms}
    return _template().render(
        title=title,
        style=(HERE / "page.css").read_text(),
        count=_count(jobs),
        same=comparison.same,
        answers={
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
        notes=notes(jobs, comparison),
        verdicts=main,
        others={metric: entries for metric, entries in answers.items() if entries},
        stability=[(words(setting), _shares(wins)) for setting, wins in comparison.stability.items()],
        plots=plots,
        missing=_missing(selections),
        suspicions=lines,
        findings=sorted(findings, key=lambda finding: (finding.name, finding.arm)),
        selections=selections,
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
    environment.filters |= {"number": number, "cut": shorten, "lower_is_better": lower_is_better}
    environment.globals |= LIMITS
    return environment.get_template("page.html.jinja")


def _count(jobs: list[JobRecord]) -> str:
    done = sum(job.state == "done" for job in jobs)
    text = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    return f"{text}, all done." if done == len(jobs) else f"{text}, {done} done."


def _verdicts(comparison: Comparison, metric: str) -> list[tuple[Difference, str, str]]:
    return [(entry, *verdict(entry)) for entry in comparison.differences[metric]]


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
    """Stage, artifacts, jobs that use them, and `_sizes` of these; the slowest first."""
    users = Counter(name for job in jobs for name in job.stages)
    artifacts: dict[str, dict[str, StageEntry]] = {name: {} for name in users}
    for job in jobs:
        for name, stage in job.stages.items():
            artifacts[name][stage.get("dir", job.dir.name)] = stage
    sizes = {name: _sizes(list(stages.values())) for name, stages in artifacts.items()}
    slowest = sorted(sizes, key=lambda name: (sizes[name][0], name), reverse=True)
    return [(name, str(len(artifacts[name])), str(users[name]), *map(_amount, sizes[name])) for name in slowest]


def _sizes(stages: list[StageEntry]) -> tuple[float, ...]:
    """Seconds, tokens, GFLOPs, greatest peak of memory in MiB, MiB on disk."""
    seconds, tokens, flops, size = (
        sum(stage.get(key, 0) for stage in stages) for key in ("seconds", "tokens_forward", "flops", "bytes")
    )
    peak = max(stage.get("peak_memory", 0) for stage in stages)
    return seconds, tokens, flops / 1e9, peak / 2**20, size / 2**20


def _amount(value: float) -> str:
    return "" if not value else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
