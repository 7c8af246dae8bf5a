"""What goes into the store comes out, up to the stated rounding; what is not finite is named."""

import contextlib
import errno
import io
import json
import math
import os

import pytest
import torch
from tiny_models import CUDA

from rose.config.choices import StoreDtype
from rose.errors import RoseError
from rose.gradients.feature_store import ABSENT, NOT_FINITE, VALID, FeatureStore, Filling, leave_out
from rose.gradients.quantize import decode, encode, width
from rose.methods.gradient import rows_at

SPACE = {"kind": "sketch", "seed": 0, "dim": 33, "version": 1}


def unit_rows(n, dim, seed=0):
    rows = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


def create(path, n=6, dtype=StoreDtype.float32, dim=33, **options):
    path.mkdir(exist_ok=True)
    weights = {"checkpoint-1": 3e-5, "checkpoint-2": 1e-5}
    return FeatureStore.create(path, [f"r{i}" for i in range(n)], dtype, SPACE | {"dim": dim}, weights, **options)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 0), ("float16", 3e-4), ("int8", 0.012), ("int4", 0.12)])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6])
def test_rows_come_back_up_to_rounding_whatever_their_size(tmp_path, dtype, error, size):
    rows = unit_rows(6, 33) * size
    store = create(tmp_path, dtype=StoreDtype(dtype))
    store.write(0, [4, 0, 5], rows[[4, 0, 5]])
    store.write(0, [1, 2, 3], rows[1:4])
    back = FeatureStore.open(tmp_path).rows(0, 1, 5)
    assert back.dtype == torch.float32
    assert ((back - rows[1:5]).norm(dim=1) / size).max() <= error
    assert (tmp_path / "checkpoint-1.rows").stat().st_size == 6 * width(dtype, 33)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_rounding_shrinks_no_row_whatever_its_tails(dtype, power):
    """⟨x, stored x⟩ = ⟨x, x⟩ of every row, so a product with what is unrelated to the rounding keeps its size."""
    rows = unit_rows(40, 500)
    rows = torch.cat([rows.sign() * rows.abs() ** power, torch.zeros(1, 500)]) * 1e-3
    stored = decode(*encode(rows, StoreDtype(dtype)), StoreDtype(dtype), 500)
    assert (rows * stored).sum(1)[:-1] / rows.square().sum(1)[:-1] == pytest.approx(1, abs=1e-5)
    assert not stored[-1].any()


def test_rows_of_any_numbers_are_those_rows_in_that_order(tmp_path):
    rows = torch.arange(16.0).view(8, 2)
    store = create(tmp_path / "store", n=8, dim=2)
    store.write(0, range(8), rows)
    for numbers in ([0, 1, 2, 5, 4, 4, 7], [3], list(range(8)), [7, 0]):
        assert torch.equal(rows_at(store, 0, numbers), rows[numbers])


def test_bytes_a_row():
    assert [width(dtype, 8192) for dtype in StoreDtype] == [32768, 16384, 8192, 4096]
    assert width(StoreDtype.int4, 3) == 2


@pytest.mark.parametrize(("dtype", "worse"), [("float16", 1.001), ("int8", 1.001), ("int4", 1.03)])
def test_quantized_cosines_at_the_default_width(dtype, worse):
    """A sketch's own error is 1/√d; four bits may add 3 % to it."""
    dim, n = 8192, 60
    one, other = unit_rows(n, dim), unit_rows(n, dim, seed=1)  # unrelated: their cosine is the sketch's error
    exact = (one @ other.T).square().mean().sqrt()
    stored = [decode(*encode(rows, dtype), dtype, dim) for rows in (one, other)]
    cosines = torch.nn.functional.normalize(stored[0]) @ torch.nn.functional.normalize(stored[1]).T
    assert exact == pytest.approx(1 / math.sqrt(dim), rel=0.05)
    assert cosines.square().mean().sqrt() < worse * exact
    assert (cosines - one @ other.T).square().mean().sqrt() < math.sqrt(worse**2 - 1) * exact + 1e-7


def test_a_zero_row_stays_zero():
    for dtype in StoreDtype:
        assert not decode(*encode(torch.zeros(2, 5), dtype), dtype, 5).any()


def test_rows_that_are_not_finite_become_zeros_and_are_named(tmp_path):
    store = create(tmp_path, n=3)
    rows = unit_rows(3, 33)
    store.write(0, [0, 1, 2], rows)
    rows[1, 5] = torch.inf
    store.write(1, [0, 1, 2], rows)
    store = FeatureStore.open(tmp_path)
    assert store.flags(1).tolist() == [VALID, NOT_FINITE, VALID]
    assert store.valid.tolist() == [True, False, True]
    assert store.not_finite() == [{"id": "r1", "checkpoint": "checkpoint-2"}]
    assert not store.rows(1, 1, 2).any()


def test_what_the_header_says(tmp_path):
    create(tmp_path, n=2, subtasks=["a", "b"])
    store = FeatureStore.open(tmp_path)
    assert store.ids == ["r0", "r1"]
    assert store.subtasks == ["a", "b"]
    assert store.weights == pytest.approx([0.75, 0.25])
    assert store.projection["seed"] == 0
    assert len(store) == 2
    assert not store.valid.any()


