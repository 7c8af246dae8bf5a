"""What a stage costs: seconds, tokens through a model, estimated FLOPs, peak memory, bytes stored."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any


@contextmanager
def metered() -> Iterator[dict[str, float]]:
    """Counts what happens inside, into what it yields.

    tokens_forward, tokens_backward: positions, padding included, through any transformers model.
    flops: 2 a weight and token forward, and backward as many again plus 2 a trained weight (Kaplan
    et al., arXiv 2001.08361): an estimate that leaves out attention. peak_memory: bytes, of the GPU
    where a tensor was put there, else of this process.
    """
    cost: dict[str, float] = {"tokens_forward": 0, "tokens_backward": 0, "flops": 0}
    torch = sys.modules.get("torch")  # where nothing has loaded it, no model can run
    hook = torch and torch.nn.modules.module.register_module_forward_hook(partial(_count, cost))
    held = 0  # on the GPU
    if torch and torch.cuda.is_initialized():  # to ask any more would make this process one that uses it
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    with suppress(OSError):  # Linux: starts the process's high-water mark afresh
        Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    try:
        yield cost
    finally:
        cost["seconds"] = round(time.perf_counter() - start, 3)
        torch = sys.modules.get("torch")  # the stage may have been the first to load it
        on_gpu = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_initialized() else 0
        cost["peak_memory"] = on_gpu if on_gpu > held else _peak()
        if hook:
            hook.remove()


def _count(cost: dict[str, float], module: Any, inputs: Any, output: Any) -> None:
    """Hears of every module; a model's backbone is the one whose output holds last states."""
    states = getattr(output, "last_hidden_state", None)
    if states is None or getattr(module, "base_model", None) is not module:
        return
    tokens = states.shape[0] * states.shape[1]
    weights = sum(weight.numel() for weight in module.parameters())
    cost["tokens_forward"] += tokens
    cost["flops"] += 2 * weights * tokens
    if states.requires_grad:
        trained = sum(weight.numel() for weight in module.parameters() if weight.requires_grad)

        def backward(_: Any) -> None:
            cost["tokens_backward"] += tokens
            cost["flops"] += 2 * (weights + trained) * tokens

        states.register_hook(backward)


def merged(costs: list[dict[str, float]]) -> dict[str, float]:
    """What several processes took together: tokens and FLOPs added up, the longest, the highest."""
    longest = ("seconds", "peak_memory")
    return {name: (max if name in longest else sum)(cost[name] for cost in costs) for name in costs[0]}


def stored(directory: Path) -> int:
    """Bytes of all files of a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _peak() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
