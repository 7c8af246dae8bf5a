"""What a report finds suspicious in a sweep as a whole."""

import json
import shutil
from pathlib import Path

import pytest
from report_jobs import write_job

from rose.report.comparison import compare
from rose.report.results import read_jobs
from rose.report.selections import SweepSelections
from rose.report.suspicions import suspicions


def found(sweep: Path) -> list[str]:
    jobs = read_jobs(sweep)
    return suspicions(compare(jobs), SweepSelections(), [], jobs)


def test_a_pool_that_lost_a_tenth_of_its_rows_is_suspicious(tmp_path: Path):
    for method, lost in (("rose", 30), ("less", 29)):
        write_job(tmp_path / method, {"reward": 0.5, "pool_rows": 300, "pool_rows_dropped": lost}, method=method)
        stages = json.loads((tmp_path / method / "stages.json").read_text()) | {"tokens": {"dir": f"tokens/{method}"}}
        (tmp_path / method / "stages.json").write_text(json.dumps(stages))
    lines = [line for line in found(tmp_path) if "dropped" in line]
    assert len(lines) == 1 and lines[0].startswith("30 of 300 pool rows were dropped at tokenising, as tokens/rose/")


@pytest.mark.parametrize(
    ("pretraining", "bases", "said"),
    [("{layers: 1}", "aa", True), ("{layers: 1}", "ab", False), ("null", "aa", False)],
)
def test_a_base_model_made_here_that_all_seeds_share_is_suspicious(
    tmp_path: Path, pretraining: str, bases: str, said: bool
):
    for seed, base in enumerate(bases):
        folder = tmp_path / f"seed{seed}"
        write_job(folder, {"reward": 0.5}, seed=seed)
        config = (folder / ".hydra" / "config.yaml").read_text()
        model = f"model: {{name: tiny, base: {{pretraining: {pretraining}}}}}"
        (folder / ".hydra" / "config.yaml").write_text(config.replace("model: {name: tiny}", model))
        stages = json.loads((folder / "stages.json").read_text()) | {"base": {"dir": f"base/{base}"}}
        (folder / "stages.json").write_text(json.dumps(stages))
    assert any("one base model" in line for line in found(tmp_path)) == said


def test_processors_that_round_otherwise_are_suspicious_in_one_sweep(tmp_path: Path):
    for seed, vectors in enumerate(["AVX512", "AVX2", "AVX512", ""]):
        write_job(tmp_path / f"seed{seed}", {"reward": 0.5}, seed=seed)
        made = {"machine": {"system": "Linux x86_64", "vectors": vectors}}  # "" is of jobs before they said it
        (tmp_path / f"seed{seed}" / "provenance.json").write_text(json.dumps(made))
    both = "Processors of several kinds (AVX512 2 jobs, AVX2 1 job)"
    assert [line.partition(":")[0] for line in found(tmp_path) if line.startswith("Processors")] == [both]
    shutil.rmtree(tmp_path / "seed1")
    assert not any(line.startswith("Processors") for line in found(tmp_path))
