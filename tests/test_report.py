"""The report on job directories written by hand; every expected number is worked out in the test."""

import json
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from rose.errors import RoseError
from rose.report.results import collect
from rose.report.table import write_report


def write_job(
    directory: Path,
    metrics: dict | None = None,
    state: str | None = "done",
    error: str | None = None,
    method: str = "rose",
    ratio: float = 0.05,
    seed: int = 0,
    warmup_seed: int | str = "${seed}",
    overrides: tuple[str, ...] = (),
    beta: float = 0.1,
    preference: str = "world",
    result: str = "",
) -> None:
    (directory / ".hydra").mkdir(parents=True)
    config = f"""
        method: {{name: {method}}}
        model: {{name: tiny}}
        dataset: {{name: world}}
        preference: {{name: {preference}, beta: {beta}}}
        projection: {{kind: trak, seed: "${{seed}}"}}
        selection: {{ratio: {ratio}}}
        warmup: {{seed: "{warmup_seed}"}}
        finetune: {{seed: "${{seed}}"}}
        broken: "${{only_the_job_knows:this}}"
        seed: {seed}
    """
    choices = f"hydra:\n  runtime:\n    choices:\n      method: {method}\n      finetune: short\n"
    named = (f"method={method}", f"selection.ratio={ratio}", f"seed={seed}")
    (directory / ".hydra" / "config.yaml").write_text(config)
    (directory / ".hydra" / "hydra.yaml").write_text(choices)
    entries = "".join(f"- {entry}\n" for entry in (*named, *overrides))
    (directory / ".hydra" / "overrides.yaml").write_text(entries)
    if state:
        (directory / "status.json").write_text(json.dumps({"state": state, "error": error}))
    if metrics is not None:
        (directory / "metrics.json").write_text(json.dumps(metrics))
        evaluation = {"dir": f"stages/evaluation/{result or directory.name}"}
        (directory / "stages.json").write_text(
            json.dumps({"evaluation": evaluation, "zero_shot": {"dir": f"base-{seed}"}})
        )


