"""One W&B run per job: offline runs are read back with W&B's own reader, failures are provoked."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pandas
import psutil
import pytest

from rose.config.compose import typed
from rose.config.schema import Tracking
from rose.run.tracking import close, holds_run, log, log_artifacts, log_summary, run_id, track

OFFLINE = Tracking(mode="offline", project="rose", entity=None, artifacts=False)
COMPUTED = {"warmup": {"dir": "stages/warmup/x", "state": "computed", "seconds": 1.25, "tokens_forward": 640}}
REUSED = {"warmup": {"dir": "stages/warmup/x", "state": "reused", "seconds": 1.25}}
CURVES = [
    {"stage": "warmup", "step": 1, "loss": 4.0},
    {"stage": "warmup", "step": 2, "loss": 3.0},
    {"stage": "finetune", "step": 1, "loss": 2.0},
]


def record(job: Path, stages: dict) -> None:
    curves = job / "metrics.jsonl"
    curves.write_text("".join(json.dumps(line) + "\n" for line in CURVES))
    with track(OFFLINE, job, {"method": {"name": "rose"}, "seed": 3}, "demo", "rose-0") as run:
        log(run, curves, stages, {"reward": 0.5, "zero_shot/reward": 0.25})


@pytest.mark.parametrize(
    ("variables", "mode", "project"),
    [
        ({}, "offline", "rose"),
        ({"WANDB_MODE": "dryrun", "WANDB_PROJECT": "mine"}, "offline", "mine"),
        ({"WANDB_MODE": "", "WANDB_PROJECT": ""}, "offline", "rose"),
        ({"WANDB_MODE": "run"}, "online", "rose"),
        ({"WANDB_MODE": "disabled"}, "disabled", "rose"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "true"}, "disabled", "rose"),
        ({"WANDB_MODE": "online", "WANDB_DISABLED": "false"}, "online", "rose"),
    ],
)
def test_wandb_s_own_variables_mean_what_they_mean_to_wandb(composed, monkeypatch, variables, mode, project):
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DISABLED", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracking = typed(composed()).tracking
    assert (tracking.mode, tracking.project, tracking.entity) == (mode, project, None)


def run_files(job: Path) -> list[Path]:
    return sorted((job / "wandb").glob("offline-run-*/run-*.wandb"))


def inspect(job: Path, *options: str) -> str:
    """What W&B itself reads in the only run of `job`."""
    (file,) = run_files(job)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(file)]
    environment = os.environ | {"WANDB_ERROR_REPORTING": "false", "WANDB_MODE": "offline"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_an_offline_run_holds_configuration_curves_timings_and_metrics(tmp_path: Path):
    record(tmp_path, COMPUTED)
    summary = json.loads(inspect(tmp_path, "--summary"))
    assert (summary["name"], summary["run_id"]) == ("rose-0", run_id("demo", "rose-0"))
    assert summary["exit_code"] == 0
    assert summary["config"] == {
        "method": {"name": "rose"},
        "seed": 3,
        "stages": {"warmup": "stages/warmup/x"},
    }
    kept = {name: value for name, value in summary["summary"].items() if not name.startswith("_")}
    last = {"warmup/loss": 3, "warmup/step": 2, "finetune/loss": 2, "finetune/step": 1}
    assert kept == last | {
        "seconds/warmup": 1.25,
        "tokens_forward/warmup": 640,
        "reward": 0.5,
        "zero_shot/reward": 0.25,
    }


def test_each_stage_of_the_curves_has_its_own_step_axis(tmp_path: Path):
    record(tmp_path, COMPUTED)
    entries = [json.loads(line) for line in inspect(tmp_path).splitlines()]
    points = [entry["history"]["item"] for entry in entries if entry["type"] == "history"]
    assert [point["_step"] for point in points] == [0, 1, 2]
    assert [point.get("warmup/loss") for point in points] == [4, 3, None]
    assert points[2]["finetune/step"] == 1
    axes = [entry["metric"] for entry in entries if entry["type"] == "metric"]
    assert {axis["glob_name"]: axis["step_metric"] for axis in axes if "glob_name" in axis} == {
        "warmup/*": "warmup/step",
        "finetune/*": "finetune/step",
    }


def test_a_job_that_raises_is_a_failed_run_and_raises_on(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), track(OFFLINE, tmp_path, {}, "demo", "rose-1"):
        raise ZeroDivisionError
    assert json.loads(inspect(tmp_path, "--summary"))["exit_code"] == 1


def test_a_folder_holds_a_run_once_a_job_was_tracked(tmp_path: Path):
    assert not holds_run(tmp_path)
    record(tmp_path, COMPUTED)
    assert holds_run(tmp_path)


def test_a_process_that_closes_w_and_b_leaves_no_service_behind(tmp_path: Path):
    record(tmp_path, COMPUTED)
    services = {process for process in psutil.Process().children(recursive=True) if "wandb" in process.name()}
    assert services
    close()
    psutil.wait_procs(services)
    close()  # once more does no harm


def test_wandb_failing_to_start_is_one_warning(tmp_path: Path, monkeypatch, caplog):
    def refuse(**_: object) -> None:
        raise TimeoutError("no answer with key 0123secret\nand more")

    monkeypatch.setattr("wandb.init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "0123secret")
    with caplog.at_level(logging.WARNING):
        record(tmp_path, COMPUTED)
    assert [line.getMessage() for line in caplog.records] == [
        "W&B did not start with tracking.mode=offline (online, offline or disabled): "
        "TimeoutError: no answer with key *** and more"
    ]


def test_a_record_that_wandb_does_not_take_is_one_warning(tmp_path: Path, caplog):
    (tmp_path / "metrics.jsonl").write_text("{")
    with caplog.at_level(logging.WARNING), track(OFFLINE, tmp_path, {}, "demo", "rose-2") as run:
        log(run, tmp_path / "metrics.jsonl", COMPUTED, {})
    assert len(caplog.records) == 1


def test_the_environment_is_left_as_it_was(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_DIR", "somewhere")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with track(OFFLINE, tmp_path, {}, "demo", "rose-3"):
        assert os.environ["WANDB_DIR"] == str(tmp_path)
    assert os.environ["WANDB_DIR"] == "somewhere"
    assert "WANDB_MODE" not in os.environ


def test_disabled_tracking_does_not_even_import_wandb(tmp_path: Path):
    code = """
