"""Sketches: signs, and coordinates that share a bucket; a pass over the gradient and no matrix."""

import logging
import math

import numpy
import torch
from scipy.linalg import hadamard

from rose.config.choices import ProjectionKind
from rose.gradients import spaces
from rose.gradients.spaces import Space, description
from rose.seeds import derive

log = logging.getLogger(__name__)

MIXED = 4096  # coordinates that srht mixes with one another


class Sketch:
    """The sum of chunks of d coordinates with random signs, each chunk rolled by a random shift.

    A sparse Johnson–Lindenstrauss map with one entry a column (count sketch, Charikar et al. 2002):
    unbiased inner products with variance ≤ 2/d for unit vectors. The shift keeps weights that recur
    with a period from meeting in one bucket. `mixed` first spreads every coordinate over MIXED
    others by a random Hadamard transform (Ailon & Chazelle 2009), for gradients whose energy sits
    in a few coordinates.
    """

    def __init__(self, size: int, dim: int, seed: int, device: torch.device, mixed: bool = False) -> None:
        self.size, self.dim, self.seed, self.mixed = size, dim, seed, mixed
        self.block = min(MIXED, 1 << (dim.bit_length() - 1)) if mixed else 1
        width = math.ceil(size / self.block) * self.block
        self.shifts: list[int] = (_raw(seed, "shifts", math.ceil(width / dim)) % dim).tolist()
        raw = _raw(seed, "signs", math.ceil(width / 64))
        self.signs = spaces.signs(raw, width).to(device)
        # for `fused.py`: the same signs as bits, the first in a byte's highest, and the shifts, on the device
        self.bits = torch.from_numpy(raw.astype("<u8", copy=False).view(numpy.uint8)).to(device)
        self.rolls = torch.tensor(self.shifts, dtype=torch.int32, device=device)
        if mixed:
            self.flips = spaces.signs(_raw(seed, "flips", math.ceil(width / 64)), width).to(device)

    def describe(self) -> Space:
        kind = ProjectionKind.srht if self.mixed else ProjectionKind.sketch
        found = self.project(spaces.probe(self.size).to(self.signs.device))
        digest = spaces.digest(found, 1 / math.sqrt(self.block))
        return {**description(kind, self.seed, self.dim), "digest": digest}

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        gradients = gradients.float()
        if self.mixed:
            gradients = mix(gradients, self.flips, self.block)
        if gradients.device.type == "cpu":
            return fold(gradients, self.signs, self.shifts, self.dim)
        return fold_gathered(gradients, self.signs, self.shifts, self.dim)


def fold(gradients: torch.Tensor, signs: torch.Tensor, shifts: list[int], dim: int) -> torch.Tensor:
    """[n, p] to [n, d], chunk after chunk, in an order that does not depend on threads or batch."""
    folded = torch.zeros(len(gradients), dim, dtype=gradients.dtype)
    rows = max(1, (1 << 15) // dim)  # so few that torch stays on one thread, which is faster
    for first in range(0, len(gradients), rows):
        into, source = folded[first : first + rows], gradients[first : first + rows]
        for start, shift in zip(range(0, source.shape[1], dim), shifts, strict=True):
            part, sign = source[:, start : start + dim], signs[start : start + dim]
            seam = min(part.shape[1], dim - shift)  # what lies behind it is rolled to the front
            into[:, shift : shift + seam].addcmul_(part[:, :seam], sign[:seam])
            if seam < part.shape[1]:
                into[:, : part.shape[1] - seam].addcmul_(part[:, seam:], sign[seam:])
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
    """[n, p] to [n, len(flips)]: random signs, then an orthonormal Hadamard matrix a `block`."""
    padded = torch.nn.functional.pad(gradients, (0, len(flips) - gradients.shape[1])) * flips
    height = 1 << (block.bit_length() // 2)
    tiles = padded.view(-1, height, block // height)
    mixed = _hadamard(height, padded) @ (tiles @ _hadamard(block // height, padded))
    return mixed.view(padded.shape)


def concentration(gradients: torch.Tensor) -> torch.Tensor:
    """Effective number of coordinates with each gradient's energy, (Σg²)²/Σg⁴: [n], in 1..p."""
    tiny = torch.finfo(torch.float64).tiny
    energies = (gradient.double().square() for gradient in gradients)  # a batch would not fit
    return torch.stack([energy.sum().square() / energy.square().sum().clamp(min=tiny) for energy in energies])


def concentration_limit(dim: int) -> float:
    """Below this many effective coordinates a sketch's errors are no longer close to Gaussian.

    Two heavy coordinates meet in a bucket with probability 1/d, so k of them have k²/2d meetings.
    With fewer than about ten, most pairs of gradients have none and a few have a large one.
    """
    return math.sqrt(20 * dim)


def warn_if_concentrated(gradients: torch.Tensor, projector: object) -> None:
    """Says so where a plain sketch's error bound does not hold for most of these gradients."""
    if not isinstance(projector, Sketch) or projector.mixed:
        return
    effective, limit = concentration(gradients).median().item(), concentration_limit(projector.dim)
    if effective < limit:
        log.warning(
            "projection=sketch: half the gradients hold their energy in fewer than %.0f coordinates (%d are "
            "needed at dim=%d), so that a few similarities will be far off; projection=srht is safe",
            *(effective, limit, projector.dim),
        )


def _raw(seed: int, name: str, count: int) -> numpy.ndarray:
    """`count` uint64 of a counter-based stream, which numpy keeps the same between versions."""
    return numpy.random.Philox(key=derive(seed, f"projection {name}")).random_raw(count)


def random_signs(seed: int, name: str, count: int) -> torch.Tensor:
    return spaces.signs(_raw(seed, name, math.ceil(count / 64)), count)


def _hadamard(order: int, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(hadamard(order), dtype=like.dtype, device=like.device) / math.sqrt(order)
