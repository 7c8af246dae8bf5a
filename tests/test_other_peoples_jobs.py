"""A job's folder may be anybody's: what its configuration says is read as text, and reads nothing of this machine."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from report_jobs import write_job

from rose.errors import RoseError
from rose.report.report import write_report
from rose.report.results import read_jobs
from rose.run import duel

PRIVATE = "one two three four"
READS = "${oc.env:MY_API_KEY}"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", PRIVATE)


@pytest.mark.parametrize("text", [READS, "x-${oc.env:MY_API_KEY}", "${only_the_job_knows:${oc.env:MY_API_KEY}}"])
def test_a_report_resolves_nothing_that_a_folder_says(tmp_path: Path, text: str):
    for number in range(2):
        job = tmp_path / f"rose-{number}"
        write_job(job, {"reward": 0.5}, seed=number, overrides=(f"+other.thing={text}{number}", f"+{text}.x={number}"))
        config = OmegaConf.load(job / ".hydra" / "config.yaml")
        said = {"other": {"thing": f"{text}{number}"}, "model": {"name": text}, "dataset": "${hidden}"}
        OmegaConf.save(OmegaConf.merge(config, said, {"hidden": {"name": text}}), job / ".hydra" / "config.yaml")
        hydra = {
            "hydra": {"runtime": {"choices": {"method": text, "finetune": "${hydra.runtime.secret}"}, "secret": READS}}
        }
        OmegaConf.save(OmegaConf.create(hydra), job / ".hydra" / "hydra.yaml")
    write_report(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and ".hydra" not in path.parts]
    assert {"results.csv", "report.md", "report.html", "results.parquet"} <= {path.name for path in files}
    assert not [path.name for path in files if PRIVATE.encode() in path.read_bytes()]
    assert text in (tmp_path / "results.csv").read_text()


def test_a_key_that_stands_for_another_has_its_value(tmp_path: Path):
    write_job(tmp_path, {"reward": 0.5}, seed=3)
    more = {
        "a": {"path": "here", "test": "${.path}", "deep": {"path": "${..path}"}},
        "b": "${a}",
        "c": "${b.test}",
        "loop": "${loop}",
        "gap": "???",
    }
    config = OmegaConf.load(tmp_path / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.merge(config, more), tmp_path / ".hydra" / "config.yaml")
    (job,) = read_jobs(tmp_path)
    assert [job.value(key) for key in ("seed", "warmup.seed", "projection.seed")] == [3, 3, 3]
    assert [job.value(key) for key in ("a.test", "a.deep.path", "b.path", "b.deep.path", "c")] == ["here"] * 5
    assert [job.value(key) for key in ("loop", "gap", "absent", "a.absent.x")] == ["${loop}", None, None, None]
    assert job.value("broken") == "${only_the_job_knows:this}"


def judged(folder: Path, *overrides: str) -> Path:
    """A job's folder that has answers, as far as a duel looks before it has a judge."""
    (folder / "outputs" / "stages" / "answers").mkdir(parents=True)
    job = folder / "outputs" / "runs" / "job"
    (job / ".hydra").mkdir(parents=True)
    (job / "stages.json").write_text(json.dumps({"answers": {"dir": "stages/answers"}}))
    OmegaConf.save(OmegaConf.create(list(overrides)), job / ".hydra" / "overrides.yaml")
    return job


@pytest.mark.parametrize(
    "told",
    [
        f"judge.base_url=http://{READS}/v1",
        f"+judge.request.user={READS}",
        "judge.base_url=${dataset.path}",
        f"+{READS}=1",
    ],
)
def test_a_duel_asks_nobody_what_a_folder_would_read_here(tmp_path: Path, told: str):
    job = judged(
        tmp_path, "judge=llm", "judge.model=m", "judge.base_url=http://127.0.0.1:9", f"dataset.path={READS}", told
    )
    if told.startswith(f"+{READS}"):  # no key that a duel reads
        assert PRIVATE not in str(duel._config(job, tmp_path, []))
        return
    with pytest.raises(RoseError) as refused:
        duel.duel(job, job, [])
    assert told in str(refused.value) and PRIVATE not in str(refused.value)
    key = told.lstrip("+").split("=")[0]
    assert PRIVATE not in str(duel._config(job, tmp_path, [f"{'+' * told.startswith('+')}{key}=http://127.0.0.1:1"]))


def test_a_duel_takes_the_judge_of_a_job_whose_data_lie_where_its_environment_says(tmp_path: Path):
    job = judged(tmp_path, "judge=reward_model", "judge.model=some/judge", f"dataset.path={READS}/x", "seed=3")
    assert duel._config(job, tmp_path, []).judge.model == "some/judge"
