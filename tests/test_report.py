"""The tables of a report on job directories written by hand; every expected number is worked out in the test."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
from omegaconf import OmegaConf
from report_jobs import row_of, write_items, write_job
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rose.errors import RoseError
from rose.report.comparison import compare
from rose.report.report import write_report
from rose.report.results import collect, read_jobs
from rose.report.table import render


def text_of(sweep: Path) -> str:
    """report.md, without the figures that `write_report` draws."""
    jobs = read_jobs(sweep)
    return render(jobs, compare(jobs), sweep.name)


def student(*values: float) -> str:
    """Mean and Student's t interval, as the table shows them."""
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, mean, error)
    between = " to " if low < 0 else "–"
    return f"{mean:.3f} ({low:.3f}{between}{high:.3f})".replace("-", "−")


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
    accuracy = student(0.5, 0.5, 0.65)
    assert row_of(text, "less") == ["less", "3", student(0.2, 0.4, 0.6), accuracy, student(2.0, 3.0, 4.0)]
    assert row_of(text, "zero_shot")[:3] == ["zero_shot", "3", "0.100"]
    assert "In every job: model tiny, dataset world, preference world, projection trak, ratio 0.05." in text
    assert "always taking the longer answer has accuracy 0.520 on world" in text
    assert "Mean (95 % interval over seeds); bold" in text


def test_bold_only_what_is_told_from_all_others(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.01, -0.01, 0.005)):
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.9 + noise}, method="rose", seed=seed)
        write_job(tmp_path / f"less-{seed}", {"reward": 0.5 - noise}, method="less", seed=seed)
        write_job(tmp_path / f"bm25-{seed}", {"reward": 0.4 + 40 * noise}, method="bm25", seed=seed)
    text = text_of(tmp_path)
    assert row_of(text, "rose")[2] == student(0.9, 0.91, 0.89, 0.905)  # bm25 is too uncertain
    for seed in range(4):
        (tmp_path / f"bm25-{seed}" / "metrics.json").write_text('{"reward": 0.4}')
    assert row_of(text_of(tmp_path), "rose")[2] == f"**{student(0.9, 0.91, 0.89, 0.905)}**"


def test_bold_never_goes_beyond_what_the_lines_say(tmp_path: Path):
    """rose is told from all others if its own comparisons are all there are, and not in one family with the rest."""
    for seed, (one, other) in enumerate([(-1, 1), (0, -2), (1, 1)]):
        rewards = {"rose": 0.9, "less": 0.6 - 0.092 * one, "random": 0.2 + 0.002 * other, "full": 0.2 - 0.01 * other}
        for method, reward in rewards.items():
            write_job(tmp_path / f"{method}-{seed}", {"reward": reward}, method=method, seed=seed)
    comparison = compare(read_jobs(tmp_path))
    to_random, to_less = comparison.to("reward", comparison.arms[-1])
    assert 0.025 < to_less.estimate.p < 0.05  # the greatest of three: Holm leaves it as it is
    assert (to_random.better("reward"), to_less.better("reward")) == (True, None)
    assert comparison.best["reward"] == set()


def test_nothing_is_bold_without_a_reference(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.01, -0.01)):
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.9}, method="rose", seed=seed)
        write_job(tmp_path / f"bm25-{seed}", {"reward": 0.1 + noise}, method="bm25", seed=seed)
    assert "**" not in text_of(tmp_path)


def test_one_seed_is_never_bold_and_has_no_range(tmp_path: Path):
    write_job(tmp_path / "a", {"reward": 0.9}, method="rose")
    write_job(tmp_path / "b", {"reward": 0.1}, method="less")
    text = text_of(tmp_path)
    assert row_of(text, "rose") == ["rose", "1", "0.900"]
    assert "One seed" in text


def test_the_lower_loss_is_the_better_one(tmp_path: Path):
    for seed, (one, other) in enumerate([(1.0, 3.0), (1.1, 3.1), (1.05, 3.11)]):
        write_job(tmp_path / f"a{seed}", {"chosen_loss": one}, method="rose", seed=seed)
        write_job(tmp_path / f"b{seed}", {"chosen_loss": other}, method="less", seed=seed)
    text = text_of(tmp_path)
    assert row_of(text, "rose")[2] == f"**{student(1.0, 1.1, 1.05)}**"
    assert row_of(text, "less")[2] == student(3.0, 3.1, 3.11)


