"""Several processes on one job, started by `torchrun --nproc_per_node 2 -m rose …`, `accelerate
launch`, or anything that sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

The first process is the program: it plans, locks, publishes and reports. The others join it in the
stages marked `together`, where each takes its part of the batches, and wait meanwhile. What comes
out does not depend on their number, but for rounding and dropout's masks in training, so no stage's
key holds it. An error of one process ends the stage on all; a process that dies closes its
connections, which ends the others' waiting. Rows are written in place, by every process: on several
machines `outputs` needs a file system that they all see at once.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

from rose import device
from rose.errors import RoseError, one_line

Value = TypeVar("Value")

QUIET = [  # Hydra's part of being one of several: the job's files and log are the first process's
    "hydra.output_subdir=null",
    "hydra.job_logging.root.handlers=[console]",
    "hydra.job_logging.root.level=ERROR",
    f"hydra.job_logging.handlers.file.filename={os.devnull}",
]
STEP = timedelta(minutes=10)  # for another process within a training step; NCCL's own default
STAGE = timedelta(hours=24)  # for the first process to finish what it does alone


class Elsewhere(RoseError):
    """Another process of this job failed; `of_device`: by its device or memory (`rose.device.failed`)."""

    of_device = False


class Lost(RoseError):
    """Another process of this job is gone."""


class Exchange(NamedTuple):
    value: Any = None
    error: str | None = None
    of_device: bool = False


def rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes work on this job."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this is the process that plans, publishes and reports."""
    return rank() == 0


def speaks() -> bool:
    """Whether this process says what is wrong with its input: one a machine does."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


@contextmanager
def joined() -> Iterator[None]:
    """Connects this process with its job's others, if any, each on a device of its own."""
    if world_size() == 1:
        yield
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise RoseError(f"WORLD_SIZE={world_size()}: {', '.join(missing)} must be set too; torchrun does that")
    import torch

    if torch.cuda.is_available():
        device.choose(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=STEP)
    _waiting()
    try:
        yield
    finally:
        _waiting.cache_clear()
        torch.distributed.destroy_process_group()


def together(do: Callable[[], Value]) -> list[Value]:
    """Runs `do` on every process: what each returned, on all. An error on one is raised on all."""
    try:
        result = Exchange(do())
    except (Elsewhere, Lost):
        raise  # all know of it
    except Exception as error:
        _meet(Exchange(error=one_line(error), of_device=device.failed(error)))
        raise
    return _meet(result)


def alone(do: Callable[[], Value]) -> Value:
    """Runs `do` on the first process while the others wait: what it returned, or raised, on all."""
    values: list[Any] = together(do if is_first() else lambda: None)
    return values[0]


def first(do: Callable[[], Value]) -> Value:
    """Runs `do` on the first process, then on the others."""
    if not is_first():
        barrier()
    value = do()
    if is_first():
        barrier()
    return value


def barrier() -> None:
    """Waits until every process is here. Raises Elsewhere where one has failed instead."""
    _meet(Exchange())


def own_batches(batches: Sequence[Value]) -> Sequence[Value]:
    """This process's batches; sorted by length, they give each process as much to do."""
    return batches[rank() :: world_size()]


def _meet(mine: Exchange) -> list[Any]:
    """Every wait is this one exchange: a process that fails meets the others wherever they wait.

    Raises Elsewhere where one has failed, but not on a first process whose own error says it all.
    """
    if world_size() == 1:
        return [mine.value]
    import torch  # late: a typo should not wait for it

    outcomes: list[Exchange] = [mine] * world_size()
    try:
        torch.distributed.all_gather_object(outcomes, mine, group=_waiting())
    except RuntimeError as error:
        raise Lost("another process of this job has ended; the same command goes on from here") from error
    failed = {number: outcome.error for number, outcome in enumerate(outcomes) if outcome.error}
    if failed and not (is_first() and set(failed.values()) == {mine.error}):
        elsewhere = Elsewhere("; ".join(f"process {number}: {error}" for number, error in failed.items()))
        elsewhere.of_device = all(outcomes[number].of_device for number in failed)
        raise elsewhere
    return [outcome.value for outcome in outcomes]


@cache
def _waiting() -> Any:
    """The group to wait in: patient, and of gloo, which sees a connection close; NCCL would not."""
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=STAGE)
