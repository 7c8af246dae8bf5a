"""A cheap method's best share of the pool is all that an expensive one sees; nothing else changes or is lost."""

import json
import logging

import numpy
import pandas
import pytest
import small_job

from rose.config.compose import typed
from rose.errors import RoseError
from rose.pipeline import stages
from rose.report.recall import with_recall
from rose.report.results import read_jobs
from rose.run import job
from rose.run.estimates import Costs
from rose.stages.kinds import kind_of

CHEAP = ["candidates=perplexity_low", "candidates.share=0.5", "until=selection"]  # 12 of 23 rows
SHARED = ("base", "pool", "preferences", "tokens", "warmup 1 of 2")


def table(directory) -> pandas.DataFrame:
    return pandas.read_parquet(directory / "scores.parquet").set_index("id")


def selected(directory) -> list[str]:
    return [json.loads(line)["id"] for line in (directory / "selected.jsonl").read_text().splitlines()]


def test_the_candidates_are_the_best_share_by_the_cheap_method_in_the_pool_s_order(run):
    cheap, _ = run("method=perplexity_low", "until=selection")
    directory, _ = run("method=bm25", *CHEAP)
    ranked, found = table(cheap).sort_values(["score", "id"], ascending=[False, True]), table(directory)
    assert list(found.index) == list(table(cheap).index)
    assert set(found.index[found.candidate]) == set(ranked.index[:12])
    assert found.score[~found.candidate].isna().all() and found.score[found.candidate].notna().all()
    assert set(selected(directory)) <= set(found.index[found.candidate])
    assert len(selected(directory)) == 6  # a quarter of all 23, not of the candidates


@pytest.mark.parametrize(
    ("method", "told"), [("longest", []), ("column", ["method.column=quality"]), ("hidden_contrast", [])]
)
def test_a_score_that_looks_at_one_row_at_a_time_is_the_whole_pool_s_byte_for_byte(run, method, told):
    whole, _ = run(f"method={method}", "until=selection", *told)
    directory, _ = run(f"method={method}", *told, *CHEAP)
    found = table(directory)
    expected, own = table(whole).score[found.candidate], found.score[found.candidate]
    if method == "hidden_contrast":  # its forward passes are of other batches
        numpy.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)
    else:
        assert own.to_numpy().tobytes() == expected.to_numpy().tobytes()
    among = table(whole)[found.candidate].sort_values(["score", "id"], ascending=[False, True])
    assert selected(directory) == list(among.index[:6])


def test_gradients_are_taken_of_the_candidates_alone_and_the_warm_up_is_the_whole_pool_s(run):
    whole, full = run("method=rose", "until=diagnostics")
    directory, parts = run("method=rose", *CHEAP[:2], "until=diagnostics", "diagnostics.exact_rows=4")
    assert all(parts[name]["dir"] == full[name]["dir"] for name in ("warmup", "tokens", "targets 2 of 2"))
    found = table(directory)
    numpy.testing.assert_allclose(found.score[found.candidate], table(whole).score[found.candidate], atol=1e-4)
    halved, taken = (stages_of["features 2 of 2"]["tokens_forward"] for stages_of in (parts, full))
    assert 0 < halved < taken
    assert {name for name in parts if name.startswith("candidates")} == {
        *("candidates_one_pass", "candidates_scores", "candidates")
    }
    findings = {each["name"]: each for each in json.loads((directory / "diagnostics.json").read_text())}
    assert findings["projection"]["details"]["rows"] == 4
    assert findings["momentum_share"]["value"] is not None


def test_the_cost_holds_both_parts_and_says_what_the_candidates_took(run):
    directory, parts = run("method=rds_plus", *CHEAP[:2])
    (job,) = read_jobs(directory)
    own = ("one_pass", "target_hidden", "own_scores", "scores", "selection", "finetune")
    cheap = ("candidates_one_pass", "candidates_scores", "candidates")
    assert job.metrics["cost/flops"] == sum(parts[name]["flops"] for name in (*own, *cheap))
    assert job.metrics["cost/candidates/flops"] == parts["candidates_one_pass"]["flops"] > 0
    assert "cost/candidates_one_pass/flops" not in job.metrics


def test_what_the_cheap_method_makes_is_shared_with_the_job_that_goes_by_it_alone(run):
    _, alone = run("method=perplexity_low", "until=selection")
    _, parts = run("method=longest", *CHEAP)
    assert parts["candidates_scores"]["dir"] == alone["scores"]["dir"]


def test_a_method_that_reads_texts_sees_the_candidates_alone(composed):
    given = {"bm25": [], "dsir": [], "column": ["method.column=quality"], "reward": ["method.reward_model=some/model"]}
    for method, told in given.items():
        nodes = stages(typed(composed("candidates=hidden_contrast", f"method={method}", *told)))
        read = [node for node in nodes["own_scores"].upstream if kind_of(node.stage.name) != "preferences"]
        assert nodes["pool"] not in read and nodes["candidates"] in read
    assert nodes["rewards"].inputs["pool"] is nodes["candidates"]


def test_expensive_gradients_at_one_checkpoint_may_find_candidates_for_those_at_all(run):
    cheap = ["candidates=bm25", "method@candidates.method=less", "candidates.method.checkpoints=1"]
    directory, parts = run("method=rose", *cheap, "candidates.share=0.5", "until=selection")
    assert "candidates_features 2 of 2" in parts and "candidates_features 1 of 2" not in parts
    assert table(directory).candidate.sum() == 12


