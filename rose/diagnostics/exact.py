"""What the projection costs: influences of a sample of rows, projected and of whole gradients."""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
import torch

from rose.config.choices import Normalize
from rose.data.chat import save_rows
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import require_same
from rose.methods.gradient import directions, rows_at, valid_subtasks
from rose.methods.hidden import token_rows
from rose.seeds import numpy_generator
from rose.stages.disk import write_json
from rose.stages.graph import stage


@stage("sample", version=1)
def sample_rows(out: Path, count: int, seed: int, tokens: Path) -> None:
    """Writes rows/ as `tokenize` does: at most `count` random rows, in the pool's order."""
    rows = token_rows(tokens)
    numbers = numpy_generator(seed, "exact rows").choice(len(rows), size=min(count, len(rows)), replace=False)
    save_rows(out, iter(rows.select(sorted(numbers.tolist())).to_list()))


@stage("projection_error", version=2)
def projection_error(
    out: Path, normalize: Normalize, sample_features: tuple, sample_targets: tuple, features: tuple, targets: tuple
) -> None:
    """Writes projection_error.json: "spearman", "rms", "spread", "rows" of the sample's influences.

    `sample_features`, `sample_targets` hold whole gradients, `features`, `targets` projected ones, all of
    the same checkpoints, an artifact each. spearman:
    the correlation of the rows' mean influences; rms: of the differences of single influences;
    spread: the standard deviation of the whole ones. Influences are Σᵢ ηᵢ ⟨φᵢ(z), vᵢ(j)⟩, never
    whitened.
    """
    whole, projected = FeatureStore.open(sample_features), FeatureStore.open(features)
    exact = influences(whole, range(len(whole)), FeatureStore.open(sample_targets), normalize)
    place = {identity: number for number, identity in enumerate(projected.ids)}
    numbers = [place[identity] for identity in whole.ids]
    rough = influences(projected, numbers, FeatureStore.open(targets), normalize)
    means = pandas.DataFrame({"exact": exact.mean(axis=1), "rough": rough.mean(axis=1)})
    spearman = float(means.exact.corr(means.rough, method="spearman"))
    rms = float(numpy.sqrt(((rough - exact) ** 2).mean()))
    error = {"spearman": spearman, "rms": rms, "spread": float(exact.std()), "rows": len(exact)}
    write_json(out / "projection_error.json", error)


def influences(pool: FeatureStore, numbers: Sequence[int], pairs: FeatureStore, normalize: Normalize) -> numpy.ndarray:
    """Of the rows `numbers` on each valid pair: float64 [rows, pairs]."""
    require_same(pool.projection, pairs.projection, (pool.path, pairs.path))
    total = torch.zeros(len(numbers), len(valid_subtasks(pairs)), dtype=torch.float64)
    for checkpoint, weight in enumerate(pool.weights):
        targets = directions(pairs, checkpoint, normalize)
        total += weight * (rows_at(pool, checkpoint, numbers) @ targets.T).double()
    return total.numpy()
