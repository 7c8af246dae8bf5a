"""Random projections of gradients to few dimensions that keep inner products, on average exactly.

Every projector maps [n, p] to [n, d] float32 and leaves its input as it is; the same seed gives the
same map in any process.
"""

import torch

from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.errors import RoseError
from rose.gradients.sketch import Sketch
from rose.gradients.spaces import Space, description
from rose.gradients.trak import Trak, trak_projector


def make_projector(
    projection: Projection, size: int, device: torch.device | str = "cpu", rows: int = 0, batches: int = 0
) -> "Projector":
    """The projector for gradients of `size` weights; its `describe` says what space it maps to.

    `rows` and `batches` are how many gradients will come in how many calls, for the cost estimate
    that is logged before TRAK's projector starts. Raises RoseError where dim exceeds `size` (kind
    none ignores dim).
    """
    kind, device = ProjectionKind(projection.kind), torch.device(device)
    if kind is ProjectionKind.none:
        return Identity(size)
    fits(projection.dim, size)
    if kind is ProjectionKind.trak:
        return trak_projector(projection, size, device, rows, batches)
    return Sketch(size, projection.dim, projection.seed, device, mixed=kind is ProjectionKind.srht)


def fits(dim: int, size: int) -> None:
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

    def describe(self) -> Space:
        return description(ProjectionKind.none, None, self.dim)

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        return gradients.float()


Projector = Identity | Sketch | Trak
