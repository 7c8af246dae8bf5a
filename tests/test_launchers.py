"""Launchers: a job that dies takes no other with it, and who runs the jobs changes nothing in their results."""

import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys

import pytest
from nothing_left import lives
from small_sweep import died, ended, marks, owner, results, rose, states, unhashed
from waiting import until


def test_a_job_killed_in_a_sweep_fails_by_name_and_the_sweep_run_again_ends_as_if_nothing_had_been(tmp_path, basic):
    sweep = rose(tmp_path, "runtime.workers=2")
    os.kill(owner(sweep, tmp_path, "warmup"), signal.SIGKILL)
    code, errors = ended(sweep, tmp_path)
    assert code == 1
    (dead,) = (name for name, status in states(tmp_path).items() if status["state"] != "done")
    assert f"{dead} died: SIGKILL" in errors
    assert "1 of 4 jobs failed" in errors
    assert len(states(tmp_path)) == 4

    code, errors = ended(rose(tmp_path, "runtime.workers=2"), tmp_path)
    assert code == 0, errors
    assert results(tmp_path) == basic


def test_a_pool_in_shards_is_filled_by_several_jobs_and_the_selections_are_the_same_bytes(tmp_path, basic):
    code, errors = ended(rose(tmp_path, "hydra/launcher=processes", "runtime.workers=2", "features.shards=4"), tmp_path)
    assert code == 0, errors
    assert unhashed(results(tmp_path)) == unhashed(basic)
    made = [json.loads((path / "inputs.json").read_text()) for path in (tmp_path / "stages" / "features").iterdir()]
    places = sorted((each["inputs"]["checkpoint"], *each["inputs"]["shard"]) for each in made)
    assert places == sorted(2 * [(point, part, 4) for point in (1, 2) for part in (1, 2, 3, 4)])  # of two seeds


def test_processes_are_so_many_at_a_time_one_a_job_and_share_the_processors(tmp_path):
    said, stderr = died(tmp_path, "Processes", company=True, workers=2)
    assert said == {"1": "died: SIGKILL, as when memory runs out", "2": "died: its process ended with exit code 3"}
    assert "rose: 1 died: SIGKILL" in stderr
    begun, ended = marks(tmp_path, "begun"), marks(tmp_path, "ended")
    assert [number for number, _, _ in begun] == ["0", "1", "2", "3", "4"]
    assert [number for number, _, _ in ended] == ["0", "3", "4"]
    assert len({process for _, _, process in begun}) == 5
    assert {threads for _, _, threads in ended} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    beside = {number: int(count) for number, count in marks(tmp_path, "beside")}  # how many lived as each began
    assert len(beside) == 5 and max(beside.values()) == 2


def test_jobs_end_when_their_launcher_is_killed(tmp_path):
    long = "model.base.pretraining.training.epochs=10000"  # they cannot end by themselves
    sweep = rose(tmp_path, "runtime.workers=2", long)
    job = owner(sweep, tmp_path, "base")
    sweep.kill()
    sweep.wait()
    until(lambda: not lives(job))
    assert "failed" in {status["state"] for status in states(tmp_path).values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hydra/launcher=processes", "hydra.launcher.workers=0"], "hydra.launcher.workers=0: must be a whole"),
        (["hydra/launcher=processes", "hydra.launcher.workers=two"], "hydra.launcher.workers=two: must be a whole"),
        (["hydra/launcher=slurm", "hydra.launcher.time=1-00:00:00"], "hydra.launcher.time=1-00:00:00: must be a whole"),
    ],
)
def test_what_a_launcher_cannot_take_is_said_in_one_line(tmp_path, arguments, said):
    code, errors = ended(rose(tmp_path, *arguments), tmp_path)
    assert code == 1
    assert said in errors and "Traceback" not in errors


@pytest.fixture
def ray_token(monkeypatch):
    """Ray asks who it is talking to; left to itself it would put a token of its own into the home directory."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))


needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="no Ray here: .venv/bin/pip install -c constraints.txt -e '.[ray]'"
)


@needs_ray
def test_on_ray_a_job_that_dies_is_reported_by_name_and_the_others_end(tmp_path, ray_token):
    settings = {"init": "{address: local, include_dashboard: false}", "task": "{num_cpus: 1, max_retries: 0}"}
    said, stderr = died(tmp_path, "Ray", **settings, environment="[]")
    assert set(said) == {"1", "2"}, stderr
    assert all("WorkerCrashedError" in error for error in said.values())
    assert [number for number, _, _ in marks(tmp_path, "ended")] == ["0", "3", "4"]
    assert len({process for _, _, process in marks(tmp_path, "begun")}) == 5


@needs_ray
@pytest.mark.parametrize("wrong", ["+hydra.launcher.task.foo=1", "hydra.launcher.task.num_cpus=-1"])
def test_what_ray_cannot_take_is_said_in_one_line_and_starts_nothing(tmp_path, wrong):
    code, errors = ended(rose(tmp_path, "hydra/launcher=ray", wrong), tmp_path)
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("rose: hydra.launcher.task=") and "Traceback" not in errors and "Ray instance" not in errors


@needs_ray
def test_a_running_ray_cluster_gives_the_same_results(tmp_path, basic, ray_token):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-u", "-m", "ray.scripts.scripts"]  # `ray` need not be beside this Python
    cluster = [*command, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    said = tmp_path / "head"
    with open(said, "w") as file, subprocess.Popen(cluster, stdout=file, stderr=file, cwd=tmp_path) as head:
        try:
            until(lambda: "Ray runtime started" in said.read_text(), head)
            sweep = rose(tmp_path, "hydra/launcher=ray", f"hydra.launcher.init.address=127.0.0.1:{port}")
            code, errors = ended(sweep, tmp_path)
        finally:
            head.terminate()
    assert code == 0, errors
    assert results(tmp_path) == basic
