"""features.keep=stream: the pool's gradients meet the targets' as they come, and are not kept.

Exact, for nothing is projected. But every other set of targets takes the gradients again, and
whatever compares pool rows with one another (whitening, greedy choice, other estimators) needs the
store.
"""

from pathlib import Path

import torch
from datasets import Dataset
from torch.nn.functional import normalize

from rose import ranks
from rose.config.choices import AdamMap, StoreDtype
from rose.config.schema import Numerics
from rose.gradients.feature_store import FeatureStore
from rose.gradients.features import fill, list_lost, pool_batches, updates
from rose.gradients.per_example import PerExample
from rose.gradients.projection import Identity
from rose.gradients.spaces import TARGETS, description, require_same
from rose.gradients.trajectory import Trajectory
from rose.models import loading
from rose.stages.graph import stage


@stage("cosines", version=2, resumable=True, together=True)
def pool_cosines(
    out: Path,
    adam: AdamMap,
    batch_tokens: int,
    numerics: Numerics,
    base: Path,
    warmup: Path,
    tokens: Path,
    targets: Path,
) -> None:
    """A float32 FeatureStore in pool order: cosines of Adam's updates with the targets' gradients.

    Its columns are the target pairs. `targets` is a store of unprojected gradients, of which one
    checkpoint's, float32 [pairs, p], are held in memory. dropped.jsonl lists rows whose gradient is
    not finite, {"id", "reason"}; in the store they are zeros, not valid.
    """
    rows = Dataset.load_from_disk(str(tokens / "rows"))
    aims = FeatureStore.open(targets)
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    with PerExample(trajectory.model) as engine:
        require_same(aims.projection, Identity(engine.size).describe(), (targets, "the pool's own gradients"))
        batches = pool_batches(rows, batch_tokens, engine)
        space, ids = description(TARGETS, None, len(aims)), list(rows["id"])
        store = ranks.first(lambda: FeatureStore.create(out, ids, StoreDtype.float32, space, trajectory.rates))
        for checkpoint, take in updates(trajectory, engine, rows, adam):
            fill(store, checkpoint, batches, take, Cosines(aims, checkpoint, engine.device), unit=False)
    list_lost(out, store)


class Cosines:
    """A projector onto a checkpoint's targets' unit gradients; a zero gradient has cosine 0."""

    def __init__(self, targets: FeatureStore, checkpoint: int, device: torch.device) -> None:
        self.directions = normalize(targets.rows(checkpoint, 0, len(targets)), dim=1, eps=1e-30).to(device)
        self.dim = len(targets)

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        products = gradients.float() @ self.directions.T
        return products / torch.where(norms == 0, 1, norms).float()
