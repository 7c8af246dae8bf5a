"""Slurm, through submitit. Its Hydra plugin is not used: that gives a sweep up with the first job that dies."""

import getpass
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rose.errors import RoseError
from rose.launchers.base import Job, SweepLauncher, Worker

if TYPE_CHECKING:
    import submitit

# submitit's own handler requeues a job that is preempted, once Python is up; until then USR2 would end it for good
PYTHON = f"env --ignore-signal=USR2 {shlex.quote(sys.executable)}"

log = logging.getLogger(__name__)


class Task:
    """What submitit runs on a node: `function` of one argument, in this folder, by one of the job's processes."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function, self.folder = function, os.getcwd()

    def __call__(self, argument: Any) -> Any:
        from submitit.helpers import TorchDistributedEnvironment

        os.chdir(self.folder)
        if int(os.environ.get("SLURM_NTASKS", 1)) > 1:
            TorchDistributedEnvironment().export(set_cuda_visible_devices=False)  # rose.ranks picks the device
        return self.function(argument)

    def checkpoint(self, argument: Any) -> Any:
        """What submitit sends again when it requeues a job: the same, which goes on from the finished stages."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, argument)


class Slurm(SweepLauncher):
    """A job array. Jobs that are preempted or run out of time are requeued, so often; they go on from their stages.

    `sbatch` are submitit's names of sbatch's options (`submitit.SlurmExecutor`).
    """

    def __init__(self, folder: str, max_num_timeout: int, poll_seconds: float, **sbatch: Any):
        self.folder, self.max_num_timeout, self.poll = folder, max_num_timeout, poll_seconds
        self.sbatch = {
            name: OmegaConf.to_container(OmegaConf.create({"value": v}))["value"] for name, v in sbatch.items()
        }

    def run(self, worker: Worker, jobs: list[Job]) -> dict[int, str]:
        self.refuse_twice()
        sent = self.submit(worker, jobs)
        array = sent[0].job_id.split("_")[0]
        log.info(
            "%d jobs sent to Slurm as %s, output in %s; scancel %s ends them", len(sent), array, self.folder, array
        )
        return self.wait({number: own for (number, _), own in zip(jobs, sent, strict=True)})

    def refuse_twice(self) -> None:
        """Raises RoseError where jobs of this sweep are in Slurm's hands already: two would write into one folder."""
        earlier = {path.name.split("_")[0] for path in Path(self.folder).glob("[0-9]*")}
        if ours := earlier & {job.split("_")[0] for job in _queued() or ()}:
            ids = " ".join(sorted(ours))
            raise RoseError(f"{self.folder}: Slurm still has jobs of this sweep; wait for them, or scancel {ids}")

    def submit(self, function: Callable[[Any], Any], arguments: list[Any], **sbatch: Any) -> list["submitit.Job"]:
        """Sends one Slurm job an argument, as an array."""
        try:
            import submitit
        except ImportError as error:
            raise RoseError("hydra/launcher=slurm: submitit is missing; pip install 'rose[slurm]'") from error
        try:
            executor = submitit.SlurmExecutor(self.folder, max_num_timeout=self.max_num_timeout, python=PYTHON)
        except RuntimeError as error:
            raise RoseError("hydra/launcher=slurm: no srun on PATH; run this where sbatch works") from error
        try:
            executor.update_parameters(**self.sbatch | sbatch)
            return executor.map_array(Task(function), arguments)
        except (ValueError, submitit.core.utils.FailedJobError) as error:  # an unknown option; what sbatch said
            raise RoseError(f"hydra/launcher=slurm: {error}") from error

    def wait(self, jobs: dict[int, "submitit.Job"]) -> dict[int, str]:
        """Returns why jobs died, when all have ended. Asks squeue: sacct answers only where accounting is set up."""
        died, absent = {}, set()
        while jobs:
            time.sleep(self.poll)
            queued = _queued()
            for number, job in list(jobs.items()):
                if job.paths.result_pickle.exists():  # the job itself says how it ended
                    pass
                elif queued is None or job.job_id in queued:
                    absent.discard(number)
                    continue
                elif number not in absent:  # a look later its result may have reached this host
                    absent.add(number)
                    continue
                else:
                    died[number] = f"{_state(job.job_id)}; see {job.paths.stderr}"
                del jobs[number]
        return died


def _queued() -> set[str] | None:
    """The ids of the user's jobs that Slurm has not ended; None when it does not answer."""
    done = _ask("squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i")
    return None if done is None else set(done.split())


def _state(job_id: str) -> str:
    """What became of a job, in Slurm's word, which it keeps for some minutes."""
    fields = dict(field.partition("=")[::2] for field in (_ask("scontrol", "-o", "show", "job", job_id) or "").split())
    return f"Slurm job {job_id} is {fields.get('JobState', 'gone')}"


def _ask(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 — no word of it is a user's
    if done.returncode:
        log.debug("%s: %s", command[0], done.stderr.strip())
    return None if done.returncode else done.stdout
