"""Projections keep inner products; a seed is a map, whatever the batch, the threads or the process."""

import copy
import logging
import math
import subprocess
import sys

import pytest
import torch
from tiny_models import CUDA

from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.errors import RoseError
from rose.gradients import spaces, trak
from rose.gradients.projection import make_projector
from rose.gradients.sketch import (
    Sketch,
    concentration,
    concentration_limit,
    fold,
    fold_gathered,
    mix,
    warn_if_concentrated,
)
from rose.gradients.trak import Trak

SIZE, DIM = 20_000, 512
CPU = torch.device("cpu")


def make(kind, dim=DIM, seed=0, size=SIZE, **rows):
    return make_projector(Projection(kind=ProjectionKind(kind), dim=dim, seed=seed), size, **rows)


def lora_like(n=24, size=SIZE):
    """Correlated rows with heavy tails and blocks of very different scale, like LoRA's A and B."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(4, size, generator=generator)
    rows = torch.randn(n, 4, generator=generator) @ shared + torch.randn(n, size, generator=generator)
    scale = torch.where(torch.arange(size) // 500 % 2 == 0, 1.0, 0.05)
    return rows.sign() * rows.abs() ** 1.5 * scale


def cosine_error(projector, rows):
    unit = torch.nn.functional.normalize(rows.double())
    projected = torch.nn.functional.normalize(projector.project(rows).double())
    return (unit @ unit.T - projected @ projected.T).abs()


@pytest.mark.parametrize("kind", ["trak", "sketch", "srht"])
def test_cosines_agree_with_the_exact_ones(kind):
    assert cosine_error(make(kind), lora_like()).mean() < 3 / math.sqrt(DIM)
    assert cosine_error(make(kind), lora_like()).mean() < 1.2 * math.sqrt(2 / (math.pi * DIM))


@pytest.mark.parametrize("kind", ["trak", "sketch", "srht"])
def test_norms_are_kept(kind):
    rows = lora_like()
    ratio = make(kind).project(rows).norm(dim=1) / rows.norm(dim=1)
    assert (ratio - 1).abs().max() < 5 / math.sqrt(2 * DIM)


@pytest.mark.parametrize("dim", [512, 300, 1000])
@pytest.mark.parametrize("kind", ["sketch", "srht"])
def test_a_sketch_is_linear_and_unbiased_at_any_dim(kind, dim):
    x = torch.randn(2, 1500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = []
    for seed in range(200):
        projected = make(kind, dim, seed, size=1500).project(x).double()
        products.append(projected @ projected.T)
    mean = torch.stack(products).mean(0)
    tolerance = 5 * 1500 * math.sqrt(2 / dim / 200)
    assert (mean - x @ x.T).abs().max() < tolerance


@pytest.mark.parametrize("kind", ["trak", "sketch", "srht", "none"])
def test_a_row_does_not_depend_on_its_batch(kind):
    rows = lora_like(9)
    projector = make(kind)
    together = projector.project(rows)
    alone = torch.cat([projector.project(row[None]) for row in rows])
    assert together.dtype == torch.float32
    assert together.shape == (9, projector.dim)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-3)


def test_a_sketch_is_the_same_in_every_process_and_with_any_threads():
    code = (
        "import torch, hashlib; from rose.gradients.sketch import Sketch;"
        "torch.set_num_threads({threads});"
        "x = torch.arange(3 * 70_000, dtype=torch.float32).sin().view(3, -1);"
        "y = Sketch(70_000, 1024, 5, torch.device('cpu')).project(x);"
        "print(hashlib.sha256(y.numpy().tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code.format(threads=threads)], capture_output=True, text=True, check=True
        ).stdout
        for threads in (1, 2)
    }
    assert len(digests) == 1


def test_the_map_of_a_seed_is_pinned():
    """A change here breaks stored features: raise the algorithm's version with it."""
    assert dict.fromkeys((*ProjectionKind, spaces.TARGETS, spaces.READOUT), 1) == spaces.VERSIONS
    sketch = Sketch(10, 4, 0, CPU)
    assert sketch.shifts == PINNED_SHIFTS
    assert sketch.signs.int().tolist() == PINNED_SIGNS


PINNED_SHIFTS = [3, 0, 3]
PINNED_SIGNS = [1, 1, 1, -1, 1, -1, -1, 1, 1, -1]


