"""What a sweep shares, what it will cost and can tell, printed; and sent to Slurm where that is asked for."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas
from hydra import initialize_config_dir

from rose import pipeline
from rose.config import CONF
from rose.config.compose import compose_all, expand, searches, sweep, typed
from rose.errors import RoseError
from rose.report.text import counted
from rose.run import callback
from rose.run.design import foretell
from rose.run.estimates import Cost
from rose.run.names import name_directory, register_resolvers
from rose.run.submit import launcher, submit
from rose.run.survey import Step, Wanted, steps, survey
from rose.stages.__main__ import columns
from rose.stages.kinds import kind_of, number_of


def summary(stages: dict[str, Wanted], order: list[Step], jobs: int) -> str:
    """The graph as text, a line a kind of stage: how many are ready and missing, what these cost, the sum."""
    missing = [stage for stage in stages.values() if not stage.ready]
    there = f"{len(stages)} stages, {len(stages) - len(missing)} of them ready"
    first = f"{counted(jobs, 'job')}, {there}; {len(missing)} to compute, in {counted(len(order), 'step')}"
    rows = []
    for kind in dict.fromkeys(kind_of(stage.kind) for stage in stages.values()):
        its = [stage for stage in stages.values() if kind_of(stage.kind) == kind]
        left = [stage for stage in its if not stage.ready]
        figures = _figures(_sum(left), left) if left else [""] * 5
        rows.append([kind, str(len(its) - len(left)), str(len(left)), *figures])
    rows.append(["sum", str(len(stages) - len(missing)), str(len(missing)), *_figures(_sum(missing), [])])
    header = ["stage", "ready", "to compute", "tokens", "FLOPs", "bytes", "seconds", "figures"]
    return "\n".join([first, "", columns([header, *rows])])


def by_step(stages: dict[str, Wanted], order: list[Step], names: Sequence[str]) -> str:
    """The graph as text: ready stages, each step with its stages and what it follows."""
    ready = [stage for stage in stages.values() if stage.ready]
    rows = [["ready", stage.node.name, counted(len(stage.jobs), "job"), *_figures(stage.cost)] for stage in ready]
    for number, step in enumerate(order):
        waits = f"after {', '.join(str(other + 1) for other in step.after)}" if step.after else ""
        whose = counted(len(step.jobs), "job") if step.shared else names[step.jobs[0]]
        rows.append([f"step {number + 1}", waits, whose, *_figures(_sum(step.stages))])
        rows += [
            ["", f"{stage.node.name} {number_of(stage.kind)}".rstrip(), "", *_figures(stage.cost)]
            for stage in step.stages
        ]
    return columns([["", "stage", "jobs", "tokens", "FLOPs", "bytes", "seconds", "figures"], *rows])


def _figures(cost: Cost, of: Sequence[Wanted] = ()) -> list[str]:
    """Numbers and where they are from; of several stages each place is named."""
    numbers = [cost.tokens, cost.flops, cost.bytes, cost.seconds]
    places = dict.fromkeys(place for place in (*(stage.cost.source for stage in of), cost.source) if place)
    return [*map(_short, numbers), "unknown" if all(map(math.isnan, numbers)) else ", ".join(places)]


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


def show_plan(overrides: list[str], send: bool, each: bool) -> None:
    """Prints a sweep's plan, with `each` of its steps too, and sends it to Slurm where asked to."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        _plan(overrides, send, each)


def _plan(arguments: list[str], send: bool, each: bool) -> None:
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
        callback.announce(master, jobs)
        callback.begin(Path(master.hydra.sweep.dir), configs, nodes, launched=True)
    stages = survey(configs)
    order = steps(stages)
    if each:
        print(by_step(stages, order, [job.hydra.sweep.subdir for job in jobs]) + "\n")
    print(summary(stages, order, len(jobs)))
    for lines in foretell(configs, nodes):
        print(f"\n{lines}")
    if slurm:
        ids = submit(slurm, jobs, configs, stages, order)
        print(f"\nsent to Slurm: scancel {' '.join(ids)} ends it all; results will be in {master.hydra.sweep.dir}")
