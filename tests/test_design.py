"""What is said before a sweep's first job: how many prompts and seeds there will be, and what they can tell."""

import json
from pathlib import Path

import numpy
from hydra import initialize_config_dir
from small_sweep import SMALL, SWEEP
from statsmodels.stats.power import TTestPower

from rose import pipeline
from rose.config import CONF
from rose.config.compose import sweep, typed
from rose.plan import main
from rose.run import design, plan
from rose.run.callback import LookAhead
from rose.stages.build import build

OTHERS = ["model=local", "model.base.path=some/model", "projection=sketch", "judge=none", "preference=local"]


def told(composed, jobs: list[list[str]], *common: str) -> list[str]:
    configs = [typed(composed(*common, *job)) for job in jobs]
    return design.foretell(configs, list(map(pipeline.stages, configs)))


def write_pairs(path: Path, prompts: list[str]) -> list[str]:
    """A file of pairs, all of them test pairs too; the options that read it."""
    rows = [{"prompt": prompt, "chosen": f"yes {n}", "rejected": f"no {n}"} for n, prompt in enumerate(prompts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*OTHERS, f"preference.path={path}", f"preference.test_path={path}"]


def test_the_numbers_are_statsmodels(composed, tmp_path):
    jobs = [[f"method={method}", f"seed={seed}"] for method in ("rose", "random") for seed in (0, 1, 2)]
    (line,) = told(composed, jobs, *SMALL, "preference.pairs.world.tests=120", f"outputs={tmp_path}")
    power = TTestPower()
    prompts, seeds = (numpy.ravel(power.solve_power(nobs=count, alpha=0.05, power=0.8))[0] for count in (120, 3))
    assert line.startswith(
        "world: 120 test prompts, 3 seeds a method. The smallest difference that 120 prompts tell (80 %"
    )
    assert f"in win rate or preference accuracy: {0.5**0.5 * prompts:.3f} between two models that agree on half" in line
    assert f", {0.5 * 0.5**0.5 * prompts:.3f} on 7 of 8" in line
    assert f"in log_ratio_margin: {prompts:.3f} standard deviations between prompts" in line
    assert f"between methods: {seeds:.3f} standard deviations of what differs between seeds" in line


def test_prompts_are_counted_where_they_are_and_pairs_of_one_are_one(composed, tmp_path):
    options = write_pairs(tmp_path / "pairs.jsonl", ["a?", "b?", "a?", "c?", "a?"])
    (line,) = told(composed, [[]], *options, f"outputs={tmp_path}/outputs")
    assert line.startswith("local: 3 test prompts, 1 seed a method.")
    assert "in preference accuracy: none between two models" in line and "one seed says nothing of methods" in line
    assert not (tmp_path / "outputs").exists()


def test_what_is_finished_is_counted_however_large(composed, tmp_path, monkeypatch):
    options = [*write_pairs(tmp_path / "pairs.jsonl", ["a?", "b?", "a?"]), f"outputs={tmp_path}"]
    monkeypatch.setattr(design, "CHEAP", 10)
    (line,) = told(composed, [[]], *options)
    assert line.startswith("local: not known yet how many test prompts") and "that 200 prompts tell" in line
    build(pipeline.stages(typed(composed(*options)))["preferences"], tmp_path)
    (line,) = told(composed, [[]], *options)
    assert line.startswith("local: 2 test prompts")


def test_pairs_of_the_hub_are_not_fetched_to_be_counted(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*OTHERS, "preference.path=some/pairs", f"outputs={tmp_path}"]
    (line,) = told(composed, [[]], *options)
    assert line.startswith("local: not known yet how many test prompts")


def test_of_planted_pairs_there_are_about_as_many_as_rows_set_aside_for_tests(composed, tmp_path):
    options = ["preference=planted", "plant=swap", "plant.aside=40", "judge=none", f"outputs={tmp_path}"]
    (line,) = told(composed, [[]], *options)
    assert line.startswith("planted: about 36 test prompts")  # nine of ten


def test_seeds_are_the_models_of_the_arm_that_has_fewest(composed, tmp_path):
    jobs = [["method=rose", f"seed={seed}"] for seed in (0, 1, 2)]
    jobs += [["method=random", f"finetune.seed={seed}"] for seed in (0, 1)]
    jobs += [["method=less"], ["method=zero_shot"]]
    for count, seeds in ((3, 3), (5, 2), (6, 1), (7, 1)):
        (line,) = told(composed, jobs[:count], *SMALL, f"outputs={tmp_path}")
        assert f" {seeds} seed" in line
    (line,) = told(composed, [*jobs[:3], jobs[6]], *SMALL, f"outputs={tmp_path}")
    assert " 3 seeds" in line


def test_where_nothing_is_measured_nothing_is_said(composed, tmp_path):
    assert told(composed, [["until=selection"]], *SMALL, f"outputs={tmp_path}") == []


def test_each_kind_of_test_pairs_has_a_line_and_another_seed_is_none(composed, tmp_path):
    jobs = [[f"world.seed={seed}", f"preference.pairs.world.tests={tests}"] for tests in (8, 16) for seed in (0, 1)]
    lines = told(composed, jobs, *SMALL, f"outputs={tmp_path}")
    assert [line.split(" a method")[0] for line in lines] == [f"world: {n} test prompts, 2 seeds" for n in (8, 16)]


def test_plan_and_sweep_say_it_before_the_first_job(tmp_path, capsys):
    arguments = [*SWEEP[1:], *SMALL, f"outputs={tmp_path}"]
    main(arguments)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "test prompts" in line]
    assert line.startswith("world: 8 test prompts, 2 seeds a method.")
    plan.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        LookAhead().on_multirun_start(sweep(arguments))
    assert line in capsys.readouterr().out.splitlines()
    assert not list(tmp_path.glob("sweeps/*/*/status.json"))
