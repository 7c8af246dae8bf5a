"""What looks suspicious: the jobs' own diagnostics, and what only several jobs together show."""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from rose.diagnostics.finding import severity
from rose.errors import one_line
from rose.report.arms import Arm, words
from rose.report.comparison import Comparison
from rose.report.metrics import direction, is_quality
from rose.report.results import JobRecord
from rose.report.selections import SweepSelections
from rose.report.table import not_done, pools
from rose.report.text import counted, number

FIRM = 0.9  # share of resamples that a winner should win
MANY_LOST = 0.1  # of a pool's rows, at tokenising
LIKE_CHANCE = 1.5  # times the overlap of random choices: seeds that agree no more chose by chance
CORRELATED = 0.3
MINUS = re.compile(r"(?<![\w-])-(?=\d)")  # in sentences of a stage
JUDGE_GAPS = ("judge_malformed", "judge_refused")


@dataclass(frozen=True)
class ArmFinding:
    """What one diagnostic found of one arm, over its seeds; after `shared` also of several."""

    name: str
    arm: str
    values: tuple[float, ...]  # of the jobs that have a number, equal ones once
    state: str  # pass | warn: the worst of its jobs
    sentence: str  # of the worst job
    details: tuple[str, ...]


def read_findings(arms: list[Arm], jobs: list[JobRecord], problems: list[str]) -> list[ArmFinding]:
    """diagnostics.json of every job, by name and arm; broken files are added to `problems`."""
    named, findings = {job.dir.name: job for job in jobs}, []
    for arm in arms:
        entries: dict[str, list[dict]] = defaultdict(list)
        for name in arm.members if arm.method != "zero_shot" else ():
            for entry in _read(named[name], problems):
                entries[str(entry.get("name"))].append(entry)
        findings += [_finding(name, arm.label, group) for name, group in entries.items()]
    return findings


def shared(findings: list[ArmFinding]) -> list[ArmFinding]:
    """By name; what is found of all arms alike, as of data, or of some, is one row."""
    everyone = {finding.arm for finding in findings}
    alike: dict[ArmFinding, list[str]] = defaultdict(list)
    for finding in findings:
        alike[replace(finding, arm="")].append(finding.arm)
    for arms in alike.values():
        arms[:] = ["all methods"] if len(arms) == len(everyone) > 1 else [_list(arms)]
    return sorted((replace(row, arm=arm) for row, (arm,) in alike.items()), key=lambda row: row.name)


def _read(job: JobRecord, problems: list[str]) -> list[dict]:
    path = job.dir / "diagnostics.json"
    try:
        return [entry for entry in json.loads(path.read_text()) if isinstance(entry, dict)] if path.exists() else []
    except (ValueError, OSError, TypeError) as error:
        problems.append(f"{job.dir.name}/diagnostics.json cannot be read: {one_line(error)}")
        return []


def _finding(name: str, arm: str, entries: list[dict]) -> ArmFinding:
    def gravity(entry: dict) -> tuple[bool, float]:
        """What is not measured is the worst of the warnings, as a score that tells no row from another."""
        warns, value = entry.get("state") == "warn", _measured(entry)
        return warns, severity(name, value) if warns or value is not None else -math.inf

    worst = max(entries, key=gravity)
    values = tuple(dict.fromkeys(value for entry in entries if (value := _measured(entry)) is not None))
    state, sentence = str(worst.get("state", "pass")), MINUS.sub("−", str(worst.get("sentence", "")))
    return ArmFinding(name, arm, values, state, sentence, tuple(_lines(worst.get("details"))))


def _measured(entry: dict) -> float | None:
    return float(value) if isinstance(value := entry.get("value"), int | float) else None


def _lines(details: Any) -> list[str]:
    if isinstance(details, dict):
        return [f"{name}: {_short(value)}" for name, value in details.items()][:20]
    return [_short(value) for value in details][:20] if isinstance(details, list) else []


def _short(value: Any) -> str:
    text = number(value) if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else text[:199] + "…"


def suspicions(
    comparison: Comparison, selections: SweepSelections, findings: list[ArmFinding], jobs: list[JobRecord]
) -> list[str]:
    """Sentences, the gravest first."""
    missing = not_done(jobs)
    lines = [f"{len(missing)} of {len(jobs)} jobs did not finish; they are listed below."] if missing else []
    for look in (_few_seeds, _gaps, _unstable, _harmed, _disagreement):
        lines += look(comparison)
    lines += [
        *_one_base(comparison, jobs),
        *_processors(jobs),
        *_lost(jobs),
        *_warned(findings),
        *_by_chance(selections),
        *_by_length(comparison, findings),
        *_judge(comparison),
    ]
    return [*dict.fromkeys(lines), *comparison.problems, *selections.problems]


def _few_seeds(comparison: Comparison) -> Iterator[str]:
    trained = [arm for arm in comparison.arms if arm.method != "zero_shot" and arm.results]
    few = [arm.label for arm in trained if arm.models < 2]
    if few:
        who = "every method" if len(few) == len(trained) else _list(few)
        yield f"One model only for {who}: its intervals speak of that one model, not of the method."


