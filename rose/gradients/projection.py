"""Random projections of gradients to few dimensions that keep inner products, on average exactly.

Every projector maps [n, p] to [n, dim] float32; the same seed gives the same map in any process. Algorithm
versions are stored with features: raise one when the map of a seed changes.
"""

import importlib.util
import logging
import math
import time
from typing import Protocol

import numpy
import torch

from rose.choices import Keep, ProjectionKind
from rose.config import Projection
from rose.errors import RoseError
from rose.seeds import derive

log = logging.getLogger(__name__)

TARGETS = "targets"  # not a random projection: coordinates are cosines with the targets' gradients
VERSIONS = {
    ProjectionKind.trak: 1,
    ProjectionKind.sketch: 1,
    ProjectionKind.srht: 1,
    ProjectionKind.none: 1,
    TARGETS: 1,
}
MIXED = 4096  # coordinates that srht mixes with one another
MATRIX_BYTES = 4 << 30  # a dense matrix up to this size is kept; a constant, as TRAK's output depends on the blocks
BLOCK_BYTES = 1 << 30  # of a matrix that is too large to keep, at a time
SLOW_SECONDS = 120  # from here on TRAK's projector on a CPU is worth a warning


class Projector(Protocol):
    dim: int

    def describe(self) -> dict:
        """What the projected space is; features are comparable only where this is equal."""

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        """[n, p] to [n, dim] float32; the input is left as it is."""


def effective(projection: Projection, keep: Keep, size: int | None) -> Projection:
    """The projection without what cannot matter: streamed features have none; none has neither a width nor a seed.

    `size` is the gradients' width where it is known already. Raises RoseError where the projection is wider.
    """
    if keep is Keep.stream or projection.kind == ProjectionKind.none:
        return Projection(ProjectionKind.none, dim=0, seed=0)
    if size is not None:
        _fits(projection.dim, size)
    return Projection(projection.kind, projection.dim, projection.seed)


def make_projector(
    projection: Projection, size: int, device: torch.device | str = "cpu", rows: int = 0, batches: int = 0
) -> Projector:
    """The projector for gradients of `size` weights.

    `rows` and `batches` are how many gradients will come in how many calls; they serve the cost estimate that
    is logged before TRAK's projector starts. Raises RoseError where dim exceeds `size` (kind none ignores
    dim).
    """
    kind, device = ProjectionKind(projection.kind), torch.device(device)
    if kind is ProjectionKind.none:
        return Identity(size)
    _fits(projection.dim, size)
    if kind is ProjectionKind.trak:
        return _trak(projection, size, device, rows, batches)
    return Sketch(size, projection.dim, projection.seed, device, mixed=kind is ProjectionKind.srht)


def _fits(dim: int, size: int) -> None:
    if dim < 1:
        raise RoseError(f"projection.dim={dim}: allowed are 1 to the gradient's width p={size}, or projection=none")
    if dim > size:
        raise RoseError(
            f"projection.dim={dim} is wider than the gradient (p={size}): set projection.dim to at most {size}, "
            "or projection=none"
        )


class Identity:
    """projection=none: the gradient itself."""

    def __init__(self, size: int) -> None:
        self.dim = size

    def describe(self) -> dict:
        return _description(ProjectionKind.none, None, self.dim)

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        return gradients.float()


class Sketch:
    """A signed, shifted fold: chunks of `dim` coordinates with random signs, each rolled by its own random
    shift, summed.

    A sparse Johnson–Lindenstrauss map with one entry a column (count sketch, Charikar et al. 2002): unbiased
    inner products with variance ≤ 2/dim for unit vectors. The shift keeps weights that recur with a period
    from meeting in one bucket. `mixed` first spreads every coordinate over MIXED others by a random Hadamard
    transform (Ailon & Chazelle 2009), for gradients whose energy sits in a few coordinates.
    """

    def __init__(self, size: int, dim: int, seed: int, device: torch.device, mixed: bool = False) -> None:
        self.dim, self.seed, self.mixed = dim, seed, mixed
        self.block = min(MIXED, 1 << (dim.bit_length() - 1)) if mixed else 1
        width = math.ceil(size / self.block) * self.block
        self.shifts = _shifts(seed, math.ceil(width / dim), dim)
        self.signs = _signs(seed, "signs", width).to(device)
        if mixed:
            self.flips = _signs(seed, "flips", width).to(device)

    def describe(self) -> dict:
        return _description(ProjectionKind.srht if self.mixed else ProjectionKind.sketch, self.seed, self.dim)

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        gradients = gradients.float()
        if self.mixed:
            gradients = mix(gradients, self.flips, self.block)
        if gradients.device.type == "cpu":
            return fold(gradients, self.signs, self.shifts, self.dim)
        return fold_gathered(gradients, self.signs, self.shifts, self.dim)


