"""A plan sent to Slurm: each step that several jobs wait for, the jobs behind them, the report behind all.

Nothing there ever waits for a stage while it holds a node.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from rose import ranks
from rose.config.compose import launcher_of
from rose.config.schema import Config
from rose.errors import RoseError, one_line
from rose.report.report import write_report
from rose.run.job import build_stages
from rose.run.launchers.common import SweepJob, Worker, directory, mark, numbered
from rose.run.launchers.slurm import Slurm
from rose.run.record import claim
from rose.run.survey import Step, Wanted, sent
from rose.run.task import task

GPUS = ("gpus_per_node", "gpus_per_task", "cpus_per_gpu", "mem_per_gpu", "gres")
SMALL = {"ntasks_per_node": 1, "cpus_per_task": 1, "mem": "4GB"}
REPORT = dict.fromkeys((*GPUS, "mem_per_cpu", "exclusive")) | SMALL  # it needs no more


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
        for identity in _send(slurm, jobs, configs, order):
            ids.append(identity)
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
            steps[number] = slurm.submit(prefix, [work], **_after(order, steps, step.after, step.jobs, slurm))[0].job_id
            yield steps[number]
    behind: dict[tuple[int, ...], list[SweepJob]] = defaultdict(list)
    for job in numbered(jobs):
        behind[tuple(number for number in steps if job[0] in order[number].jobs)].append(job)
    worker, arrays = Worker(slurm.context, slurm.task), []
    for numbers, ready in behind.items():
        options = _after(order, steps, numbers, [number for number, _ in ready], slurm)
        arrays.append(slurm.submit(worker, ready, **options)[0].job_id.split("_")[0])
        yield arrays[-1]
    folder = directory(jobs[0]).parent.resolve()
    yield slurm.submit(write_report, [folder], dependency=f"afterany:{':'.join(arrays)}", **REPORT)[0].job_id


def _after(
    order: list[Step], ids: dict[int, str], numbers: Iterable[int], jobs: Sequence[int], slurm: Slurm
) -> dict[str, Any]:
    """sbatch's options for what `jobs` wait for, after other steps, and goes when one that all of them need has failed.

    A model's trial is waited for by what other models' jobs need too: these go on without it.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for number in numbers:
        fatal = order[number].needed and set(jobs) <= set(order[number].jobs)
        kinds["afterok" if fatal else "afterany"].append(ids[number])
    texts = [":".join([kind, *kinds[kind]]) for kind in ("afterok", "afterany") if kind in kinds]
    if not texts:
        return {}
    more = {**(slurm.sbatch.get("additional_parameters") or {}), "kill-on-invalid-dep": "yes"}
    return {"dependency": ",".join(texts), "additional_parameters": more}
