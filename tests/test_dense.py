"""A matrix of signs that is drawn by number: the same in any part, order and device; the kernel beside numpy."""

import math

import numpy
import pytest
import torch

from rose.config.choices import ProjectionKind
from rose.config.schema import Projection
from rose.gradients import trak
from rose.gradients.dense import Dense
from rose.gradients.trak import trak_projector

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def whole(size, dim, key):
    """The matrix from one stream of numpy's Philox, drawn from its beginning."""
    groups = math.ceil(dim / 256)
    raw = numpy.random.Philox(key=key).random_raw(4 * size * groups)
    bits = numpy.unpackbits(raw.astype("<u8").view(numpy.uint8)).reshape(size, -1)[:, :dim]
    return torch.from_numpy(2.0 * bits - 1)


@pytest.mark.parametrize(("size", "dim"), [(70, 300), (33, 256), (5, 1)])
def test_parts_are_those_of_the_whole_and_so_is_the_product(size, dim, monkeypatch):
    dense, expected = Dense(size, dim, 7, torch.device("cpu")), whole(size, dim, 7)
    assert torch.equal(dense.signs(0, size).double(), expected)
    assert torch.equal(dense.signs(3, 2).double(), expected[3:5])
    monkeypatch.setattr("rose.gradients.dense.DRAWN", 3 * 256)
    rows = torch.randn(4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dense.project(rows.float()).double(), rows @ expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("count", "size", "dim"), [(3, 70, 300), (17, 1100, 65)])
def test_the_kernel_draws_the_same_signs(count, size, dim):
    triton = pytest.importorskip("triton")  # without a GPU it interprets (conftest.py)
    old = triton.__version__.startswith("3.6.") and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0"
    if old and DEVICE.type == "cpu":
        pytest.skip("the interpreter of Triton 3.6 takes no loop's bound that numpy 2.4 holds")
    from rose.gradients import dense_kernel

    key, rows = 2**62 + 12_345, torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    found = dense_kernel.project(rows.to(DEVICE), dim, math.ceil(dim / 256), key).cpu()
    torch.testing.assert_close(found.double(), rows.double() @ whole(size, dim, key), rtol=1e-5, atol=1e-4)


def test_a_matrix_too_large_to_keep_keeps_inner_products_and_says_what_drew_it(monkeypatch):
    monkeypatch.setattr(trak, "MATRIX_BYTES", 0)
    projector = trak_projector(Projection(ProjectionKind.trak, 512, 0), 5000, torch.device("cpu"), 10, 1)
    described = projector.describe()
    assert described["runs"] == "philox"
    rows = torch.randn(20, 5000, generator=torch.Generator().manual_seed(0))
    found = projector.project(rows)
    assert (found.norm(dim=1) / rows.norm(dim=1) - 1).abs().max() < 5 / math.sqrt(2 * 512)
    other = trak_projector(Projection(ProjectionKind.trak, 512, 1), 5000, torch.device("cpu"), 10, 1)
    assert other.describe()["digest"] != described["digest"]