def test_methods_compete_within_one_preference_set(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.01, 0.03)):
        for method, preference, reward in (("rose", "se", 0.8), ("less", "se", 0.2 - noise), ("rose", "shp", 0.9)):
            metrics = {"reward": reward + noise}
            write_job(
                tmp_path / f"{method}-{preference}-{seed}", metrics, method=method, preference=preference, seed=seed
            )
    text = text_of(tmp_path)
    assert row_of(text, "rose", "se")[3] == f"**{student(0.8, 0.81, 0.83)}**"
    assert row_of(text, "rose", "shp")[3] == student(0.9, 0.91, 0.93)
    assert "rose se: better than less: yes" in text
    assert "rose shp: better" not in text


def test_methods_compete_at_equal_ratio_and_with_the_base_model(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.002, -0.001)):
        rewards = {("rose", 0.1): 0.3, ("less", 0.1): 0.2, ("rose", 0.2): 0.3, ("less", 0.2): 0.4}
        for (method, ratio), reward in rewards.items():
            metrics = {"reward": reward + noise * (1 + (method == "less")), "zero_shot/reward": 0.35 - noise}
            write_job(tmp_path / f"{method}-{ratio}-{seed}", metrics, method=method, ratio=ratio, seed=seed)
    text = text_of(tmp_path)
    assert row_of(text, "rose", "0.1")[3] == student(0.3, 0.302, 0.299)  # beats less, not the base model
    assert row_of(text, "less", "0.2")[3] == f"**{student(0.4, 0.404, 0.398)}**"


def test_rows_of_other_budgets_do_not_compete(tmp_path: Path):
    """A budget of null is one of its own; it does not stand for all."""
    for seed, noise in enumerate((0.0, 0.002, -0.001)):
        rewards = {("rose", 100): 0.6, ("random", 100): 0.2, ("random", 1000): 0.8, ("rose", "null"): 0.9}
        for (method, count), reward in rewards.items():
            own = {"reward": reward + noise * (1 + (method == "random"))}
            job = tmp_path / f"{method}-{count}-{seed}"
            write_job(job, own, method=method, count=count, seed=seed, overrides=(f"selection.count={count}",))
    comparison = compare(read_jobs(tmp_path))
    assert {arm.task for arm in comparison.arms} == {("100",), ("1000",), ("null",)}
    assert [(entry.arm.label, entry.reference.label) for entry in comparison.differences["reward"]] == [
        ("rose 100", "random 100")
    ]
    assert row_of(text_of(tmp_path), "rose", "100")[3].startswith("**")


def test_selecting_models_compete_where_one_student_is_trained(tmp_path: Path):
    for model in ("small", "large"):
        for method, reward in (("rose", 0.6), ("random", 0.2)):
            metrics = {"reward": reward + 0.1 * (model == "large"), "zero_shot/reward": 0.3}
            write_job(tmp_path / f"{method}-{model}", metrics, method=method, model=model, student="deep")
    text, comparison = text_of(tmp_path), compare(read_jobs(tmp_path))
    assert "In every job: dataset world, preference world, projection trak, ratio 0.05, student deep." in text
    assert [arm.label for arm in comparison.arms] == [
        *("zero_shot", "random large", "rose large", "random small", "rose small")
    ]
    assert comparison.settings == [()]
    assert "rose large: better than random large: cannot tell" in text
    frame = collect(tmp_path)
    assert list(frame.columns[:3]) == ["student", "method", "model"]
    assert frame[frame["method"] == "zero_shot"][["student", "model"]].fillna("").values.tolist() == [["deep", ""]]


def test_a_job_without_a_student_competes_where_its_own_model_is_the_student(tmp_path: Path):
    for model, student in (("small", "large"), ("large", ""), ("small", "")):
        write_job(tmp_path / f"{model}-{student}", {"zero_shot/reward": 0.3}, model=model, student=student)
    comparison = compare(read_jobs(tmp_path))
    assert comparison.columns == ["method", "model", "student"]
    tasks = {(arm.label, arm.task) for arm in comparison.arms}
    assert tasks == {
        *(("zero_shot large", ("large",)), ("zero_shot small", ("small",))),
        *(("rose large large", ("large",)), ("rose small large", ("large",)), ("rose small small", ("small",))),
    }


