"""Slurm, through submitit, whose Hydra plugin gives a sweep up with the first job that dies."""

import getpass
import logging
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
from omegaconf import OmegaConf

from rose.errors import RoseError, install
from rose.run.launchers.common import SweepJob, SweepLauncher, Worker

if TYPE_CHECKING:
    import submitit

# submitit's own handler requeues a job that is preempted, once Python is up; until then USR2 would
# end it for good
PYTHON = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""
LIMIT = 60  # seconds that one of Slurm's commands may take

log = logging.getLogger(__name__)


class Task:
    """What submitit runs on a node: `function` of one argument, in this folder, in each process.

    Both travel as bytes: a requeued job gets what was sent, whatever its first run has made of it.
    """

    def __init__(self, function: Callable[[Any], Any]):
        self.function, self.folder = cloudpickle.dumps(function), os.getcwd()

    def __call__(self, argument: bytes) -> Any:
        from submitit.helpers import TorchDistributedEnvironment

        os.chdir(self.folder)
        if int(os.environ.get("SLURM_NTASKS", 1)) > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)  # rose.ranks picks the device
        signal.signal(signal.SIGUSR2, _leaving(signal.getsignal(signal.SIGUSR2)))
        return cloudpickle.loads(self.function)(cloudpickle.loads(argument))

    def checkpoint(self, argument: bytes) -> Any:
        """What submitit sends when it requeues a job: the same, to go on from finished stages."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, argument)


def _leaving(requeue: Any) -> Callable:
    """submitit's handler, but a job that cannot be requeued ends as if it were interrupted: by an
    error the stage that was running would lose its unfinished work.
    """

    def handle(signum: int, frame: Any) -> None:
        try:
            requeue(signum, frame)
        except Exception as error:
            raise SystemExit(f"rose: {error}") from error

    return handle


class Slurm(SweepLauncher):
    """A job array. Jobs that are preempted or run out of time are requeued, so often.

    `sbatch` are submitit's names of sbatch's options (`submitit.SlurmExecutor`).
    """

    def __init__(self, folder: str, max_num_timeout: int, poll_seconds: float, **sbatch: Any):
        self.folder, self.max_num_timeout, self.poll = folder, max_num_timeout, poll_seconds
        self.sbatch: dict[str, Any] = {
            name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for name, value in sbatch.items()
        }

    def run(self, worker: Worker, jobs: list[SweepJob]) -> dict[int, str]:
        self.refuse_twice()
        slurm_jobs = self.submit(worker, jobs)
        array = slurm_jobs[0].job_id.split("_")[0]
        message = "%d jobs sent to Slurm as %s, output in %s; scancel %s ends them"
        log.info(message, len(slurm_jobs), array, self.folder, array)
        return self.wait({number: slurm_job for (number, _), slurm_job in zip(jobs, slurm_jobs, strict=True)})

    def refuse_twice(self) -> None:
        """Raises RoseError where jobs of this sweep are in Slurm's hands already: two would write into one folder."""
        if not isinstance(self.sbatch.get("time", 1), int):  # first, for it needs no Slurm: submitit counts with it
            raise RoseError(f"hydra.launcher.time={self.sbatch['time']}: must be a whole number of minutes")
        earlier = {path.name.split("_")[0] for path in Path(self.folder).glob("[0-9]*")}
        if ours := earlier & {job.split("_")[0] for job in _queued() or ()}:
            ids = " ".join(sorted(ours))
            raise RoseError(f"{self.folder}: Slurm still has jobs of this sweep; wait for them, or scancel {ids}")

    def submit(self, function: Callable[[Any], Any], arguments: list[Any], **sbatch: Any) -> list["submitit.Job"]:
        """Sends one Slurm job an argument, as an array."""
        try:
            import submitit
            from submitit.core.utils import FailedJobError
        except ImportError as error:
            raise RoseError(f"hydra/launcher=slurm: submitit is missing; {install('slurm')}") from error
        private(Path(self.folder))
        try:
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.max_num_timeout, python=PYTHON)
        except RuntimeError as error:
            raise RoseError("hydra/launcher=slurm: no srun on PATH; run this where sbatch works") from error
        try:
            executor.update_parameters(**self.sbatch | sbatch)
            return executor.map_array(Task(function), [cloudpickle.dumps(argument) for argument in arguments])
        except (ValueError, FailedJobError) as error:  # an unknown option; what sbatch said
            raise RoseError(f"hydra/launcher=slurm: {error}") from error

    def wait(self, jobs: dict[int, "submitit.Job"]) -> dict[int, str]:
        """Why jobs died, once all have ended. Asks squeue: sacct needs accounting to be set up.

        The log has a line whenever the jobs' states have changed.
        """
        died, absent, last_answer, told, total = {}, set(), time.monotonic(), "", len(jobs)
        while jobs:
            time.sleep(self.poll)
            queued = _queued()
            if queued is not None:
                last_answer = time.monotonic()
            elif time.monotonic() - last_answer > LIMIT:
                log.warning("squeue has not answered for %d s; %d jobs to wait for", LIMIT, len(jobs))
                last_answer = time.monotonic()
            for number, job in list(jobs.items()):
                if job.paths.result_pickle.exists():  # the job itself says how it ended, if it was reached
                    if job.task(0).exception():
                        died[number] = f"its process could not run it; see {job.paths.stderr}"
                elif queued is None or job.job_id in queued:
                    absent.discard(number)
                    continue
                elif number not in absent:  # a look later its result may have reached this host
                    absent.add(number)
                    continue
                else:
                    died[number] = f"{_state(job.job_id)}; see {job.paths.stderr}"
                del jobs[number]
            states = Counter((queued or {}).get(job.job_id, "ending") for job in jobs.values())
            now = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            if queued is not None and now != told:
                told = now
                log.info("Slurm: %d of %d jobs have ended%s", total - len(jobs), total, f"; {now}" if now else "")
        return died


def private(folder: Path) -> None:
    """Makes the folder, or raises RoseError where one is there that is open to others.

    Whoever can write there can have nodes run what he likes as this user.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        fault = "is another user's, or others may write into it"
        remedy = "jobs are sent through this folder, which must be yours alone"
        raise RoseError(f"hydra.launcher.folder={folder}: {fault}; {remedy}")


def _queued() -> dict[str, str] | None:
    """The user's jobs that Slurm has not ended, by id: their states, in its words; None when it does not answer."""
    done = _ask("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T")
    return None if done is None else {job: state.lower() for job, _, state in map(_parted, done.splitlines())}


def _parted(line: str) -> tuple[str, str, str]:
    return line.strip().partition(" ")


def _state(job_id: str) -> str:
    """What became of a job, in Slurm's word, which it keeps for some minutes."""
    state = re.search(r"\bJobState=(\S+)", _ask("scontrol", "-o", "show", "job", job_id) or "")
    return f"Slurm job {job_id} is {state[1] if state else 'gone'}"


def _ask(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)  # noqa: S603 — no word is a user's
    except FileNotFoundError as error:
        raise RoseError(f"hydra/launcher=slurm: no {command[0]} on PATH; run this where sbatch works") from error
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        log.debug("%s: %s", command[0], done.stderr.strip())
    return None if done.returncode else done.stdout