import sys
from pathlib import Path
from rose.config.compose import typed
from rose.config.schema import Tracking
from rose.run.tracking import log, track
job = Path(sys.argv[1])
with track(Tracking("disabled", "rose", None, False), job, {}, "demo", "rose-0") as run:
    log(run, job / "metrics.jsonl", {}, {})
assert run is None and "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_id_follows_from_group_and_name():
    assert run_id("demo", "rose-0") == run_id("demo", "rose-0")
    assert len({run_id("demo", "rose-0"), run_id("demo", "rose-1"), run_id("demor", "ose-0")}) == 3


def logged(job: Path) -> dict:
    """Everything that the run of `job` logged, by name; a table or an image is several names."""
    entries = [json.loads(line) for line in inspect(job).splitlines()]
    return {
        name: value
        for entry in entries
        if entry["type"] == "history"
        for name, value in entry["history"]["item"].items()
    }


def test_a_sweep_s_summary_holds_table_rows_and_figures(tmp_path: Path):
    from matplotlib.figure import Figure

    figure = tmp_path / "reward_by_method.png"
    Figure().savefig(figure)
    results = pandas.DataFrame(
        {"method": ["rose", None], "seed": pandas.array([0, None], "Int64"), "reward": [0.5, 0.25]}
    )
    rows = pandas.DataFrame({"method": ["rose"], "text": ["user: <script>"]})
    with track(OFFLINE, tmp_path, {}, "demo", "summary") as run:
        log_summary(run, results, rows, [figure])
    found = logged(tmp_path)
    assert [found[f"results.{name}"] for name in ("_type", "nrows", "ncols")] == ["table-file", 2, 3]
    assert found["figures/reward_by_method._type"] == "image-file"
    (files,) = (tmp_path / "wandb").glob("offline-run-*/files")
    table = json.loads((files / found["results.path"]).read_text())
    assert table == {"columns": ["method", "seed", "reward"], "data": [["rose", 0, 0.5], [None, None, 0.25]]}
    assert json.loads((files / found["rows.path"]).read_text())["data"] == [["rose", "user: <script>"]]
    assert (files / found["figures/reward_by_method.path"]).read_bytes() == figure.read_bytes()
    summary = json.loads(inspect(tmp_path, "--summary"))
    assert (summary["name"], summary["run_id"]) == ("summary", run_id("demo", "summary"))


def test_selection_and_adapter_are_artifacts_where_they_are_asked_for(tmp_path: Path):
    (tmp_path / "selected.jsonl").write_text("{}\n")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_model.safetensors").write_text("weights")
    with track(OFFLINE, tmp_path, {}, "demo", "rose-0") as run:
        log_artifacts(run, tmp_path)
    entries = [json.loads(line) for line in inspect(tmp_path).splitlines()]
    text = json.dumps([entry for entry in entries if "artifact" in json.dumps(entry)])
    own = run_id("demo", "rose-0")
    assert f"selection-{own}" in text and f"adapter-{own}" in text
    assert "selected.jsonl" in text and "adapter_model.safetensors" in text
