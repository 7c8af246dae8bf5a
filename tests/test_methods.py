"""Scores worked out by hand, and the traps of public code: NaN rows, unequal subtasks, ties."""

import json
import math
from dataclasses import replace

import numpy
import pandas
import pytest
from method_toys import composed_method, lines, rows_table, scored, selected, store, tokens_of
from safetensors.numpy import save_file

from rose import keys
from rose.config.choices import Estimator, Normalize
from rose.config.compose import typed
from rose.methods import estimators, gradient, scores
from rose.methods.gradient import influence
from rose.methods.rules import OF_ONE_ROW

ROSE = composed_method("rose")
RANDOM = composed_method("random")
HALF = math.sqrt(0.5)


def apart(path, checkpoints, rates, subtasks=None):
    """A store a checkpoint, as the gradient stages leave them."""
    path.mkdir()
    numbered = enumerate(zip(checkpoints, rates, strict=True), 1)
    return tuple(store(path / str(i), [rows], [rate], subtasks, [f"c{i}"]) for i, (rows, rate) in numbered)


@pytest.fixture
def toy(tmp_path):
    """Three rows, two checkpoints with rates 3:1, subtask a with two pairs and b with one."""
    pool = apart(tmp_path / "features", [[[1, 0], [0, 1], [HALF, HALF]], [[0, 1], [1, 0], [HALF, HALF]]], [3e-5, 1e-5])
    pairs = apart(
        tmp_path / "targets", [[[2, 0], [0, 5], [-3, 0]], [[0, 1], [0, 1], [4, 0]]], [3e-5, 1e-5], ["a", "a", "b"]
    )
    return pool, pairs


def test_scores_of_the_toy_are_those_worked_out_by_hand(toy, tmp_path):
    table = scored(tmp_path, ROSE, Normalize.per_pair, *toy)
    # r0, subtask a: .75·(1 + 0)/2 + .25·(1 + 1)/2 = .625; b: .75·(−1) + .25·0 = −.75
    # r1, subtask a: .75·(0 + 1)/2 + .25·0 = .375;         b: .75·0 + .25·1 = .25
    # r2, subtask a: (.75·(1 + 1)/2 + .25·(1 + 1)/2)·√½;   b: (−.75 + .25)·√½
    assert table["a"].tolist() == pytest.approx([0.625, 0.375, HALF])
    assert table["b"].tolist() == pytest.approx([-0.75, 0.25, -HALF / 2])
    assert table["score"].tolist() == pytest.approx([0.625, 0.375, HALF])
    assert table["length"].tolist() == [1, 2, 3]


def test_after_mean_lets_long_pair_gradients_count_more(toy, tmp_path):
    table = scored(tmp_path, ROSE, Normalize.after_mean, *toy)
    # checkpoint 1, subtask a: mean of (2, 0) and (0, 5) is (1, 2.5), norm √7.25; checkpoint 2: (0, 1)
    assert table["a"][0] == pytest.approx(0.75 * 1 / math.sqrt(7.25) + 0.25)
    assert table["a"][1] == pytest.approx(0.75 * 2.5 / math.sqrt(7.25))


def test_the_last_checkpoints_alone_share_the_whole_weight(toy, tmp_path):
    table = scored(tmp_path, ROSE, Normalize.per_pair, *(stores[1:] for stores in toy))
    # checkpoint 2 alone; subtask a: both pairs (0, 1), b: (1, 0)
    assert table["a"].tolist() == pytest.approx([1, 0, HALF])
    assert table["b"].tolist() == pytest.approx([0, 1, HALF])
    three = apart(tmp_path / "three", [[[1, 0]] * 3, [[0, 1]] * 3, [[1, 0]] * 3], [1e-5, 3e-5, 1e-5])
    pairs = apart(tmp_path / "pairs", [[[1, 0]], [[1, 0]], [[1, 0]]], [1e-5, 3e-5, 1e-5], ["a"])
    (tmp_path / "again").mkdir()
    table = scored(tmp_path / "again", ROSE, Normalize.per_pair, three[1:], pairs[1:])
    assert table["a"].tolist() == pytest.approx([0.25] * 3)  # of rates 3 and 1 the second's share


def test_unnormalised_targets_are_taken_as_they_are(toy, tmp_path):
    table = scored(tmp_path, ROSE, Normalize.none, *toy)
    assert table["a"][0] == pytest.approx(0.75 * 1 + 0.25 * 1)
    assert table["b"][0] == pytest.approx(0.75 * -3)


