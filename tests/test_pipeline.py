"""A whole job on a random tiny model and a person's own files: in seconds, every stage real."""

import json
import math

import datasets
import pandas
import peft
import pytest
from small_job import computed, overrides, rose
from transformers import AutoModelForCausalLM

from rose import pipeline
from rose.config.compose import typed
from rose.report.results import costs
from rose.run import job
from rose.stages.graph import plan
from rose.stages.kinds import kind_of


def test_a_job_leaves_what_the_contract_says(run, outputs):
    directory, stages = run()
    taken = {f"{kind} {number} of 2" for kind in ("features", "targets") for number in (1, 2)}
    assert {"base", "pool", "tokens", "warmup", "scores", "selection"} | taken < set(stages)
    assert all((outputs / stage["dir"] / "inputs.json").exists() for stage in stages.values())
    metrics = json.loads((directory / "metrics.json").read_text())
    assert metrics["selected_rows"] == 6  # a quarter of 23: one row has no answer left
    assert 0 <= metrics["preference_accuracy"] <= 1
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["zero_shot/chosen_loss"] != metrics["chosen_loss"]


def test_the_row_whose_answer_is_cut_off_is_named_and_left_out(run, outputs):
    _, stages = run()
    text = (outputs / stages["tokens"]["dir"] / "dropped.jsonl").read_text()
    dropped = [json.loads(line) for line in text.splitlines()]
    assert [row["id"] for row in dropped] == ["row5"]


def test_the_warm_up_keeps_a_checkpoint_an_epoch_and_the_rates_of_a_linear_schedule(run, outputs):
    _, stages = run()
    manifest = json.loads((outputs / stages["warmup"]["dir"] / "manifest.json").read_text())
    # one batch of 4 rows an epoch: two steps, of which 3 % are too few to rise over; from .01 down to 0
    assert [entry["step"] for entry in manifest["checkpoints"]] == [1, 2]
    assert [entry["learning_rate"] for entry in manifest["checkpoints"]] == [0.01, 0.005]
    assert manifest["optimizer"] == {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "max_grad_norm": 1.0}


def test_a_second_run_computes_nothing_and_a_new_ratio_only_what_follows_the_scores(run):
    run()
    _, again = run()
    assert computed(again) == []
    _, other = run("selection.ratio=0.5")
    assert set(computed(other)) == {"selection", "finetune", "evaluation", "diagnostics"}


def test_less_shares_everything_but_the_targets(run):
    run()
    _, less = run("method=less")
    assert set(computed(less)) == {"targets", "scores", "selection", "finetune", "evaluation", "diagnostics"}


def test_streamed_scores_are_a_job_of_their_own_without_a_store(run, outputs):
    directory, stages = run("features.keep=stream")
    for number in (1, 2):
        folder = outputs / stages[f"features {number} of 2"]["dir"]
        assert folder.parent.name == "cosines"
        assert (folder / f"checkpoint-{number}.rows").stat().st_size == 23 * 5 * 4  # rows, pairs
    exact, _ = run("projection=none", "features.dtype=float32")
    streamed, stored = (pandas.read_parquet(path / "scores.parquet")["score"] for path in (directory, exact))
    assert streamed.tolist() == pytest.approx(stored.tolist(), abs=1e-6)


def test_random_needs_no_gradients(run):
    _, random = run("method=random")
    assert not {"warmup", "features", "targets"} & set(map(kind_of, random))


def test_the_last_checkpoint_alone_takes_gradients_there_alone(run, outputs):
    """Nor do diagnostics look at others; who wants all of them takes the others besides."""
    checks = ("diagnostics.exact_rows=8", "diagnostics.fidelity=true", "diagnostics.planted=true", "until=diagnostics")
    _, last = run("method.checkpoints=1", "seed=4", *checks)
    per_checkpoint = [name for name in last if kind_of(name) != name]
    assert {name.partition(" ")[2] for name in per_checkpoint} == {"2 of 2"}
    parts = ("", "sample_", "held_out_", "planted_")
    assert {kind_of(name) for name in per_checkpoint} == {f"{part}features" for part in parts} | {
        "targets",
        "sample_targets",
    }
    _, both = run("seed=4", *checks)
    assert both["features 2 of 2"] == last["features 2 of 2"] | {"state": "reused"}
    assert both["features 1 of 2"]["state"] == "computed"
    counted = [costs(stages)["cost/features/tokens_forward"] for stages in (last, both)]
    assert counted[1] == 2 * counted[0] > 0


@pytest.mark.parametrize("option", ["method.whiten=true", "method.balance=tokens", "method.balance=segments"])
def test_the_options_of_gradient_methods_change_the_scores(run, option):
    plain, _ = run()
    changed, _ = run(option)
    assert (plain / "scores.parquet").read_bytes() != (changed / "scores.parquet").read_bytes()


def test_the_selection_loads_in_datasets_and_the_adapter_in_peft(run, inputs, tmp_path):
    directory, _ = run()
    files, cache = str(directory / "selected.jsonl"), str(tmp_path)
    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
    assert rows["rank"] == list(range(1, 7))
    assert set(rows[0]["messages"][0]) == {"role", "content"}
    base = AutoModelForCausalLM.from_pretrained(inputs / "model")
    adapter = peft.PeftModel.from_pretrained(base, str(directory / "adapter"))
    assert any(weight.abs().sum() > 0 for name, weight in adapter.named_parameters() if "lora_B" in name)


