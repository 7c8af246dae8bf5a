"""What counts as a seed: models that were trained apart, however often each was measured."""

from pathlib import Path

import numpy
import pytest
from report_jobs import add_stages, mean_and_interval, row_of, text_of, write_items, write_job

from rose.report.comparison import Comparison, compare
from rose.report.results import read_jobs
from rose.report.selections import SweepSelections
from rose.report.suspicions import suspicions


def sweep(folder: Path, models: dict[str, int], measured: int = 3, items: int = 0, **selections: int) -> Comparison:
    """`measured` jobs a method, of `models` trained models; the last ones are the same one, tested with other seeds."""
    generator = numpy.random.default_rng(0)
    for method, count in models.items():
        for number in range(measured):
            job, model = folder / f"{method}-{number}", min(number, count - 1)
            rewards = generator.normal({"rose": 0.5, "less": 0.2}.get(method, 0.0), 0.1, items or 1)
            metrics = {"reward": float(rewards.mean()), "precision": 0.5 + 0.1 * min(number, 1)}
            write_job(job, metrics, method=method, seed=min(number, max(models.values()) - 1))
            config = job / ".hydra" / "config.yaml"
            config.write_text(f"{config.read_text().rstrip()}\n        evaluation: {{seed: {number}}}\n")
            overrides = job / ".hydra" / "overrides.yaml"
            overrides.write_text(f"{overrides.read_text()}- evaluation.seed={number}\n")
            if method != "zero_shot":
                selection = min(number, selections.get(method, count) - 1)
                add_stages(job, finetune=f"finetune/{method}-{model}", selection=f"selection/{method}-{selection}")
            add_stages(job, base="base/only")
            if items:
                write_items(job / "items.parquet", {"reward": rewards.tolist()})
    return compare(read_jobs(folder))


@pytest.mark.parametrize("items", [0, 50])
def test_seeds_are_the_models_behind_a_metric_however_often_each_was_tested(tmp_path: Path, items: int):
    comparison = sweep(tmp_path, {"rose": 1, "random": 1}, items=items)
    assert [e.seeds for e in comparison.estimates["reward"].values()] == [1, 1]
    (difference,) = comparison.differences["reward"]
    assert (difference.estimate.seeds, difference.better) == (1, None)
    assert comparison.best["reward"] == set()
    text = text_of(tmp_path)
    assert "rose: better than random: cannot tell with n = 1 seed" in text
    assert row_of(text, "rose")[1] == "1"
    assert "n counts models" in text
    said = suspicions(comparison, SweepSelections(), [], read_jobs(tmp_path))
    assert any(line.startswith("One model only for every method") for line in said)
    assert not any("is not known for every finished job" in line for line in said)


def test_a_model_that_was_tested_twice_weighs_as_one(tmp_path: Path):
    """By hand: the mean of the first model's value and of the mean of the second one's two."""
    comparison = sweep(tmp_path, {"rose": 2, "random": 2})
    values = {arm.method: [r.metrics["reward"] for r in arm.results] for arm in comparison.arms}
    expected = {method: [one, (two + three) / 2] for method, (one, two, three) in values.items()}
    assert row_of(text_of(tmp_path), "rose")[2].strip("*") == mean_and_interval(*expected["rose"])
    (difference,) = comparison.differences["reward"]
    assert difference.estimate.seeds == 2
    assert difference.estimate.mean == pytest.approx(numpy.mean(expected["rose"]) - numpy.mean(expected["random"]))


def test_differences_to_one_and_the_same_model_are_of_one_seed(tmp_path: Path):
    comparison = sweep(tmp_path, {"rose": 3, "random": 1})
    seeds = {arm.method: e.seeds for arm, e in comparison.estimates["reward"].items()}
    assert seeds == {"rose": 3, "random": 1}
    assert [entry.estimate.seeds for entry in comparison.differences["reward"]] == [1]


def test_the_base_model_is_one_and_given_so_the_seeds_are_the_others(tmp_path: Path):
    comparison = sweep(tmp_path, {"zero_shot": 1, "random": 3})
    seeds = {arm.method: e.seeds for arm, e in comparison.estimates["reward"].items()}
    assert seeds == {"zero_shot": 1, "random": 3}
    assert [entry.estimate.seeds for entry in comparison.differences["reward"]] == [3]


def test_what_a_selection_is_has_as_many_seeds_as_there_are_selections(tmp_path: Path):
    comparison = sweep(tmp_path, {"rose": 3, "random": 3}, rose=1)
    seeds = {arm.method: (comparison.estimates["reward"][arm].seeds, comparison.estimates["precision"][arm].seeds)
             for arm in comparison.arms}  # fmt: skip
    assert seeds == {"rose": (3, 1), "random": (3, 3)}


def test_the_winner_is_not_drawn_from_seeds_that_one_model_has(tmp_path: Path):
    """Three measurements of one model each: their spread is no spread of seeds, and only prompts are drawn again."""
    several = sweep(tmp_path / "several", {"rose": 1, "random": 1}, items=50).stability[()]
    one = tmp_path / "one"
    for method in ("rose", "random"):
        tables = [next(iter(_rewards(tmp_path / "several" / f"{method}-{number}"))) for number in range(3)]
        write_job(one / method, {"reward": float(numpy.mean(tables))}, method=method)
        write_items(one / method / "items.parquet", {"reward": numpy.mean(tables, axis=0).tolist()})
    assert several == pytest.approx(compare(read_jobs(one)).stability[()])


def _rewards(job: Path):
    import pandas

    yield pandas.read_parquet(job / "items.parquet")["reward"].to_numpy()