@pytest.mark.parametrize("rows", [4, 40], ids=["fewer rows than dimensions", "more rows than dimensions"])
def test_whitened_influence_is_the_ridge_solve_of_trak(tmp_path, rows):
    rng = numpy.random.default_rng(0)
    features, pairs = rng.normal(size=(2, rows, 12)), rng.normal(size=(2, 3, 12))
    features /= numpy.linalg.norm(features, axis=2, keepdims=True)
    pool = store(tmp_path / "features", features.tolist(), [1.0, 1.0])
    targets = store(tmp_path / "targets", pairs.tolist(), [1.0, 1.0], ["a", "a", "b"])
    method = replace(ROSE, whiten=True, ridge=0.3)
    found = influence(method, rows_table(rows), Normalize.none, pool, targets)
    kernel = [phi.T @ phi + 0.3 * numpy.trace(phi @ phi.T) / rows * numpy.eye(12) for phi in features]
    expected = sum(0.5 * phi @ numpy.linalg.inv(k) @ v.T for phi, k, v in zip(features, kernel, pairs, strict=True))
    assert found.subtasks == ["a", "a", "b"]
    numpy.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)


def test_a_row_whose_gradient_is_not_finite_has_no_score_and_is_never_selected(tmp_path):
    nan = float("nan")
    pool = store(tmp_path / "features", [[[nan, nan], [-1.0, 0.0], [-1.0, 0.0]]], [1.0])
    pairs = store(tmp_path / "targets", [[[1.0, 0.0]]], [1.0], ["a"])
    table = scored(tmp_path, ROSE, Normalize.per_pair, pool, pairs)
    assert table["score"].isna().tolist() == [True, False, False]
    assert [row["id"] for row in selected(tmp_path, table, ratio=1.0)] == ["r1", "r2"]


def test_a_pair_whose_gradient_is_not_finite_does_not_count(tmp_path):
    pool = store(tmp_path / "features", [[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]], [1.0])
    pairs = store(tmp_path / "targets", [[[1.0, 0.0], [float("inf"), 0.0]]], [1.0], ["a", "a"])
    assert scored(tmp_path, ROSE, Normalize.per_pair, pool, pairs)["a"].tolist() == [1.0, 0.0, 1.0]


def test_random_scores_follow_from_the_seed_alone(tmp_path):
    first = scored(tmp_path / "1", RANDOM)["score"].tolist()
    assert first == scored(tmp_path / "2", RANDOM)["score"].tolist()
    assert first != scored(tmp_path / "3", replace(RANDOM, seed=1))["score"].tolist()


def test_selection_takes_the_best_first_and_breaks_ties_by_id(tmp_path):
    table = pandas.DataFrame({"id": ["r3", "r1", "r2", "r0"], "score": [0.5, 0.5, 0.9, 0.5], "length": [1, 2, 3, 4]})
    rows = selected(tmp_path, table, ratio=0.75)
    assert [(row["id"], row["rank"], row["score"]) for row in rows] == [("r2", 1, 0.9), ("r0", 2, 0.5), ("r1", 3, 0.5)]
    metrics = json.loads((tmp_path / "selection" / "metrics.json").read_text())
    assert metrics == {
        "selected_rows": 3,
        "selected_tokens": 9,
        "precision": pytest.approx(1 / 3),
        "length_correlation": pytest.approx(15**-0.5),
    }


def test_at_least_one_row_is_selected(tmp_path):
    table = pandas.DataFrame({"id": ["r0", "r1"], "score": [0.1, 0.2], "length": [1, 1]})
    assert [row["id"] for row in selected(tmp_path, table, ratio=0.001)] == ["r1"]


@pytest.mark.parametrize(
    ("method", "ratio"),
    [("rose", 0.05), ("full", 1.0), ("random_matched", 0.05 + 1.05 * 2 / 7)],  # 2 passes of warm-up and features, of 7
)
def test_how_much_of_the_pool_a_method_takes(composed, method, ratio):
    config = typed(composed(f"method={method}", "warmup.epochs=2", "finetune.epochs=7"))
    assert keys.selection(config.method, config.selection, config.warmup, config.finetune).ratio == pytest.approx(ratio)


def test_tokens_and_answer_tokens_of_a_row_are_counted_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "BATCH", 2)
    labels = [[-100, 5], [-100, 5, -100, 6], [7], [-100, -100, 1], [1, 2, 3]]
    table = scores.table_of(tokens_of(tmp_path, [{"input_ids": [1] * len(row), "labels": row} for row in labels]))
    assert table["id"].tolist() == ["r0", "r1", "r2", "r3", "r4"]
    assert table["length"].tolist() == [2, 4, 1, 3, 3]
    assert table["answer_tokens"].tolist() == [1, 2, 1, 1, 3]


