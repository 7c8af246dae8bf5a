"""The one device of a process: which it is, how exactly it multiplies, and which errors are its own.

Where a machine has several GPUs a process uses one of them; torchrun starts others (`rose.ranks`).
"""

import re
import sys

from rose.errors import RoseError

# of libraries on a GPU, and of torch on a CPU, which have no class of error of their own
FAULT = re.compile(r"\b(CUDA|cuDNN|NCCL|HIP) error\b|out of memory|can't allocate memory")


def choose(local_rank: int) -> None:
    """Makes the GPU of a machine's process `local_rank` the one that this process uses.

    Where it sees one alone, as by Slurm's --gpus-per-task, it is that one. Raises RoseError where
    there are several, but fewer than processes.
    """
    import torch  # late, as below: a typo should not wait for it

    count = torch.cuda.device_count()
    if 1 < count <= local_rank:
        fault = f"a process uses one GPU, and this machine has {count}"
        raise RoseError(f"LOCAL_RANK={local_rank}: {fault}; start so many processes, --nproc_per_node {count}")
    torch.cuda.set_device(local_rank if count > 1 else 0)


def multiply(precision: str = "highest") -> None:
    """How float32 matrices are multiplied in this process from now on; `high` allows a GPU TF32.

    torch has one setting a process. Every stage begins with `highest` (`rose.stages.build`), whatever
    a container's environment or the stage before has said; where a model is loaded (`load_model`)
    `model.numerics.matmul` holds.
    """
    import torch

    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


def failed(error: BaseException | None) -> bool:
    """Whether the device, or the memory, is to blame for `error` or for what it was raised from.

    That says nothing against what was computed before it, nor that it would be so another time.
    """
    if error is None:
        return False
    torch = sys.modules.get("torch")  # without it there is no such error
    kinds = (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError) if torch else MemoryError
    said = isinstance(error, RuntimeError) and FAULT.search(str(error)) is not None
    return said or isinstance(error, kinds) or getattr(error, "of_device", False) or failed(error.__cause__)
