"""Estimators against their formulas written naively, in float64, row by row."""

import itertools
import json
import math
from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace

import numpy
import pytest
import torch
from method_toys import composed_method, rows_table, store
from safetensors.torch import save_file

from rose.config.choices import AdamMap, Normalize, ProjectionKind, StoreDtype
from rose.config.compose import typed
from rose.diagnostics import exact
from rose.diagnostics.targets import momentum_share
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.methods import estimators, gradient
from rose.methods.estimators import View, datainf, gist, shapley
from rose.methods.rules import RULES

ROSE = composed_method("rose")
RNG = numpy.random.default_rng(0)
ROWS = RNG.normal(size=(7, 5))
TARGETS = RNG.normal(size=(3, 5))


@pytest.fixture
def pool(tmp_path):
    return View(FeatureStore.open(store(tmp_path / "pool", [ROWS.tolist()], [1.0])), 0)


@pytest.fixture
def with_a_nan(tmp_path):
    rows = [*ROWS.tolist(), [math.nan] * 5]
    return View(FeatureStore.open(store(tmp_path / "broken", [rows], [1.0])), 0)


def estimate(function, pool, **changes) -> numpy.ndarray:
    return function(replace(ROSE, **changes), pool, torch.tensor(TARGETS).float(), ["a", "a", "b"]).numpy()


def naive_datainf(rows, v):
    n, d = rows.shape
    damping = sum(sum(x * x for x in row) / d for row in rows) / n / 10
    r = numpy.zeros(d)
    for g in rows:  # every row counts; one public version uses the last one n times
        r += v - (v @ g) / (damping + g @ g) * g
    return [g @ r / (n * damping) for g in rows]


def test_datainf_is_its_formula_over_every_row(pool):
    expected = numpy.array([naive_datainf(ROWS, v) for v in TARGETS]).T
    numpy.testing.assert_allclose(estimate(datainf, pool), expected, rtol=1e-4)


def test_datainf_of_one_row_is_the_exact_damped_inverse(tmp_path):
    g = ROWS[:1]
    one = View(FeatureStore.open(store(tmp_path / "one", [g.tolist()], [1.0])), 0)
    damping = (g**2).mean() / 10
    exact = g @ numpy.linalg.inv(g.T @ g + damping * numpy.eye(5)) @ TARGETS.T
    numpy.testing.assert_allclose(estimate(datainf, one), exact, rtol=1e-3)


def test_rows_that_are_not_finite_do_not_count(pool, with_a_nan):
    for function in (datainf, gist, shapley):
        plain, broken = estimate(function, pool, neighbours=2), estimate(function, with_a_nan, neighbours=2)
        numpy.testing.assert_allclose(broken[:7], plain, rtol=1e-5)


def naive_gist(rows, targets, subtasks, components) -> dict[str, numpy.ndarray]:
    """Cosine with each subtask's mean in the span's directions of largest energy: by eigenvectors, not an SVD."""
    _, vectors = numpy.linalg.eigh(targets.T @ targets)
    basis = vectors[:, ::-1][:, : min(components, len(targets))]
    cosines = {}
    for name in dict.fromkeys(subtasks):
        mean = (targets[numpy.array(subtasks) == name] @ basis).mean(axis=0)
        cosines[name] = [(row @ basis) @ mean / math.sqrt(sum((row @ basis) ** 2) * sum(mean**2)) for row in rows]
    return {name: numpy.array(values) for name, values in cosines.items()}


@pytest.mark.parametrize("components", [1, 2, 99])
def test_gist_averages_to_the_cosine_with_the_mean_inside_the_span_of_the_targets(pool, components):
    expected = naive_gist(ROWS, TARGETS, ["a", "a", "b"], components)
    found = estimate(gist, pool, components=components)
    numpy.testing.assert_allclose(found[:, :2].mean(axis=1), expected["a"], atol=1e-5)
    numpy.testing.assert_allclose(found[:, 2], expected["b"], atol=1e-5)


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {"a": 4, "b": 4, "c": 4}, {"a": 4, "b": 1, "c": 7}])
def test_a_method_named_after_a_paper_is_the_paper_s_by_its_file_alone(tmp_path, composed, counts):
    """method=gist against the published formula, on bare gradients of the last checkpoint alone."""
    config = typed(composed("method=gist", "method.components=3"))
    rng = numpy.random.default_rng(2)
    rows, subtasks = rng.normal(size=(200, 30)), [name for name, count in counts.items() for _ in range(count)]
    targets = rng.normal(size=(len(subtasks), 30)) * rng.uniform(0.1, 9, size=(len(subtasks), 1))
    unit = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)  # as the store has them
    pool = store(tmp_path / "pool", [unit.tolist()], [0.3])
    pairs = store(tmp_path / "pairs", [targets.tolist()], [0.3], subtasks)
    table = rows_table(200)
    found = gradient.influence(config.method, table, config.preference.normalize, pool, pairs)
    columns, score = RULES[config.method.rule](config.method, table, found)
    expected = naive_gist(rows, targets, subtasks, 3)
    for name in counts:
        numpy.testing.assert_allclose(columns[name], expected[name], atol=1e-5)
    best = numpy.argsort(-numpy.max(list(expected.values()), axis=0))[:10]
    assert set(score.nlargest(10).index) == set(best)  # the best 5 %
    assert (config.features.adam, config.projection.kind) == (AdamMap.none, ProjectionKind.none)
    assert config.method.checkpoints == 1