def test_the_same_seeds_give_the_same_bytes_in_another_outputs_folder(composed, inputs, outputs, run, tmp_path):
    first, _ = run()
    config = typed(composed(*overrides(inputs, tmp_path)))
    job.run(config, tmp_path / "job", "test")
    for name in ("scores.parquet", "selected.jsonl", "metrics.json"):
        assert (tmp_path / "job" / name).read_bytes() == (first / name).read_bytes()


def test_a_failed_job_says_why_and_caches_nothing(composed, inputs, tmp_path):
    config = typed(composed(*overrides(inputs, tmp_path), "model.lora.targets=[no_such_layer]"))
    job.run(config, tmp_path / "job", "test")
    status = json.loads((tmp_path / "job" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "model.lora.targets" in status["error"] and "no_such_layer" in status["error"]
    assert not list((tmp_path / "stages").glob("warmup/*"))


def test_a_job_run_again_up_to_an_earlier_stage_keeps_its_record(run, composed, inputs, outputs):
    directory, stages = run()
    before = (directory / "metrics.json").read_bytes()
    job.run(typed(composed(*overrides(inputs, outputs), "until=features")), directory, "test")
    assert (directory / "metrics.json").read_bytes() == before
    assert set(json.loads((directory / "stages.json").read_text())) == set(stages)


def test_what_is_done_to_a_jobs_files_does_not_reach_the_shared_stage(run, outputs):
    directory, stages = run()
    with open(directory / "selected.jsonl", "a") as file:
        file.write("mine")
    assert "mine" not in (outputs / stages["selection"]["dir"] / "selected.jsonl").read_text()


def test_moved_data_are_known_by_their_contents(composed, inputs, outputs, run, tmp_path):
    run()
    (tmp_path / "pool.jsonl").write_bytes((inputs / "pool.jsonl").read_bytes())
    config = typed(composed(*overrides(inputs, outputs), f"dataset.path={tmp_path}/pool.jsonl"))
    nodes = pipeline.stages(config)
    assert all(state == "ready" for _, state in plan(nodes["evaluation"], outputs))


def test_a_sweep_shares_its_stages_and_ends_with_a_table(inputs, tmp_path):
    swept = ["-m", *overrides(inputs, tmp_path), "method=rose,less,random", "selection.ratio=0.1,0.25,0.5"]
    done = rose(*swept)
    assert done.returncode == 0, done.stderr
    made = {name: len(list((tmp_path / "stages" / name).iterdir())) for name in ("warmup", "features", "targets")}
    assert made == {"warmup": 1, "features": 2, "targets": 4}  # at two checkpoints; of two methods
    (folder,) = (tmp_path / "sweeps").iterdir()
    table = (folder / "results.csv").read_text().splitlines()
    assert len(table) == 1 + 9 + 1  # header, jobs, the base model
    for method in ("rose", "less", "random", "zero_shot"):
        assert method in done.stdout

    again = rose(*swept)
    assert again.returncode == 0
    states = [json.loads(path.read_text()) for path in folder.glob("*/stages.json")]
    assert all(stage["state"] == "reused" for stages in states for stage in stages.values())


def test_a_job_that_fails_does_not_stop_the_others_and_the_exit_code_says_so(inputs, tmp_path):
    done = rose("-m", *overrides(inputs, tmp_path), "method=random", "model.max_length=48,1")
    assert done.returncode == 1
    assert "model.max_length=1: no row of the pool is left" in done.stderr
    assert "1 of 2 jobs failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_until_stops_early_and_dry_run_computes_nothing(inputs, tmp_path):
    for launcher in ([], ["-m", "hydra/launcher=slurm", "seed=0,1"], ["-m", "runtime.workers=2", "seed=0,1"]):
        dry = rose(*launcher, *overrides(inputs, tmp_path), "dry_run=true")
        assert dry.returncode == 0 and "missing  evaluation " in dry.stdout, dry.stderr
        assert not list(tmp_path.iterdir())
    done = rose(*overrides(inputs, tmp_path), "until=tokens")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "stages").iterdir()} - {".locks"} == {"base", "pool", "tokens"}


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("selection.ratio=1.5", ["selection.ratio=1.5", "(0, 1]"]),
        ("projection.dim=100000", ["projection.dim=100000"]),
        ("dataset.path=/no/such/pool.jsonl", ["dataset.path=/no/such/pool.jsonl"]),
        ("preference.path=/no/such/pairs.jsonl", ["preference.path=/no/such/pairs.jsonl"]),
        ("model.base.path=nobody/no-such-model", ["model.base.path=nobody/no-such-model"]),
    ],
)
def test_a_wrong_value_is_named_in_one_line_with_what_is_allowed(inputs, tmp_path, wrong, expected):
    done = rose(*overrides(inputs, tmp_path), wrong)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    for part in expected:
        assert part in said
