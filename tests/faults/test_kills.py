"""SIGKILL at random moments: what is left is never taken for finished, and the next run ends as if nothing had been."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fault_runs
import pytest
from waiting import until

from rose.__main__ import ROOT
from rose.stages import __main__ as store

SWEEP = ["-m", "method=rose,rds,ifd,loss_drop,random,pairs_dpo"]


def kill_everywhere(undisturbed: Path, outputs: Path, each: int, *arguments: str) -> Counter:
    """Kills runs until each kind of stage has been killed `each` times, then lets one finish; kills by stage."""
    draw, usual = random.Random(0), fault_runs.seconds(undisturbed)  # noqa: S311
    left = Counter({stage: each for stage in usual})
    killed: Counter = Counter()

    def delay(stage: str) -> float:
        return draw.uniform(0, 1.2 * usual[stage] + 0.005)  # the end and the renaming are moments too

    while left := +left:
        stage = fault_runs.kill_in(outputs, set(left), delay, *arguments)
        if stage is None:
            fault_runs.forget(outputs, set(left))  # was finished before the signal came: once more
        else:
            left[stage] -= 1
            killed[stage] += 1
    code, said = fault_runs.run(outputs, *arguments)
    assert code == 0, said
    return killed


def check(undisturbed: Path, outputs: Path) -> None:
    assert fault_runs.results(outputs) == fault_runs.results(undisturbed)
    assert fault_runs.parts(outputs) == []
    assert store.verify(outputs, [], removing=False) == 0


def test_a_job_killed_once_in_every_stage_ends_like_an_undisturbed_one(undisturbed, tmp_path):
    outputs = tmp_path / "outputs"
    killed = kill_everywhere(undisturbed, outputs, 1)
    assert set(killed) == set(fault_runs.seconds(undisturbed)) >= {"base", "warmup", "features", "finetune"}
    check(undisturbed, outputs)


@pytest.mark.faults
def test_a_sweep_killed_a_hundred_times_ends_like_an_undisturbed_one(tmp_path):
    """Of every kind of stage of six methods, and of the launcher between them: one process runs them all."""
    undisturbed, outputs = tmp_path / "undisturbed", tmp_path / "outputs"
    code, said = fault_runs.run(undisturbed, *SWEEP)
    assert code == 0, said
    stages = fault_runs.seconds(undisturbed)
    each = -(-100 // len(stages))
    killed = kill_everywhere(undisturbed, outputs, each, *SWEEP)
    print(f"{killed.total()} kills: {dict(killed)}")
    assert set(killed) == set(stages) and killed.total() >= 100
    check(undisturbed, outputs)


@pytest.mark.faults
def test_a_process_killed_at_any_moment_of_its_life_does_no_harm(undisturbed, tmp_path):
    """The command itself, imports and composition of the configuration included."""
    outputs, draw = tmp_path / "outputs", random.Random(1)  # noqa: S311
    command = [sys.executable, "-m", "rose", *fault_runs.TINY, f"outputs={outputs}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    whole = time.monotonic() - began
    fault_runs.forget(outputs, set(fault_runs.seconds(outputs)))
    for _ in range(10):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, whole))
        process.kill()
        process.wait()
    code, said = fault_runs.run(outputs)
    assert code == 0, said
    check(undisturbed, outputs)


def test_a_sweep_whose_launcher_is_killed_runs_only_what_is_missing(tmp_path):
    outputs, sweep = tmp_path / "outputs", ["-m", "method=random", "selection.ratio=0.1,0.25,0.5"]
    process = fault_runs.start(outputs, *sweep)
    done = until(lambda: _done(outputs), process)
    process.kill()
    process.join()
    kept = {path: path.stat().st_mtime_ns for path in fault_runs.costs(outputs)}
    code, said = fault_runs.run(outputs, *sweep)
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for job in done:
        stages = json.loads((job / "stages.json").read_text())
        assert {stage["state"] for stage in stages.values()} == {"reused"}
    assert len(_done(outputs)) == 3


def test_a_sweep_run_again_repeats_only_the_job_that_failed(tmp_path):
    outputs, sweep = tmp_path / "outputs", ["-m", "method=random", "finetune.micro_batch_size=8,4"]
    assert fault_runs.run(outputs, *sweep, first=_fail_on_small_batches)[0] == 1
    kept = {path: path.stat().st_mtime_ns for path in fault_runs.costs(outputs)}
    assert len(_done(outputs)) == 1
    code, said = fault_runs.run(outputs, *sweep)
    assert code == 0 and len(_done(outputs)) == 2, said
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again = {path.parents[1].name for path in fault_runs.costs(outputs)} - {"base"}
    new = [path for path in fault_runs.costs(outputs) if path not in kept]
    made = {path.parents[1].name for path in new}
    assert {"finetune", "evaluation"} <= made <= again - {"pool", "preferences", "tokens", "scores", "selection"}


def _fail_on_small_batches() -> None:
    from rose.training import finetune

    real = finetune.train

    def train(model, rows, loss, training, out):
        if training.micro_batch_size == 4:
            raise RuntimeError("out of memory")
        real(model, rows, loss, training, out)

    finetune.train = train


def _done(outputs: Path) -> list[Path]:
    states = {path.parent: json.loads(path.read_text())["state"] for path in outputs.glob("sweeps/*/*/status.json")}
    return [job for job, state in states.items() if state == "done"]