@pytest.fixture
def large(tmp_path):
    """Tokens, features and targets of 205 rows, one of them not finite."""
    rng = numpy.random.default_rng(0)
    features = rng.normal(size=(2, 205, 5))
    features[0, 7] = math.nan
    pool = store(tmp_path / "features", features.tolist(), [1.0, 3.0], dtype="int4")
    targets = store(
        tmp_path / "targets", rng.normal(size=(2, 6, 5)).tolist(), [1.0, 3.0], ["b", "a", "b", "é", "a", "b"]
    )
    rows = [{"input_ids": [1] * n, "labels": [-100] * (n - 1) + [1]} for n in rng.integers(1, 9, 205)]
    return tokens_of(tmp_path / "tokens", rows), Normalize.per_pair, pool, targets


@pytest.mark.parametrize("rule", OF_ONE_ROW)
@pytest.mark.parametrize("estimator", [Estimator.inner, Estimator.gist, Estimator.datainf])
def test_a_pool_scored_part_by_part_has_the_bytes_that_pandas_and_safetensors_write(
    large, tmp_path, monkeypatch, rule, estimator
):
    method, (tokens, *representation) = replace(ROSE, rule=rule, estimator=estimator), large
    monkeypatch.setattr(estimators, "CHUNK_BYTES", 4 * 5 * 16)  # 16 rows at once, in parts of 32, in groups of 50
    monkeypatch.setattr(gradient, "STEP", 20)
    monkeypatch.setattr(scores, "GROUP", 50)
    parts = []
    ruled = scores.RULES[rule]
    monkeypatch.setitem(scores.RULES, rule, lambda *given: parts.append(len(given[1])) or ruled(*given))
    scores.score(tmp_path, method, tokens, tuple(representation))
    assert parts == [32] * 5 + [45]
    rows = scores.table_of(tokens)
    whole = influence(method, rows, *representation)
    columns, rows["score"] = ruled(method, rows, whole)
    table = pandas.concat([rows[["id", "score"]], columns, rows[["length"]]], axis=1)
    table.to_parquet(tmp_path / "expected.parquet", index=False, row_group_size=50)
    values = {"values": whole.values.astype(numpy.float32)}
    save_file(values, tmp_path / "expected.safetensors", {"subtasks": json.dumps(whole.subtasks)})
    for ours, theirs in (("scores.parquet", "expected.parquet"), ("influence.safetensors", "expected.safetensors")):
        assert (tmp_path / ours).read_bytes() == (tmp_path / theirs).read_bytes()


def test_a_planted_pool_is_scored_in_parts_too_also_where_a_part_has_no_fault(large, tmp_path, monkeypatch):
    tokens, *representation = large
    monkeypatch.setattr(gradient, "STEP", 20)
    monkeypatch.setattr(estimators, "CHUNK_BYTES", 4 * 5 * 16)
    ids = scores.table_of(tokens)["id"].tolist()
    faulty = {ids[100]: "swap", ids[204]: "truncate"}  # none in the first part
    pool = [{"id": each, "dataset": "s"} | ({"planted": faulty[each]} if each in faulty else {}) for each in ids]
    lines(tmp_path / "pool" / "pool.jsonl", pool)
    for name, planted in (("plain", None), ("planted", tmp_path / "pool")):
        (tmp_path / name).mkdir()
        scores.score(tmp_path / name, ROSE, tokens, tuple(representation), planted)
    table = pandas.read_parquet(tmp_path / "plain" / "scores.parquet")
    table["planted"] = numpy.array([faulty.get(each) for each in ids], dtype=object)
    table.to_parquet(tmp_path / "expected.parquet", index=False, row_group_size=scores.GROUP)
    assert (tmp_path / "planted" / "scores.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


@pytest.mark.parametrize("rule", sorted(set(scores.RULES) - {*OF_ONE_ROW}))
def test_a_rule_that_compares_rows_sees_all_of_them_at_once(large, tmp_path, monkeypatch, rule):
    (tokens, *representation), seen, ruled = large, [], scores.RULES[rule]
    monkeypatch.setattr(gradient, "STEP", 20)
    monkeypatch.setitem(scores.RULES, rule, lambda *given: seen.append(len(given[1])) or ruled(*given))
    scores.score(tmp_path, replace(ROSE, rule=rule, seed=0), tokens, tuple(representation))
    assert seen == [205]
