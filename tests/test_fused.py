"""The kernel of Adam's map and the sketch, in Triton's interpreter, beside the code it stands in for."""

import math
import sys

import numpy
import pytest
import torch
from tiny_models import CUDA

pytest.importorskip("triton")  # without a GPU it interprets (conftest.py)

from rose.config.choices import AdamMap
from rose.gradients import fused, updates
from rose.gradients.adam import Moments, apply_adam
from rose.gradients.sketch import Sketch

OLD = sys.modules["triton"].__version__.startswith("3.6.") and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0"
pytestmark = pytest.mark.skipif(
    OLD and not torch.cuda.is_available(),
    reason="the interpreter of Triton 3.6 takes no loop's bound that numpy 2.4 holds",
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHAPES = [(3, 5000, 64), (11, 4097, 700), (1, 700, 699), (8, 1025, 1024), (2, 50, 50), (9, 100_003, 1000)]


def given(rows, size, limit=0.5):
    """Gradients of very different lengths, and moments."""
    generator = torch.Generator().manual_seed(size)
    lengths = torch.logspace(-6, 1, rows)[:, None] / math.sqrt(size)
    gradients = torch.randn(rows, size, generator=generator) * lengths
    mean, square = torch.randn(2, size, generator=generator) * 1e-4
    moments = Moments(mean, square**2 + 1e-12, 20, 0.9, 0.999, 1e-8, limit)
    moments.exp_avg, moments.exp_avg_sq = moments.exp_avg.to(DEVICE), moments.exp_avg_sq.to(DEVICE)
    return gradients.to(DEVICE), moments


def error(found, expected):
    return ((found.double() - expected).norm(dim=1) / expected.norm(dim=1)).max().item()


@pytest.mark.parametrize("limit", [0.0, 0.5])
@pytest.mark.parametrize("how", AdamMap)
@pytest.mark.parametrize(("rows", "size", "dim"), SHAPES)
def test_one_pass_is_map_and_sketch_up_to_the_rounding_of_float32(rows, size, dim, how, limit):
    gradients, moments = given(rows, size, limit)
    sketch, before = Sketch(size, dim, 3, DEVICE), gradients.clone()
    found = fused.project(gradients, moments, how, sketch)
    assert torch.equal(gradients, before)
    exact = Moments(moments.exp_avg.double(), moments.exp_avg_sq.double(), 20, 0.9, 0.999, 1e-8, limit)
    updates_ = apply_adam(gradients.double(), exact, how)
    expected = torch.zeros(rows, dim, dtype=torch.float64, device=DEVICE)
    columns = torch.arange(size, device=DEVICE)
    buckets = (columns + sketch.rolls[columns // dim]) % dim
    expected.index_add_(1, buckets, updates_ * sketch.signs.double())
    assert found.dtype == torch.float32
    assert error(found, expected) < 1e-6
    assert error(found, sketch.project(apply_adam(gradients, moments, how)).double()) < 1e-6


def test_a_run_that_repeats_has_the_same_bytes_and_rows_are_independent():
    gradients, moments = given(11, 4097)
    sketch = Sketch(4097, 64, 0, DEVICE)
    found = fused.project(gradients, moments, AdamMap.exact, sketch)
    assert torch.equal(fused.project(gradients, moments, AdamMap.exact, sketch), found)
    alone = torch.cat([fused.project(row[None], moments, AdamMap.exact, sketch) for row in gradients])
    torch.testing.assert_close(alone, found, rtol=1e-6, atol=1e-6)


def test_a_row_that_is_not_finite_stays_alone():
    gradients, moments = given(9, 4097)
    sketch = Sketch(4097, 64, 0, DEVICE)
    expected = fused.project(gradients, moments, AdamMap.exact, sketch)
    gradients[4, 17] = torch.nan
    found = fused.project(gradients, moments, AdamMap.exact, sketch)
    assert not found[4].isfinite().all()
    kept = [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.equal(found[kept], expected[kept])


def test_the_bits_are_the_signs():
    sketch = Sketch(1001, 64, 5, DEVICE)
    bits = [(int(byte) >> (7 - place)) & 1 for byte in sketch.bits for place in range(8)]
    assert [2 * bit - 1 for bit in bits[:1001]] == sketch.signs.tolist()


@CUDA
def test_a_gpu_takes_the_kernel():
    assert updates.fits(torch.ones(1, 50, device="cuda"), Sketch(50, 50, 0, DEVICE))
    assert updates.fused() is fused
