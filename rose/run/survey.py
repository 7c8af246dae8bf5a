"""A sweep as a graph: the stages that its jobs will use, which are missing, and in which order to run them.

Stages that several jobs need come first, those that the same jobs need as one step; a job follows
the steps that make its prefix. The pool's features at each checkpoint are a step of their own, also
of one job.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy

from rose import pipeline
from rose.config.schema import Config
from rose.run import early
from rose.run.estimates import Cost, Costs
from rose.run.job import goals
from rose.stages.graph import Node, plan
from rose.stages.kinds import kind_of, number_of


class Group(NamedTuple):
    """What the stages of one step have in common."""

    needed: bool
    tried: bool  # they come before a trial
    beside: str  # which they are of several that are best computed side by side; "": of none
    behind: bool  # they rest on such
    jobs: tuple[int, ...]


@dataclass
class Wanted:
    """A node of the sweep, with every job that needs it."""

    kind: str  # what the pipeline calls it
    node: Node
    ready: bool
    jobs: list[int]
    cost: Cost
    needed: bool = True  # its jobs fail without it; without a judge's verdicts they keep their other metrics


@dataclass
class Step:
    """Missing stages that the same jobs need, upstream first, and the steps they rest on."""

    stages: list[Wanted]
    after: list[int]

    def __post_init__(self) -> None:
        self.needed, self.jobs = self.stages[0].needed, tuple(self.stages[0].jobs)
        self.shared, self.beside = len(self.jobs) > 1, _beside(self.stages[0])


def survey(configs: Sequence[Config]) -> dict[str, Wanted]:
    """Every stage that the jobs will use, by name, upstream first."""
    stages: dict[str, Wanted] = {}
    costs = {config.outputs: Costs(Path(config.outputs)) for config in configs}
    for number, config in enumerate(configs):
        nodes = pipeline.stages(config)
        kinds = {node.name: kind for kind, node in reversed(nodes.items())}
        for position, ends in enumerate(goals(config.until, nodes, Path(config.outputs))):
            for node, state in [step for end in ends for step in plan(nodes[end], Path(config.outputs))]:
                if state == "gone":
                    continue
                if node.name not in stages:
                    cost = costs[config.outputs].of(kinds[node.name], node, config, nodes)
                    stages[node.name] = Wanted(kinds[node.name], node, state == "ready", [], cost, needed=False)
                stages[node.name].needed |= position == 0
                if number not in stages[node.name].jobs:
                    stages[node.name].jobs.append(number)
    return stages


def steps(stages: dict[str, Wanted]) -> list[Step]:
    """The missing stages in the order to run them: the longest chain of work comes first."""
    groups: dict[Group, list[Wanted]] = defaultdict(list)
    missing = [stage for stage in stages.values() if not stage.ready]
    tries = any(stage.kind in early.TRIALS for stage in missing)
    behind: set[str] = set()  # upstream comes first
    for stage in missing:
        beside = _beside(stage)
        if beside or any(node.name in behind for node in stage.node.upstream):
            behind.add(stage.node.name)
        last = not beside and stage.node.name in behind
        jobs = tuple(stage.jobs)
        groups[Group(stage.needed, tries and stage.kind in early.ORDER, beside, last, jobs)].append(stage)
    place = {stage.node.name: key for key, group in groups.items() for stage in group}
    before = {
        key: {place[node.name] for stage in group for node in stage.node.upstream if node.name in place} - {key}
        for key, group in groups.items()
    }
    for first, group in groups.items():
        if any(stage.kind in early.TRIALS for stage in group):
            for key in groups:  # a model is tried before any of its jobs runs it in earnest
                its = set(first.jobs) & set(key.jobs) if len(first.jobs) > 1 else first.jobs == key.jobs
                if not key.tried and its:
                    before[key].add(first)

    @cache
    def ahead(key: Group) -> float:
        """FLOPs to the end of the sweep along the longest chain; never none: what comes before has more."""
        flops = numpy.nansum([stage.cost.flops for stage in groups[key]])
        return 1 + flops + max((ahead(other) for other in groups if key in before[other]), default=0)

    order = sorted(groups, key=ahead, reverse=True)
    under: dict[Group, set[Group]] = {}  # what each rests on, at any remove
    for key in order:
        under[key] = before[key].union(*(under[other] for other in before[key]))
    direct = {key: before[key] - set().union(*(under[other] for other in before[key])) for key in order}
    return [Step(groups[key], sorted(order.index(other) for other in direct[key])) for key in order]


def _beside(stage: Wanted) -> str:
    """Of a pool's features, nearly all that a method costs, which they are."""
    return number_of(stage.kind) if kind_of(stage.kind) == "features" else ""


def sent(order: list[Step]) -> set[int]:
    """The steps that no job does by itself: of several jobs, side by side, and what these rest on."""
    numbers = {number for number, step in enumerate(order) if step.shared or step.beside}
    for number in reversed(range(len(order))):
        numbers |= set(order[number].after) if number in numbers else set()
    return numbers
