"""Gradients to projected Adam updates: in one pass where a kernel can, else by map and projector in turn."""

import functools
import importlib.util
import logging
from typing import Any, Protocol

import torch

from rose.config.choices import AdamMap
from rose.errors import one_line
from rose.gradients.adam import Moments, apply_adam
from rose.gradients.sketch import Sketch

log = logging.getLogger(__name__)


class Projects(Protocol):
    def project(self, gradients: torch.Tensor) -> torch.Tensor: ...


def project_updates(
    gradients: torch.Tensor, moments: Moments | None, adam: AdamMap, projector: Projects
) -> torch.Tensor:
    """`projector.project(apply_adam(gradients, moments, adam))`, which may overwrite `gradients`."""
    if isinstance(projector, Sketch) and fits(gradients, projector) and (kernel := fused()) is not None:
        return kernel.project(gradients, moments, adam, projector)
    return projector.project(apply_adam(gradients, moments, adam))


def fits(gradients: torch.Tensor, sketch: Sketch) -> bool:
    """Whether the kernel takes them: float32 on a CUDA device, unmixed, columns that 31 bits count."""
    small = sketch.size < 2**31 - sketch.dim
    return gradients.is_cuda and gradients.dtype == torch.float32 and not sketch.mixed and small


@functools.cache
def fused() -> Any:
    """The kernel, tried once; None where there is no Triton, or it cannot compile (it calls a C compiler)."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from rose.gradients import fused

        sketch = Sketch(3, 2, 0, torch.device("cuda"))
        fused.project(torch.ones(1, 3, device="cuda"), None, AdamMap.none, sketch)
    except Exception as error:  # whatever the compilers say
        log.warning("Triton cannot compile here (%s): Adam's map and the sketch take turns", one_line(error, 200))
        return None
    return fused
