"""Gradient influence: pool features against target features, summed over checkpoints, optionally whitened."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import torch

from rose.config.choices import Normalize
from rose.config.schema import Method
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.methods.estimators import ESTIMATORS, View, whiten
from rose.methods.influence import Influence

BLOCK = 1 << 14  # rows added at once: torch widens all it is given to float64 before it adds


def influence(
    method: Method,
    rows: pandas.DataFrame,
    normalize: Normalize,
    features: Path,
    targets: Path,
    background: Path | None = None,
) -> Influence:
    """Influence of rows on pairs: Σᵢ ηᵢ ⟨φᵢ(z), vᵢ(j)⟩ over checkpoints i, or `method.estimator`'s formula for ⟨·,·⟩.

    ηᵢ is the epoch's share of the learning rate (TracIn, arXiv 2002.08484; ROSE, arXiv 2412.00631), φᵢ has unit norm;
    with `method.checkpoints`, only the warm-up's last so many count.
    Rows whose gradient is not finite hold NaN, and pairs whose gradient is not finite do not count. Whitening is by
    the features of `background`: by default the rows' own.
    """
    pool = FeatureStore.open(features)
    whole = None if background is None else FeatureStore.open(background)
    weights = last(pool.weights, method.checkpoints)
    return compare(method, rows, pool, FeatureStore.open(targets), weights, normalize, whole)


def last(weights: list[float], count: int | None) -> dict[int, float]:
    """The weights of the last `count` checkpoints, by number, scaled to sum 1; None: all, which do already."""
    numbered = dict(enumerate(weights))
    if count is None:
        return numbered
    kept = dict(list(numbered.items())[-count:])
    total = sum(kept.values())
    return {number: weight / total if total > 0 else 1 / len(kept) for number, weight in kept.items()}


def compare(
    method: Method,
    rows: pandas.DataFrame,
    pool: FeatureStore,
    pairs: FeatureStore,
    weights: dict[int, float],
    normalize: Normalize,
    background: FeatureStore | None = None,
) -> Influence:
    """Influence from any two stores of the same width; `weights` are those of the checkpoints that count, by number."""
    if list(pool.ids) != rows["id"].tolist():
        raise RoseError(f"{pool.path}: its rows are not those of the pool; remove that folder and run again")
    subtasks = [subtask for subtask, valid in zip(pairs.subtasks, pairs.valid, strict=True) if valid]
    total = torch.zeros(len(pool), len(subtasks), dtype=torch.float64)
    for checkpoint, weight in weights.items():
        view = View(pool, checkpoint)
        directions = aims(pool, pairs, checkpoint, subtasks, normalize)
        if method.whiten:
            directions = whiten(View(background or pool, checkpoint), directions, method.ridge)
        _add(total, weight, ESTIMATORS[method.estimator](method, view, directions))
    total[~pool.valid] = torch.nan

    def vectors(numbers: Sequence[int]) -> numpy.ndarray:
        parts = [
            weight**0.5 * torch.cat([pool.rows(checkpoint, number, number + 1) for number in numbers])
            for checkpoint, weight in weights.items()
        ]
        return torch.cat(parts, dim=1).numpy()

    return Influence(total.numpy(), subtasks, None if pool.streamed else vectors)


def aims(
    pool: FeatureStore, pairs: FeatureStore, checkpoint: int, subtasks: list[str], normalize: Normalize
) -> torch.Tensor:
    """Directions [valid pairs, d] of the normalised targets, in the coordinates of the pool's features.

    Where those are cosines with each target (features.keep=stream), a target lies along its own axis.
    """
    scaled = scale(pairs.rows(checkpoint, 0, len(pairs))[pairs.valid], subtasks, normalize)
    return torch.diag(scaled.norm(dim=1)) @ torch.eye(len(pairs))[pairs.valid] if pool.streamed else scaled


def _add(total: torch.Tensor, weight: float, values: torch.Tensor) -> None:
    """total [rows, targets] += weight × values, in blocks of rows."""
    for into, part in zip(total.split(BLOCK), values.split(BLOCK), strict=True):
        into.add_(part, alpha=weight)


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
