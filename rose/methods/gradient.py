"""Gradient influence: cosines of pool features and target features, summed over checkpoints, optionally whitened."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import torch

from rose.config import Method, Normalize
from rose.errors import RoseError
from rose.gradients.features import FeatureStore

CHUNK = 4096  # pool rows in memory at once


def influence(
    method: Method, ids: list[str], normalize: Normalize, features: Path, targets: Path
) -> tuple[numpy.ndarray, list[str]]:
    """Influence of each pool row on each pair [rows, pairs], and the pairs' subtasks.

    Σᵢ ηᵢ ⟨φᵢ(z), vᵢ(j)⟩ over checkpoints i, with ηᵢ the epoch's share of the learning rate (TracIn, arXiv 2002.08484;
    ROSE, arXiv 2412.00631) and φᵢ of unit norm. Rows whose gradient is not finite hold NaN.
    """
    pool, pairs = FeatureStore.open(features), FeatureStore.open(targets)
    if list(pool.ids) != ids:
        raise RoseError(f"{features}: its rows are not those of the pool; remove that folder and run again")
    subtasks = [subtask for subtask, valid in zip(pairs.subtasks, pairs.valid, strict=True) if valid]
    total = torch.zeros(len(ids), len(subtasks), dtype=torch.float64)
    for checkpoint, weight in enumerate(pool.weights):
        directions = scale(pairs.rows(checkpoint, 0, len(pairs.ids))[pairs.valid], subtasks, normalize)
        if method.whiten:
            directions = whiten(pool, checkpoint, directions, method.ridge)
        for start, chunk in _chunks(pool, checkpoint):
            total[start : start + len(chunk)] += weight * (chunk @ directions.T).double()
    total[~torch.as_tensor(pool.valid)] = torch.nan
    return total.numpy(), subtasks


def scale(gradients: torch.Tensor, subtasks: list[str], normalize: Normalize) -> torch.Tensor:
    """Target features [pairs, d] scaled so that their plain mean over a subtask is the normalised target.

    per_pair: each pair has unit norm. after_mean: the mean of a subtask has. none: as they are.
    """
    if normalize is Normalize.per_pair:
        return torch.nn.functional.normalize(gradients, dim=1)
    if normalize is Normalize.after_mean:
        scaled = gradients.clone()
        for name in set(subtasks):
            member = torch.tensor([subtask == name for subtask in subtasks])
            scaled[member] /= gradients[member].mean(0).norm()
        return scaled
    return gradients


def whiten(pool: FeatureStore, checkpoint: int, directions: torch.Tensor, ridge: float) -> torch.Tensor:
    """(ΦᵀΦ + λ·(tr ΦΦᵀ/n)·I)⁻¹ v for each row v of `directions` [pairs, d], Φ [n, d] the pool's features.

    TRAK's estimator (arXiv 2303.14186, eq. 13) with a ridge λ in units of the mean squared feature norm. Solved in
    whichever of n and d is smaller: (ΦᵀΦ + κI)⁻¹ v = (v − Φᵀ(ΦΦᵀ + κI)⁻¹Φv)/κ.
    """
    count, width = int(pool.valid.sum()), directions.shape[1]
    if count < width:
        rows = torch.cat([chunk for _, chunk in _chunks(pool, checkpoint)]).double()
        gram, kappa = _ridged(rows @ rows.T, ridge, count)
        inner = torch.linalg.solve(gram, rows @ directions.double().T)
        return ((directions.double() - (rows.T @ inner).T) / kappa).float()
    moment = torch.zeros(width, width, dtype=torch.float64)
    for _, chunk in _chunks(pool, checkpoint):
        moment += chunk.double().T @ chunk.double()
    moment, _ = _ridged(moment, ridge, count)
    return torch.linalg.solve(moment, directions.double().T).T.float()


def _ridged(matrix: torch.Tensor, ridge: float, count: int) -> tuple[torch.Tensor, float]:
    kappa = ridge * float(matrix.trace()) / count
    return matrix + kappa * torch.eye(len(matrix), dtype=matrix.dtype), kappa


def _chunks(pool: FeatureStore, checkpoint: int) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(pool.ids), CHUNK):
        yield start, pool.rows(checkpoint, start, min(start + CHUNK, len(pool.ids)))