def test_failed_and_unfinished_jobs_stay_in_both(sweep: Path):
    write_job(sweep / "rose-3", None, "failed", "CUDA out of memory\nat line 3", seed=3)
    write_job(sweep / "rose-4", {"reward": 0.0}, "running", seed=4)
    write_job(sweep / "rose-5", None, None, seed=5)
    (sweep / "rose-6").mkdir()
    (sweep / "rose-6" / "status.json").write_text('{"state": "do')
    frame = collect(sweep)
    assert sorted(frame["state"][frame["state"] != "done"]) == ["failed", "missing", "running", "unreadable"]
    text = text_of(sweep)
    assert row_of(text, "rose")[1:3] == ["3 of 6", f"**{student(0.7, 0.8, 0.9)}**"]
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
    assert row_of(text, "rose", "1.0") == ["rose", "1.0", "2", student(1.0, 2.0)]


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
    assert row_of(text, "rose")[1:3] == ["2", "0.400"]


def test_a_sweep_reports_the_jobs_of_its_last_command_begun_or_not(tmp_path: Path):
    write_job(tmp_path / "old", metrics={"reward": 0.9})
    write_job(tmp_path / "new", metrics={"reward": 0.1})
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": ["new", "never-begun"]}))
    assert collect(tmp_path)["state"].tolist() == ["missing", "done"]
    assert "never-begun (missing)" in text_of(tmp_path)


def paired_sweep(folder: Path, gain: float, items: int = 200) -> None:
    """rose is better than random by `gain` on every prompt and seed, but for a little noise; prompts differ a lot."""
    generator = numpy.random.default_rng(0)
    prompts = generator.normal(0, 1, items)
    for seed in range(3):
        for method, shift in (("rose", gain), ("random", 0.0)):
            job = folder / f"{method}-{seed}"
            reward = prompts + shift + generator.normal(0, 0.02, items)
            write_job(job, {"reward": float(reward.mean())}, method=method, seed=seed)
            write_items(job / "items.parquet", {"reward": reward.tolist()})


def test_items_pair_what_seeds_alone_could_not_tell(tmp_path: Path):
    paired_sweep(tmp_path, gain=0.02)
    jobs = read_jobs(tmp_path)
    comparison = compare(jobs)
    (difference,) = comparison.differences["reward"]
    assert (difference.estimate.seeds, difference.estimate.items) == (3, 200)
    assert difference.estimate.mean == pytest.approx(0.02, abs=0.005)
    assert difference.estimate.high - difference.estimate.low < 0.03  # the prompts' own spread gives ± 0.14
    assert difference.better("reward") is True
    assert comparison.stability[()]["rose"] > 0.99
    assert "- rose: better than random: yes, +0.0" in render(jobs, comparison, "x")
    widths = [e.high - e.low for e in comparison.estimates["reward"]]
    assert all(0.2 < width < 0.4 for width in widths)  # 2 × 1.96 / √200


def test_one_measurement_under_two_names_competes_once(tmp_path: Path):
    """Though one is not finished, and only in its own setting."""
    paired_sweep(tmp_path, gain=0.5)
    alone = compare(read_jobs(tmp_path))
    for seed in range(3):
        original = tmp_path / f"rose-{seed}"
        metrics = json.loads((original / "metrics.json").read_text())
        for method, preference in (("alias", "world"), ("fewer", "world"), ("other", "se")):
            job = tmp_path / f"{method}-{seed}"
            write_job(job, metrics, method=method, seed=seed, preference=preference)
            shutil.copy(original / "items.parquet", job / "items.parquet")
    (tmp_path / "fewer-2" / "status.json").write_text('{"state": "missing"}')
    comparison, text = compare(read_jobs(tmp_path)), text_of(tmp_path)
    same = {arm.method: arm.same_as.method for arm in comparison.arms if arm.same_as}
    assert same == {"fewer": "alias", "rose": "alias"}
    assert row_of(text, "rose", "world") == ["rose", "world", "3", "the same as alias world"]
    assert row_of(text, "alias", "world")[3] == f"**{row_of(text, 'other', 'se')[3]}**"
    assert comparison.stability[("world",)] == {
        "alias world": alone.stability[()]["rose"],
        "random world": alone.stability[()]["random"],
    }
    assert [entry.p for entry in comparison.differences["reward"]] == [e.p for e in alone.differences["reward"]]


def test_a_reference_stands_for_what_is_the_same(tmp_path: Path):
    for seed in range(2):
        for method in ("full", "less", "random"):
            write_job(tmp_path / f"{method}-{seed}", {"reward": 0.5}, method=method, seed=seed, result=f"all-{seed}")
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.6}, method="rose", seed=seed)
    comparison = compare(read_jobs(tmp_path))
    assert {arm.method: arm.same_as and arm.same_as.method for arm in comparison.arms} == {
        "full": "random", "less": "random", "random": None, "rose": None,
    }  # fmt: skip
    assert [(e.arm.method, e.reference.method) for e in comparison.differences["reward"]] == [("rose", "random")]


