"""The projection of TRAK (`projection=trak`)

Twelve gradients of 5,000 numbers to 256. Ours is traker's BasicProjector on a seed of our own,
scaled by 1/√dim: every number is the same bit for bit.
"""

import math
from collections.abc import Iterator

import torch
from trak.projectors import BasicProjector, ProjectionType

from bench.peers.row import Row, largest, version
from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.gradients.projection import make_projector
from rose.seeds import derive

SIZE, DIM = 5_000, 256


def rows() -> Iterator[Row]:
    gradients = torch.randn(12, SIZE, generator=torch.Generator().manual_seed(0))
    for seed in (0, 1):
        ours = make_projector(Projection(ProjectionKind.trak, DIM, seed), SIZE).project(gradients)
        peer = BasicProjector(
            grad_dim=SIZE,
            proj_dim=DIM,
            seed=derive(seed, "projection") % (1 << 31),
            proj_type=ProjectionType.rademacher,
            device=torch.device("cpu"),
            block_size=DIM,
        )
        theirs = peer.project(gradients, model_id=0) / math.sqrt(DIM)
        yield Row(f"projected gradients, seed {seed}", version("traker"), largest(ours, theirs), 0.0)