def row_of(text: str, *cells: str) -> list[str]:
    """The cells of the one table row that begins with `cells`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = [row for row in rows if row[: len(cells)] == list(cells)]
    assert len(found) == 1, text
    return found[0]


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


def test_the_csv_reads_back_as_it_was_collected(sweep: Path):
    write_report(sweep)
    read = pandas.read_csv(sweep / "results.csv").convert_dtypes()
    pandas.testing.assert_frame_equal(read, collect(sweep))
    first = (sweep / "results.csv").read_text().splitlines()[1]
    assert first.startswith("less,tiny,world,world,trak,0.05,0,done,")


def test_the_table_shows_mean_and_range_over_seeds(sweep: Path):
    text = write_report(sweep)
    assert row_of(text, "method") == ["method", "n", "reward", "preference_accuracy", "chosen_loss"]
    assert row_of(text, "less") == [*("less", "3", "0.400 (0.200–0.600)", "0.550 (0.500–0.650)", "3.000 (2.000–4.000)")]
    assert row_of(text, "zero_shot")[:3] == ["zero_shot", "3", "0.100 (0.100–0.100)"]
    assert "In every job: model tiny, dataset world, preference world, projection trak, ratio 0.05." in text
    assert "always taking the longer answer has accuracy 0.520 on world" in text
    assert (sweep / "report.md").read_text() == text


def test_bold_only_where_no_range_overlaps(sweep: Path):
    rose = row_of(write_report(sweep), "rose")
    assert rose[2:4] == ["**0.800 (0.700–0.900)**", "0.700 (0.600–0.800)"]


def test_one_seed_is_never_bold_and_has_no_range(tmp_path: Path):
    write_job(tmp_path / "a", {"reward": 0.9}, method="rose")
    write_job(tmp_path / "b", {"reward": 0.1}, method="less")
    text = write_report(tmp_path)
    assert row_of(text, "rose") == ["rose", "1", "0.900"]
    assert "One seed" in text


def test_the_lower_loss_is_the_better_one(tmp_path: Path):
    for seed in range(2):
        write_job(tmp_path / f"a{seed}", {"chosen_loss": 1.0 + seed}, method="rose", seed=seed)
        write_job(tmp_path / f"b{seed}", {"chosen_loss": 3.0 + seed}, method="less", seed=seed)
    text = write_report(tmp_path)
    assert row_of(text, "rose")[2] == "**1.500 (1.000–2.000)**"
    assert row_of(text, "less")[2] == "3.500 (3.000–4.000)"


def test_methods_compete_within_one_preference_set(tmp_path: Path):
    for seed in range(2):
        for method, preference, reward in (("rose", "se", 0.3), ("less", "se", 0.2), ("rose", "shp", 0.9)):
            write_job(
                tmp_path / f"{method}-{preference}-{seed}",
                {"reward": reward},
                method=method,
                preference=preference,
                seed=seed,
            )
    text = write_report(tmp_path)
    assert row_of(text, "rose", "se")[3] == "**0.300 (0.300–0.300)**"
    assert row_of(text, "rose", "shp")[3] == "0.900 (0.900–0.900)"


def test_methods_compete_at_equal_ratio_and_with_the_base_model(tmp_path: Path):
    for seed in range(2):
        for method, ratio, reward in (
            ("rose", 0.1, 0.3),
            ("less", 0.1, 0.2),
            ("rose", 0.2, 0.3),
            ("less", 0.2, 0.4),
        ):
            metrics = {"reward": reward, "zero_shot/reward": 0.35}
            write_job(tmp_path / f"{method}-{ratio}-{seed}", metrics, method=method, ratio=ratio, seed=seed)
    text = write_report(tmp_path)
    assert row_of(text, "rose", "0.1")[3] == "0.300 (0.300–0.300)"
    assert row_of(text, "less", "0.2")[3] == "**0.400 (0.400–0.400)**"


def test_failed_and_unfinished_jobs_stay_in_both(sweep: Path):
    write_job(sweep / "rose-3", None, "failed", "CUDA out of memory\nat line 3", seed=3)
    write_job(sweep / "rose-4", {"reward": 0.0}, "running", seed=4)
    write_job(sweep / "rose-5", None, None, seed=5)
    (sweep / "rose-6").mkdir()
    (sweep / "rose-6" / "status.json").write_text('{"state": "do')
    frame = collect(sweep)
    assert sorted(frame["state"][frame["state"] != "done"]) == ["failed", "missing", "running", "unreadable"]
    text = write_report(sweep)
    assert row_of(text, "rose")[1:3] == ["3 of 6", "**0.800 (0.700–0.900)**"]
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
    text = write_report(tmp_path)
    assert row_of(text, "rose", "1.0") == ["rose", "1.0", "2", "1.500 (1.000–2.000)"]


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
    text = write_report(tmp_path)
    assert "differ between jobs: seed, warmup.seed, projection.seed, finetune.seed (0, 1). None" in text
    for seed in (0, 1):
        write_job(tmp_path / "pinned" / f"{seed}", {"reward": 0.5}, seed=seed, warmup_seed=7)
    text = write_report(tmp_path / "pinned")
    assert "differ between jobs: seed, projection.seed, finetune.seed (0, 1)." in text
    assert "Pinned, so their spread is not in the ranges: warmup.seed (7)." in text


def test_a_job_s_own_directory_is_a_report_of_one(tmp_path: Path):
    write_job(tmp_path / "run", {"reward": 0.25})
    assert row_of(write_report(tmp_path / "run"), "rose") == ["rose", "1", "0.250"]


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
    assert done.stdout == (sweep / "report.md").read_text()


def test_jobs_that_share_one_evaluation_count_once(tmp_path: Path):
    for number in range(2):
        write_job(tmp_path / f"shared{number}", metrics={"reward": 0.5}, method="full", result="one", seed=number)
        write_job(tmp_path / f"own{number}", metrics={"reward": 0.4}, method="rose", seed=number)
    text = write_report(tmp_path)
    assert row_of(text, "full")[1:3] == ["1", "0.500"]
    assert row_of(text, "rose")[1:3] == ["2", "0.400 (0.400–0.400)"]


def test_a_sweep_reports_the_jobs_of_its_last_command_begun_or_not(tmp_path: Path):
    write_job(tmp_path / "old", metrics={"reward": 0.9})
    write_job(tmp_path / "new", metrics={"reward": 0.1})
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": ["new", "never-begun"]}))
    assert collect(tmp_path)["state"].tolist() == ["missing", "done"]
    assert "never-begun (missing)" in write_report(tmp_path)
