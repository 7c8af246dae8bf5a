"""Whether a score tells planted faults: the area under the curve, within groups, and its interval."""

import numpy
import pandas
import pytest
from sklearn.metrics import roc_auc_score

from rose.methods.detection import auc_of, interval, measured


def frame(intact, score):
    return pandas.DataFrame({"intact": intact, "score": score})


def test_the_auc_is_scikit_learn_s_ties_and_all():
    rng = numpy.random.default_rng(0)
    intact, score = rng.random(60) < 0.4, rng.integers(0, 7, 60).astype(float)
    assert auc_of([frame(intact, score)]).value == pytest.approx(roc_auc_score(intact, score))


def test_only_rows_of_one_group_are_compared():
    low = frame([True, False], [1.0, 0.0])  # right within
    high = frame([True, False], [11.0, 10.0])  # right within; all above the other group
    mixed = frame([True, False], [10.0, 11.0])  # wrong within
    assert auc_of([low, high]).value == 1.0
    assert auc_of([low, mixed]).value == 0.5
    assert auc_of([frame([True, True], [1.0, 2.0])]) is None


def test_a_row_without_a_score_counts_as_the_lowest():
    assert auc_of([frame([True, False], [0.0, numpy.nan])]).value == 1.0
    assert auc_of([frame([True, False], [numpy.nan, 0.0])]).value == 0.0


@pytest.mark.parametrize(
    ("value", "m", "n"), [(0.5, 20, 20), (0.83, 12, 30), (1.0, 9, 11), (0.0, 9, 11), (0.99, 200, 150)]
)
def test_the_interval_holds_the_value_and_turns_with_it(value, m, n):
    here, there = interval(value, [(m, n)]), interval(1 - value, [(n, m)])
    assert 0 <= here.low <= value <= here.high <= 1 and here.low < here.high
    assert (there.low, there.high) == pytest.approx((1 - here.high, 1 - here.low), abs=1e-6)


def test_newcombe_s_interval_near_one_is_the_root_of_its_equation_by_hand():
    # all 10 × 10 pairs won: θ = .83, by (1 − θ)² = z²V(θ) tried at .82 and .84
    def excess(theta):
        v = theta * (1 - theta) * (1 + 9 * (1 - theta) / (2 - theta) + 9 * theta / (1 + theta)) / 100
        return (1 - theta) ** 2 - 1.959964**2 * v

    low = interval(1.0, [(10, 10)]).low
    assert excess(low - 0.01) > 0 > excess(low + 0.01)


def test_nineteen_in_twenty_intervals_hold_the_truth():
    rng = numpy.random.default_rng(1)
    truth, inside = 0.5 * (1 + 0.6826894921), 0  # P(Z > −1) of a shift of √2 between two normals
    for _ in range(400):
        scores = numpy.concatenate([rng.normal(2**0.5, 1, 30), rng.normal(0, 1, 30)])
        auc = auc_of([frame(numpy.arange(60) < 30, scores)])
        inside += auc.low <= truth <= auc.high
    assert 370 <= inside <= 395  # .925 to .9875


def test_a_group_weighs_by_its_pairs_in_the_interval_too():
    assert interval(0.7, [(10, 20), (10, 20)]).low > interval(0.7, [(10, 20)]).low
    lopsided = interval(0.7, [(30, 30), (1, 1)])
    assert lopsided == pytest.approx(interval(0.7, [(30, 30)]), abs=0.01)


def test_intervals_over_many_small_groups_hold_the_truth_as_often():
    rng = numpy.random.default_rng(2)
    truth, inside = 0.8413447461, 0
    for _ in range(300):
        groups = [
            frame([True, True, False, False], numpy.append(rng.normal(2**0.5, 1, 2), rng.normal(0, 1, 2)))
            for _ in range(30)
        ]
        auc = auc_of(groups)
        inside += auc.low <= truth <= auc.high
    assert 276 <= inside <= 297  # .92 to .99


def test_the_metrics_of_a_selection_from_a_planted_pool():
    truth = pandas.DataFrame(
        [
            ("1", "a", "swap", True),
            ("2", "a", "swap", False),
            ("3", "b", "swap", True),
            ("4", "b", "swap", False),
            ("5", "a", "shuffle", True),
            ("6", "a", "shuffle", False),
            ("7", "b", None, True),
        ],
        columns=["id", "dataset", "fault", "intact"],
    )
    table = pandas.DataFrame({"id": list("1234567"), "score": [0.9, 0.8, 0.2, 0.1, 0.3, 0.4, 1.0]})
    metrics = measured(truth, table, {"7", "1", "2", "6"})
    assert metrics["intact"] == 0.5
    assert metrics["auc"] == pytest.approx(roc_auc_score([1, 0, 1, 0, 1, 0], table.score[:6]))
    assert metrics["auc_within"] == pytest.approx(2 / 3)
    assert (metrics["auc_swap"], metrics["auc_shuffle"]) == (1.0, 0.0)
    assert metrics["auc_swap_low"] < metrics["auc_swap_high"] == 1.0
