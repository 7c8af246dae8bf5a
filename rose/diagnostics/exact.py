"""What the projection costs: influences of a sample of rows, projected, beside those of whole gradients."""

from pathlib import Path

import numpy
import pandas
import torch
from datasets import load_from_disk

from rose.config.choices import Normalize
from rose.data.chat import save_rows
from rose.gradients.feature_store import FeatureStore
from rose.methods.gradient import scale
from rose.seeds import numpy_generator
from rose.stages.disk import write_json
from rose.stages.graph import stage


@stage("sample", version=1)
def sample_rows(out: Path, count: int, seed: int, tokens: Path) -> None:
    """Writes rows/ as `tokenize` does: `count` random rows, or all if there are fewer, in the pool's order."""
    rows = load_from_disk(str(tokens / "rows"))
    chosen = numpy_generator(seed, "exact rows").choice(len(rows), size=min(count, len(rows)), replace=False)
    save_rows(out, iter(rows.select(sorted(chosen.tolist()))))


@stage("projection_error", version=1)
def projection_error(
    out: Path, normalize: Normalize, sample: Path, sample_targets: Path, features: Path, targets: Path
) -> None:
    """Writes projection_error.json: {"spearman", "rms", "spread", "rows"} of the sample's influences on the pairs.

    `sample`, `sample_targets` hold whole gradients, `features`, `targets` projected ones. spearman: the correlation
    of the rows' mean influences; rms: of the differences of single influences; spread: the standard deviation of the
    whole ones. Influences are Σᵢ ηᵢ ⟨φᵢ(z), vᵢ(j)⟩, never whitened.
    """
    whole, projected = FeatureStore.open(sample), FeatureStore.open(features)
    exact = influences(whole, range(len(whole)), FeatureStore.open(sample_targets), normalize)
    place = {own: number for number, own in enumerate(projected.ids)}
    rough = influences(projected, [place[own] for own in whole.ids], FeatureStore.open(targets), normalize)
    means = pandas.DataFrame({"exact": exact.mean(axis=1), "rough": rough.mean(axis=1)})
    write_json(
        out / "projection_error.json",
        {
            "spearman": float(means["exact"].corr(means["rough"], method="spearman")),
            "rms": float(numpy.sqrt(((rough - exact) ** 2).mean())),
            "spread": float(exact.std()),
            "rows": len(exact),
        },
    )


def influences(pool: FeatureStore, numbers, pairs: FeatureStore, normalize: Normalize) -> numpy.ndarray:
    """Of the rows `numbers` on each valid pair: float64 [rows, pairs]."""
    subtasks = [subtask for subtask, valid in zip(pairs.subtasks, pairs.valid, strict=True) if valid]
    total = torch.zeros(len(numbers), len(subtasks), dtype=torch.float64)
    for checkpoint, weight in enumerate(pool.weights):
        rows = torch.cat([pool.rows(checkpoint, number, number + 1) for number in numbers])
        directions = scale(pairs.rows(checkpoint, 0, len(pairs))[pairs.valid], subtasks, normalize)
        total += weight * (rows @ directions.T).double()
    return total.numpy()
