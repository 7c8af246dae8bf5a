"""Slurm, on a real node of it: jobs that die, are preempted, time out or are submitted change no result."""

import json
import random
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_sweep import SMALL, SWEEP, died, ended, marks, results, rose, states, unhashed
from waiting import until

from rose.errors import RoseError
from rose.plan import main
from rose.run.launchers import slurm as slurm_launcher


def test_a_folder_that_others_may_write_into_is_not_sent_to_slurm(tmp_path):
    slurm_launcher.private(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    (tmp_path / "own").chmod(0o775)
    with pytest.raises(RoseError, match="own: is another user's, or others may write into it"):
        slurm_launcher.private(tmp_path / "own")


def test_it_says_when_the_jobs_states_change_and_nothing_while_they_do_not(tmp_path, monkeypatch, caplog):
    class Job:
        def __init__(self, number: int):
            self.job_id, self.paths = f"7_{number}", SimpleNamespace(result_pickle=tmp_path / str(number))

        def task(self, number: int) -> SimpleNamespace:
            return SimpleNamespace(exception=lambda: None)

    def squeue(*command: str) -> str:
        for number in over.pop(0):
            (tmp_path / str(number)).touch()
        return answers.pop(0)

    both = "7_0 PENDING\n7_1 PENDING\n"
    answers = [both, both, "7_0 RUNNING\n7_1 PENDING\n", "7_1 RUNNING\n", "7_1 RUNNING\n", ""]
    over = [[], [], [], [0], [], [1]]
    monkeypatch.setattr(slurm_launcher, "_ask", squeue)
    caplog.set_level("INFO")
    launcher = slurm_launcher.Slurm(str(tmp_path), max_num_timeout=1, poll_seconds=0)
    assert launcher.wait({number: Job(number) for number in range(2)}) == {}
    assert [record.getMessage() for record in caplog.records] == [
        "Slurm: 0 of 2 jobs have ended; 2 pending",
        "Slurm: 0 of 2 jobs have ended; 1 pending, 1 running",
        "Slurm: 1 of 2 jobs have ended; 1 running",
        "Slurm: 2 of 2 jobs have ended",
    ]


def told(*command: str) -> str:
    """What Slurm is told to do, which it may refuse."""
    return subprocess.run(command, capture_output=True, text=True).stdout


def slurm(*command: str) -> str:
    """What Slurm answers; when it is too busy to, it is asked again."""
    while (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        time.sleep(1)
    return done.stdout


needs_slurm = pytest.mark.skipif(
    shutil.which("sbatch") is None or not told("sinfo", "--noheader"),
    reason="no Slurm answers here: eval $(tests/slurm_node.sh up FOLDER)",
)
SLURM = [
    "hydra/launcher=slurm",
    *(f"hydra.launcher.{text}" for text in ("cpus_per_task=1", "mem=1GB", "poll_seconds=1")),
]


@pytest.fixture(autouse=True)
def nothing_queued(tmp_path):
    """Takes back what a test sent to Slurm, whatever becomes of the test."""
    yield
    if ids := {path.name.split("_")[0] for path in tmp_path.rglob("*_submitted.pkl")}:
        told("scancel", *ids)


@needs_slurm
def test_on_slurm_a_job_that_dies_is_reported_by_name_and_the_others_end(tmp_path):
    folder = {"folder": f"{tmp_path}/slurm", "max_num_timeout": 1, "poll_seconds": 0.5, "cpus_per_task": 1}
    said, stderr = died(tmp_path, "Slurm", **folder)
    assert set(said) == {"1", "2"}, stderr
    assert all("FAILED" in error for error in said.values())
    assert [number for number, _, _ in marks(tmp_path, "ended")] == ["0", "3", "4"]


WAYS = [
    "scontrol requeue {job}",
    "timeout 10 scancel --signal=USR2 {job}",  # as before a time-out; left alone, it tries again when refused
    "sbatch --partition urgent --exclusive --time 1 --output /dev/null --wrap true",  # takes the node for itself
]


def restarts(outputs: Path) -> int:
    """How often Slurm has started the jobs of a sweep again."""
    jobs = [job for job in slurm("scontrol", "--oneliner", "show", "job").splitlines() if str(outputs) in job]
    return sum(int(field[9:]) for job in jobs for field in job.split() if field.startswith("Restarts="))


def computing(outputs: Path) -> list[tuple[str, str]]:
    """(stage, process) of what takes longest and goes on."""
    names = ("base", "warmup", "features", "finetune")
    parts = [path.name.split(".") for name in names for path in outputs.glob(f"stages/{name}/.*")]
    return [(part[1], part[-3]) for part in parts if part[-1] == "part"]


def running(process: str) -> str | None:
    """The Slurm job whose process it is, if that is to go on."""
    try:
        texts = Path("/proc", process, "environ").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):  # gone, or dead and not yet collected
        return None
    variables = dict(text.partition("=")[::2] for text in texts)
    job = f"{variables.get('SLURM_ARRAY_JOB_ID')}_{variables.get('SLURM_ARRAY_TASK_ID')}"
    return job if job in slurm("squeue", "--noheader", "--array", "--states=running", "--format=%i").split() else None


@needs_slurm
@pytest.mark.parametrize(("times", "epochs"), [(3, 16), pytest.param(10, 80, marks=pytest.mark.faults)])
def test_jobs_that_slurm_preempts_and_times_out_give_the_same_results(tmp_path, times, epochs):
    # Slurm takes 5 seconds to end a job that it requeues: in ten times, every stage that is struck takes longer
    trainings = {"model.base.pretraining.training": epochs, "warmup": epochs, "finetune": 8 * epochs}
    long = [f"{name}.epochs={number}" for name, number in trainings.items()]
    (calm := tmp_path / "calm").mkdir()
    code, errors = ended(rose(calm, *long, "hydra/launcher=processes", "runtime.workers=2"), calm)
    assert code == 0, errors

    (stormy := tmp_path / "stormy").mkdir()
    sweep, draw, struck = rose(stormy, *long, *SLURM, "hydra.launcher.array_parallelism=2"), random.Random(0), []  # noqa: S311
    ways = WAYS if "urgent" in slurm("sinfo", "--noheader") else WAYS[:2]
    while sweep.poll() is None and (restarted := restarts(stormy)) < times:
        time.sleep(0.05)
        stages, processes = [stage for stage, _ in struck], [process for _, process in struck]
        for stage, process in computing(stormy):
            if process in processes or stages.count(stage) == 2:
                continue  # so every job gets its share, and what is left suffices for all the times
            time.sleep(draw.uniform(0, epochs / 40))
            if job := running(process):
                told(*ways[len(struck) % len(ways)].format(job=job).split())
                struck.append((stage, process))
            break
    code, errors = ended(sweep, stormy)
    assert code == 0, errors
    assert restarted >= times
    assert results(stormy) == results(calm)


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
def test_on_slurm_a_pool_in_shards_has_the_selections_of_a_whole_one_byte_for_byte(tmp_path, basic):
    code, errors = ended(rose(tmp_path, *SLURM, "features.shards=4"), tmp_path)
    assert code == 0, errors
    assert unhashed(results(tmp_path)) == unhashed(basic)
    assert len(list((tmp_path / "stages" / "features").iterdir())) == 2 * 2 * 4  # seeds, checkpoints, shards


@needs_slurm
def test_a_submitted_sweep_gives_the_same_results_and_no_job_waits_for_another(tmp_path, basic):
    main([*SWEEP[1:], *SMALL, *SLURM, f"outputs={tmp_path}", "--submit"])
    with pytest.raises(SystemExit, match="Slurm still has jobs of this sweep"):
        main([*SWEEP[1:], *SMALL, *SLURM, f"outputs={tmp_path}", "--submit"])
    until(lambda: not slurm("squeue", "--noheader"))
    assert results(tmp_path) == basic
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert "| rose " in (folder / "report.md").read_text()
    assert not [log for log in folder.glob("*/rose.log") if "waiting for" in log.read_text()]
