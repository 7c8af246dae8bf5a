"""A sweep as a graph: what its jobs share, what it will cost, and in which order to run it.

Stages that several jobs need come first, those that the same jobs need as one step; a job follows
the steps that make its prefix. The pool's features at each checkpoint are a step of their own, also
of one job. Each step and the jobs behind it can be sent to Slurm, so that nothing there ever waits for
a stage.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pandas
from hydra import initialize_config_dir
from omegaconf import DictConfig

from rose import pipeline, ranks
from rose.config import CONF
from rose.config.compose import compose_all, expand, launcher_of, searches, sweep, typed
from rose.config.schema import Config
from rose.errors import RoseError, one_line
from rose.report.report import write_report
from rose.report.text import counted
from rose.run import callback, early
from rose.run.design import foretell
from rose.run.estimates import Cost, Costs
from rose.run.job import build_stages, goals
from rose.run.launchers.common import SweepJob, Worker, directory, mark, numbered
from rose.run.launchers.slurm import Slurm
from rose.run.names import name_directory, register_resolvers
from rose.run.record import claim
from rose.run.task import task
from rose.stages.__main__ import columns
from rose.stages.graph import Node, plan
from rose.stages.kinds import kind_of, number_of

REPORT = {"ntasks_per_node": 1, "gpus_per_node": None, "cpus_per_task": 1, "mem": "4GB"}  # it needs no more


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


def show(stages: dict[str, Wanted], order: list[Step], names: Sequence[str]) -> str:
    """The graph as text: ready stages, each step with its stages and what it follows, the sum."""
    ready = [stage for stage in stages.values() if stage.ready]
    lines = [f"{len(names)} jobs, {len(stages)} stages: {len(ready)} ready, {len(stages) - len(ready)} to compute", ""]
    rows = [["ready", stage.node.name, counted(len(stage.jobs), "job"), *_figures(stage.cost)] for stage in ready]
    for number, step in enumerate(order):
        waits = f"after {', '.join(str(other + 1) for other in step.after)}" if step.after else ""
        whose = counted(len(step.jobs), "job") if step.shared else names[step.jobs[0]]
        rows.append([f"step {number + 1}", waits, whose, *_figures(_sum(step.stages))])
        rows += [
            ["", f"{stage.node.name} {number_of(stage.kind)}".rstrip(), "", *_figures(stage.cost)]
            for stage in step.stages
        ]
    rows.append(["to compute", "", "", *_figures(_sum(stage for step in order for stage in step.stages))])
    header = ["", "stage", "jobs", "tokens", "FLOPs", "bytes", "seconds", "figures"]
    return "\n".join([*lines, columns([header, *rows])])


def _figures(cost: Cost) -> list[str]:
    return [*map(_short, (cost.tokens, cost.flops, cost.bytes, cost.seconds)), cost.source]


def _short(number: float) -> str:
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return "?" if math.isnan(number) else f"{number:.3g}"


def _sum(stages: Iterable[Wanted]) -> Cost:
    """Of what is known; where parts are not, the sum is a lower bound."""
    table = pandas.DataFrame([stage.cost for stage in stages], columns=["tokens", "flops", "bytes", "seconds"])
    unknown = table[["tokens", "flops"]].isna().to_numpy().any()
    return Cost(*table.sum(min_count=min(1, len(table))), source="at least" if unknown else "")


def prefix(work: tuple[Config, list[str], list[Path]]) -> None:
    """A step, on a node of the cluster. Its failure fails the jobs that cannot do without it."""
    config, names, behind = work
    try:
        build_stages(config, names)
    except Exception as error:
        for job in behind if ranks.is_first() else ():
            mark(job, one_line(error))
        raise


def launcher(master: DictConfig, configs: Sequence[Config]) -> Slurm:
    """What sends the plan. RoseError: another launcher, a dry run, a sweep that Slurm has already."""
    if any(config.dry_run for config in configs):
        raise RoseError("dry_run=true: sends nothing; leave out --submit for the plan alone")
    slurm = launcher_of(master, task)
    if not isinstance(slurm, Slurm):
        raise RoseError("--submit: needs hydra/launcher=slurm, slurm_gpu or a launcher made from them")
    slurm.refuse_twice()
    return slurm


def submit(
    slurm: Slurm, jobs: list[DictConfig], configs: Sequence[Config], stages: dict[str, Wanted], order: list[Step]
) -> list[str]:
    """Sends the steps, the jobs behind them and the report to Slurm; returns their ids."""
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True)):  # it may be days before they begin
        names = [name for name, stage in stages.items() if number in stage.jobs]
        claim(directory(job), Path(config.outputs), names)
    ids: list[str] = []
    try:
        for sent in _send(slurm, jobs, configs, order):
            ids.append(sent)
    except RoseError as error:
        raise RoseError(f"{error}" + (f"; sent already: scancel {' '.join(ids)}" if ids else "")) from error
    return ids


def _send(slurm: Slurm, jobs: list[DictConfig], configs: Sequence[Config], order: list[Step]) -> Iterator[str]:
    """Yields what Slurm calls each array, as it takes it."""
    steps: dict[int, str] = {}
    own = sent(order)
    for number, step in enumerate(order):
        if number in own:
            fail = [directory(jobs[job]).resolve() for job in step.jobs] if step.needed else []
            work = (configs[step.jobs[0]], [stage.node.name for stage in step.stages], fail)
            steps[number] = slurm.submit(prefix, [work], **_after(order, steps, step.after, slurm))[0].job_id
            yield steps[number]
    behind: dict[tuple[int, ...], list[SweepJob]] = defaultdict(list)
    for job in numbered(jobs):
        behind[tuple(number for number in steps if job[0] in order[number].jobs)].append(job)
    worker, arrays = Worker(slurm.context, slurm.task), []
    for numbers, ready in behind.items():
        arrays.append(slurm.submit(worker, ready, **_after(order, steps, numbers, slurm))[0].job_id.split("_")[0])
        yield arrays[-1]
    folder = directory(jobs[0]).parent.resolve()
    yield slurm.submit(write_report, [folder], dependency=f"afterany:{':'.join(arrays)}", **REPORT)[0].job_id


def _after(order: list[Step], ids: dict[int, str], numbers: Iterable[int], slurm: Slurm) -> dict[str, Any]:
    """sbatch's options for what follows other steps, and goes when a needed one has failed."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for number in numbers:
        kinds["afterok" if order[number].needed else "afterany"].append(ids[number])
    texts = [":".join([kind, *kinds[kind]]) for kind in ("afterok", "afterany") if kind in kinds]
    if not texts:
        return {}
    more = {**(slurm.sbatch.get("additional_parameters") or {}), "kill-on-invalid-dep": "yes"}
    return {"dependency": ",".join(texts), "additional_parameters": more}


def show_plan(overrides: list[str], send: bool) -> None:
    """Prints a sweep's plan, and sends it to Slurm where asked to."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        _plan(overrides, send)


def _plan(arguments: list[str], send: bool) -> None:
    master = sweep(arguments)
    name_directory(master)
    jobs = compose_all(master, expand(master))
    configs = [typed(job) for job in jobs]
    if searches(master):
        if send:
            raise RoseError("--submit: a search makes its jobs up as it goes; run it with hydra/launcher=slurm instead")
        print("A search makes its jobs up as it goes; this is one that it could begin with.\n")
    slurm = launcher(master, configs) if send else None
    nodes = list(map(pipeline.stages, configs))
    if slurm:
        callback.announce(Path(master.hydra.sweep.dir), jobs)
        callback.begin(Path(master.hydra.sweep.dir), configs, nodes, launched=True)
    stages = survey(configs)
    order = steps(stages)
    print(show(stages, order, [job.hydra.sweep.subdir for job in jobs]))
    for line in foretell(configs, nodes):
        print(f"\n{line}")
    if slurm:
        ids = submit(slurm, jobs, configs, stages, order)
        print(f"\nsent to Slurm: scancel {' '.join(ids)} ends it all; results will be in {master.hydra.sweep.dir}")
