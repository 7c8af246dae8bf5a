"""TRAK's own dense projector, checked, scaled, and told what it will cost before it starts."""

import importlib.util
import logging
import math
import time
from typing import TYPE_CHECKING

import torch

from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.errors import RoseError
from rose.gradients import spaces
from rose.gradients.spaces import Space, description
from rose.seeds import derive

if TYPE_CHECKING:
    from trak.projectors import AbstractProjector

log = logging.getLogger(__name__)

MATRIX_BYTES = 4 << 30  # a larger matrix is not kept; a constant: outputs depend on blocks
BLOCK_BYTES = 1 << 30  # of a matrix that is too large to keep, at a time
SLOW_SECONDS = 120  # from here on TRAK's projector on a CPU is worth a warning


class Trak:
    """TRAK's dense Rademacher projector, scaled by 1/√dim, which traker leaves out."""

    def __init__(self, projector: "AbstractProjector", runs: str, seed: int) -> None:
        self.projector, self.runs, self.seed = projector, runs, seed
        self.dim, self.device = projector.proj_dim, torch.device(projector.device)
        self.digest = self.probe(projector.grad_dim)

    def describe(self) -> Space:
        return {**description(ProjectionKind.trak, self.seed, self.dim), "runs": self.runs, "digest": self.digest}

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        gradients = gradients.to(self.device, torch.float32)
        if self.runs != "cuda":
            return self.projector.project(gradients, model_id=0) / math.sqrt(self.dim)
        # the kernel is of half precision and takes multiples of 8 rows: unit norm, pad, undo
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        padding = -len(gradients) % 8
        unit = torch.nn.functional.pad(gradients / norms.clamp(min=1e-30), (0, 0, 0, padding))
        parts = [self.projector.project(part.contiguous(), model_id=0) for part in unit.split(8)]
        return torch.cat(parts)[: len(gradients)].float() * norms / math.sqrt(self.dim)

    def probe(self, size: int) -> str:
        """The map's digest. Refuses a projector that loses norms: fast_jl has returned zeros without a word."""
        found = self.project(spaces.probe(size, rows=8))
        ratio = found.norm(dim=1).mean().item() / math.sqrt(size)
        # a unit vector's projected norm is 1 ± 1/√(2·dim)
        if not abs(ratio - 1) < 6 / math.sqrt(2 * self.dim) + 0.02:
            raise RoseError(
                f"projection=trak: TRAK's projector ({self.runs}) turned vectors of norm 1 into norm "
                f"{ratio:.3g}; use projection=sketch"
            )
        return spaces.digest(found, 1 / math.sqrt(self.dim))


def trak_projector(projection: Projection, size: int, device: torch.device, rows: int, batches: int) -> Trak:
    from trak.projectors import BasicProjector, CudaProjector, ProjectionType

    dim, rademacher = projection.dim, ProjectionType("rademacher")
    # traker adds multiples of 1000 to the seed, so near seeds would share parts of their matrices
    seed = derive(projection.seed, "projection") % (1 << 31)
    if device.type == "cuda" and dim % 512 == 0 and importlib.util.find_spec("fast_jl"):
        log.info("projection=trak runs TRAK's CudaProjector (fast_jl)")
        return Trak(CudaProjector(size, dim, seed, rademacher, device, max_batch_size=8), "cuda", projection.seed)
    cached = 4 * size * dim <= MATRIX_BYTES
    block = dim if cached else max(1, BLOCK_BYTES // (4 * size))
    # a seed means other signs on a GPU; one drawn in every batch would take the CPU too long
    drawn_on = torch.device("cpu") if cached else device
    seconds = _basic_seconds(size, dim, cached, (drawn_on, device), rows, batches)
    slow = seconds > SLOW_SECONDS or not cached
    log.log(
        logging.WARNING if slow else logging.INFO,
        "projection=trak runs TRAK's BasicProjector on the %s%s: %s matrix %d x %d%s, about %s%s",
        device.type,
        " (CudaProjector needs fast_jl and a dim that 512 divides)" if device.type == "cuda" else "",
        "a kept" if cached else "in every batch a regenerated",
        size,
        dim,
        f" for {rows} gradients" if rows else "",
        _duration(seconds),
        "; projection=sketch takes seconds" if slow else "",
    )
    projector = BasicProjector(size, dim, seed, rademacher, drawn_on, block)
    if cached:
        projector.proj_matrix, projector.device = projector.proj_matrix.to(device), device
    return Trak(projector, f"basic on {drawn_on.type}, block {block}", projection.seed)


def _basic_seconds(
    size: int, dim: int, cached: bool, devices: tuple[torch.device, torch.device], rows: int, batches: int
) -> float:
    """What BasicProjector will take, from a sample of its two parts: drawing signs, multiplying."""
    sample, vectors = torch.empty(1 << 21, device=devices[0]), torch.ones(8, 1 << 16, device=devices[1])
    matrix = torch.ones(1 << 16, 32, device=devices[1])
    durations = []
    for step in (lambda: sample.bernoulli_(0.5), lambda: vectors @ matrix):
        step()
        start = time.perf_counter()
        step()
        if devices[1].type == "cuda":
            torch.cuda.synchronize()
        durations.append(time.perf_counter() - start)
    generations = 1 if cached else 1 + batches  # the first is the probe's
    return size * dim * (durations[0] / sample.numel() * generations + durations[1] / (8 * sample.numel()) * (rows + 8))


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
