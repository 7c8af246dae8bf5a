"""What a long job will take, said before it begins: as stages like its own did, else as fast as the CPU multiplies."""

import math
import time

import torch

from rose.config.schema import Config
from rose.report.text import counted
from rose.run.estimates import Cost
from rose.run.survey import survey

LONG = 5 * 60  # seconds that need no warning
SIDE = 1024  # of the matrices that are multiplied to see how fast this goes
TIMES = 8


def forewarn(config: Config) -> str:
    """One line; "" of what is soon done, and where nothing is known."""
    costs = [stage.cost for stage in survey([config]).values() if not stage.ready]
    untimed = sum(cost.flops for cost in costs if math.isnan(cost.seconds) and cost.flops > 0)
    timed = sum(cost.seconds for cost in costs if cost.seconds > 0)
    speed = speed_here(config) if untimed and not torch.cuda.is_available() else math.inf
    seconds = timed + untimed / speed
    return sentence(costs, seconds, speed) if seconds > LONG else ""


def sentence(costs: list[Cost], seconds: float, speed: float) -> str:
    text = f"{counted(len(costs), 'stage')} to compute, about {about(seconds)}"
    if speed < math.inf:
        text += f" at {speed / 1e9:.0f} GFLOP/s, which is the most that this CPU does"
    if any(math.isnan(cost.flops) for cost in costs):
        text += ", and what is not known yet"
    return f"{text} (`rose plan` with the same words shows each)"


def about(seconds: float) -> str:
    """In minutes, hours or days, with two digits that tell."""
    size, unit = next((pair for pair in ((86400, "days"), (3600, "h")) if seconds >= 2 * pair[0]), (60, "min"))
    digits = 1 - math.floor(math.log10(seconds / size))
    return f"{round(seconds / size, digits):,g} {unit}"


def speed_here(config: Config) -> float:
    """FLOP/s of a product of matrices as the job multiplies them on the CPU: more than any model reaches."""
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    one = torch.ones(SIDE, SIDE, dtype=getattr(torch, config.model.numerics.dtype))
    torch.matmul(one, one)  # the first is slower
    began = time.perf_counter()
    for _ in range(TIMES):
        torch.matmul(one, one)
    return 2 * SIDE**3 * TIMES / (time.perf_counter() - began)
