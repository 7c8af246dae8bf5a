"""Who competes with whom in a report, and what is told from what; every expected number is worked out in the test."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from report_jobs import collect, mean_and_interval, paired_sweep, row_of, text_of, write_items, write_job
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rose.report.comparison import compare
from rose.report.headlines import is_told, who_won
from rose.report.results import read_jobs
from rose.report.table import render


def test_bold_only_what_is_told_from_all_others(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.01, -0.01, 0.005)):
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.9 + noise}, method="rose", seed=seed)
        write_job(tmp_path / f"less-{seed}", {"reward": 0.5 - noise}, method="less", seed=seed)
        write_job(tmp_path / f"bm25-{seed}", {"reward": 0.4 + 40 * noise}, method="bm25", seed=seed)
    text = text_of(tmp_path)
    assert row_of(text, "rose")[2] == mean_and_interval(0.9, 0.91, 0.89, 0.905)  # bm25 is too uncertain
    for seed in range(4):
        (tmp_path / f"bm25-{seed}" / "metrics.json").write_text('{"reward": 0.4}')
    assert row_of(text_of(tmp_path), "rose")[2] == f"**{mean_and_interval(0.9, 0.91, 0.89, 0.905)}**"


def test_bold_never_goes_beyond_what_the_lines_say(tmp_path: Path):
    """rose is told from all others if its own comparisons are all there are, and not in one family with the rest."""
    for seed, (one, other) in enumerate([(-1, 1), (0, -2), (1, 1)]):
        rewards = {"rose": 0.9, "less": 0.6 - 0.092 * one, "random": 0.2 + 0.002 * other, "full": 0.2 - 0.01 * other}
        for method, reward in rewards.items():
            write_job(tmp_path / f"{method}-{seed}", {"reward": reward}, method=method, seed=seed)
    comparison = compare(read_jobs(tmp_path))
    to_random, to_less = comparison.to("reward", comparison.arms[-1])
    assert 0.025 < to_less.estimate.p < 0.05  # the greatest of three: Holm leaves it as it is
    assert (to_random.better, to_less.better) == (True, None)
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
    assert row_of(text, "rose")[2] == f"**{mean_and_interval(1.0, 1.1, 1.05)}**"
    assert row_of(text, "less")[2] == mean_and_interval(3.0, 3.1, 3.11)


def test_methods_compete_within_one_preference_set(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.01, 0.03)):
        for method, preference, reward in (("rose", "se", 0.8), ("less", "se", 0.2 - noise), ("rose", "shp", 0.9)):
            metrics = {"reward": reward + noise}
            write_job(
                tmp_path / f"{method}-{preference}-{seed}", metrics, method=method, preference=preference, seed=seed
            )
    text = text_of(tmp_path)
    assert row_of(text, "rose", "se")[3] == f"**{mean_and_interval(0.8, 0.81, 0.83)}**"
    assert row_of(text, "rose", "shp")[3] == mean_and_interval(0.9, 0.91, 0.93)
    assert "rose se: better than less: yes" in text
    assert "rose shp: better" not in text


def test_methods_compete_at_equal_ratio_and_with_the_base_model(tmp_path: Path):
    for seed, noise in enumerate((0.0, 0.002, -0.001)):
        rewards = {("rose", 0.1): 0.3, ("less", 0.1): 0.2, ("rose", 0.2): 0.3, ("less", 0.2): 0.4}
        for (method, ratio), reward in rewards.items():
            metrics = {"reward": reward + noise * (1 + (method == "less")), "zero_shot/reward": 0.35 - noise}
            write_job(tmp_path / f"{method}-{ratio}-{seed}", metrics, method=method, ratio=ratio, seed=seed)
    text = text_of(tmp_path)
    assert row_of(text, "rose", "0.1")[3] == mean_and_interval(0.3, 0.302, 0.299)  # beats less, not the base model
    assert row_of(text, "less", "0.2")[3] == f"**{mean_and_interval(0.4, 0.404, 0.398)}**"


def test_rows_of_other_budgets_do_not_compete(tmp_path: Path):
    """A budget of null is one of its own; it does not stand for all."""
    for seed, noise in enumerate((0.0, 0.002, -0.001)):
        rewards = {("rose", 100): 0.6, ("random", 100): 0.2, ("random", 1000): 0.8, ("rose", "null"): 0.9}
        for (method, count), reward in rewards.items():
            own = {"reward": reward + noise * (1 + (method == "random"))}
            job = tmp_path / f"{method}-{count}-{seed}"
            write_job(job, own, method=method, count=count, seed=seed, overrides=(f"selection.count={count}",))
    comparison = compare(read_jobs(tmp_path))
    assert {arm.setting for arm in comparison.arms} == {("100",), ("1000",), ("null",)}
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
    tasks = {(arm.label, arm.setting) for arm in comparison.arms}
    assert tasks == {
        *(("zero_shot large", ("large",)), ("zero_shot small", ("small",))),
        *(("rose large large", ("large",)), ("rose small large", ("large",)), ("rose small small", ("small",))),
    }


def test_items_pair_what_seeds_alone_could_not_tell(tmp_path: Path):
    paired_sweep(tmp_path, gain=0.02)
    jobs = read_jobs(tmp_path)
    comparison = compare(jobs)
    (difference,) = comparison.differences["reward"]
    assert (difference.estimate.seeds, difference.estimate.items) == (3, 200)
    assert difference.estimate.mean == pytest.approx(0.02, abs=0.005)
    assert difference.estimate.high - difference.estimate.low < 0.03  # the prompts' own spread gives ± 0.14
    assert difference.better is True
    assert comparison.stability[()]["rose"] > 0.99
    assert "- rose: better than random: yes, +0.0" in render(jobs, comparison, "x")
    widths = [e.high - e.low for e in comparison.estimates["reward"].values()]
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


def test_holm_corrects_over_the_planned_comparisons_and_over_the_others(tmp_path: Path):
    """Planned: each method against random, and those that go by rewards against LESS, in the main metric."""
    generator, rewards = numpy.random.default_rng(0), {}
    targets = {"random": "null", "less": "chosen", "rose": "preference", "bm25": "null", "mine": "preference"}
    for method, target in targets.items():
        for seed in range(4):
            own, base = rewards.setdefault(method, generator.normal(size=4))[seed], generator.normal()
            metrics = {"reward": own, "chosen_loss": own**2, "zero_shot/reward": base, "zero_shot/chosen_loss": base}
            write_job(tmp_path / f"{method}-{seed}", metrics, method=method, seed=seed, target=target)
    comparison = compare(read_jobs(tmp_path))
    entries = {(entry.arm.method, entry.reference.method): entry for entry in comparison.differences["reward"]}
    planned = [("bm25", "random"), ("less", "random"), ("mine", "random"), ("rose", "random")]
    planned += [("mine", "less"), ("rose", "less")]
    exploratory = [("zero_shot", "random"), ("zero_shot", "less"), ("bm25", "less")]
    assert {pair for pair, entry in entries.items() if entry.planned} == {*planned}
    assert entries.keys() == {*planned, *exploratory}
    for family in (planned, exploratory):
        p = [entries[pair].estimate.p for pair in family]
        assert [entries[pair].p for pair in family] == pytest.approx(list(multipletests(p, method="holm")[1]))
        assert {entries[pair].family for pair in family} == {len(family)}
    assert entries["rose", "less"].estimate.p == pytest.approx(stats.ttest_rel(rewards["rose"], rewards["less"]).pvalue)
    others = comparison.differences["chosen_loss"]
    assert not any(entry.planned for entry in others)
    assert [e.p for e in others] == pytest.approx(list(multipletests([e.estimate.p for e in others], method="holm")[1]))
    text = text_of(tmp_path)
    assert "Planned, one family of 6: each method against random and those that go by rewards against less" in text
    assert "in reward (bm25, less, mine, rose against random; mine, rose against less)." in text
    assert "Exploratory: the other 3, a family of their own, and every other metric." in text
    assert "bm25: better than random: " in text and "; better than less (exploratory): " in text


def headline(folder: Path, rewards: dict[str, list[float]]) -> str:
    for method, values in rewards.items():
        for seed, reward in enumerate(values):
            write_job(folder / f"{method}-{seed}", {"reward": reward}, method=method, seed=seed)
    comparison = compare(read_jobs(folder))
    (line,) = who_won(comparison)
    assert is_told(comparison) == ("told from all others" in line)
    return line


def test_the_first_screen_says_who_leads_and_who_won_where_that_is_told(tmp_path: Path):
    less, close, far = [0.2, 0.4, 0.6], [0.3, 0.7, 0.6], [0.7, 0.91, 1.1]
    assert headline(tmp_path / "close", {"less": less, "rose": close}).startswith(
        "rose leads; three seeds cannot tell: it has the highest reward, 0.533 ("
    )
    assert headline(tmp_path / "far", {"less": less, "rose": far}).startswith("rose has the highest reward, 0.903 (")
    assert headline(tmp_path / "one", {"less": less[:1], "rose": far[:1]}) == (
        "rose leads; one seed cannot tell: it has the highest reward, 0.700, before less with 0.200."
    )
    assert headline(tmp_path / "untested", {"bm25": less, "rose": far}).startswith(
        "rose leads; without random or less nothing tells: it has the highest reward, 0.903 ("
    )
    assert headline(tmp_path / "alone", {"rose": [0.5]}) == "rose alone was measured: reward 0.500."


def test_a_share_of_wins_is_no_answer_where_nothing_is_told(tmp_path: Path):
    paired_sweep(tmp_path, gain=0.02)
    comparison = compare(read_jobs(tmp_path))
    assert "resamples" in who_won(comparison)[0]
    (difference,) = comparison.differences["reward"]
    unsure = replace(difference, p=0.18)
    (line,) = who_won(replace(comparison, differences={"reward": [unsure]}, best={"reward": set()}))
    assert "leads; three seeds cannot tell" in line and "resamples" not in line


def test_an_interval_that_only_the_correction_widens_past_zero_says_so(tmp_path: Path):
    rewards = {"rose": [1.0, 1.1, 1.5], "less": [0.5, 0.1, 0.9], "bm25": [0.1, 0.4, 0.3], "random": [0.3, 0.3, 0.4]}
    for method, values in rewards.items():
        for seed, reward in enumerate(values):
            write_job(tmp_path / f"{method}-{seed}", {"reward": reward}, method=method, seed=seed)
    (line,) = [line for line in text_of(tmp_path).splitlines() if line.startswith("- rose: ")]
    low, high = stats.ttest_1samp([0.7, 0.8, 1.1], 0).confidence_interval(0.95)
    expected = f"better than random: cannot tell with n = 3 seeds, +0.867 (+{low:.3f} to +{high:.3f} before correction)"
    assert low > 0
    assert expected in line
    assert "intervals before correction." in text_of(tmp_path)


def test_equal_items_of_one_seed_have_a_difference_without_an_interval(tmp_path: Path):
    for method, losses in (("rose", [1.0, 2.0]), ("random", [2.0, 2.0])):
        write_job(tmp_path / method, {"win_rate": 0.5}, method=method)
        write_items(tmp_path / method / "items.parquet", {"win_rate": [0.0, 1.0], "chosen_loss": losses})
    assert "better than random: cannot tell with n = 1 seed, +0.000, one seed" in text_of(tmp_path)
