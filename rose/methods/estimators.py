"""Estimators of the influence of rows on targets at one checkpoint.

Features of rows [rows, d] × target directions [targets, d], each of a subtask → [rows, targets].
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from rose.config.choices import Estimator
from rose.config.schema import Method
from rose.gradients.feature_store import FeatureStore
from rose.models import loading

CHUNK_BYTES = 8 << 20  # of features in memory at once: they stay in the processor's cache
BIG = 1 << 30  # bytes of features, as float32, that are worth bringing to a GPU


@dataclass(frozen=True)
class View:
    """One checkpoint of a feature store, or its rows start to stop; rows that are not valid are zeros."""

    store: FeatureStore
    checkpoint: int
    start: int = 0  # a multiple of `step`: all products are of the same rows, whatever part is asked for
    stop: int | None = None

    @property
    def count(self) -> int:
        return int(self.store.valid.sum())

    @property
    def place(self) -> str:
        """Where `chunks` are: the process's GPU if it has one and they are many, else the CPU."""
        return loading.device() if 4 * self.store.dim * len(self.store) >= BIG else "cpu"

    @property
    def step(self) -> int:
        return max(1, CHUNK_BYTES // (4 * self.store.dim))

    def __len__(self) -> int:
        return (len(self.store) if self.stop is None else self.stop) - self.start

    def chunks(self) -> Iterator[torch.Tensor]:
        end = self.start + len(self)
        for start in range(self.start, end, self.step):
            yield self.store.rows(self.checkpoint, start, min(start + self.step, end)).to(self.place)

    def apply(self, function: Callable[[torch.Tensor], torch.Tensor], targets: int) -> torch.Tensor:
        """`function`, [k, d] → [k, targets], of every row's features: float32 [rows, targets] on the CPU."""
        result, start = torch.empty(len(self), targets), 0
        for chunk in self.chunks():
            result[start : start + len(chunk)] = function(chunk)
            start += len(chunk)
        return result


def inner(method: Method, pool: View, directions: torch.Tensor, subtasks: Sequence[str]) -> torch.Tensor:
    """⟨φ(z), v⟩; with φ and v of unit norm the cosine (LESS, ROSE)."""
    aims = directions.to(pool.place).T
    return pool.apply(lambda chunk: chunk @ aims, len(directions))


def datainf(method: Method, pool: View, directions: torch.Tensor, subtasks: Sequence[str]) -> torch.Tensor:
    """DataInf (arXiv 2310.00902): ⟨r, φ(z)⟩, r = 1/(nλ) Σᵢ [v − (v·φᵢ)/(λ + ‖φᵢ‖²)·φᵢ].

    λ = meanᵢ mean(φᵢ²)/10. Helpful rows are positive. The paper has one r a layer and bare
    gradients. Here a checkpoint's features are one block, because a random projection mixes layers;
    they have unit norm and are Adam's updates, unless features.adam=none.
    """
    squares = sum(float(chunk.double().square().sum()) for chunk in pool.chunks())
    damping, targets = squares / (pool.count * directions.shape[1]) / 10, directions.to(pool.place).double()
    covered = torch.zeros_like(targets)
    for chunk in pool.chunks():
        rows = chunk.double()
        shares = (rows @ targets.T) / (damping + rows.square().sum(1, keepdim=True))
        covered += shares.T @ rows
    return inner(method, pool, ((targets - covered / pool.count) / damping).float(), subtasks)


def gist(method: Method, pool: View, directions: torch.Tensor, subtasks: Sequence[str]) -> torch.Tensor:
    """GIST (arXiv 2602.18584): ⟨Uᵀφ(z)/‖Uᵀφ(z)‖, Uᵀv/‖Uᵀm‖⟩, m the mean v of a subtask.

    Its mean over a subtask is the cosine of Uᵀφ(z) and Uᵀm. U holds the first `method.components`
    right singular vectors of all directions, at most their rank. Rows with nothing in that subspace
    have 0. As published, φ and v are bare gradients of one checkpoint: method=gist says so.
    """
    _, singular, right = torch.linalg.svd(directions.double(), full_matrices=False)
    rank = int((singular > singular[0] * 1e-6).sum())
    basis = right[: min(method.components, rank)].float()
    targets = unit_means(directions @ basis.T, subtasks).to(pool.place)
    basis = basis.to(pool.place)
    return pool.apply(lambda chunk: torch.nn.functional.normalize(chunk @ basis.T, dim=1) @ targets.T, len(targets))


def unit_means(vectors: torch.Tensor, subtasks: Sequence[str]) -> torch.Tensor:
    """`vectors` [targets, d], those of a subtask scaled by one number: their mean has unit norm, or none."""
    scaled = vectors.clone()
    for name in set(subtasks):
        member = torch.tensor([subtask == name for subtask in subtasks])
        norm = vectors[member].mean(0).norm()
        scaled[member] /= norm if norm > 0 else 1
    return scaled


def shapley(method: Method, pool: View, directions: torch.Tensor, subtasks: Sequence[str]) -> torch.Tensor:
    """KNN-Shapley (Jia et al., arXiv 1908.08619) of each target, rows nearest by cosine first.

    s_N = u_N/N, s_i = s_{i+1} + (u_i − u_{i+1})/K · min(K, i)/i, K = `method.neighbours`.
    Preference targets give pool rows no class: 1[yᵢ = y] is the soft label uᵢ = (1 + cosine)/2.
    """
    values = torch.zeros(len(pool.store), len(directions), dtype=torch.float64)
    cosine = inner(method, pool, torch.nn.functional.normalize(directions, dim=1), subtasks)[pool.store.valid].double()
    label, order = ((1 + cosine) / 2).sort(dim=0, descending=True, stable=True)
    count = len(label)
    nearest = min(method.neighbours, count)
    place = torch.arange(1, count, dtype=torch.float64)[:, None]
    steps = (label[:-1] - label[1:]) / nearest * place.clamp(max=nearest) / place
    ordered = torch.cat([steps, label[-1:] / count]).flip(0).cumsum(0).flip(0)
    values[pool.store.valid] = torch.zeros_like(ordered).scatter_(0, order, ordered)
    return values


def whiten(pool: View, directions: torch.Tensor, ridge: float) -> torch.Tensor:
    """(ΦᵀΦ + λ·(tr ΦΦᵀ/n)·I)⁻¹ v for each row v of `directions`, Φ [n, d] the pool's features.

    TRAK's estimator (arXiv 2303.14186, eq. 13) with a ridge λ in units of the mean squared feature
    norm. Solved in the smaller of n and d: (ΦᵀΦ + κI)⁻¹ v = (v − Φᵀ(ΦΦᵀ + κI)⁻¹Φv)/κ.
    """
    width, aims = directions.shape[1], directions.to(pool.place).double()
    if pool.count < width:
        rows = torch.cat(list(pool.chunks())).double()
        gram, kappa = _ridged(rows @ rows.T, ridge, pool.count)
        solved = torch.linalg.solve(gram, rows @ aims.T)
        return ((aims - (rows.T @ solved).T) / kappa).float().cpu()
    moment = torch.zeros(width, width, dtype=torch.float64, device=pool.place)
    for chunk in pool.chunks():
        rows = chunk.double()
        moment.addmm_(rows.T, rows)
    moment, _ = _ridged(moment, ridge, pool.count)
    return torch.linalg.solve(moment, aims.T).T.float().cpu()


def _ridged(matrix: torch.Tensor, ridge: float, count: int) -> tuple[torch.Tensor, float]:
    kappa = ridge * float(matrix.trace()) / count
    return matrix + kappa * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device), kappa


OF_ONE_ROW = (inner, gist)  # those that need no other row than the view's
ESTIMATORS = {Estimator.inner: inner, Estimator.datainf: datainf, Estimator.gist: gist, Estimator.shapley: shapley}
