"""What Adam's old momentum puts into every row's feature."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from rose.config.choices import AdamMap
from rose.config.schema import Numerics, Projection
from rose.gradients.adam import apply_adam
from rose.gradients.per_example import PerExample
from rose.gradients.projection import make_projector
from rose.gradients.trajectory import Trajectory
from rose.models import loading
from rose.stages.graph import stage


@stage("momentum", version=3)
def momentum(out: Path, adam: AdamMap, projection: Projection, numerics: Numerics, base: Path, warmup: Path) -> None:
    """Writes momentum.safetensors: by checkpoint, a gradientless row's unit feature [d].

    That is the projected update Adam would still make, β₁m over the root of β₂v: the part of the
    map that no row has a say in. A checkpoint without any momentum holds zeros. Its metadata's
    "space" describes the projection.
    """
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    engine = PerExample(trajectory.model)
    points = len(trajectory.names)
    projector = make_projector(projection, engine.size, engine.device, rows=points, batches=points)
    nothing = torch.zeros(1, engine.size, device=engine.device)
    moments = (trajectory.moments(i, engine) for i in range(points))
    common = [projector.project(apply_adam(nothing.clone(), each, adam)) for each in moments]
    unit = torch.nn.functional.normalize(torch.cat(common).float(), dim=1)
    space = {"space": json.dumps(projector.describe())}
    terms = dict(zip(trajectory.names, unit.cpu().unbind(), strict=True))
    save_file(terms, out / "momentum.safetensors", metadata=space)
