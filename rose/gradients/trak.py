"""TRAK's own dense projector, or one like it, checked, scaled, and told what it will cost before it starts."""

import functools
import importlib.util
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.errors import RoseError
from rose.gradients import spaces
from rose.gradients.dense import Dense
from rose.gradients.spaces import Space, description
from rose.seeds import derive

if TYPE_CHECKING:
    from trak.projectors import AbstractProjector

log = logging.getLogger(__name__)

MATRIX_BYTES = 4 << 30  # a larger matrix is not kept, and drawn by `Dense`; a constant: outputs depend on it
REMEMBERED_BYTES = 256 << 20  # a matrix so small stays in memory for the next stage that wants it
SLOW_SECONDS = 120  # from here on TRAK's projector on a CPU is worth a warning

FAST_JL = "fast_jl, whose 0.1.3 cannot be built with CUDA 13"


class Trak:
    """A dense Rademacher projector, TRAK's or as TRAK's, scaled by 1/√dim, which traker leaves out."""

    def __init__(self, projector: "AbstractProjector | Dense", runs: str, seed: int) -> None:
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
    dim = projection.dim
    # traker adds multiples of 1000 to the seed, so near seeds would share parts of their matrices
    seed = derive(projection.seed, "projection") % (1 << 31)
    if device.type == "cuda" and dim % 512 == 0 and importlib.util.find_spec("fast_jl"):
        from trak.projectors import CudaProjector, ProjectionType

        _say_once("projection=trak runs TRAK's CudaProjector (fast_jl)")
        projector = CudaProjector(size, dim, seed, ProjectionType("rademacher"), device, max_batch_size=8)
        return Trak(projector, "cuda", projection.seed)
    cached = 4 * size * dim <= MATRIX_BYTES
    # TRAK's own draws other signs on a GPU, and in every batch as slowly as it reads them
    seconds = (_basic_seconds if cached else _dense_seconds)(size, dim, device, rows, batches)
    slow = seconds > SLOW_SECONDS or (not cached and device.type == "cpu")
    needs = f" (TRAK's CudaProjector needs {FAST_JL}, and a dim that 512 divides)" if device.type == "cuda" else ""
    runs = "TRAK's BasicProjector" if cached else "a projector as TRAK's"
    matrix = f"{'a kept' if cached else 'in every batch a regenerated'} matrix {size} x {dim}"
    text = f"projection=trak runs {runs} on the {device.type}{needs}: {matrix}"
    if slow:
        many = f" for {rows} gradients" if rows else ""
        log.warning("%s%s, about %s; projection=sketch takes seconds", text, many, _duration(seconds))
    else:
        _say_once(text)
    if not cached:
        return Trak(Dense(size, dim, seed, device), "philox", projection.seed)
    draw = _remembered if 4 * size * dim <= REMEMBERED_BYTES else _drawn
    return Trak(draw(size, dim, seed, device), f"basic on cpu, block {dim}", projection.seed)


def _drawn(size: int, dim: int, seed: int, device: torch.device) -> "AbstractProjector":
    """TRAK's projector with its matrix drawn."""
    from trak.projectors import BasicProjector, ProjectionType

    projector = BasicProjector(size, dim, seed, ProjectionType("rademacher"), torch.device("cpu"), dim)
    projector.proj_matrix, projector.device = projector.proj_matrix.to(device), device
    return projector


_remembered = functools.lru_cache(maxsize=1)(_drawn)  # all checkpoints of a warm-up have the same


@functools.cache
def _say_once(text: str) -> None:
    """A projector is made for each stage that needs it: what is the same for all of them is no news the next time."""
    log.info(text)


def _basic_seconds(size: int, dim: int, device: torch.device, rows: int, batches: int) -> float:
    """What BasicProjector will take, from a sample of its two parts: drawing signs on the CPU, multiplying."""
    drawing, multiplying = _sampled(device)
    return size * dim * (drawing + multiplying * (rows + 8))


@functools.cache
def _sampled(device: torch.device) -> tuple[float, float]:
    """Seconds an entry of the matrix: to draw, and to multiply by one row."""
    sample, vectors = torch.empty(1 << 21), torch.ones(8, 1 << 16, device=device)
    matrix = torch.ones(1 << 16, 32, device=device)
    drawing = _seconds(lambda: sample.bernoulli_(0.5))
    multiplying = _seconds(lambda: vectors @ matrix)
    return drawing / sample.numel(), multiplying / (8 * sample.numel())


def _dense_seconds(size: int, dim: int, device: torch.device, rows: int, batches: int) -> float:
    """What `Dense` will take, from some rows of its matrix; the first batch is the probe's."""
    some, each = max(1, (1 << 21) // dim), math.ceil(rows / batches) if batches else 8
    sample, vectors = Dense(some, dim, 0, device), torch.ones(max(each, 8), some, device=device)
    return size / some * _seconds(lambda: sample.project(vectors)) * (1 + batches)


def _seconds(step: Callable[[], object]) -> float:
    """Of a second run."""
    step()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
