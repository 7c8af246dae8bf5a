"""What space gradients are projected to; features are comparable only where this is equal.

Raise a version when the map of a seed changes.
"""

from typing import NotRequired, TypedDict

from rose.config.choices import ProjectionKind

TARGETS = "targets"  # not a random projection: coordinates are cosines with the targets' gradients
VERSIONS = {
    ProjectionKind.trak: 1,
    ProjectionKind.sketch: 1,
    ProjectionKind.srht: 1,
    ProjectionKind.none: 1,
    TARGETS: 1,
}


class Space(TypedDict):
    kind: str
    seed: int | None
    dim: int
    version: int
    runs: NotRequired[str]  # TRAK's device and blocks, which its map depends on


def description(kind: str, seed: int | None, dim: int) -> Space:
    return {"kind": str(kind), "seed": seed, "dim": dim, "version": VERSIONS[kind]}
