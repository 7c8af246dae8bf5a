"""Selector fidelity: held-out answers score as rows of the pool would, and its interval covers."""

import json

import numpy
import pandas
import pytest
import scipy.stats
from method_toys import composed_method, lines, rows_table, store, tokens_of
from small_job import overrides
from statsmodels.stats.proportion import proportion_confint

from rose.config.choices import Normalize
from rose.config.compose import typed
from rose.diagnostics.fidelity import fidelity, measured, rate_of, undefined
from rose.diagnostics.held_out import spread
from rose.run import job
from rose.stages.kinds import kind_of


def pairs_table(scores: list[tuple[float, float]], lengths: list[tuple[int, int]], prompts=None) -> pandas.DataFrame:
    chosen, rejected = zip(*scores, strict=True)
    longer, shorter = zip(*lengths, strict=True)
    return pandas.DataFrame(
        {
            "prompt": prompts or [str(n) for n in range(len(scores))],
            "chosen_score": chosen,
            "rejected_score": rejected,
            "chosen_length": longer,
            "rejected_length": shorter,
        }
    )


def test_a_share_is_of_pairs_whose_chosen_answer_scores_higher_and_a_tie_is_half():
    table = pairs_table([(2, 1), (1, 2), (1, 1), (3, 0)], [(10, 10), (10, 11), (20, 10), (10, 20)])
    metrics = measured(table, 0.1)
    assert metrics["fidelity"] == 2.5 / 4
    assert (metrics["fidelity_matched"], metrics["fidelity_matched_pairs"]) == (0.5, 2)  # 11 − 10 is 9 % of 11
    assert metrics["fidelity_longer"] == 1.5 / 4


def test_without_length_matched_pairs_their_share_is_absent():
    metrics = measured(pairs_table([(2, 1)], [(10, 20)]), 0.1)
    assert metrics["fidelity_matched_pairs"] == 0
    assert "fidelity_matched" not in metrics


@pytest.mark.parametrize(("wins", "pairs"), [(0, 20), (20, 20), (1, 1)])
def test_without_any_spread_the_interval_is_wilsons_of_the_prompts(wins, pairs):
    share = rate_of(numpy.array([1.0] * wins + [0.0] * (pairs - wins)), numpy.arange(pairs))
    interval = scipy.stats.binomtest(wins, pairs).proportion_ci(method="wilson")
    assert share == pytest.approx((wins / pairs, interval.low, interval.high), abs=1e-6)
    assert rate_of(numpy.tile([1.0, 1.0, 0.0], 4), numpy.repeat(range(4), 3)) == pytest.approx(
        (2 / 3, *proportion_confint(4 * 2 / 3, 4, method="wilson")), abs=1e-6
    )


def test_with_a_pair_a_prompt_the_interval_is_wilsons_of_a_little_fewer_pairs():
    share = rate_of(numpy.array([1.0] * 30 + [0.0] * 20), numpy.arange(50))
    size = 49 * (1.959964 / 2.009575) ** 2  # the quantiles of the normal and of t with 49 degrees, as tables have them
    expected = proportion_confint(0.6 * size, size, method="wilson")
    assert share == pytest.approx((0.6, *expected), abs=1e-5)


def test_pairs_that_only_repeat_their_prompts_others_add_no_certainty():
    wins = numpy.random.default_rng(0).integers(0, 2, 40).astype(float)
    once, thrice = rate_of(wins, numpy.arange(40)), rate_of(numpy.repeat(wins, 3), numpy.repeat(numpy.arange(40), 3))
    assert thrice == pytest.approx(once)


@pytest.mark.parametrize(("prompts", "pairs"), [(60, (1, 6)), (5, (20, 21)), (3, (20, 21))])
def test_the_interval_covers_the_truth_when_pairs_of_a_prompt_depend_on_one_another(prompts, pairs):
    generator, covered = numpy.random.default_rng(1), 0
    for _ in range(400):
        chance = generator.beta(3, 2, prompts)  # of a prompt's pairs; .6 on average
        sizes = generator.integers(*pairs, prompts)
        wins = numpy.concatenate([generator.random(n) < p for n, p in zip(sizes, chance, strict=True)])
        _, low, high = rate_of(wins.astype(float), numpy.repeat(numpy.arange(prompts), sizes))
        covered += low <= 0.6 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_every_prompt_has_its_first_pair_before_any_has_its_second():
    pairs = [{"id": str(n), "prompt": [n % 4]} for n in range(10)]
    order = list(spread(pairs, seed=0))
    assert sorted(pair["id"] for pair in order) == sorted(pair["id"] for pair in pairs)
    assert {pair["prompt"][0] for pair in order[:4]} == {pair["prompt"][0] for pair in order[4:8]} == {0, 1, 2, 3}
    assert [pair["id"] for pair in order] != [pair["id"] for pair in spread(pairs, seed=1)]


