"""Launchers: a job that dies takes no other with it, and who runs the jobs changes nothing in their results."""

import importlib.util
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rose import plan
from rose.__main__ import ROOT
from rose.errors import RoseError
from rose.launchers import slurm as slurm_launcher

SWEEP = ["-m", "method=rose,random", "seed=0,1"]
SMALL = [
    "model.base.pretraining.conversations=128",
    "model.base.pretraining.training.epochs=1",
    "model.base.pretraining.width=32",
    "dataset.world.rows=80",
    "preference.pairs.world.targets=6",
    "preference.pairs.world.tests=8",
    "warmup.ratio=0.3",
    "warmup.epochs=2",
    "finetune.epochs=1",
    "evaluation.max_new_tokens=4",
    "projection=sketch",
    "projection.dim=64",
    "tracking=none",
]
APP = """
import os, time
from pathlib import Path
import hydra
@hydra.main(version_base="1.3", config_path=None)
def job(config):
    folder = Path(config.folder)
    (folder / f"begun-{config.number}-{time.monotonic_ns()}-{os.getpid()}").touch()
    time.sleep(0.3)
    {1: lambda: os.kill(os.getpid(), 9), 2: lambda: os._exit(3)}.get(config.number, lambda: None)()
    (folder / f"ended-{config.number}-{time.monotonic_ns()}-{os.environ.get('OMP_NUM_THREADS')}").touch()
if __name__ == "__main__":
    job()
"""


def rose(outputs: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "rose", *SWEEP, *SMALL, f"outputs={outputs}", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(outputs / "stderr", "w") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file, env=environment)


def ended(sweep: subprocess.Popen, outputs: Path) -> tuple[int, str]:
    """(exit code, stderr)"""
    sweep.wait()
    return sweep.returncode, (outputs / "stderr").read_text()


def results(outputs: Path) -> dict[str, bytes]:
    """What every job of the sweep selected and measured, by job and file."""
    (sweep,) = (outputs / "sweeps").iterdir()
    files = [path for name in ("selected.jsonl", "metrics.json", "scores.parquet") for path in sweep.glob(f"*/{name}")]
    return {str(path.relative_to(sweep)): path.read_bytes() for path in files}


def states(outputs: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in outputs.glob("sweeps/*/*/status.json")}


@pytest.fixture(scope="module")
def basic(tmp_path_factory) -> dict[str, bytes]:
    """The results that Hydra's own launcher gives, all jobs in one process."""
    outputs = tmp_path_factory.mktemp("basic")
    code, errors = ended(rose(outputs, "hydra/launcher=basic", "runtime.workers=2"), outputs)
    assert code == 0, errors
    return results(outputs)