def test_a_fold_by_hand():
    gradients = torch.tensor([[1.0, 2, 3, 4, 5]])
    signs = torch.tensor([1.0, -1, 1, 1, -1])
    # chunks (1, −2, 3) rolled by 1: (3, 1, −2); (4, −5) rolled by 2: (−5, ·, 4)
    assert fold(gradients, signs, [1, 2], 3).tolist() == [[-2.0, 1.0, 2.0]]


@pytest.mark.parametrize(("size", "dim"), [(5000, 64), (4096, 512), (700, 699), (50, 50)])
def test_both_ways_to_fold_agree(size, dim):
    sketch = Sketch(size, dim, 3, CPU)
    rows = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    slow = fold_gathered(rows, sketch.signs, sketch.shifts, dim)
    torch.testing.assert_close(slow, fold(rows, sketch.signs, sketch.shifts, dim))


def test_seeds_give_different_maps():
    rows = lora_like(4)
    for kind in ("trak", "sketch", "srht"):
        for seed in (1, 1000):
            assert not torch.allclose(make(kind, seed=0).project(rows), make(kind, seed=seed).project(rows))


def test_periodic_gradients_do_not_pile_up():
    """Weights that recur every DIM columns would meet in the same buckets without the shift."""
    generator = torch.Generator().manual_seed(0)
    heavy = (torch.arange(SIZE) % DIM < 8).float() * 30 + 1
    rows = torch.randn(40, SIZE, generator=generator) * heavy
    assert cosine_error(make("sketch"), rows).max() < 6 / math.sqrt(DIM)


def test_mixing_is_orthonormal():
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flips = torch.ones(1024, dtype=torch.float64)
    mixed = mix(x, flips, 64)
    torch.testing.assert_close(mixed @ mixed.T, x @ x.T)
    impulse = mix(torch.eye(1, 64, dtype=torch.float64), flips[:64], 64)
    torch.testing.assert_close(impulse, torch.full((1, 64), 1 / 8, dtype=torch.float64))