def test_whitening_is_by_the_pools_features_and_not_the_held_out_ones(tmp_path):
    generator = numpy.random.default_rng(2)
    pool, own, targets = (generator.normal(size=shape) for shape in ((7, 3), (4, 3), (2, 3)))
    pool, own = (rows / numpy.linalg.norm(rows, axis=1, keepdims=True) for rows in (pool, own))
    stores = [
        store(tmp_path / name, [rows.tolist()], [1.0], subtasks)
        for name, rows, subtasks in (("pool", pool, None), ("own", own, None), ("targets", targets, ["a", "a"]))
    ]
    rows = [{"input_ids": [1] * n, "labels": [-100] + [1] * (n - 1)} for n in (2, 3, 4, 5)]
    tokens_of(tmp_path / "held_out", rows)
    pairs = [{"id": name, "prompt": name, "subtask": "a"} for name in ("p", "q")]
    lines(tmp_path / "held_out" / "pairs.jsonl", pairs)
    out = tmp_path / "fidelity"
    out.mkdir()
    representation = (Normalize.per_pair, stores[1], stores[2])
    fidelity(out, composed_method("rose_whitened"), 0.1, tmp_path / "held_out", representation, (stores[0],))
    mean = (targets / numpy.linalg.norm(targets, axis=1, keepdims=True)).mean(0)
    moment = pool.T @ pool
    expected = own @ numpy.linalg.solve(moment + numpy.trace(moment) / 7 * numpy.eye(3), mean)
    table = pandas.read_parquet(out / "pairs.parquet")
    assert table["chosen_score"].tolist() == pytest.approx(expected[0::2].tolist(), rel=1e-4)
    assert table["rejected_score"].tolist() == pytest.approx(expected[1::2].tolist(), rel=1e-4)
    assert table["rejected_length"].tolist() == [2, 4]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return tmp_path_factory.mktemp("fidelity")


@pytest.fixture
def asked(composed, inputs, outputs):
    """asked(*overrides) -> the job's directory; held-out pairs whose chosen answers are rows 0 to 4 of the pool."""
    pool = [json.loads(line) for line in (inputs / "pool.jsonl").read_text().splitlines()[:5]]
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "rope rope rope"} for row in pool]
    lines(outputs / "test.jsonl", pairs)

    def run(*extra: str):
        test = f"preference.test_path={outputs}/test.jsonl"
        config = typed(composed(*overrides(inputs, outputs), test, *extra))
        directory = outputs / "runs" / "-".join(extra)
        job.run(config, directory, "test")
        assert json.loads((directory / "status.json").read_text())["error"] is None
        return directory

    return run


@pytest.mark.parametrize("method", ["rose", "rose_whitened", "loss_drop"])
def test_an_answer_that_is_a_row_of_the_pool_scores_as_that_row(asked, outputs, method):
    directory = asked(f"method={method}", "until=diagnostics", "diagnostics.fidelity=true")
    stages = json.loads((directory / "stages.json").read_text())
    pairs = pandas.read_parquet(outputs / stages["fidelity"]["dir"] / "pairs.parquet")
    rows = [json.loads(line) for line in (outputs / stages["held_out"]["dir"] / "pool.jsonl").read_text().splitlines()]
    scores = pandas.read_parquet(directory / "scores.parquet").set_index("id")["score"]
    pool = {f"{TOPIC} {i}": f"row{i}" for i, TOPIC in enumerate(["tomato", "lantern", "flour", "anchor", "easel"])}
    own = [scores[pool[row["messages"][0]["content"]]] for row in rows[0::2]]
    assert pairs["chosen_score"].tolist() == pytest.approx(own, rel=2e-3, abs=2e-4)  # features are stored in float16


def test_until_fidelity_needs_neither_the_pools_features_nor_a_selection(asked):
    directory = asked("until=fidelity")
    stages = json.loads((directory / "stages.json").read_text())
    assert {"held_out_features 1 of 2", "held_out_features 2 of 2"} < set(stages)
    pools = {kind_of(name): stage["state"] for name, stage in stages.items()}
    assert not {"features", "scores", "selection", "finetune"} & set(pools) or pools["features"] == "reused"
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["fidelity_pairs"] == 5
    assert 0 <= metrics["fidelity_low"] <= metrics["fidelity"] <= metrics["fidelity_high"] <= 1


def test_longest_prefers_the_longer_answer_of_every_pair(asked):
    metrics = json.loads((asked("until=fidelity", "method=longest") / "metrics.json").read_text())
    assert (metrics["fidelity"], metrics["fidelity_longer"]) == (0.0, 0.0)  # every rejected answer is the longer one
    metrics = json.loads((asked("until=fidelity", "method=shortest") / "metrics.json").read_text())
    assert metrics["fidelity"] == 1.0


@pytest.mark.parametrize(
    ("method", "reason"),
    [("random", "looks at no row"), ("perplexity", "by its place in the pool"), ("shapley", "as one of the pool")],
)
def test_a_method_without_a_score_outside_the_pool_says_why(method, reason):
    assert reason in undefined(composed_method(method))


def test_an_answer_without_a_score_loses_and_a_pair_without_any_is_out(tmp_path):
    from rose.diagnostics.fidelity import compared

    scores = pandas.Series([1.0, numpy.nan, 2.0, 1.0, numpy.nan, numpy.nan, numpy.nan, 3.0])
    table = compared(pandas.DataFrame({"id": ["p", "q", "r", "s"], "prompt": list("pqrs")}), rows_table(8), scores)
    assert table["id"].tolist() == ["p", "q", "s"]
    assert measured(table, 0.1)["fidelity"] == pytest.approx(2 / 3)
