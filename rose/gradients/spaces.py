"""What space gradients are projected to; features are comparable only where this is equal.

Raise a version when the map of a seed changes.
"""

import hashlib
import math
from typing import NotRequired, TypedDict

import numpy
import torch

from rose.config.choices import ProjectionKind
from rose.errors import RoseError

TARGETS = "targets"  # not a random projection: coordinates are cosines with the targets' gradients
READOUT = "readout"  # signs on both sides of the output layer's gradient
VERSIONS: dict[str, int] = dict.fromkeys([*ProjectionKind, TARGETS, READOUT], 1)


class Space(TypedDict):
    kind: str
    seed: int | None
    dim: int
    version: int
    runs: NotRequired[str]  # what drew TRAK's map and in which blocks, where no digest says which it is
    digest: NotRequired[str]  # of what a fixed probe maps to; older stores have none
    model: NotRequired[str]  # the commit of an encoder from a hub


def description(kind: str, seed: int | None, dim: int) -> Space:
    return {"kind": str(kind), "seed": seed, "dim": dim, "version": VERSIONS[kind]}


def require_same(one: Space, other: Space, places: tuple[object, object]) -> None:
    """Raises RoseError, naming both `places`, where features of the two must not be compared.

    What only one of them says is not known of the other.
    """
    both = [name for name in one if name in other and one[name] is not None and other[name] is not None]
    if "digest" in both:
        both.remove("runs") if "runs" in both else None  # two ways to draw may give one map
    if one["kind"] == other["kind"] == ProjectionKind.none:
        both.remove("seed") if "seed" in both else None
    different = [f"{name} {one[name]} and {other[name]}" for name in both if one[name] != other[name]]
    if different:
        raise RoseError(
            f"{places[0]} and {places[1]}: features of different projections ({', '.join(different)}) cannot be "
            "compared; remove the folder that was made by another machine or program, and run again"
        )


def probe(size: int, rows: int = 1) -> torch.Tensor:
    """Signs [rows, size], the same everywhere: maps of signs and zeros take them to whole numbers."""
    raw = numpy.random.Philox(key=0).random_raw(math.ceil(rows * size / 64))
    return signs(raw, rows * size).view(rows, size)


def digest(projected: torch.Tensor, unit: float) -> str:
    """Of what `probe` maps to, in whole multiples of `unit`: no device's rounding changes it."""
    whole = (projected.double() / unit).round().to(torch.int64).cpu().numpy().astype("<i8")
    return hashlib.sha256(whole.tobytes()).hexdigest()[:16]


def signs(raw: numpy.ndarray, count: int) -> torch.Tensor:
    """`count` signs of the bits of uint64."""
    bits = torch.from_numpy(numpy.unpackbits(raw.astype("<u8", copy=False).view(numpy.uint8))[:count])
    return bits.float().mul_(2).sub_(1)