def test_arms_without_a_seed_in_common_are_said_to_be_so(tmp_path: Path):
    for seed in range(2):
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.5}, method="rose", seed=seed)
        write_job(tmp_path / f"random-{seed}", {"reward": 0.1}, method="random", seed=seed + 2)
    assert "rose: better than random: cannot tell, no seed in common" in text_of(tmp_path)


def test_one_seed_with_items_is_an_interval_over_prompts_and_no_verdict(tmp_path: Path):
    paired_sweep(tmp_path, gain=1.0)
    for seed in (1, 2):
        for method in ("rose", "random"):
            shutil.rmtree(tmp_path / f"{method}-{seed}")
    text = text_of(tmp_path)
    assert "better than random: cannot tell with n = 1 seed" in text
    assert "one seed says nothing of other seeds" in text
    assert "(" in row_of(text, "rose")[2]
    assert "**" not in text


def test_a_job_whose_judging_failed_keeps_its_other_metrics_and_the_gap_shows(sweep: Path):
    write_job(sweep / "rose-3", {"preference_accuracy": 0.75}, "failed", "judge: connection refused", seed=3)
    rose = row_of(text_of(sweep), "rose")
    assert rose[1] == "3 of 4"
    assert rose[2] == f"**{student(0.7, 0.8, 0.9)}**"
    assert rose[3] == student(0.6, 0.7, 0.8, 0.75) + ", n=4"
    assert "- rose-3 (failed, kept what it had measured): judge: connection refused" in text_of(sweep)


def test_the_base_model_s_items_come_from_its_own_stage(tmp_path: Path):
    sweep = tmp_path / "sweeps" / "demo"
    for seed in range(2):
        job = sweep / f"rose-{seed}"
        write_job(job, {"win_rate": 0.75, "zero_shot/win_rate": 0.5, "zero_shot/chosen_loss": 2.0}, seed=seed)
        write_items(job / "items.parquet", {"win_rate": [1.0, 1.0, 1.0, 0.0] * 10})
        stages = {"zero_shot": {"dir": "stages/evaluation/base"}, "zero_shot_verdicts": {"dir": "stages/verdicts/base"}}
        (job / "stages.json").write_text(json.dumps({"evaluation": {"dir": f"stages/evaluation/{seed}"}} | stages))
    write_items(tmp_path / "stages" / "evaluation" / "base" / "items.parquet", {"chosen_loss": [2.0] * 40})
    write_items(tmp_path / "stages" / "verdicts" / "base" / "items.parquet", {"win_rate": [0.0, 1.0] * 20})
    comparison = compare(read_jobs(sweep))
    base = comparison.estimates["win_rate"][0]
    assert comparison.arms[0].method == "zero_shot"
    assert (base.seeds, base.items, base.mean) == (1, 40, 0.5)
    assert comparison.estimates["chosen_loss"][0].mean == 2.0
    assert comparison.stability[()]["rose"] > 0.9


def test_an_unreadable_items_file_is_said_and_costs_the_items_alone(tmp_path: Path):
    paired_sweep(tmp_path, gain=0.5, items=20)
    (tmp_path / "rose-1" / "items.parquet").write_text("no parquet")
    text = text_of(tmp_path)
    assert "rose-1/items.parquet cannot be read" in text
    assert row_of(text, "rose")[1] == "3"


def test_holm_corrects_over_all_lines_shown(tmp_path: Path):
    generator = numpy.random.default_rng(0)
    for method in ("random", "less", "rose", "bm25"):
        for seed in range(4):
            write_job(tmp_path / f"{method}-{seed}", {"reward": generator.normal()}, method=method, seed=seed)
    differences = compare(read_jobs(tmp_path)).differences["reward"]
    pairs = [(entry.arm.method, entry.reference.method) for entry in differences]
    assert pairs == [(m, "random") for m in ("bm25", "less", "rose")] + [(m, "less") for m in ("bm25", "rose")]
    expected = multipletests([entry.estimate.p for entry in differences], method="holm")[1]
    assert [entry.p for entry in differences] == pytest.approx(list(expected))
    rewards = {
        name: [json.loads((tmp_path / f"{name}-{s}" / "metrics.json").read_text())["reward"] for s in range(4)]
        for name in ("rose", "less")
    }
    assert differences[-1].estimate.p == pytest.approx(stats.ttest_rel(rewards["rose"], rewards["less"]).pvalue)
