"""Mean hidden states of answers along what the pairs say: against the whole model, row by row, and plain algebra."""

import math

import numpy
import pytest
import torch
from method_toys import composed_method, lines, rows_table, store, tokens_of
from tiny_models import NUMERICS
from transformers import AutoModelForCausalLM

from rose.config.compose import typed
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.methods import answer_states
from rose.methods.hidden import one_pass, pool_pass
from rose.models import loading

ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [3, 4], "labels": [-100, 4]},
    {"input_ids": [5, 6, 7, 8, 9, 10, 11], "labels": [-100, 6, -100, -100, 9, 10, -100]},
]


@pytest.mark.parametrize("layer", [0.5, 1.0])
def test_states_are_the_mean_over_a_row_s_answers_alone_however_it_is_padded(base, layer):
    model = AutoModelForCausalLM.from_pretrained(base)
    states = one_pass(loading.load_model(base, NUMERICS), ROWS, layer).states
    for row, found in zip(ROWS, states, strict=True):
        with torch.no_grad():
            layers = model(torch.tensor([row["input_ids"]]), output_hidden_states=True).hidden_states
        answers = [place for place, label in enumerate(row["labels"]) if label != -100]
        expected = layers[round(layer * (len(layers) - 1))][0, answers].mean(0)
        numpy.testing.assert_allclose(found, expected, atol=1e-5)


def scores(tmp_path, name: str, rows, pairs) -> numpy.ndarray:
    pool = store(tmp_path / "pool", [rows], [1], names=["states"])
    answers = store(
        tmp_path / "pairs", [[side for pair in pairs for side in pair]], [1], ["all"] * 2 * len(pairs), names=["states"]
    )
    return answer_states.influence(composed_method(name), rows_table(len(rows)), pool, answers).values[:, 0]


def test_hidden_contrast_is_the_projection_on_the_pairs_mean_difference(tmp_path):
    pairs = [([2.0, 0.0], [0.0, 0.0]), ([1.0, 5.0], [1.0, 4.0])]  # differences (2, 0) and (0, 1)
    assert scores(tmp_path, "hidden_contrast", [[3.0, 4.0], [0.0, -1.0]], pairs).tolist() == [5.0, -0.5]


def test_the_probe_is_ridge_regression_of_one_on_the_differences(tmp_path):
    rng = numpy.random.default_rng(0)
    chosen, rejected, rows = rng.normal(size=(12, 3)) + 0.7, rng.normal(size=(12, 3)), rng.normal(size=(5, 3))
    found = scores(tmp_path, "probe", rows.tolist(), list(zip(chosen.tolist(), rejected.tolist(), strict=True)))
    d = (chosen - rejected).astype(numpy.float32).astype(float)
    scale, errors, fits = (d**2).sum(1).mean(), [], []
    for ridge in scale * 10.0 ** numpy.arange(-4, 4.1, 0.5):  # leave one out, the slow way
        left_out = [numpy.delete(d, j, 0) for j in range(12)]
        weights = [numpy.linalg.solve(x.T @ x + ridge * numpy.eye(3), x.sum(0)) for x in left_out]
        errors.append(sum((1 - w @ d[j]) ** 2 for j, w in enumerate(weights)))
        fits.append(numpy.linalg.solve(d.T @ d + ridge * numpy.eye(3), d.sum(0)))
    numpy.testing.assert_allclose(found, rows @ fits[int(numpy.argmin(errors))], rtol=1e-4, atol=1e-5)


def test_a_row_whose_states_are_not_finite_has_no_score_and_such_a_pair_says_nothing(tmp_path):
    pairs = [([1.0, 0.0], [0.0, 0.0]), ([math.nan, 0.0], [0.0, 9.0])]
    found = scores(tmp_path, "hidden_contrast", [[math.inf, 0.0], [2.0, 5.0]], pairs)
    assert math.isnan(found[0]) and found[1] == 2.0


def test_pool_and_pairs_are_kept_in_their_order_chosen_before_rejected(base, tmp_path):
    for name in ("pool", "targets"):
        (tmp_path / name).mkdir()
    pool_pass(tmp_path / "pool", 1.0, NUMERICS, base, tokens_of(tmp_path / "tokens", ROWS))
    sides = {
        side: [{"role": "assistant", "content": word}] for side, word in (("chosen", "tomato"), ("rejected", "rope"))
    }
    pair = {"id": "p", "subtask": "all", "prompt": [{"role": "user", "content": "flour"}]} | sides
    lines(tmp_path / "pairs" / "target.jsonl", [pair])
    answer_states.pair_states(tmp_path / "targets", 1.0, NUMERICS, 64, base, tmp_path / "pairs")
    assert FeatureStore.open(tmp_path / "targets").ids == ["p/chosen", "p/rejected"]
    assert len(FeatureStore.open(tmp_path / "pool")) == len(ROWS)


@pytest.mark.parametrize(
    "override", ["method.estimator=gist", "method.layer=0", "method.layer=1.5", "method.estimator=shapley"]
)
def test_what_does_not_go_with_answer_states_is_refused(composed, override):
    with pytest.raises(RoseError, match=override.replace(".", r"\.")):
        typed(composed("method=hidden_contrast", override))


def test_ridge_goes_with_answer_states_alone(composed):
    with pytest.raises(RoseError, match=r"method\.estimator=ridge: does not go with method\.representation=gradients"):
        typed(composed("method=rose", "method.estimator=ridge"))