def _gaps(comparison: Comparison) -> Iterator[str]:
    for metric in comparison.metrics:
        known = [(arm, sum(metric in r.metrics or metric in r.items for r in arm.results)) for arm in comparison.arms]
        short = [f"{arm.label} {n} of {len(arm.results)}" for arm, n in known if 0 < n < len(arm.results)]
        if short and metric != "cost/seconds":
            yield f"{metric} is not known for every finished job: {_list(short)}."
    if comparison.main and not any(estimate.items for estimate in comparison.estimates[comparison.main].values()):
        yield f"No items.parquet holds {comparison.main}: its intervals are over seeds alone."


def _unstable(comparison: Comparison) -> Iterator[str]:
    for setting, shares in comparison.stability.items():
        if max(shares.values()) < FIRM:
            two = sorted(shares.items(), key=lambda pair: -pair[1])[:2]
            where = f" ({words(setting)})" if any(setting) else ""
            wins = " and ".join(f"{arm} {share:.0%}" for arm, share in two)
            yield f"The winner in {comparison.main}{where} changes with seeds and prompts: {wins} of resamples."


def _harmed(comparison: Comparison) -> Iterator[str]:
    """Arms whose mean is worse than that of the model before any fine-tuning."""
    metric, worse = comparison.main, {}
    for setting in comparison.settings:
        means = [(arm, direction(metric) * estimate.mean) for arm, estimate in comparison.measured(metric, setting)]
        base = next((value for arm, value in means if arm.method == "zero_shot"), -math.inf)
        worse |= {arm.label: None for arm, value in means if value < base}
    if worse:
        yield f"Worse than the base model in {metric}: {_list([*worse])}."


def _disagreement(comparison: Comparison) -> Iterator[str]:
    """Settings in which quality metrics name different winners."""
    for setting in comparison.settings:
        first = {}
        for metric in filter(is_quality, comparison.metrics):
            if means := [(direction(metric) * e.mean, arm.label) for arm, e in comparison.measured(metric, setting)]:
                first[metric] = max(means)[1]
        if len(set(first.values())) > 1:
            winners = ", ".join(f"{arm} in {metric}" for metric, arm in first.items())
            yield f"Metrics disagree on the best mean: {winners}."


def _lost(jobs: list[JobRecord]) -> Iterator[str]:
    """Pools of which many rows reached no method."""
    shares = ((job, job.metrics.get("pool_rows_dropped", 0) / job.metrics.get("pool_rows", math.inf)) for job in jobs)
    yield from pools(job for job, share in shares if share >= MANY_LOST)


def _one_base(comparison: Comparison, jobs: list[JobRecord]) -> Iterator[str]:
    """A base model made for the sweep is a draw, too: with another the methods may stand otherwise."""
    bases = {job.directory("base") for job in jobs if job.value("model.base.pretraining") is not None}
    if len(bases - {""}) == 1 and any(arm.models > 1 for arm in comparison.arms if arm.method != "zero_shot"):
        own = "model.base.pretraining.training.seed='${seed}' gives each one of its own"
        yield f"Every seed starts from one base model, pretrained here: no interval holds the draw of it; {own}."


def _processors(jobs: list[JobRecord]) -> Iterator[str]:
    kinds = Counter(str(job.provenance.get("machine", {}).get("vectors") or "") for job in jobs)
    del kinds[""]
    if len(kinds) > 1:
        which = ", ".join(f"{kind} {counted(count, 'job')}" for kind, count in kinds.most_common())
        yield f"Processors of several kinds ({which}): they round otherwise, and training makes that grow."


def _warned(findings: list[ArmFinding]) -> list[str]:
    """What the jobs warn of: a sentence once for all arms that share it.

    Those of every arm come first: they are of the data.
    """
    everyone = {finding.arm for finding in findings}
    arms: dict[str, dict[str, None]] = defaultdict(dict)  # by sentence
    for finding in findings:
        if finding.state == "warn":
            arms[finding.sentence][finding.arm] = None
    shared = [sentence for sentence in arms if len(arms[sentence]) == len(everyone) > 1]
    lines = [f"all methods: {sentence}" for sentence in shared]
    return lines + [f"{_list([*arms[sentence]])}: {sentence}" for sentence in arms if sentence not in shared]


def _by_chance(selections: SweepSelections) -> Iterator[str]:
    chance = [
        f"{arm.label} {value:.2f}"
        for arm, value in zip(selections.arms, selections.overlap.diagonal(), strict=True)
        if value <= LIKE_CHANCE * arm.chance < 1 and not arm.label.startswith("random")
    ]
    if chance:
        yield f"Selections of different seeds agree no more than random ones: {_list(chance)}."


def _by_length(comparison: Comparison, findings: list[ArmFinding]) -> Iterator[str]:
    """From the flat metric, where no job's diagnostics say it."""
    if any("length" in finding.name for finding in findings):
        return
    arms = []
    for arm in comparison.arms:
        values = [r.metrics["length_correlation"] for r in arm.results if "length_correlation" in r.metrics]
        if values and abs(mean := sum(values) / len(values)) >= CORRELATED:
            arms.append(f"{arm.label} {number(mean)}")
    if arms:
        yield f"Scores go with the length of rows (Spearman): {_list(arms)}."


def _judge(comparison: Comparison) -> Iterator[str]:
    frame = comparison.frame
    if "judge_shares_model" in frame and any(frame["judge_shares_model"].dropna() > 0):
        yield "The judge shares its model or its training data with what selects: it may favour its own taste."
    for name in JUDGE_GAPS:
        if name in frame and (total := sum(frame[name].dropna())) > 0:
            yield f"{name}: {total:.0f} answers have no verdict and count for no one."


def _list(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
