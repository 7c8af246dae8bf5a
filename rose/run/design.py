"""What a sweep's test prompts and seeds will be able to tell, said before its first job."""

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rose import pipeline
from rose.config.choices import Until
from rose.config.data import Pairs
from rose.config.schema import Config
from rose.data import files
from rose.evaluation.items import prompt_text
from rose.report.statistics import errors_needed, least_told_by_prompts
from rose.report.text import counted, number
from rose.shares import part
from rose.stages.graph import Node

CHEAP = 64 * 2**20  # bytes of pairs that are read to count their prompts
EXAMPLE = 200  # prompts, where they cannot be counted

Job = tuple[Config, dict[str, Node]]


def foretell(configs: Sequence[Config], stages: Sequence[dict[str, Node]]) -> list[str]:
    """Some lines for each kind of test pairs that the jobs, with these stages, will be measured on."""
    groups: dict[str, list[Job]] = defaultdict(list)
    for config, nodes in zip(configs, stages, strict=True):
        if config.until is Until.evaluation:
            groups[_without_seeds(config.preference.pairs)].append((config, nodes))
    return [_lines(jobs) for jobs in groups.values()]


def _lines(jobs: list[Job]) -> str:
    """The spread is not known yet: that of rates is what it is for models that agree so often, others' the unit."""
    config, nodes = jobs[0]
    (found, bound), seeds = prompts_of(config, nodes["preferences"]), seeds_a_method(jobs)
    prompts = found or EXAMPLE
    least = least_told_by_prompts(1.0, prompts)
    rate = "win rate or preference accuracy" if "verdicts" in nodes else "preference accuracy"
    half, most = (_rate(share**0.5 * least) for share in (0.5, 0.125))
    of_seeds = "one seed says nothing of methods"
    if seeds > 1:
        least_of_seeds = errors_needed(seeds - 1) / seeds**0.5
        of_seeds = f"{number(least_of_seeds)} standard deviations of what differs between seeds, on top of these"
    return "\n  ".join(
        [
            f"{config.preference.name}: {bound}{found or 'not known yet how many'} test prompts, "
            f"{counted(seeds, 'seed')} a method. The smallest difference that {prompts} prompts tell "
            f"(80 % power, 5 % level, two-sided):",
            f"in {rate}: {half} between two models that agree on half of the prompts, {most} on 7 of 8",
            f"in log_ratio_margin: {number(least)} standard deviations between prompts",
            f"between methods: {of_seeds}",
        ]
    )


def _rate(difference: float) -> str:
    return number(difference) if difference < 1 else "none"


def prompts_of(config: Config, preferences: Node) -> tuple[int, str]:
    """How many prompts the test pairs have, and "about " where faults may not fit; 0 where that is not known yet.

    They are counted where the stage is finished or its files are here and small.
    """
    pairs, outputs = config.preference.pairs, Path(config.outputs)
    if preferences.path(outputs).exists():
        return _counted(preferences.path(outputs)), ""
    if pairs.world is not None:
        return pairs.world.tests, ""
    if pairs.planted:
        return round(part(pairs.test_share, config.plant.aside)), "about "
    if not _is_cheap(pairs):
        return 0, ""
    with tempfile.TemporaryDirectory() as folder:
        preferences.run(Path(folder), outputs)
        return _counted(Path(folder)), ""


def seeds_a_method(jobs: Sequence[Job]) -> int:
    """The models of the arm that has fewest; the base model, which no seed has drawn, is none."""
    arms: dict[str, set[str]] = defaultdict(set)
    for config, nodes in jobs:
        if "finetune" in nodes:
            arms[_without_seeds(config)].add(pipeline.result(nodes))
    return min(map(len, arms.values()), default=1)


def _counted(preferences: Path) -> int:
    return len({prompt_text(pair["prompt"]) for pair in files.load(preferences / "test.jsonl")})


def _is_cheap(pairs: Pairs) -> bool:
    """Whether all files of pairs are here, and small."""
    sizes = []
    for path in (Path(name).expanduser() for name in (pairs.path, pairs.test_path) if name):
        there = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        sizes.append(sum(file.stat().st_size for file in there))
    return bool(sizes) and all(sizes) and sum(sizes) <= CHEAP


def _without_seeds(settings: Any) -> str:
    """All other values of a group of settings: jobs where they agree are one arm."""

    def kept(value: Any) -> Any:
        return (
            {name: kept(each) for name, each in value.items() if name != "seed"} if isinstance(value, dict) else value
        )

    return str(kept(dataclasses.asdict(settings)))