def fold(gradients: torch.Tensor, signs: torch.Tensor, shifts: list[int], dim: int) -> torch.Tensor:
    """[n, p] to [n, dim], chunk after chunk, in an order that does not depend on threads or batch."""
    folded = torch.zeros(len(gradients), dim, dtype=gradients.dtype)
    rows = max(1, (1 << 15) // dim)  # small enough that torch stays on one thread: its threads cost more than they add
    for first in range(0, len(gradients), rows):
        into, source = folded[first : first + rows], gradients[first : first + rows]
        for start, shift in zip(range(0, source.shape[1], dim), shifts, strict=True):
            part, sign = source[:, start : start + dim], signs[start : start + dim]
            kept = min(part.shape[1], dim - shift)
            into[:, shift : shift + kept].addcmul_(part[:, :kept], sign[:kept])
            if kept < part.shape[1]:
                into[:, : part.shape[1] - kept].addcmul_(part[:, kept:], sign[kept:])
    return folded


def fold_gathered(gradients: torch.Tensor, signs: torch.Tensor, shifts: list[int], dim: int) -> torch.Tensor:
    """`fold` in few large steps, for devices where a launch costs more than a chunk."""
    folded = torch.zeros(len(gradients), dim, dtype=gradients.dtype, device=gradients.device)
    place = torch.arange(dim, device=gradients.device)
    chunks = max(1, (1 << 22) // dim)
    for first in range(0, len(shifts), chunks):
        shift = torch.tensor(shifts[first : first + chunks], device=gradients.device)
        columns = slice(first * dim, (first + chunks) * dim)
        signed = gradients[:, columns] * signs[columns]
        signed = torch.nn.functional.pad(signed, (0, len(shift) * dim - signed.shape[1]))
        source = (place - shift[:, None]) % dim  # [chunks, dim]
        folded += signed.view(-1, *source.shape).gather(2, source.expand(len(gradients), -1, -1)).sum(1)
    return folded


def mix(gradients: torch.Tensor, flips: torch.Tensor, block: int) -> torch.Tensor:
    """Random signs, then an orthonormal Hadamard transform of each `block` (a power of two): [n, p] to [n,
    len(flips)].
    """
    padded = torch.nn.functional.pad(gradients, (0, len(flips) - gradients.shape[1])) * flips
    left = 1 << (block.bit_length() // 2)
    right = block // left
    tiles = padded.view(-1, left, right)
    mixed = _hadamard(left, padded) @ (tiles @ _hadamard(right, padded))
    return mixed.view(padded.shape)


def concentration(gradients: torch.Tensor) -> torch.Tensor:
    """Effective number of coordinates that hold each gradient's energy, (Σg²)²/Σg⁴: [n], between 1 and p."""
    return torch.stack([_participation(gradient) for gradient in gradients])  # a batch in float64 would not fit


def _participation(gradient: torch.Tensor) -> torch.Tensor:
    energy = gradient.double().square()
    return energy.sum().square() / energy.square().sum().clamp(min=torch.finfo(torch.float64).tiny)


def concentration_limit(dim: int) -> float:
    """Below this many effective coordinates a sketch's errors are no longer close to Gaussian.

    Two heavy coordinates meet in a bucket with probability 1/dim, so n of them have n²/2dim meetings; with
    fewer than about ten, most pairs of gradients have none and a few have a large one.
    """
    return math.sqrt(20 * dim)


def warn_if_concentrated(gradients: torch.Tensor, projector: Projector) -> None:
    """Says so where a plain sketch's error bound does not hold for most of these gradients."""
    if not isinstance(projector, Sketch) or projector.mixed:
        return
    effective, limit = concentration(gradients).median().item(), concentration_limit(projector.dim)
    if effective < limit:
        log.warning(
            "projection=sketch: half the gradients hold their energy in fewer than %.0f coordinates (%d are "
            "needed at dim=%d), so that a few similarities will be far off; projection=srht is safe",
            effective,
            limit,
            projector.dim,
        )


class Trak:
    """TRAK's dense Rademacher projector, scaled by 1/√dim, which traker leaves out."""

    def __init__(self, projector, runs: str, size: int, dim: int, seed: int, device: torch.device) -> None:
        self.projector, self.runs, self.dim, self.seed, self.device = projector, runs, dim, seed, device
        self.probe(size)

    def describe(self) -> dict:
        return _description(ProjectionKind.trak, self.seed, self.dim) | {"runs": self.runs}

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        gradients = gradients.to(self.device, torch.float32)
        if self.runs != "cuda":
            return self.projector.project(gradients, model_id=0) / math.sqrt(self.dim)
        # the kernel casts to half precision and takes multiples of 8 rows: bring rows to unit norm, pad, undo
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        padding = -len(gradients) % 8
        unit = torch.nn.functional.pad(gradients / norms.clamp(min=1e-30), (0, 0, 0, padding))
        parts = [self.projector.project(part.contiguous(), model_id=0) for part in unit.split(8)]
        return torch.cat(parts)[: len(gradients)].float() * norms / math.sqrt(self.dim)

    def probe(self, size: int) -> None:
        """Refuses a projector that loses a vector's norm: fast_jl has returned zeros without a word."""
        vector = torch.randn(8, size, generator=torch.Generator().manual_seed(0))
        ratio = (self.project(vector).norm(dim=1).cpu() / vector.norm(dim=1)).mean().item()
        # a unit vector's projected norm is 1 ± 1/√(2·dim)
        if not abs(ratio - 1) < 6 / math.sqrt(2 * self.dim) + 0.02:
            raise RoseError(
                f"projection=trak: TRAK's projector ({self.runs}) turned vectors of norm 1 into norm "
                f"{ratio:.3g}; use projection=sketch"
            )


def _trak(projection: Projection, size: int, device: torch.device, rows: int, batches: int) -> Trak:
    from trak.projectors import BasicProjector, CudaProjector, ProjectionType

    # traker adds multiples of 1000 to the seed, so near seeds would share parts of their matrices
    seed = derive(projection.seed, "projection") % (1 << 31)
    options = dict(grad_dim=size, proj_dim=projection.dim, seed=seed, proj_type=ProjectionType.rademacher)
    if device.type == "cuda" and projection.dim % 512 == 0 and importlib.util.find_spec("fast_jl"):
        log.info("projection=trak runs TRAK's CudaProjector (fast_jl)")
        projector = CudaProjector(**options, device=device, max_batch_size=8)
        return Trak(projector, "cuda", size, projection.dim, projection.seed, device)
    cached = 4 * size * projection.dim <= MATRIX_BYTES
    block = projection.dim if cached else max(1, BLOCK_BYTES // (4 * size))
    seconds = _basic_seconds(size, projection.dim, cached, device, rows, batches)
    slow = seconds > SLOW_SECONDS or not cached
    log.log(
        logging.WARNING if slow else logging.INFO,
        "projection=trak runs TRAK's BasicProjector on the %s%s: %s matrix %d x %d%s, about %s%s",
        device.type,
        " (CudaProjector needs fast_jl and a dim that 512 divides)" if device.type == "cuda" else "",
        "a kept" if cached else "in every batch a regenerated",
        size,
        projection.dim,
        f" for {rows} gradients" if rows else "",
        _duration(seconds),
        "; projection=sketch takes seconds" if slow else "",
    )
    projector = BasicProjector(**options, device=device, block_size=block)
    return Trak(projector, f"basic on {device.type}, block {block}", size, projection.dim, projection.seed, device)


def _basic_seconds(size: int, dim: int, cached: bool, device: torch.device, rows: int, batches: int) -> float:
    """What BasicProjector will take, from a timed sample of its two parts."""
    sample = torch.empty(1 << 21, device=device)
    vectors = torch.ones(8, 1 << 16, device=device)
    timed = []
    for step in (lambda: sample.bernoulli_(0.5), lambda: vectors @ sample[: 32 << 16].view(1 << 16, 32)):
        step()
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        timed.append(time.perf_counter() - start)
    generations = 1 if cached else 1 + batches  # the first is the probe's
    return size * dim * (timed[0] / sample.numel() * generations + timed[1] / (8 * sample.numel()) * (rows + 8))


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


def _description(kind: ProjectionKind, seed: int | None, dim: int) -> dict:
    return {"kind": str(kind), "seed": seed, "dim": dim, "version": VERSIONS[kind]}


def _raw(seed: int, name: str, count: int) -> numpy.ndarray:
    """`count` uint64 of a counter-based stream; numpy keeps bit generators' raw streams stable between
    versions.
    """
    return numpy.random.Philox(key=derive(seed, f"projection {name}")).random_raw(count)


def _signs(seed: int, name: str, count: int) -> torch.Tensor:
    raw = _raw(seed, name, math.ceil(count / 64)).astype("<u8", copy=False)
    bits = torch.from_numpy(numpy.unpackbits(raw.view(numpy.uint8))[:count])
    return bits.float().mul_(2).sub_(1)


def _shifts(seed: int, count: int, dim: int) -> list[int]:
    return (_raw(seed, "shifts", count) % dim).tolist()


def _hadamard(order: int, like: torch.Tensor) -> torch.Tensor:
    matrix = torch.ones(1, 1, dtype=like.dtype, device=like.device)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(order)