def owner(outputs: Path, stage: str) -> int:
    """The process that computes a stage now."""
    deadline = time.monotonic() + 60
    while not (parts := list(outputs.glob(f"stages/{stage}/.*.part"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(parts[0].name.split(".")[-3])


def test_a_job_killed_in_a_sweep_fails_by_name_and_the_sweep_run_again_ends_as_if_nothing_had_been(tmp_path, basic):
    sweep = rose(tmp_path, "runtime.workers=2")
    os.kill(owner(tmp_path, "warmup"), signal.SIGKILL)
    code, errors = ended(sweep, tmp_path)
    assert code == 1
    (dead,) = (name for name, status in states(tmp_path).items() if status["state"] != "done")
    assert f"{dead} died: SIGKILL" in errors
    assert "1 of 4 jobs failed" in errors
    assert len(states(tmp_path)) == 4

    code, errors = ended(rose(tmp_path, "runtime.workers=2"), tmp_path)
    assert code == 0, errors
    assert results(tmp_path) == basic


def died(tmp_path: Path, launcher: str, **settings: object) -> tuple[dict[str, str], str]:
    """Five jobs of which number 1 kills itself and number 2 leaves: what is said of the dead, and stderr."""
    (tmp_path / "app.py").write_text(APP)
    arguments = ["-m", "+number=0,1,2,3,4", f"+folder={tmp_path}", f"hydra.sweep.dir={tmp_path}/sweep"]
    target = f"hydra.launcher._target_=hydra_plugins.rose_launchers.{launcher}"
    settings = [f"+hydra.launcher.{name}={value}" for name, value in settings.items()]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "app.py", *arguments, target, *settings],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )
    said = {path.parent.name: json.loads(path.read_text())["error"] for path in tmp_path.glob("sweep/*/status.json")}
    return said, done.stderr


def marks(folder: Path, name: str) -> list[list[str]]:
    return sorted(path.name.split("-")[1:] for path in folder.glob(f"{name}-*"))


def test_processes_are_so_many_at_a_time_one_a_job_and_share_the_processors(tmp_path):
    said, stderr = died(tmp_path, "Processes", workers=2)
    assert said == {"1": "died: SIGKILL, as when memory runs out", "2": "died: its process ended with exit code 3"}
    assert "rose: 1 died: SIGKILL" in stderr
    begun, ended = marks(tmp_path, "begun"), marks(tmp_path, "ended")
    assert [number for number, _, _ in begun] == ["0", "1", "2", "3", "4"]
    assert [number for number, _, _ in ended] == ["0", "3", "4"]
    assert len({process for _, _, process in begun}) == 5
    assert {threads for _, _, threads in ended} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    for number, moment, _ in ended:  # while a job lasted, at most one other began before the next could
        first = next(int(time) for job, time, _ in begun if job == number)
        assert sum(first < int(time) < int(moment) for _, time, _ in begun) <= 2


def test_jobs_end_when_their_launcher_is_killed(tmp_path):
    long = "model.base.pretraining.training.epochs=10000"  # they cannot end by themselves
    sweep = rose(tmp_path, "runtime.workers=2", long)
    job = owner(tmp_path, "base")
    sweep.kill()
    sweep.wait()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{job}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
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


def test_a_folder_that_others_may_write_into_is_not_sent_to_slurm(tmp_path):
    slurm_launcher.private(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "own").chmod(0o775)
    with pytest.raises(RoseError, match="own: is another user's, or others may write into it"):
        slurm_launcher.private(tmp_path / "own")


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


needs_slurm = pytest.mark.skipif(
    shutil.which("sbatch") is None or not slurm("sinfo", "--noheader"),
    reason="no Slurm answers here: eval $(tests/slurm_node.sh up FOLDER)",
)
SLURM = [
    "hydra/launcher=slurm",
    *(f"hydra.launcher.{text}" for text in ("cpus_per_task=1", "mem=1GB", "poll_seconds=1")),
]


@needs_slurm
def test_on_slurm_a_job_that_dies_is_reported_by_name_and_the_others_end(tmp_path):
    folder = {"folder": f"{tmp_path}/slurm", "max_num_timeout": 1, "poll_seconds": 0.5, "cpus_per_task": 1}
    said, stderr = died(tmp_path, "Slurm", **folder)
    assert set(said) == {"1", "2"}, stderr
    assert all("FAILED" in error for error in said.values())
    assert [number for number, _, _ in marks(tmp_path, "ended")] == ["0", "3", "4"]


URGENT = "sbatch --partition urgent --exclusive --time 1 --output /dev/null --wrap true"  # takes the node for itself


@needs_slurm
@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.faults)])
def test_jobs_that_slurm_preempts_and_times_out_give_the_same_results(tmp_path, basic, times):
    sweep, draw, interrupted = rose(tmp_path, *SLURM, "hydra.launcher.array_parallelism=2"), random.Random(0), 0  # noqa: S311
    ways = ["scontrol requeue {job}", "scancel --signal=USR2 {job}", URGENT]  # USR2: what comes before a time-out
    ways = [way for way in ways if way != URGENT or "urgent" in slurm("sinfo", "--noheader")]
    while sweep.poll() is None:
        computing = list(tmp_path.glob("stages/*/.*.part"))
        running = slurm("squeue", "--noheader", "--array", "--states=running", "--partition=main", "--format=%i")
        if interrupted < times and computing and running:
            way = ways[interrupted % len(ways)]
            slurm(*way.format(job=draw.choice(running.split())).split())
            interrupted += 1
        time.sleep(draw.uniform(0, 1))
    code, errors = ended(sweep, tmp_path)
    assert code == 0, errors
    assert interrupted == times
    assert results(tmp_path) == basic


@needs_slurm
def test_a_job_of_two_processes_on_slurm_ends_with_the_selection_of_one(tmp_path, basic):
    alone = ["method=rose", "seed=0"]
    pair = ["hydra/launcher=slurm_ranks", "hydra.launcher.ntasks_per_node=2", "hydra.launcher.gpus_per_node=null"]
    code, errors = ended(rose(tmp_path, *alone, *SLURM[1:], *pair), tmp_path)
    assert code == 0, errors
    (job,) = states(tmp_path)
    selected = [json.loads(line)["id"] for line in results(tmp_path)[f"{job}/selected.jsonl"].splitlines()]
    assert selected == [json.loads(line)["id"] for line in basic[f"{job}/selected.jsonl"].splitlines()]
    assert len(list(tmp_path.glob("sweeps/*/.slurm/*_log.out"))) == 2


@needs_slurm
def test_a_submitted_sweep_gives_the_same_results_and_no_job_waits_for_another(tmp_path, basic):
    plan.main([*SWEEP[1:], *SMALL, *SLURM, f"outputs={tmp_path}", "--submit"])
    with pytest.raises(SystemExit, match="Slurm still has jobs of this sweep"):
        plan.main([*SWEEP[1:], *SMALL, *SLURM, f"outputs={tmp_path}", "--submit"])
    deadline = time.monotonic() + 900
    while slurm("squeue", "--noheader"):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert results(tmp_path) == basic
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert "| rose " in (folder / "report.md").read_text()
    assert not [log for log in folder.glob("*/rose.log") if "waiting for" in log.read_text()]


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
    port = "26379"
    command = [str(Path(sys.executable).with_name("ray"))]
    cluster = [*command, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    with subprocess.Popen(cluster, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as head:
        try:
            sweep = rose(tmp_path, "hydra/launcher=ray", f"hydra.launcher.init.address=127.0.0.1:{port}")
            code, errors = ended(sweep, tmp_path)
        finally:
            head.terminate()
    assert code == 0, errors
    assert results(tmp_path) == basic
