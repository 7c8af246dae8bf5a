"""Rules on a handful of rows, worked out by hand, and their traps: NaN, unequal subtasks, ties, duplicates."""

import math
from collections import Counter
from dataclasses import replace

import numpy
import pytest
from method_toys import composed_method, rows_table, scored

from rose.config.choices import Representation, Rule
from rose.errors import RoseError
from rose.methods.influence import Influence
from rose.methods.rules import RULES

ROSE = composed_method("rose")
NAN = math.nan


def ranked(rule: Rule, values, subtasks=None, vectors=None, **changes) -> list[str]:
    """The ids that have a score, best first, ties by id: what selection will do."""
    values = numpy.array(values, dtype=float)
    subtasks = subtasks or ["a"] * values.shape[1]
    rows = rows_table(len(values))
    _, rows["score"] = RULES[rule](replace(ROSE, rule=rule, **changes), rows, Influence(values, subtasks, vectors))
    return rows.dropna(subset="score").sort_values(["score", "id"], ascending=[False, True])["id"].tolist()


def test_global_max_needs_one_target_and_mean_max_a_subtask():
    values = [[9, 0, 0], [4, 4, 0], [0, 0, 5]]
    assert ranked(Rule.mean_max, values, ["a", "a", "b"]) == ["r2", "r0", "r1"]  # 5, 4.5, 4
    assert ranked(Rule.global_max, values, ["a", "a", "b"]) == ["r0", "r2", "r1"]  # 9, 5, 4


def test_round_robin_gives_each_target_its_best_row_that_is_left():
    values = [[9, 8], [7, 9], [5, 1], [6, 2], [1, 3]]
    # target 0 takes r0, target 1 takes r1; then r3 (6) and, r1 and r0 being gone, r4 (3); then r2
    assert ranked(Rule.round_robin, values) == ["r0", "r1", "r3", "r4", "r2"]


def test_a_target_whose_row_is_taken_searches_on_or_loses_its_turn_as_the_rule_says():
    values = [[9, 9, 0], [8, 7, 1], [7, 8, 2], [0, 0, 9]]
    # all want r0 but the last; round robin: 0 takes r0, 1 its next, r2, 2 takes r3; then r1 is left
    assert ranked(Rule.round_robin, values) == ["r0", "r2", "r3", "r1"]
    # first choices r0, r0, r3; second choices r1, r2, r2
    assert ranked(Rule.best_rank, values) == ["r0", "r3", "r1", "r2"]


def test_best_rank_is_the_turns_played_one_by_one():
    values = numpy.random.default_rng(1).integers(0, 9, size=(40, 5)) + 0.0
    order = [sorted(range(40), key=lambda row, own=own: (-values[row, own], f"r{row}")) for own in range(5)]
    taken = []
    for turn in range(40):
        for own in range(5):
            if order[own][turn] not in taken:
                taken.append(order[own][turn])
    assert ranked(Rule.best_rank, values) == [f"r{row}" for row in taken]


def test_round_robin_serves_targets_evenly_and_takes_no_row_twice():
    values = numpy.random.default_rng(0).normal(size=(60, 4))
    order = ranked(Rule.round_robin, values, ["a", "a", "a", "b"])
    assert len(order) == len(set(order)) == 60
    left, served = set(order), Counter()
    for turn, row in enumerate(order):
        target = turn % 4
        assert int(row[1:]) == max((int(other[1:]) for other in left), key=lambda r: values[r, target])
        served[target] += 1
        left.remove(row)
    assert set(served.values()) == {15}


@pytest.mark.parametrize(
    "rule", [Rule.round_robin, Rule.best_rank, Rule.mean_max, Rule.global_max, Rule.lowest, Rule.middle]
)
def test_ties_go_to_the_smaller_id(rule):
    assert ranked(rule, [[1.0, 1.0]] * 12) == sorted(f"r{i}" for i in range(12))


@pytest.mark.parametrize(
    "rule", [Rule.mean_max, Rule.global_max, Rule.round_robin, Rule.best_rank, Rule.lowest, Rule.middle]
)
def test_a_row_with_a_nan_never_has_a_score(rule):
    assert set(ranked(rule, [[NAN, NAN], [9, 9], [NAN, 9], [0, -1]])) == {"r1", "r3"}


@pytest.mark.parametrize("rule", [Rule.greedy, Rule.resample])
def test_nor_where_rows_are_compared_or_drawn(rule):
    def vectors(numbers):
        return numpy.eye(4)[list(numbers)]

    assert set(ranked(rule, [[NAN, NAN], [9, 9], [NAN, 9], [0, -1]], vectors=vectors, seed=0)) == {"r1", "r3"}


