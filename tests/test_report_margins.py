"""Margins in a report, paired by prompt; what prompts and seeds could tell, by statsmodels and by trial."""

from pathlib import Path

import numpy
import pytest
from report_jobs import row_of, text_of, write_items, write_job
from scipy import stats
from statsmodels.stats.power import TTestPower

from rose.evaluation.evaluate import MATCHED
from rose.report.comparison import compare
from rose.report.headlines import is_it_real
from rose.report.results import read_jobs
from rose.report.statistics import (
    Estimate,
    errors_needed,
    from_items,
    least_told,
    least_told_by_prompts,
    prompts_needed,
)

NAN = numpy.nan


def seen(mean: float, deviation: float) -> Estimate:
    return Estimate(1, 9, mean, deviation=deviation, prompts=9)


def test_a_sample_is_as_large_as_statsmodels_says():
    assert errors_needed() == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-5)
    for prompts in (3, 10, 200):
        ours = least_told_by_prompts(2.0, prompts)
        assert ours == pytest.approx(2 * TTestPower().solve_power(nobs=prompts, alpha=0.05, power=0.8), rel=1e-3)
    for effect in (0.05, 0.2, 0.5, 1.0, 2.0):
        theirs = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
        assert prompts_needed(seen(3 * effect, 3.0)) == prompts_needed(seen(-effect, 1.0)) == numpy.ceil(theirs)


def test_no_difference_and_no_spread_need_no_number_of_prompts():
    assert all(
        numpy.isnan([prompts_needed(seen(0.0, 1.0)), prompts_needed(seen(1.0, 0.0)), prompts_needed(seen(1, NAN))])
    )


def test_given_models_so_many_prompts_tell_such_a_difference_four_times_of_five():
    generator = numpy.random.default_rng(0)
    differences = generator.normal(least_told_by_prompts(1.5, 60), 1.5, (2000, 60))
    told = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert told.mean() == pytest.approx(0.8, abs=3 * (0.8 * 0.2 / 2000) ** 0.5)


@pytest.mark.parametrize(("seeds", "between", "shared", "own"), [(2, 0.2, 1, 1), (3, 0.2, 1, 1), (3, 0, 0.3, 1)])
def test_so_many_seeds_and_prompts_tell_such_a_difference_four_times_of_five(seeds, between, shared, own):
    """The report's own test, of a spread between seeds, one of prompts that seeds share, and each pair's own."""
    generator, prompts = numpy.random.default_rng(0), numpy.arange(50)
    least = least_told(seeds, between**2 + own**2 / 50, shared**2 / 50)
    told = 0
    for _ in range(400):
        values = least + generator.normal(0, between, (seeds, 1)) + generator.normal(0, own, (seeds, 50))
        told += from_items(values + generator.normal(0, shared, 50), prompts).p < 0.05
    assert 0.8 - 2.5 * 0.02 <= told / 400 <= 0.83 + 2.5 * 0.02  # two standard errors and a half


def test_a_deviation_is_that_of_the_prompts_means():
    """By hand: prompts of 1, 2, 3 and 6 have a mean of 3 and a deviation of √(14 / 3)."""
    one = from_items(numpy.array([[0.0, 2.0, 2.0, 3.0, 6.0]]), numpy.array([0, 0, 1, 2, 3]))
    assert (one.prompts, one.items, one.mean) == (4, 5, 3)
    assert one.deviation == pytest.approx((14 / 3) ** 0.5)
    two = from_items(numpy.array([[1.0, 2.0, 3.0, 6.0], [3.0, 4.0, 5.0, 8.0]]), numpy.arange(4))
    assert two.deviation == pytest.approx((14 / 3) ** 0.5)


MARGINS = {"log_ratio_margin": [2.0, 4.0, 6.0, 8.0], "log_ratio_margin_per_token": [0.1, 0.2, 0.3, 0.4]}
MATCHING = {"log_ratio_margin_matched": [2.0, 4.0, NAN, NAN]}


def write_sweep(folder: Path, margins: dict[str, list[float]], gain: float = 3.0) -> None:
    """One seed of random with these margins and of rose with `gain` more, and ±1 in turn; accuracy 1/2 and 1."""
    for method, more in (("random", 0.0), ("rose", gain)):
        turns = numpy.array([1.0, -1.0, 1.0, -1.0]) * (more > 0)
        columns = {name: (numpy.array(values) + more + turns).tolist() for name, values in margins.items()}
        columns["preference_accuracy"] = [1.0, 1.0, float(more > 0), float(more > 0)]
        metrics = {name: float(numpy.nanmean(values)) for name, values in columns.items()}
        write_job(folder / method, metrics, method=method)
        write_items(folder / method / "items.parquet", columns)


def test_each_margin_is_paired_by_prompt_and_its_spread_says_what_could_be_told(tmp_path: Path):
    write_sweep(tmp_path, MARGINS | MATCHING)
    text = text_of(tmp_path)
    differences, could = (part for part in text.split("\n\n") if part.startswith("| method | against"))
    cells = row_of(differences, "rose", "random")[2:]
    assert [cell.split()[0] for cell in cells] == ["+3.000", "+3.000", "+3.000", "+0.500"]
    deviation = (4 / 3) ** 0.5  # of 4, 2, 4 and 2
    power = TTestPower()
    told = deviation * power.solve_power(nobs=4, alpha=0.05, power=0.8)
    needed = power.solve_power(effect_size=3 / deviation, alpha=0.05, power=0.8)
    half = (1 / 3) ** 0.5  # of 0, 0, 1 and 1
    least = power.solve_power(effect_size=0.5 / half, alpha=0.05, power=0.8)
    assert row_of(could, "rose", "random")[2:] == [
        *(f"{deviation:.3f}", f"{told:.3f}", "–", f"{numpy.ceil(needed):.0f}"),
        *(f"{half:.3f}", f"{told * half / deviation:.3f}", "–", f"{numpy.ceil(least):.0f}"),
    ]
    assert f"At matched length: 2 of 4 pairs; the longer answer has at most {MATCHED:g} times" in text
    assert "What 4 prompts could tell" in text


def test_the_first_screen_has_the_leading_arm_s_margins(tmp_path: Path):
    write_sweep(tmp_path, MARGINS | MATCHING)
    line = is_it_real(compare(read_jobs(tmp_path)))[-1]
    assert line.startswith("rose against random: log_ratio_margin +3.000")
    assert ", per token +3.000 (" in line and ", at matched length +3.000" in line


def test_what_older_jobs_have_not_measured_is_not_shown(tmp_path: Path):
    write_sweep(tmp_path / "older", {"log_ratio_margin": MARGINS["log_ratio_margin"]})
    text = text_of(tmp_path / "older")
    assert " log_ratio_margin |" in text and "needed" in text
    assert "per token" not in text and "matched length" not in text
    write_sweep(tmp_path / "none", {})
    text = text_of(tmp_path / "none")
    assert "margin" not in text and "needed" not in text and "could tell" not in text
    assert not [line for line in is_it_real(compare(read_jobs(tmp_path / "none"))) if "margin" in line]
