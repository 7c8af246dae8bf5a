"""A batch that the device has no room for is halved, and what was done before outlives what no halving helps."""

import logging
import shutil

import pytest
import torch
from gradient_stages import NONE, NUMERICS, pool, settings, stages_before, targets
from small_device import FULL, lacking
from tiny_models import distance, random_rows, same

from rose import device
from rose.config.choices import ProjectionKind, Reference
from rose.config.schema import Projection
from rose.errors import RoseError, one_line
from rose.gradients import features as stages
from rose.gradients.feature_store import ABSENT, FeatureStore
from rose.gradients.features import pool_features
from rose.gradients.objectives import Loss, Objective
from rose.methods import hidden
from rose.models import loading, log_probs
from rose.models.memory import fitting
from rose.stages.build import build
from rose.stages.graph import Node, stage

BATCHES = [list(range(8)), list(range(8, 15)), [15, 16], [17]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages_before(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("room", "first"), [(8, [8]), (4, [8, 4, 4]), (3, [8, 4, 2, 2, 2, 2]), (1, [8, 4, 2] + [1] * 8)]
)
def test_every_row_is_done_once_in_order_and_a_size_that_failed_is_not_tried_again(room, first, caplog):
    done, seen = [], []
    fits = fitting(lacking(room, done.extend, seen, rows=0), "say less")
    with caplog.at_level(logging.WARNING):
        for batch in BATCHES:
            fits(batch)
    assert done == list(range(18))
    assert seen[: len(first)] == first and max(seen[len(first) :]) <= room
    assert len(caplog.records) == sum(size > room for size in seen)


def test_a_row_that_does_not_fit_alone_is_an_error_that_says_what_to_set():
    fits = fitting(lacking(0, print, [], rows=0), "say a smaller model.max_length")
    with pytest.raises(RoseError, match="a row alone .* out of memory.*; say a smaller model.max_length") as error:
        fits([1, 2, 3])
    assert "\n" not in one_line(error.value) and device.failed(error.value)


def test_the_cpus_own_words_count_and_other_errors_pass():
    def fail(batch: list[int]) -> None:
        raise RuntimeError(said)

    said = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried …"
    with pytest.raises(RoseError, match="a row alone"):
        fitting(fail, "")([1, 2])
    said = "shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match="shapes"):
        fitting(fail, "")([1, 2])


@pytest.mark.parametrize("adam", ["exact", "none"])
def test_features_of_halved_batches_are_those_of_whole_ones(run, tmp_path, monkeypatch, caplog, adam):
    whole, seen = pool(run, tmp_path / "whole", batch_tokens=1000, adam=adam), []
    monkeypatch.setattr(stages, "gradients", lacking(3, stages.gradients, seen))
    halved = pool(run, tmp_path / "halved", batch_tokens=1000, adam=adam)
    assert seen == [7, 4, 2, 2, 2, 1] * 2  # a checkpoint after the other
    assert sum("do not fit" in record.message for record in caplog.records) == 4
    for checkpoint in (0, 1):
        assert distance(halved.rows(checkpoint, 0, 7), whole.rows(checkpoint, 0, 7).double()) < 1e-5


def test_pairs_are_never_torn_apart(run, tmp_path, monkeypatch):
    objective, seen = Objective(Loss.dpo, 0.1, Reference.base), []
    whole = targets(run, tmp_path / "whole", objective)
    monkeypatch.setattr(stages, "gradients", lacking(2, stages.gradients, seen))
    halved = targets(run, tmp_path / "halved", objective)
    assert seen[:4] == [6, 4, 2, 2]
    assert distance(halved.rows(0, 0, 3), whole.rows(0, 0, 3).double()) < 1e-5


def test_what_was_done_before_a_row_that_never_fits_is_gone_on_from(run, tmp_path, monkeypatch):
    root, _, _ = run
    honest, taken = stages.gradients, []

    def dying(engine, rows, *rest):
        if len(taken) == 2:
            raise torch.OutOfMemoryError(FULL)
        taken.append(len(rows))
        return honest(engine, rows, *rest)

    inputs = {"checkpoint": 1, "features": settings(), "projection": NONE, "numerics": NUMERICS}
    for name in ("base", "warmup", "tokens"):
        inputs[name] = Node(stage(f"before_{name}", version=1)(link), str(root / name))
    node = Node(pool_features, **inputs)
    monkeypatch.setattr(stages, "gradients", dying)
    with pytest.raises(RoseError, match="a row alone does not fit .*model.max_length"):
        build(node, tmp_path)
    (left,) = node.path(tmp_path).parent.glob(".*.part")
    assert 0 < (FeatureStore.open(left).flags(0) != ABSENT).sum() <= 7
    monkeypatch.setattr(stages, "gradients", lambda *rest: taken.append(0) or honest(*rest))
    resumed = FeatureStore.open(build(node, tmp_path))
    batches = len(taken)
    taken.clear()
    whole = pool(run, tmp_path / "whole")
    assert 2 * batches == len(taken)  # of two checkpoints; nothing was done twice
    assert same(resumed.rows(0, 0, 7), whole.rows(0, 0, 7))


def link(out, folder: str) -> None:
    """The files of `folder`, as a stage that made them would leave them."""
    shutil.copytree(folder, out, dirs_exist_ok=True)


def test_forward_passes_are_halved_too(run, monkeypatch):
    root, _, _ = run
    model, rows, seen = loading.load_model(root / "base", NUMERICS), random_rows([9, 12, 7, 15, 8]), []
    whole, states = log_probs.answer_log_probs(model, rows, 1000), hidden.one_pass(model, rows)
    monkeypatch.setattr(log_probs, "token_log_probs", lacking(2, log_probs.token_log_probs, seen))
    halved = log_probs.answer_log_probs(model, rows, 1000)
    assert seen == [5, 3, 2, 2, 1]
    assert all(first == pytest.approx(second, rel=1e-5) for first, second in zip(halved, whole, strict=True))
    monkeypatch.setattr(hidden, "pad_sequence", lacking(2, hidden.pad_sequence, [], rows=0))
    again = hidden.one_pass(model, rows)
    assert all(torch.allclose(again.pooled[name], states.pooled[name], atol=1e-5) for name in states.pooled)
    assert torch.allclose(again.states, states.states, atol=1e-5) and torch.allclose(again.losses, states.losses)


def test_a_sketch_of_int8_codes_survives_halving_but_for_the_last_place(run, tmp_path, monkeypatch):
    sketch = Projection(kind=ProjectionKind.sketch, dim=64, seed=1)
    whole = pool(run, tmp_path / "whole", sketch, batch_tokens=1000, dtype="int8")
    monkeypatch.setattr(stages, "gradients", lacking(3, stages.gradients, []))
    halved = pool(run, tmp_path / "halved", sketch, batch_tokens=1000, dtype="int8")
    step = whole.rows(0, 0, 7).abs().amax(1, keepdim=True) / 127
    assert ((whole.rows(0, 0, 7) - halved.rows(0, 0, 7)).abs() <= 1.01 * step).all()
