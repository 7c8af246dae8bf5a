"""Answers to some test prompts side by side: the chosen one, the base model's, and those of the arms."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from rose.data.files import load
from rose.errors import one_line
from rose.report.comparison import Comparison
from rose.report.metrics import direction
from rose.report.results import JobRecord

MOST_PROMPTS, MOST_ARMS = 10, 6


@dataclass
class SideBySide:
    """Prompts with what was said to each: who, and the text."""

    prompts: list[tuple[list[dict], dict[str, str]]] = field(default_factory=list)
    left_out: int = 0  # arms beyond MOST_ARMS, or with other prompts
    problems: list[str] = field(default_factory=list)


def read_answers(comparison: Comparison, jobs: list[JobRecord]) -> SideBySide:
    """Of each arm the answers of its first job that has some; of many arms those with the best means."""
    result, named = SideBySide(), {job.dir.name: job for job in jobs}
    tables: dict[str, dict[str, dict]] = {}  # by label and prompt
    means = comparison.estimates.get(comparison.main, {})
    arms = [arm for arm in comparison.arms if arm.method != "zero_shot" and not arm.same_as]
    having = [(arm, job) for arm in arms if (job := _first([named[name] for name in arm.members]))]
    best = sorted(having, key=lambda pair: -direction(comparison.main) * means[pair[0]].mean if means else 0)
    for arm, job in having:
        if (arm, job) in best[:MOST_ARMS]:
            tables[arm.label] = _read(job, "answers", result.problems)
            tables.setdefault("zero_shot", {}).update(_read(job, "zero_shot_answers", result.problems))
    first = next((table for label, table in tables.items() if label != "zero_shot" and table), {})
    alike = {label: table for label, table in tables.items() if first.keys() <= table.keys()}
    result.left_out = len(having) - len(alike.keys() - {"zero_shot"})
    order = ["zero_shot", *(arm.label for arm in arms)]
    for prompt in _spread(list(first)):
        said = {"chosen": str(first[prompt].get("reference", ""))}
        said |= {label: str(alike[label][prompt].get("answer", "")) for label in order if label in alike}
        result.prompts.append((first[prompt]["prompt"], said))
    return result


def _first(jobs: list[JobRecord]) -> JobRecord | None:
    return next((job for job in jobs if job.stage("answers")), None)


def _read(job: JobRecord, stage: str, problems: list[str]) -> dict[str, dict]:
    """answers.jsonl of a stage, the first row of each prompt; empty without."""
    path, table = (job.stage(stage) or Path("")) / "answers.jsonl", {}
    try:
        for row in load(path) if path.is_file() else ():
            table.setdefault(json.dumps(row["prompt"]), row)
        return table
    except (ValueError, KeyError, OSError, TypeError) as error:
        problems.append(f"{path.parent.name}/{path.name} cannot be read: {one_line(error)}")
        return {}


def _spread(prompts: list[str]) -> list[str]:
    """MOST_PROMPTS of them, from the first to the last, evenly."""
    places = {round(place * (len(prompts) - 1) / (MOST_PROMPTS - 1)) for place in range(MOST_PROMPTS)}
    return [prompts[place] for place in sorted(places)] if prompts else []