@pytest.mark.parametrize("neighbours", [1, 2, 3])
def test_knn_shapley_is_the_mean_gain_over_all_orders_of_arrival(tmp_path, neighbours):
    rows = ROWS[:5]
    pool = View(FeatureStore.open(store(tmp_path / "five", [rows.tolist()], [1.0])), 0)
    unit = rows / numpy.linalg.norm(rows, axis=1, keepdims=True)
    values = estimate_of_unit(pool, unit, neighbours, tmp_path)
    for column, target in enumerate(TARGETS):
        cosine = unit @ target / numpy.linalg.norm(target)

        def worth(present, cosine=cosine):
            nearest = sorted((cosine[i] for i in present), reverse=True)[:neighbours]
            return sum((1 + c) / 2 for c in nearest) / neighbours

        gains = numpy.zeros(5)
        for order in itertools.permutations(range(5)):
            for place, row in enumerate(order):
                gains[row] += worth(order[: place + 1]) - worth(order[:place])
        numpy.testing.assert_allclose(values[:, column], gains / math.factorial(5), atol=1e-6)


def estimate_of_unit(pool, unit, neighbours, tmp_path) -> numpy.ndarray:
    made = View(FeatureStore.open(store(tmp_path / "unit", [unit.tolist()], [1.0])), 0)
    return estimate(shapley, made, neighbours=neighbours)


@pytest.mark.parametrize("dtype", list(StoreDtype))
def test_influence_is_the_weighted_inner_product_however_the_store_is_cut(tmp_path, monkeypatch, dtype):
    """Against plain float64 loops over rows, pairs and checkpoints; the last chunk and block are not full."""
    rng = numpy.random.default_rng(1)
    rows, pairs, weights = rng.normal(size=(2, 11, 7)), rng.normal(size=(2, 3, 7)), [0.75, 0.25]
    pool = FeatureStore.open(store(tmp_path / "pool", rows.tolist(), weights, dtype=dtype))
    aims = FeatureStore.open(store(tmp_path / "pairs", pairs.tolist(), weights, ["a", "b", "a"]))
    back = [pool.rows(checkpoint, 0, 11).double().numpy() for checkpoint in range(2)]
    expected = [
        [sum(w * float(back[c][r] @ pairs[c][p]) for c, w in enumerate(weights)) for p in range(3)] for r in range(11)
    ]
    monkeypatch.setattr(estimators, "CHUNK_BYTES", 4 * 7 * 4)  # four rows
    monkeypatch.setattr(gradient, "BLOCK", 4)
    found = gradient.compare(
        ROSE, rows_table(11), dict(enumerate(weights)), Normalize.none, pool, aims.path, others=None
    )
    numpy.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)


def described_as(path, kind, digest):
    """Another map's store: as `path` is, with this in its description."""
    header = json.loads((path / "features.json").read_text())
    header["projection"] |= {"kind": kind, "digest": digest}
    (path / "features.json").write_text(json.dumps(header))
    return path


def test_rows_and_targets_of_two_maps_are_never_compared(tmp_path):
    """Neither for a score, nor for its background, nor where a diagnostic compares them."""
    rows, weights = [[[1.0, 0], [0, 1]]], [1.0]
    pool = described_as(store(tmp_path / "pool", rows, weights), "trak", "one")
    same = described_as(store(tmp_path / "same", rows, weights, ["a", "a"]), "trak", "one")
    other = described_as(store(tmp_path / "other", rows, weights, ["a", "a"]), "trak", "other")
    less, white = composed_method("less"), composed_method("less", "method.whiten=true")
    table, none = rows_table(2), Normalize.none
    assert gradient.influence(less, table, none, pool, same).values.tolist() == [[1, 0], [0, 1]]
    for method, targets, background in ((less, other, None), (white, same, other)):
        with pytest.raises(RoseError, match=r"(pool.*other|other.*pool): features of different projections"):
            gradient.influence(method, table, none, pool, targets, background)
    with pytest.raises(RoseError, match="digest one and other"):
        exact.influences(FeatureStore.open(pool), [0, 1], FeatureStore.open(other), none)
    for digest, refused in (("one", nullcontext()), ("other", pytest.raises(RoseError, match="digest one and other"))):
        space = {"space": json.dumps({"kind": "trak", "digest": digest})}
        save_file({"checkpoint-1": torch.tensor([1.0, 0])}, tmp_path / "momentum.safetensors", metadata=space)
        with refused:
            momentum_share(table.assign(score=[1.0, 0.0]), (pool, tmp_path), Namespace(momentum_share=0.5))
