"""Ray: a task a job, each in a process of its own, on this machine or on a cluster that is running."""

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import cloudpickle
from omegaconf import OmegaConf

from rose.errors import RoseError, install, one_line
from rose.run.launchers.common import SweepJob, SweepLauncher, Worker

log = logging.getLogger(__name__)

PATIENCE = 120  # seconds after which it says what it waits for


class Ray(SweepLauncher):
    """`init` goes to ray.init, `task` to ray.remote; variables in `environment` reach the jobs."""

    def __init__(self, init: dict[str, Any], task: dict[str, Any], environment: Sequence[str]):
        self.init: Any = OmegaConf.to_container(init)
        self.options: Any = OmegaConf.to_container(task)
        self.variables = {name: os.environ[name] for name in environment if name in os.environ}

    def run(self, worker: Worker, jobs: list[SweepJob]) -> dict[int, str]:
        try:
            ray = import_module("ray")  # by name: a type checker would take this file for it
        except ImportError as error:
            raise RoseError(f"hydra/launcher=ray: ray is missing; {install('ray')}") from error
        try:
            task = ray.remote(**self.options, max_calls=1)(_work)  # one call: the next job finds a fresh process
        except (ValueError, TypeError) as error:
            raise RoseError(f"hydra.launcher.task={self.options}: {one_line(error, 200)}") from error
        try:
            cluster = ray.init(**self.init, runtime_env={"env_vars": self.variables})
        except (RuntimeError, ValueError, TypeError, ConnectionError) as error:
            raise RoseError(f"hydra.launcher.init={self.init}: {one_line(error, 200)}") from error
        died, waited = {}, False
        with cluster:
            pickled = ray.put(cloudpickle.dumps(worker))
            has = ray.cluster_resources()
            options = self.options | {"num_gpus": gpus(self.options, has)}
            task = task.options(num_gpus=options["num_gpus"])
            tasks = {task.remote(pickled, job): job[0] for job in jobs}
            log.info("%d jobs sent to Ray, which has %s; each takes %s", len(jobs), has, options)
            while tasks:
                done, _ = ray.wait(list(tasks), timeout=PATIENCE)
                if not done and not waited:
                    waited = True
                    message = "no job has ended for %d s; each asks for %s, and Ray has %s free"
                    log.info(message, PATIENCE, options, ray.available_resources())
                for ended in done:
                    try:
                        ray.get(ended)
                    except ray.exceptions.RayError as error:
                        died[tasks[ended]] = one_line(error, 200)
                    del tasks[ended]
        return died


def gpus(task: dict[str, Any], has: dict[str, float]) -> float:
    """GPUs a job; unsaid, one where there is any: Ray hides them all from a task that asks for none."""
    asked = task.get("num_gpus")
    return min(1, has.get("GPU", 0)) if asked is None else asked


def _work(pickled: bytes, job: SweepJob) -> None:
    from rose.run import tracking  # late: Hydra reads this file whenever it starts

    try:
        cloudpickle.loads(pickled)(job)
    finally:
        tracking.close()