def concentrated(n=60):
    """Fifty coordinates hold 90 % of the energy."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(n, SIZE, generator=generator)
    rows[:, torch.randperm(SIZE, generator=generator)[:50]] *= math.sqrt(9 * SIZE / 50)
    return rows


def test_concentrated_gradients_are_noticed_and_srht_is_safe_for_them(caplog):
    limit = concentration_limit(2048)
    assert concentration(concentrated()).max() < limit < concentration(lora_like()).min()
    worst = {}
    for kind in ("sketch", "srht", "trak"):
        worst[kind] = max(cosine_error(make(kind, 2048, s), concentrated()).max() for s in range(3))
    assert worst["srht"] < 1.2 * worst["trak"] < 4.5 / math.sqrt(2048) < 7 / math.sqrt(2048) < worst["sketch"]
    caplog.clear()  # of what was told of making them, where a test before this one has let it be heard
    with caplog.at_level(logging.WARNING):
        warn_if_concentrated(concentrated(), make("srht", 2048))
        warn_if_concentrated(lora_like(), make("sketch", 2048))
        assert not caplog.text
        warn_if_concentrated(concentrated(), make("sketch", 2048))
        assert "projection=srht" in caplog.text


def test_effective_coordinates_by_hand():
    assert concentration(torch.tensor([[1.0, -1, 1, 1], [0, 7, 0, 0]])).tolist() == [4.0, 1.0]


def test_none_is_the_identity_and_ignores_dim():
    rows = lora_like(3)
    assert torch.equal(make("none", dim=10**9).project(rows), rows)


@pytest.mark.parametrize("kind", ["trak", "sketch", "srht"])
def test_a_dim_wider_than_the_gradient_is_refused(kind):
    with pytest.raises(RoseError, match=r"projection.dim=65 is wider than the gradient \(p=64\)"):
        make(kind, dim=65, size=64)
    with pytest.raises(RoseError, match="projection.dim=0"):
        make(kind, dim=0, size=64)


def test_a_small_matrix_is_drawn_once_for_the_stages_that_want_it_and_a_large_one_not_kept(monkeypatch):
    assert make("trak").projector is make("trak").projector
    assert make("trak").projector is not make("trak", seed=1).projector
    monkeypatch.setattr(trak, "REMEMBERED_BYTES", 0)
    assert make("trak").projector is not make("trak").projector


def test_trak_says_once_what_runs_before_it_starts(caplog):
    trak._say_once.cache_clear()  # other tests may have made one
    with caplog.at_level(logging.INFO):
        for rows in (100, 7, 100):  # as the features, targets and momentum of a job do
            make("trak", rows=rows, batches=10)
    assert caplog.text.count("BasicProjector") == 1
    assert "sketch" not in caplog.text


def test_trak_names_the_sketch_where_it_would_be_slow(caplog, monkeypatch):
    monkeypatch.setattr(trak, "MATRIX_BYTES", 0)
    with caplog.at_level(logging.WARNING):
        make("trak", size=2000, rows=100, batches=10)
    assert "projection=sketch" in caplog.text


def test_trak_is_refused_when_it_returns_zeros():
    class Silent:
        grad_dim, proj_dim, device = SIZE, DIM, CPU

        def project(self, grads, model_id):
            return torch.zeros(len(grads), DIM)

    with pytest.raises(RoseError, match="norm 0"):
        Trak(Silent(), "cuda", seed=0)


def test_descriptions_tell_spaces_apart():
    described = [make(kind, seed=seed).describe() for kind in ("trak", "sketch", "srht") for seed in (0, 1)]
    assert len({str(each) for each in described}) == 6
    assert described[2] == {"kind": "sketch", "seed": 0, "dim": DIM, "version": 1, "digest": described[2]["digest"]}


def moved(kind):
    """A projector of the same settings whose map differs in a single sign."""
    projector = copy.deepcopy(make(kind))  # the matrix is everybody's
    matrix = projector.projector.proj_matrix if kind == "trak" else projector.signs
    matrix.view(-1)[0] *= -1
    return Trak(projector.projector, projector.runs, 0) if kind == "trak" else projector


@pytest.mark.parametrize("kind", ["trak", "sketch", "srht"])
def test_the_digest_is_the_maps_whatever_made_or_rounded_it(kind, monkeypatch):
    """One sign of another map shows; the map's own rounding, batch and way to fold do not."""
    first = make(kind).describe()
    assert make(kind).describe() == first
    assert moved(kind).describe()["digest"] != first["digest"]
    project = Sketch.project if kind != "trak" else Trak.project
    noisy = lambda self, rows: project(self, rows) * (1 + 3e-6 * torch.rand(self.dim))  # noqa: E731
    monkeypatch.setattr(Sketch if kind != "trak" else Trak, "project", noisy)
    assert make(kind).describe() == first


@pytest.mark.parametrize("dim", [64, 2048])
def test_srht_of_signs_is_whole_units_at_any_block(dim):
    """The Hadamard matrix of order b has entries ±1/√b, and everything else is a sign."""
    sketch = Sketch(5000, dim, 0, CPU, mixed=True)
    found = sketch.project(spaces.probe(5000)) * math.sqrt(min(4096, dim))
    assert (found - found.round()).abs().max() < 1e-3


def test_features_of_two_maps_are_never_compared():
    same = make("trak").describe()
    spaces.require_same(same, {**same, "runs": "basic on cuda, block 512"}, ("a", "b"))  # another way to one map
    old = {name: value for name, value in same.items() if name != "digest"}
    spaces.require_same(same, old, ("a", "b"))
    for other in (make("trak", seed=1), make("trak", dim=256), make("sketch"), moved("trak")):
        with pytest.raises(RoseError, match="here and there: features of different projections"):
            spaces.require_same(same, other.describe(), ("here", "there"))
    with pytest.raises(RoseError, match="runs basic on cpu, block 512 and basic on cuda, block 512"):
        spaces.require_same(same, {**old, "runs": "basic on cuda, block 512"}, ("a", "b"))


@CUDA
@pytest.mark.parametrize("kind", ["sketch", "srht"])
def test_a_gpu_projects_as_the_cpu_does(kind):
    rows = lora_like()
    found = make(kind, device="cuda").project(rows.cuda())
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), make(kind).project(rows), rtol=1e-4, atol=1e-4 * rows.abs().max().item())


@CUDA
def test_a_projector_of_trak_on_a_gpu_keeps_norms():
    rows = lora_like().cuda()
    ratio = make("trak", device="cuda").project(rows).norm(dim=1) / rows.norm(dim=1)
    assert (ratio - 1).abs().max() < 5 / math.sqrt(2 * DIM)
