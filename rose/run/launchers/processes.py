"""One machine: a process a job, so many at a time.

joblib's launcher (loky) gives up on every job when one worker dies, and submitit's local one starts
all jobs at once.
"""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import cloudpickle
from omegaconf import DictConfig, OmegaConf

from rose.errors import RoseError
from rose.run import record
from rose.run.launchers.common import SweepJob, SweepLauncher, Worker, directory

log = logging.getLogger(__name__)

WANDB = ["wandb", "wandb.sdk.launch.inputs.internal"]  # the second is imported as a run begins, for two seconds
GRACE = 10  # seconds that a job has to end in order when the launcher is stopped


class Processes(SweepLauncher):
    """At most `workers` jobs at a time, which share the machine's processors and GPUs evenly."""

    def __init__(self, workers: int):
        self.workers = workers

    def run(self, worker: Worker, jobs: list[SweepJob]) -> dict[int, str]:
        at_once = warm(self.workers, [config for _, config in jobs])
        log.info("%d jobs, %d at a time, OMP_NUM_THREADS=%s", len(jobs), at_once, os.environ["OMP_NUM_THREADS"])
        context = multiprocessing.get_context("forkserver")
        pickled, shares = cloudpickle.dumps(worker), _devices(at_once)
        todo, running, died = deque(jobs), {}, {}
        try:
            while todo or running:
                while todo and len(running) < at_once:
                    job, devices = todo.popleft(), shares.pop()
                    process = context.Process(target=_work, args=(pickled, job, devices))
                    process.start()
                    running[process.sentinel] = (process, job, devices)
                for sentinel in wait(list(running)):
                    process, job, devices = running.pop(sentinel)
                    shares.append(devices)
                    process.join()
                    if process.exitcode:
                        died[job[0]] = _reason(process.exitcode)
                log.info("%d of %d jobs have ended", len(jobs) - len(todo) - len(running), len(jobs))
        finally:
            _stop([process for process, _, _ in running.values()])
        return died


def warm(workers: int, jobs: Sequence[DictConfig]) -> int:
    """Starts, unless it is there, the process that jobs fork from: they begin where what takes seconds is imported.

    Returns how many jobs will run at a time.
    """
    if not isinstance(workers, int) or workers < 1:  # no schema has looked at it
        raise RoseError(f"hydra.launcher.workers={workers}: must be a whole number, at least 1")
    at_once = min(workers, len(jobs))
    threads = max(1, _processors() // at_once)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # what loads OpenMP reads it; this process computes nothing
    to_do = [job for job in jobs if record.state(directory(job)) != "done"]  # the others have their W&B runs
    tracked = any(OmegaConf.select(job, "tracking.mode", default="disabled") != "disabled" for job in to_do)
    multiprocessing.set_forkserver_preload(["rose.run.launchers.preloaded", *WANDB * tracked])
    forkserver.ensure_running()
    return at_once


def _work(pickled: bytes, job: SweepJob, devices: str | None) -> None:
    """The life of one job's process."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))  # in order, and without a traceback
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    cloudpickle.loads(pickled)(job)


def _follow(launcher: BaseProcess) -> None:
    """Ends this process when the launcher has gone, so that nothing computes unseen."""
    launcher.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _processors() -> int:
    """Those that this process may use, where the system says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(at_once: int) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each of the jobs that run at a time; None where there is no GPU."""
    import torch  # late: Hydra reads this file whenever it starts

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    return [",".join(gpus[index % len(gpus) :: at_once]) if gpus else None for index in range(at_once)]


def _reason(exitcode: int) -> str:
    if exitcode > 0:
        return f"its process ended with exit code {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"{name}{', as when memory runs out' if name == 'SIGKILL' else ''}"


def _stop(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0, deadline - time.monotonic()))
        process.kill()