def test_without_candidates_and_without_a_selection_nothing_is_asked_of_a_cheap_method(composed):
    plain = {name: node.name for name, node in stages(typed(composed("method=rose"))).items()}
    assert plain == {
        name: node.name for name, node in stages(typed(composed("method=rose", "candidates=none"))).items()
    }
    assert "candidates" not in plain and "own_scores" not in plain
    assert "candidates" not in stages(typed(composed("method=pairs_sft", "candidates=bm25")))


def test_a_sweep_and_a_job_say_whose_candidates_they_have(composed):
    assert "/rose_of_bm25-0.05-seed0-" in composed("candidates=bm25").hydra.run.dir
    assert "/rose-0.05-seed0-" in composed().hydra.run.dir


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["candidates.share=0"], r"candidates.share=0.0: must be in \(0, 1\]"),
        (["selection.ratio=.3"], "selection.ratio=0.3: more rows than candidates.share=0.2 leaves; .* at most 0.2"),
        (
            ["candidates.share=.29", "dataset.world.rows=100", "selection.count=30"],
            "selection.count=30: more .* at most 29",  # floats make 28.99… of it
        ),
        (["selection.count=401"], "selection.count=401: more rows than candidates.share=0.2 leaves; .* at most 400"),
        (["method=random_matched"], "method=random_matched draws from the whole pool"),
        (["method@candidates.method=zero_shot"], "candidates.method.name=zero_shot: ranks no rows"),
        (["method@candidates.method=column"], "candidates.method.column=null"),
        (["candidates.method.smoothing=-1"], "candidates.method.smoothing=-1.0: must be 0 or more"),
        (["candidates=readout", "projection=none"], "candidates: projection.kind=none: .*readout"),
        (
            ["method@candidates.method=less_whitened", "features.keep=stream"],
            "candidates: features.keep=stream: method.whiten=true",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_computed(composed, overrides, message):
    with pytest.raises(RoseError, match=message):
        typed(composed("candidates=bm25", *overrides))


def test_candidates_without_a_score_are_said(run, caplog):
    with caplog.at_level(logging.INFO):
        run("method=longest", *CHEAP)
        bm25 = ("candidates=bm25", *CHEAP[1:])
        run("method=longest", *bm25, "selection.count=12", "selection.per_source=0.25")
    assert "candidates: 12 of 23 rows" in caplog.text
    assert "selected 3 rows, not 12: no other row has a score and passes" in caplog.text


def test_more_rows_than_can_be_candidates_are_refused_before_the_warm_up(composed, inputs, tmp_path):
    asked = [*small_job.overrides(inputs, tmp_path), "method=rose", *CHEAP, "selection.count=13"]
    job.run(typed(composed(*asked)), directory := tmp_path / "job", "test")
    status = json.loads((directory / "status.json").read_text())
    few = "selection.count=13: more rows than candidates.share=0.5 of 23 rows leaves"
    assert status["error"] == f"{few}; must be at most 12, or candidates=none"
    assert not (tmp_path / "stages" / "warmup").exists() and not (tmp_path / "stages" / "one_pass").exists()


def test_planted_faults_are_known_of_every_row_candidate_or_not(run):
    planted = ("plant=swap", "plant.share=0.5", "until=selection", "method=longest")
    whole, _ = run(*planted)
    directory, _ = run(*planted, *CHEAP[:2])
    found = table(directory)
    assert found.planted.equals(table(whole).planted)
    assert found.planted[~found.candidate].notna().any()
    assert "intact" in json.loads((directory / "metrics.json").read_text())


def test_estimates_count_the_candidates_alone(composed, tmp_path):
    config = typed(composed("method=hidden_contrast", "candidates=rds_plus", "candidates.share=0.1"))
    nodes, costs = stages(config), Costs(tmp_path)
    own, cheap = (costs.of(name, nodes[name], config, nodes) for name in ("one_pass", "candidates_one_pass"))
    assert own.tokens == pytest.approx(0.1 * cheap.tokens) and own.flops == pytest.approx(0.1 * cheap.flops)


def test_recall_is_the_share_of_the_whole_pool_s_selection_that_were_candidates(inputs, tmp_path):
    swept = ("method=longest", "candidates=none,perplexity_low", "candidates.share=0.5", "until=selection", "name=both")
    done = small_job.rose("-m", *small_job.overrides(inputs, tmp_path), *swept)
    assert done.returncode == 0, done.stderr
    jobs = {bool(job.value("candidates.method.name")): job for job in with_recall(read_jobs(tmp_path / "sweeps/both"))}
    assert "candidates_recall" not in jobs[False].metrics
    found = table(jobs[True].dir)
    kept = set(selected(jobs[False].dir)) & set(found.index[found.candidate])
    assert jobs[True].metrics["candidates_recall"] == pytest.approx(len(kept) / 6)
    report = (tmp_path / "sweeps" / "both" / "report.md").read_text()
    header, _, *arms = (line.split() for line in report.splitlines() if line.startswith("|"))
    assert header[1:7:2] == ["method", "candidates", "n"] and "candidates_recall" in header
    assert [arm[1:5:2] for arm in arms[-1:]] == [["longest", "perplexity_low"]]  # not two seeds of one arm
