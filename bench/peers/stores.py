"""Numbers as a feature store, which the estimators read."""

from collections.abc import Sequence
from pathlib import Path

import torch

from rose.config.choices import StoreDtype
from rose.gradients.feature_store import FeatureStore
from rose.gradients.projection import Identity


def store(
    folder: Path, checkpoints: Sequence, rates: Sequence[float] = (1.0,), subtasks: list[str] | None = None
) -> FeatureStore:
    """A store of [rows, d] a checkpoint, without a projection."""
    values = [torch.as_tensor(each).float() for each in checkpoints]
    names = {f"checkpoint-{number}": rate for number, rate in enumerate(rates)}
    ids = [f"r{row}" for row in range(len(values[0]))]
    folder.mkdir(exist_ok=True)
    described = Identity(values[0].shape[1]).describe()
    made = FeatureStore.create(folder, ids, StoreDtype.float32, described, names, subtasks)
    for number, each in enumerate(values):
        made.write(number, range(len(ids)), each)
    return FeatureStore.open(folder)
