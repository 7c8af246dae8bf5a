"""What the launchers share: how a job runs in another process, and what is said of one that died there."""

import json
import logging
import os
import sys
import traceback
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from rose import ranks
from rose.artifacts import write_json

log = logging.getLogger(__name__)

Job = tuple[int, list[str]]  # its number in the sweep, and its overrides


class Worker:
    """Runs any job of one sweep in a process that has nothing but this object, pickled, to go by."""

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig):
        self.context, self.task, self.config = context, task, config
        self.singletons, self.folder = Singleton.get_state(), os.getcwd()

    def __call__(self, job: Job) -> None:
        os.chdir(self.folder)  # what relative paths in the configuration start from
        Singleton.set_state(self.singletons)
        setup_globals()
        done = run_job(
            hydra_context=self.context,
            task_function=self.task,
            config=self.compose(job),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status is JobStatus.FAILED:  # by an error that `rose.job.run` does not know what to do with
            error = done._return_value
            traceback.print_exception(error)
            if ranks.main():
                mark(self.directory(job), f"{type(error).__name__}: {error}")

    def compose(self, job: Job) -> DictConfig:
        number, overrides = job
        quiet = [] if ranks.main() else ranks.QUIET
        config = self.context.config_loader.load_sweep_config(self.config, [*overrides, *quiet])
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config

    def directory(self, job: Job) -> Path:
        config = self.compose(job)
        return Path(config.hydra.sweep.dir) / config.hydra.sweep.subdir


class SweepLauncher(Launcher):
    """Hydra's part of a launcher. A job that dies is reported by name and counts as failed; the others go on."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        jobs = [(initial_job_idx + index, list(overrides)) for index, overrides in enumerate(job_overrides)]
        shared = set.intersection(*(set(overrides) for _, overrides in jobs)) if len(jobs) > 1 else set()
        for number, overrides in jobs:
            log.info("\t#%d : %s", number, " ".join(text for text in filter_overrides(overrides) if text not in shared))
        worker = Worker(self.context, self.task, self.config)
        for number, reason in self.run(worker, jobs).items():
            mark(worker.directory((number, dict(jobs)[number])), reason)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for _, overrides in jobs]

    @abstractmethod
    def run(self, worker: Worker, jobs: list[Job]) -> dict[int, str]:
        """Runs the jobs and waits for them. Returns why they died for those that did, by number."""


def mark(directory: Path, reason: str) -> None:
    """Writes down that a job died, which it could not do itself; a job that had finished before stays done."""
    status = directory / "status.json"
    if status.exists() and json.loads(status.read_text())["state"] == "done":
        return
    directory.mkdir(parents=True, exist_ok=True)
    print(f"rose: {directory.name} died: {reason}", file=sys.stderr)
    with open(directory / "rose.log", "a") as file:
        file.write(f"died: {reason}\n")
    write_json(status, {"state": "failed", "error": f"died: {reason}"})