def test_greedy_passes_over_a_copy_of_what_it_took():
    rows = numpy.array([[1, 0, 0], [1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    target = numpy.array([[0.9, 0.4, 0.1]])
    # scores .9 .9 .86 .1; r0 taken: r1 .9−.9 = 0, r2 .86−.9·.6 = .32, r3 .1; r2 taken: r1 0−.32·.6, r3 .1
    assert ranked(Rule.mean_max, rows @ target.T) == ["r0", "r1", "r2", "r3"]
    assert ranked(Rule.greedy, rows @ target.T, vectors=lambda numbers: rows[numbers]) == ["r0", "r2", "r3", "r1"]


def test_greedy_is_matching_pursuit_of_every_subtask_at_once():
    rng = numpy.random.default_rng(1)
    rows, targets = rng.normal(size=(8, 5)), rng.normal(size=(3, 5))
    rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
    residuals, expected = [targets[:2].mean(0), targets[2]], []
    for _ in rows:
        gain = [max(row @ left for left in residuals) if i not in expected else -9 for i, row in enumerate(rows)]
        expected.append(int(numpy.argmax(gain)))
        residuals = [left - (rows[expected[-1]] @ left) * rows[expected[-1]] for left in residuals]
    order = ranked(Rule.greedy, rows @ targets.T, ["a", "a", "b"], vectors=lambda numbers: rows[numbers])
    assert order == [f"r{i}" for i in expected]


def test_greedy_orders_the_candidates_and_leaves_the_rest_in_order():
    rows = numpy.array([[1, 0], [1, 0], [0.8, 0.6], [0.7, 0.7]])
    order = ranked(Rule.greedy, rows @ [[1], [0.1]], vectors=lambda numbers: rows[numbers], candidates=3)
    assert order == ["r0", "r2", "r1", "r3"]


def test_greedy_says_which_representations_it_can_do():
    with pytest.raises(RoseError, match=r"method\.rule=greedy.*lengths.*gradients, readout, hidden, embeddings"):
        ranked(Rule.greedy, [[1.0]], representation=Representation.lengths)


def test_resampling_takes_rows_as_often_as_their_weights_say():
    weights = numpy.array([[0.5], [0.3], [0.2]])
    first = Counter(ranked(Rule.resample, numpy.log(weights), seed=seed)[0] for seed in range(2000))
    assert [first[f"r{i}"] / 2000 for i in range(3)] == pytest.approx(weights[:, 0].tolist(), abs=0.04)


def test_the_middle_comes_first_and_both_ends_last():
    assert ranked(Rule.middle, [[1], [50], [2], [3], [1e9]])[0] == "r3"  # 1 2 [3] 50 1e9
    assert set(ranked(Rule.middle, [[1], [50], [2], [3], [1e9]])[-2:]) == {"r0", "r4"}


def test_balanced_takes_every_source_equally_until_it_runs_out():
    rows = rows_table(12)
    rows["dataset"] = ["big"] * 8 + ["mid"] * 3 + ["one"]
    _, rows["score"] = RULES[Rule.balanced](replace(ROSE, seed=3), rows, Influence(numpy.zeros((12, 0)), []))
    sources = rows.sort_values("score", ascending=False)["dataset"].tolist()
    assert sources == ["big", "mid", "one", "big", "mid", "big", "mid", "big", "big", "big", "big", "big"]


def test_balanced_draws_follow_from_the_seed(tmp_path):
    method = composed_method("random_balanced", "selection.seed=1")
    rows, nothing = rows_table(40), Influence(numpy.zeros((40, 0)), [])
    first, again, other = (
        RULES[Rule.balanced](replace(method, seed=seed), rows, nothing)[1].tolist() for seed in (1, 1, 2)
    )
    assert first == again != other


def test_longest_and_shortest_count_answer_tokens(tmp_path):
    from rose.methods.influence import lengths as influence

    rows = rows_table(3, answer_tokens=[5, 9, 2])
    longest, shortest = composed_method("longest"), composed_method("shortest")
    assert RULES[longest.rule](longest, rows, influence(longest, rows))[1].tolist() == [5, 9, 2]
    assert RULES[shortest.rule](shortest, rows, influence(shortest, rows))[1].tolist() == [-5, -9, -2]
    assert scored(tmp_path, longest)["answer_tokens"].tolist() == [1, 1, 1]
