"""Gradient influence: features of pool rows × those of target pairs, summed over checkpoints."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import pandas
import torch

from rose.config.choices import Normalize
from rose.config.schema import Method
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import require_same
from rose.methods.estimators import ESTIMATORS, View, unit_means, whiten
from rose.methods.influence import Influence

Stores = Path | Sequence[Path]  # one artifact, or one a checkpoint
BLOCK = 1 << 14  # rows added at once: torch widens all it is given to float64 before it adds


def influence(
    method: Method,
    rows: pandas.DataFrame,
    normalize: Normalize,
    pool: Stores,
    pairs: Stores,
    background: Stores | None = None,
) -> Influence:
    """Influence of rows z on pairs j: Σᵢ ηᵢ ⟨φᵢ(z), vᵢ(j)⟩ over checkpoints i.

    ηᵢ is the epoch's share of the learning rate (TracIn, arXiv 2002.08484; ROSE, arXiv 2412.00631),
    φᵢ has unit norm, and `method.estimator` says what ⟨·,·⟩ is. The stores are a checkpoint each,
    those that `method.checkpoints` lets count. Rows whose gradient is not finite hold NaN; such
    pairs are left out.
    """
    features = FeatureStore.open(pool)
    return compare(method, rows, dict(enumerate(features.weights)), normalize, features, pairs, background)


def compare(
    method: Method,
    rows: pandas.DataFrame,
    weights: dict[int, float],
    normalize: Normalize,
    pool: FeatureStore,
    targets: Stores,
    others: Stores | None,
) -> Influence:
    """Influence from any features; `weights` are those of the checkpoints that count, by number.

    Whitening is by the features in `others`, without which by the pool's own.
    """
    pairs = FeatureStore.open(targets)
    background = pool if others is None else FeatureStore.open(others)
    if list(pool.ids) != rows["id"].tolist():
        raise RoseError(f"{pool.path}: its rows are not those of the pool; remove that folder and run again")
    if not pool.streamed:
        require_same(pool.projection, pairs.projection, (pool.path, pairs.path))
    if method.whiten:
        require_same(background.projection, pool.projection, (background.path, pool.path))
    subtasks = valid_subtasks(pairs)
    total = torch.zeros(len(pool), len(subtasks), dtype=torch.float64)
    for checkpoint, weight in weights.items():
        aims = directions(pairs, checkpoint, normalize)
        if pool.streamed:  # features are cosines with each target, which lies along its own axis
            aims = torch.diag(aims.norm(dim=1)) @ torch.eye(len(pairs))[pairs.valid]
        if method.whiten:
            aims = whiten(View(background, checkpoint), aims, method.ridge)
        values = ESTIMATORS[method.estimator](method, View(pool, checkpoint), aims, subtasks)
        for into, part in zip(total.split(BLOCK), values.split(BLOCK), strict=True):
            into.add_(part, alpha=weight)
    total[~pool.valid] = torch.nan

    def vectors(numbers: Sequence[int]) -> numpy.ndarray:
        parts = [weight**0.5 * rows_at(pool, checkpoint, numbers) for checkpoint, weight in weights.items()]
        return torch.cat(parts, dim=1).numpy()

    return Influence(total.numpy(), subtasks, None if pool.streamed else vectors)


def rows_at(store: FeatureStore, checkpoint: int, numbers: Iterable[int]) -> torch.Tensor:
    """The features [k, d] of the rows `numbers` [k]."""
    return torch.cat([store.rows(checkpoint, int(number), int(number) + 1) for number in numbers])


def valid_subtasks(pairs: FeatureStore) -> list[str]:
    """The subtasks of the pairs whose gradient is finite."""
    assert pairs.subtasks is not None, "a store of target pairs"
    return [subtask for subtask, valid in zip(pairs.subtasks, pairs.valid, strict=True) if valid]


def directions(pairs: FeatureStore, checkpoint: int, normalize: Normalize) -> torch.Tensor:
    """Features [valid pairs, d] whose plain mean over a subtask is the normalised target.

    per_pair: each pair has unit norm. after_mean: the mean of a subtask has. none: as they are.
    """
    gradients = pairs.rows(checkpoint, 0, len(pairs))[pairs.valid]
    if normalize is Normalize.per_pair:
        return torch.nn.functional.normalize(gradients, dim=1)
    if normalize is Normalize.none:
        return gradients
    return unit_means(gradients, valid_subtasks(pairs))
