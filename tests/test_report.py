"""The tables of a report on job directories written by hand; every expected number is worked out in the test."""

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest
from omegaconf import OmegaConf
from report_jobs import (
    collect,
    mean_and_interval,
    paired_sweep,
    rate_and_interval,
    row_of,
    text_of,
    write_items,
    write_job,
)

from rose.errors import RoseError
from rose.report.comparison import compare
from rose.report.report import write_report
from rose.report.results import read_jobs


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two methods × three seeds; `rose` is better in reward everywhere, and in accuracy only on average."""
    rewards = {"rose": [0.7, 0.8, 0.9], "less": [0.2, 0.4, 0.6]}
    accuracies = {"rose": [0.6, 0.7, 0.8], "less": [0.5, 0.5, 0.65]}
    for method in rewards:
        for seed in range(3):
            metrics = {
                "reward": rewards[method][seed],
                "preference_accuracy": accuracies[method][seed],
                "chosen_loss": 2.0 + seed,
                "longer_wins": 0.52,
                "selected_rows": 100,
                "zero_shot/reward": 0.1,
                "zero_shot/preference_accuracy": 0.5,
                "zero_shot/longer_wins": 0.52,
            }
            write_job(tmp_path / "demo" / f"{method}-{seed}", metrics, method=method, seed=seed)
    return tmp_path / "demo"


def test_every_job_is_one_row_and_the_base_model_one_per_seed(sweep: Path):
    frame = collect(sweep)
    assert list(frame.columns[:8]) == [
        *("method", "model", "dataset", "preference", "projection", "ratio", "seed", "state")
    ]
    assert list(frame["method"]) == ["less"] * 3 + ["rose"] * 3 + ["zero_shot"] * 3
    assert list(frame["seed"]) == [0, 1, 2] * 3
    assert list(frame["reward"]) == [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.1, 0.1, 0.1]
    assert frame["ratio"].isna().tolist() == [False] * 6 + [True] * 3
    assert not any(name.startswith("zero_shot/") for name in frame.columns)


def test_the_tables_read_back_as_they_were_collected(sweep: Path):
    write_report(sweep)
    read = pandas.read_csv(sweep / "results.csv").convert_dtypes()
    pandas.testing.assert_frame_equal(read, collect(sweep))
    parquet = pandas.read_parquet(sweep / "results.parquet")
    pandas.testing.assert_frame_equal(parquet.convert_dtypes(), read, check_dtype=False)
    first = (sweep / "results.csv").read_text().splitlines()[1]
    assert first.startswith("less,tiny,world,world,trak,0.05,0,done,")


def test_the_table_shows_mean_and_interval_over_seeds(sweep: Path):
    text = text_of(sweep)
    assert row_of(text, "method") == ["method", "n", "reward", "preference_accuracy", "chosen_loss"]
    accuracy = rate_and_interval(0.5, 0.5, 0.65)
    assert row_of(text, "less") == [
        "less",
        "3",
        mean_and_interval(0.2, 0.4, 0.6),
        accuracy,
        mean_and_interval(2.0, 3.0, 4.0),
    ]
    assert row_of(text, "zero_shot")[:3] == ["zero_shot", "3", "0.100"]
    assert "In every job: model tiny, dataset world, preference world, projection trak, ratio 0.05." in text
    assert "always taking the longer answer has accuracy 0.520 on world" in text
    assert "Mean (95 % interval over seeds); bold" in text


def test_of_one_row_nothing_is_said_to_be_bold(tmp_path: Path):
    write_job(tmp_path / "rose-0", {"reward": 0.5})
    assert "Mean (" in (text := text_of(tmp_path)) and "bold" not in text


def test_failed_and_unfinished_jobs_stay_in_both(sweep: Path):
    write_job(sweep / "rose-3", None, "failed", "CUDA out of memory\nat line 3", seed=3)
    write_job(sweep / "rose-4", {"reward": 0.0}, "running", seed=4)
    write_job(sweep / "rose-5", None, None, seed=5)
    (sweep / "rose-6").mkdir()
    (sweep / "rose-6" / "status.json").write_text('{"state": "do')
    frame = collect(sweep)
    assert sorted(frame["state"][frame["state"] != "done"]) == ["failed", "missing", "running", "unreadable"]
    text = text_of(sweep)
    assert row_of(text, "rose")[1:3] == ["3 of 6", f"**{mean_and_interval(0.7, 0.8, 0.9)}**"]
    assert "Not finished, 4 of 10 jobs:" in text
    assert "- rose-3 (failed): CUDA out of memory\n" in text
    assert "- rose-6 (unreadable): status.json cannot be read" in text


def test_swept_keys_come_first_and_split_the_table(tmp_path: Path):
    for beta in (0.1, 1.0):
        for seed in (0, 1):
            overrides = (f"preference.beta={beta}", "runtime.threads=2")
            metrics = {"reward": beta + seed, "zero_shot/reward": 0.0}
            write_job(tmp_path / f"{beta}-{seed}", metrics, seed=seed, beta=beta, overrides=overrides)
    frame = collect(tmp_path)
    assert list(frame.columns[:2]) == ["preference.beta", "method"]
    assert list(frame["method"]) == ["rose"] * 4 + ["zero_shot"] * 2
    text = text_of(tmp_path)
    assert row_of(text, "rose", "1.0") == ["rose", "1.0", "2", mean_and_interval(1.0, 2.0)]


def test_base_model_rows_split_where_a_swept_key_changes_them(tmp_path: Path):
    for beta in (0.1, 1.0):
        overrides = (f"preference.beta={beta}",)
        write_job(tmp_path / f"{beta}", {"zero_shot/reward": beta}, beta=beta, overrides=overrides)
    base = collect(tmp_path).query("method == 'zero_shot'")
    assert list(zip(base["preference.beta"], base["reward"], strict=True)) == [(0.1, 0.1), (1.0, 1.0)]


def test_jobs_that_name_the_same_run_are_all_kept(tmp_path: Path):
    for copy in range(2):
        write_job(tmp_path / f"full-{copy}", {"reward": 0.5}, method="full")
    assert len(collect(tmp_path)) == 2


def test_the_report_says_which_seeds_are_pinned(tmp_path: Path):
    for seed in (0, 1):
        write_job(tmp_path / f"free-{seed}", {"reward": 0.5}, seed=seed)
    text = text_of(tmp_path)
    assert "differ between jobs: seed, warmup.seed, projection.seed, finetune.seed (0, 1). None" in text
    for seed in (0, 1):
        write_job(tmp_path / "pinned" / f"{seed}", {"reward": 0.5}, seed=seed, warmup_seed=7)
    text = text_of(tmp_path / "pinned")
    assert "differ between jobs: seed, projection.seed, finetune.seed (0, 1)." in text
    assert "Pinned, so their spread is not in the intervals: warmup.seed (7)." in text


def test_seeds_of_the_data_are_pinned_unless_they_follow(tmp_path: Path):
    for seed in (0, 1):
        for sweep, world in (("own", 0), ("world", 0), ("worlds", seed)):
            job = tmp_path / sweep / f"{seed}"
            write_job(job, {"reward": 0.5}, seed=seed)
            config = OmegaConf.load(job / ".hydra" / "config.yaml")
            rows = {"rows": 9} if sweep != "own" else None
            data = {
                "dataset": {"seed": 0, "world": rows},
                "preference": {"pairs": {"seed": 0}},
                "world": {"seed": world},
            }
            OmegaConf.save(OmegaConf.merge(config, data), job / ".hydra" / "config.yaml")
    pinned = "Pinned, so their spread is not in the intervals: preference.pairs.seed (0), dataset.seed (0)"
    assert f"{pinned}." in text_of(tmp_path / "own")
    assert f"{pinned}, world.seed (0)." in text_of(tmp_path / "world")
    assert "finetune.seed, world.seed (0, 1). " + pinned + "." in text_of(tmp_path / "worlds")


def test_a_job_s_own_directory_is_a_report_of_one(tmp_path: Path):
    write_job(tmp_path / "run", {"reward": 0.25})
    assert row_of(text_of(tmp_path / "run"), "rose") == ["rose", "1", "0.250"]


def test_a_folder_without_jobs_is_an_error_of_one_line(tmp_path: Path):
    with pytest.raises(RoseError, match="holds no job"):
        write_report(tmp_path)
    command = [sys.executable, "-m", "rose.report", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"rose: {tmp_path / 'absent'}: no such folder; a sweep's is outputs/sweeps/NAME\n"


def test_the_command_prints_the_table(sweep: Path):
    done = subprocess.run([sys.executable, "-m", "rose.report", str(sweep)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (sweep / "report.md").read_text() + f"\nReport: {sweep / 'report.html'}\n"
    assert "<h1>demo</h1>" in (sweep / "report.html").read_text()


def test_jobs_that_share_one_evaluation_count_once(tmp_path: Path):
    for number in range(2):
        write_job(tmp_path / f"shared{number}", metrics={"reward": 0.5}, method="full", result="one", seed=number)
        write_job(tmp_path / f"own{number}", metrics={"reward": 0.4}, method="rose", seed=number)
    text = text_of(tmp_path)
    assert row_of(text, "full")[1:3] == ["1", "0.500"]
    assert "full takes the whole pool, whatever the ratio." in text
    assert row_of(text, "rose")[1:3] == ["2", "0.400"]


def test_a_sweep_reports_the_jobs_of_its_last_command_begun_or_not(tmp_path: Path):
    write_job(tmp_path / "old", metrics={"reward": 0.9})
    write_job(tmp_path / "new", metrics={"reward": 0.1, "preference_accuracy": 0.5, "longer_wins": 0.6})
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": ["new", "never-begun"]}))
    assert collect(tmp_path)["state"].tolist() == ["missing", "done"]
    text = text_of(tmp_path)
    assert "never-begun (missing)" in text
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")][2:] == ["rose"]
    assert "<NA>" not in text


def test_a_job_whose_judging_failed_keeps_its_other_metrics_and_the_gap_shows(sweep: Path):
    write_job(sweep / "rose-3", {"preference_accuracy": 0.75}, "failed", "judge: connection refused", seed=3)
    rose = row_of(text_of(sweep), "rose")
    assert rose[1] == "3 of 4"
    assert rose[2] == f"**{mean_and_interval(0.7, 0.8, 0.9)}**"
    assert rose[3] == rate_and_interval(0.6, 0.7, 0.8, 0.75) + ", n=4"
    assert "- rose-3 (failed, kept what it had measured): judge: connection refused" in text_of(sweep)


def test_the_base_model_s_items_come_from_its_own_file(tmp_path: Path):
    for seed in range(2):
        job = tmp_path / f"rose-{seed}"
        write_job(job, {"win_rate": 0.75, "zero_shot/win_rate": 0.5, "zero_shot/chosen_loss": 2.0}, seed=seed)
        write_items(job / "items.parquet", {"win_rate": [1.0, 1.0, 1.0, 0.0] * 10})
        base = {"win_rate": [0.0, 1.0] * 20, "chosen_loss": [2.0] * 40}
        write_items(job / "zero_shot_items.parquet", base)
        stages = {"evaluation": {"dir": f"evaluation/{seed}"}, "zero_shot": {"dir": "evaluation/base"}}
        (job / "stages.json").write_text(json.dumps(stages))
    comparison = compare(read_jobs(tmp_path))
    base = comparison.estimates["win_rate"][comparison.arms[0]]
    assert comparison.arms[0].method == "zero_shot"
    assert (base.seeds, base.items, base.mean) == (1, 40, 0.5)
    assert comparison.estimates["chosen_loss"][comparison.arms[0]].mean == 2.0
    assert comparison.stability[()]["rose"] > 0.9


def test_an_unreadable_items_file_is_said_and_costs_the_items_alone(tmp_path: Path):
    paired_sweep(tmp_path, gain=0.5, items=20)
    (tmp_path / "rose-1" / "items.parquet").write_text("no parquet")
    text = text_of(tmp_path)
    assert "rose-1/items.parquet cannot be read" in text
    assert row_of(text, "rose")[1] == "3"
