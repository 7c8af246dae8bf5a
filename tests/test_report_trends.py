"""Arms along a column of numbers: a figure's lines, and whether better slices of a ranking make better models."""

from itertools import permutations
from pathlib import Path

import pytest
from report_jobs import write_job

from rose.report.comparison import compare
from rose.report.figures import curve
from rose.report.results import read_jobs
from rose.report.table import render
from rose.report.trends import order


def legend_of(sweep: Path, column: str) -> dict[str, list[list[float]]]:
    """The points of each line of a curve, by what the legend calls it."""
    drawing = curve(compare(read_jobs(sweep)), "reward", column)
    axes = drawing.figure.axes[0]
    handles, labels = axes.get_legend_handles_labels()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == labels
    assert len(set(labels)) == len(handles)
    lines = [handle[0] if isinstance(handle, tuple) else handle for handle in handles]
    return {label: line.get_xydata().tolist() for label, line in zip(labels, lines, strict=True)}


def test_the_legend_of_a_ratio_sweep_names_each_line_by_its_method(tmp_path: Path):
    for method, reward in (("random", 1), ("less", 2), ("rose", 3)):
        for ratio in (0.25, 0.5):
            metrics = {"reward": reward + ratio, "zero_shot/reward": 0.0}
            write_job(tmp_path / f"{method}-{ratio}", metrics, method=method, ratio=ratio)
    assert legend_of(tmp_path, "ratio") == {
        "zero_shot": [[0.0, 0.0], [1.0, 0.0]],  # a level, from side to side
        "less": [[0.25, 2.25], [0.5, 2.5]],
        "random": [[0.25, 1.25], [0.5, 1.5]],
        "rose": [[0.25, 3.25], [0.5, 3.5]],
    }


def test_a_number_in_a_legend_has_its_column_s_name_and_zero_is_a_number(tmp_path: Path):
    for beta in (0, 2):
        for ratio in (0.25, 0.5):
            job, overrides = tmp_path / f"{beta}-{ratio}", (f"preference.beta={beta}",)
            write_job(job, {"reward": beta + ratio}, beta=beta, ratio=ratio, overrides=overrides)
    assert legend_of(tmp_path, "ratio") == {
        "rose preference.beta 0": [[0.25, 0.25], [0.5, 0.5]],
        "rose preference.beta 2": [[0.25, 2.25], [0.5, 2.5]],
    }
    assert legend_of(tmp_path, "preference.beta")["rose ratio 0.5"] == [[0.0, 0.5], [2.0, 2.5]]


def write_slices(sweep: Path, method: str, rewards: dict[int, float]) -> None:
    for part, reward in rewards.items():
        metrics = {"reward": reward, "chosen_loss": reward}
        overrides = (f"selection.slice={part}",)
        write_job(sweep / f"{method}-{part}", metrics, method=method, part=part, overrides=overrides)


def test_a_better_slice_that_makes_a_better_model_is_said_a_metric_a_line(tmp_path: Path):
    write_slices(tmp_path, "rose", {1: 0.9, 3: 0.8, 5: 0.7, 8: 0.6, 10: 0.5})
    write_slices(tmp_path, "random", {1: 0.5, 3: 0.5, 5: 0.5, 8: 0.5, 10: 0.5})  # no order at all
    jobs = read_jobs(tmp_path)
    lines = [line for line in render(jobs, compare(jobs), "bins").splitlines() if "Better slice" in line]
    assert [line.split("?")[0].rpartition(" ")[2] for line in lines] == ["reward", "chosen_loss"]
    assert lines[0].endswith("uncorrected: rose +1.000 (p 0.017, 5 slices).")  # 2 of 120 orders
    assert lines[1].endswith("uncorrected: rose −1.000 (p 0.017, 5 slices).")  # lower is better


def test_three_slices_have_no_order(tmp_path: Path):
    write_slices(tmp_path, "rose", {1: 0.9, 5: 0.7, 10: 0.5})
    jobs = read_jobs(tmp_path)
    assert "Better slice" not in render(jobs, compare(jobs), "bins")


def test_an_order_s_p_is_the_share_of_all_orders_that_are_as_far_from_none():
    squares = [sum((a - b) ** 2 for a, b in zip(range(5), other, strict=True)) for other in permutations(range(5))]
    as_far = sum(abs(1 - 6 * square / (5 * 24)) >= 0.9 - 1e-9 for square in squares)  # Spearman's formula without ties
    assert order([1, 3, 5, 8, 10], [5, 4, 3, 1, 2]) == (pytest.approx(0.9), pytest.approx(as_far / 120))
