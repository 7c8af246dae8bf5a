"""What launchers share: running a job in another process, and telling of one that died."""

import logging
import os
import sys
import traceback
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rose import ranks
from rose.config.compose import compose_all
from rose.errors import one_line
from rose.run import record

log = logging.getLogger(__name__)

SweepJob = tuple[int, DictConfig]  # its number in the sweep, and its configuration


class Worker:
    """Runs any job of one sweep in a process that has nothing but this object, pickled, to go by."""

    def __init__(self, context: HydraContext, task: TaskFunction):
        self.context, self.task = context, task
        self.singletons, self.folder = Singleton.get_state(), os.getcwd()

    def __call__(self, job: SweepJob) -> None:
        _, config = job
        if not ranks.is_first():
            with open_dict(config):
                config.merge_with_dotlist(ranks.QUIET)
        os.chdir(self.folder)  # what relative paths in the configuration start from
        Singleton.set_state(self.singletons)
        setup_globals()
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status is JobStatus.FAILED:  # by an error that `rose.run.job.run` does not know what to do with
            error = done._return_value
            traceback.print_exception(error)
            if ranks.is_first():
                mark(directory(config), one_line(error))


def numbered(configs: Iterable[DictConfig], first: int = 0) -> list[SweepJob]:
    """The jobs of a sweep, sent composed: they run what was checked, whatever is edited later."""
    jobs = list(enumerate(configs, first))
    for number, config in jobs:
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
    return jobs


def directory(config: DictConfig) -> Path:
    """The job's own."""
    return Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir


class SweepLauncher(Launcher):
    """Hydra's part of a launcher. A job that dies is named and counts as failed; others go on."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        jobs = numbered(compose_all(self.config, [list(overrides) for overrides in job_overrides]), initial_job_idx)
        shared = set.intersection(*map(set, job_overrides)) if len(jobs) > 1 else set()
        for (number, _), overrides in zip(jobs, job_overrides, strict=True):
            log.info("\t#%d : %s", number, " ".join(text for text in filter_overrides(overrides) if text not in shared))
        for number, reason in self.run(Worker(self.context, self.task), jobs).items():
            mark(directory(dict(jobs)[number]), reason)
        return [_returned(overrides, config) for overrides, (_, config) in zip(job_overrides, jobs, strict=True)]

    @abstractmethod
    def run(self, worker: Worker, jobs: list[SweepJob]) -> dict[int, str]:
        """Runs the jobs and waits for them. Returns why they died for those that did, by number."""


def _returned(overrides: Sequence[str], config: DictConfig) -> JobReturn:
    """What a sweeper that searches looks at: the job's objective, read from its folder."""
    done = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    if config.get("objective"):
        from rose.run import objective  # late: Hydra reads this file whenever it starts

        done.return_value = objective.value(config.objective, directory(config))
    return done


def mark(directory: Path, reason: str) -> None:
    """Writes down that a job died, which it could not itself; one that was done stays done."""
    if record.state(directory) == "done":
        return
    directory.mkdir(parents=True, exist_ok=True)
    print(f"rose: {directory.name} died: {reason}", file=sys.stderr)
    with open(directory / "rose.log", "a") as file:
        file.write(f"died: {reason}\n")
    record.say(directory, "failed", f"died: {reason}")