def test_stores_of_several_checkpoints_are_read_as_one_without_those_that_count_for_nothing(tmp_path):
    rows = unit_rows(3, 33), unit_rows(3, 33, seed=1)
    for number, rate in ((1, 0.0), (2, 3e-5), (3, 1e-5)):
        (place := tmp_path / str(number)).mkdir()
        name = f"checkpoint-{number}"
        if not rate:
            leave_out(place, name)
            continue
        store = FeatureStore.create(place, ["r0", "r1", "r2"], StoreDtype.float32, SPACE, {name: rate})
        store.write(0, [0, 1, 2], rows[number - 2])
    store = FeatureStore.open([tmp_path / "1", tmp_path / "2", tmp_path / "3"])
    assert (store.checkpoints, store.weights) == (["checkpoint-2", "checkpoint-3"], pytest.approx([0.75, 0.25]))
    assert all(torch.equal(store.rows(i, 0, 3), rows[i]) for i in (0, 1))
    assert FeatureStore.open([tmp_path / "3"]).weights == [1.0]
    (tmp_path / "4").mkdir()
    other = SPACE | {"seed": 1}
    FeatureStore.create(tmp_path / "4", ["r0", "r1", "r2"], StoreDtype.float32, other, {"checkpoint-4": 1e-5})
    with pytest.raises(RoseError, match=r"different projections \(seed 0 and 1\)"):
        FeatureStore.open([tmp_path / "3", tmp_path / "4"])


def test_a_store_left_behind_is_taken_up(tmp_path):
    create(tmp_path, n=3).write(0, [1], unit_rows(1, 33))
    again = create(tmp_path, n=3)
    assert again.flags(0).tolist() == [ABSENT, VALID, ABSENT]
    assert torch.equal(again.rows(0, 1, 2), unit_rows(1, 33))


def test_a_store_is_never_continued_by_another_map(tmp_path):
    weights = {"checkpoint-1": 1.0}
    first, other = SPACE | {"digest": "one"}, SPACE | {"digest": "other"}
    FeatureStore.create(tmp_path, ["r0"], StoreDtype.float32, first, weights)
    FeatureStore.create(tmp_path, ["r0"], StoreDtype.float32, first, weights).write(0, [0], unit_rows(1, 33))
    with pytest.raises(RoseError, match=r"features\.json .*different projections \(digest one and other\)"):
        FeatureStore.create(tmp_path, ["r0"], StoreDtype.float32, other, weights)
    older = FeatureStore.create(tmp_path, ["r0"], StoreDtype.float32, SPACE, weights)
    assert older.flags(0).tolist() == [VALID]


@pytest.mark.parametrize("fails", [False, True])
def test_no_flag_is_written_before_its_rows_are_on_the_disk(tmp_path, monkeypatch, fails):
    store, synced, flags = create(tmp_path, n=4), [], []
    fdatasync = os.fdatasync

    def watched(descriptor: int) -> None:
        fdatasync(descriptor)
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        flags.append(store.flags(0).tolist())

    monkeypatch.setattr(os, "fdatasync", watched)
    with contextlib.suppress(KeyboardInterrupt), Filling(store, 0) as filling:
        filling.write([0, 2], unit_rows(2, 33))
        filling.wait()
        assert not store.flags(0).any() and not synced  # the disk is not waited for at every batch
        monkeypatch.setattr("rose.gradients.feature_store.SETTLE", 0.0)
        filling.write([3], unit_rows(1, 33))
        filling.wait()
        assert store.flags(0).tolist() == [VALID, ABSENT, VALID, VALID]
        monkeypatch.setattr("rose.gradients.feature_store.SETTLE", 30.0)
        filling.write([1], unit_rows(1, 33))
        if fails:
            raise KeyboardInterrupt
    assert synced == ["checkpoint-1.rows", "checkpoint-1.scale"] * 2
    assert flags == [[ABSENT] * 4] * 2 + [[VALID, ABSENT, VALID, VALID]] * 2
    assert store.flags(0).tolist() == [VALID] * 4


def test_a_store_cut_off_at_its_creation_is_made_anew(tmp_path):
    (tmp_path / "checkpoint-1.rows").write_bytes(b"rubbish")
    assert not create(tmp_path).rows(0, 0, 6).any()


def test_another_version_of_the_projection_is_refused(tmp_path):
    create(tmp_path)
    header = json.loads((tmp_path / "features.json").read_text())
    header["projection"]["version"] = 0
    (tmp_path / "features.json").write_text(json.dumps(header))
    with pytest.raises(RoseError, match="sketch of version 0, this program has version 1"):
        FeatureStore.open(tmp_path)


@CUDA
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "int4"])
def test_features_of_a_gpu_are_stored_as_the_cpus_are(tmp_path, dtype):
    rows = unit_rows(6, 33)
    rows[2, 0] = torch.nan
    stores = [create(tmp_path / place, dtype=StoreDtype(dtype)) for place in ("cpu", "cuda")]
    for store, device in zip(stores, ("cpu", "cuda"), strict=True):
        store.write(0, range(6), rows.to(device))
    torch.testing.assert_close(stores[1].rows(0, 0, 6), stores[0].rows(0, 0, 6))
    assert stores[1].flags(0).tolist() == stores[0].flags(0).tolist()


def test_checkpoints_of_which_none_counts_are_refused(tmp_path):
    leave_out(tmp_path, "checkpoint-1")
    with pytest.raises(RoseError, match="the learning rate was 0 at all checkpoints .* method.checkpoints"):
        FeatureStore.open(tmp_path)


class Full(io.FileIO):
    """A file on a disk that has no room."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_the_writer_meets_is_raised_and_no_flag_stands_for_it(tmp_path):
    store = create(tmp_path, n=4)
    with pytest.raises(OSError, match="No space left"), Filling(store, 0) as filling:
        filling.write([1], unit_rows(1, 33))
        filling.wait()
        filling.rows.close()
        filling.rows = Full(store.file(0, "rows"), "r+b")
        filling.write([3], unit_rows(1, 33))
    assert store.flags(0).tolist() == [ABSENT, VALID, ABSENT, ABSENT]
