"""report.html: one file that needs no network and no script, escaped by Jinja2."""

from pathlib import Path

import jinja2

from rose.report.arms import lower_is_better
from rose.report.comparison import Comparison, verdict
from rose.report.drawing import Plot
from rose.report.headlines import is_it_real, what_it_cost, who_won
from rose.report.results import JobRecord
from rose.report.selections import Selections
from rose.report.suspicions import Check, suspicions
from rose.report.table import notes, unfinished
from rose.report.text import number, printable, shorten

HERE = Path(__file__).parent
MOST_LINES = 6  # of an answer on the first screen
MOST_CHARACTERS, MOST_MESSAGES = 600, 4  # of a row to read
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
    selections: Selections,
    checks: list[Check],
    plots: list[Plot],
) -> str:
    """The page as HTML. Every text of other people's is escaped and cut, and made printable."""
    lines, missing = suspicions(comparison, selections, checks, jobs), unfinished(jobs)
    told = _verdicts(comparison, comparison.main)
    there = {"unfinished": missing, "verdicts": told, "figures": plots, "rows": selections.arms}
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
        most_lines=MOST_LINES,
        sections={anchor: name for anchor, name in SECTIONS.items() if there.get(anchor, True)},
        unfinished=missing,
        comparison=comparison,
        notes=notes(jobs, comparison),
        verdicts=told,
        others={
            metric: entries
            for metric in comparison.differences
            if metric != comparison.main and (entries := [entry[:2] for entry in _verdicts(comparison, metric)])
        },
        stability=[
            (" ".join(filter(None, key)), _shares(shares)) for key, shares in comparison.stability.items() if shares
        ],
        plots=plots,
        missing=_missing(selections),
        suspicions=lines,
        checks=sorted(checks, key=lambda check: (check.name, check.arm)),
        selections=selections,
        most_characters=MOST_CHARACTERS,
        most_messages=MOST_MESSAGES,
        stages=_stages(jobs),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what is marked as safe
    )
    environment.filters |= {"number": number, "cut": shorten, "lower_is_better": lower_is_better}
    return environment.get_template("page.html.jinja")


def _count(jobs: list[JobRecord]) -> str:
    done = sum(job.state == "done" for job in jobs)
    text = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    return f"{text}, all done." if done == len(jobs) else f"{text}, {done} done."


def _verdicts(comparison: Comparison, metric: str | None) -> list[tuple]:
    return [(entry, *verdict(entry, metric)) for entry in comparison.differences.get(metric, [])]


def _shares(shares: dict[str, float]) -> list[tuple[str, str]]:
    """The arms that win at all, most often first."""
    said = [(arm, f"{share:.0%}" if share >= 0.01 else "<1%") for arm, share in shares.items() if share > 0]
    return sorted(said, key=lambda pair: -shares[pair[0]])


def _missing(selections: Selections) -> str:
    lacking = []
    if len(selections.pool_sources) == 1:
        lacking.append(f"no source mix, since all rows come from {next(iter(selections.pool_sources))}")
    if not selections.arms:
        lacking.append("no lengths, sources and overlap, since no job holds selected.jsonl")
    return f"Not drawn: {'; '.join(lacking)}." if lacking else ""


def _stages(jobs: list[JobRecord]) -> list[tuple[str, ...]]:
    """Stage, artifacts, jobs that use them, seconds, tokens, GFLOPs, greatest peak memory, bytes; the slowest first."""
    artifacts: dict[str, dict[str, dict]] = {}
    users: dict[str, int] = {}
    for job in jobs:
        for name, stage in job.stages.items():
            artifacts.setdefault(name, {})[stage.get("dir", job.dir.name)] = stage
            users[name] = users.get(name, 0) + 1
    table = []
    for name, stages in artifacts.items():

        def total(key: str, unit: float = 1, stages: dict = stages) -> float:
            return sum(stage.get(key, 0) for stage in stages.values()) / unit

        tokens, peak = total("tokens_forward"), max(stage.get("peak_memory", 0) for stage in stages.values())
        sizes = (total("seconds"), tokens, total("flops", 1e9), peak / 2**20, total("bytes", 2**20))
        table.append((sizes[0], (name, str(len(stages)), str(users[name]), *map(_amount, sizes))))
    return [row for _, row in sorted(table, reverse=True)]


def _amount(value: float) -> str:
    return "" if not value else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
