"""Gradient influence: features of pool rows × those of target pairs, summed over checkpoints."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy
import pandas
import torch

from rose.config.choices import Normalize
from rose.config.schema import Method
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import require_same
from rose.methods.estimators import ESTIMATORS, OF_ONE_ROW, View, unit_means, whiten
from rose.methods.influence import STEP, Influence

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
    both = zip(pool.each_id(), _each(rows), strict=False)
    if len(pool) != len(rows) or any(own != other for own, other in both):
        raise RoseError(f"{pool.path}: its rows are not those of the pool; remove that folder and run again")
    if not pool.streamed:
        require_same(pool.projection, pairs.projection, (pool.path, pairs.path))
    if method.whiten:
        require_same(background.projection, pool.projection, (background.path, pool.path))
    subtasks, estimator = valid_subtasks(pairs), ESTIMATORS[method.estimator]
    aims = {checkpoint: directions(pairs, checkpoint, normalize) for checkpoint in weights}
    if pool.streamed:  # features are cosines with each target, which lies along its own axis
        axes = torch.eye(len(pairs))[pairs.valid]
        aims = {checkpoint: torch.diag(aim.norm(dim=1)) @ axes for checkpoint, aim in aims.items()}
    if method.whiten:
        aims = {checkpoint: whiten(View(background, checkpoint), aim, method.ridge) for checkpoint, aim in aims.items()}

    def values(start: int, stop: int | None) -> numpy.ndarray:
        total = torch.zeros(len(pool.valid[start:stop]), len(subtasks), dtype=torch.float64)
        for checkpoint, weight in weights.items():
            found = estimator(method, View(pool, checkpoint, start, stop), aims[checkpoint], subtasks)
            for into, part in zip(total.split(BLOCK), found.split(BLOCK), strict=True):
                into.add_(part, alpha=weight)
        total[~pool.valid[start:stop]] = torch.nan
        return total.numpy()

    def vectors(numbers: Sequence[int]) -> numpy.ndarray:
        parts = [weight**0.5 * rows_at(pool, checkpoint, numbers) for checkpoint, weight in weights.items()]
        return torch.cat(parts, dim=1).numpy()

    step = View(pool, 0).step
    found = values if estimator in OF_ONE_ROW else values(0, None)
    return Influence(found, subtasks, None if pool.streamed else vectors, step * math.ceil(STEP / step))


def _each(rows: pandas.DataFrame) -> Iterator[str]:
    """The rows' ids, of which no more than a part is ever in memory as Python's."""
    for start in range(0, len(rows), BLOCK):
        yield from rows["id"].iloc[start : start + BLOCK].tolist()


def rows_at(store: FeatureStore, checkpoint: int, numbers: Iterable[int]) -> torch.Tensor:
    """The features [k, d] of the rows `numbers` [k]; neighbours are read at once."""
    asked = numpy.fromiter(numbers, numpy.int64)
    runs = numpy.split(asked, numpy.flatnonzero(numpy.diff(asked) != 1) + 1)
    return torch.cat([store.rows(checkpoint, int(run[0]), int(run[-1]) + 1) for run in runs])


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
