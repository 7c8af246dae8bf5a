"""What the width and the type of a stored feature cost and buy, and what balancing costs a pair."""

import time
from pathlib import Path

import torch

from bench.setting import Setting, cosines, load_exact, load_moments, quality
from rose.config.choices import AdamMap, Balance, ProjectionKind, StoreDtype
from rose.config.schema import Projection
from rose.gradients.adam import apply_adam
from rose.gradients.objectives import Loss, Objective, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import make_projector
from rose.gradients.quantize import decode, encode, width

WIDTHS = (2048, 8192, 32_768, 65_536)
DTYPES = (StoreDtype.float16, StoreDtype.int4)
SEEDS = 3
OBJECTIVES = {
    "contrast": Objective(Loss.contrast),
    "contrast, 4 segments": Objective(Loss.contrast, balance=Balance.segments, segments=4),
    "contrast, 16 segments": Objective(Loss.contrast, balance=Balance.segments, segments=16),
}


def widths(setting: Setting, folder: Path) -> dict:
    """Quality (mean of SEEDS projections of the exact gradients) and cost of projecting, storing and reading
    back.
    """
    pool, aims = load_exact(folder)
    updates = apply_adam(pool.clone(), load_moments(folder, setting.device), AdamMap.exact)
    exact = cosines(updates, aims)
    table = []
    for kind, dims in ((ProjectionKind.sketch, WIDTHS), (ProjectionKind.srht, (8192,))):
        for dim in dims:
            projected = [_project(kind, dim, seed, updates, aims) for seed in range(SEEDS)]
            for dtype in DTYPES:
                stored = [_stored(features, dtype) for features, _, _ in projected]
                found = [
                    quality(cosines(rows, aim), exact) for (rows, _), (_, aim, _) in zip(stored, projected, strict=True)
                ]
                cost = min(seconds for *_, seconds in projected) + min(seconds for _, seconds in stored)
                table.append(
                    {
                        "projection": str(kind),
                        "dim": dim,
                        "dtype": str(dtype),
                        "rmse_cos": sum(each["rmse_cos"] for each in found) / SEEDS,
                        "overlap_top5": sum(each["overlap_top5"] for each in found) / SEEDS,
                        "ms_per_example": 1000 * cost / len(updates),
                        "bytes_per_example": width(dtype, dim),
                    }
                )
    return {"table": table}


def balance(setting: Setting, folder: Path) -> dict:
    """Seconds a pair of each objective, on pairs of 2 × 100 to 200 tokens."""
    model = setting.model()
    rows = [row for row in setting.pool() if 100 <= len(row["input_ids"]) <= 200][:8]
    table = []
    with PerExample(model) as engine:
        for name, objective in OBJECTIVES.items():
            gradients(engine, rows[:2], objective)
            start = time.perf_counter()
            gradients(engine, rows, objective)
            seconds = (time.perf_counter() - start) / (len(rows) // 2)
            table.append({"objective": name, "seconds_per_pair": seconds})
    return {"table": [row | {"ratio": row["seconds_per_pair"] / table[0]["seconds_per_pair"]} for row in table]}


def _project(kind: ProjectionKind, dim: int, seed: int, updates: torch.Tensor, aims: torch.Tensor) -> tuple:
    projector = make_projector(Projection(kind, dim, seed), updates.shape[1])
    start = time.perf_counter()
    features = torch.cat([projector.project(batch) for batch in updates.split(16)])
    return torch.nn.functional.normalize(features), projector.project(aims), time.perf_counter() - start


def _stored(features: torch.Tensor, dtype: StoreDtype) -> tuple[torch.Tensor, float]:
    start = time.perf_counter()
    codes = encode(features, dtype)
    seconds = time.perf_counter() - start
    return decode(*codes, dtype, features.shape[1]), seconds
