"""Many processes at once: every stage is computed once, and no record is torn."""

import json
import os
from pathlib import Path

import fault_runs
import pytest

from rose.stages import __main__ as store


@pytest.mark.faults
def test_sixteen_jobs_racing_for_the_same_stages_compute_each_once(tmp_path):
    outputs = tmp_path / "outputs"
    processes = [fault_runs.start(outputs, "until=tokens", f"seed={seed}") for seed in range(16)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 16
    records = [json.loads(path.read_text()) for path in outputs.glob("runs/*/stages.json")]
    assert len(records) == 16
    for stage in ("base", "pool", "tokens"):
        states = sorted(record[stage]["state"] for record in records)
        assert states == ["computed"] + ["reused"] * 15
    assert fault_runs.parts(outputs) == []


def test_the_same_command_twice_in_one_second_is_one_sweep(tmp_path):
    outputs, sweep = tmp_path / "outputs", ["-m", "method=random", "selection.ratio=0.25,0.5"]
    processes = [fault_runs.start(outputs, *sweep) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0], fault_runs.said(outputs)
    (folder,) = (outputs / "sweeps").iterdir()
    states = [json.loads(path.read_text()) for path in folder.glob("*/status.json")]
    assert states == [{"state": "done", "error": None}] * 2
    assert len((folder / "results.csv").read_text().splitlines()) == 1 + 2 + 1  # header, jobs, the base model
    assert store.verify(outputs, [], removing=False) == 0


def test_different_commands_in_one_second_have_folders_of_their_own(tmp_path):
    outputs = tmp_path / "outputs"
    processes = [fault_runs.start(outputs, "-m", "method=random", "until=base", f"seed={seed},9") for seed in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    sweeps = [json.loads(path.read_text())["jobs"] for path in outputs.glob("sweeps/*/sweep.json")]
    assert sorted(len(jobs) for jobs in sweeps) == [2, 2] and sweeps[0] != sweeps[1]


@pytest.mark.faults
def test_a_clock_that_goes_back_changes_nothing(undisturbed, tmp_path):
    """Files from the future are reused, and left by a dead process cleared away, all the same."""
    outputs = tmp_path / "outputs"
    while fault_runs.kill_in(outputs, {"features"}, lambda stage: 0.02) is None:
        fault_runs.forget(outputs, {"features"})  # was over before it was seen: once more
    for path in [outputs, *outputs.rglob("*")]:
        os.utime(path, (4e9, 4e9))
    kept = {path: path.read_bytes() for path in fault_runs.costs(outputs)}
    code, said = fault_runs.run(outputs, first=_in_1980)
    assert code == 0, said
    assert {path: path.read_bytes() for path in kept} == kept and fault_runs.parts(outputs) == []
    assert fault_runs.results(outputs) == fault_runs.results(undisturbed)


def _in_1980() -> None:
    import time

    now = time.time
    time.time = lambda: now() - 46 * 365 * 86400


@pytest.mark.faults
def test_what_a_user_writes_follows_the_umask_and_nobody_elses(tmp_path):
    outputs = tmp_path / "outputs"
    code, said = fault_runs.run(outputs, "until=selection", first=_private)
    assert code == 0, said
    assert _modes(outputs / "stages") & 0o077 == 0
    open_ = tmp_path / "open"
    code, said = fault_runs.run(open_, "until=selection", first=_shared)
    assert code == 0, said
    assert _modes(open_ / "stages", common=True) & 0o666 == 0o666  # every one of them


@pytest.mark.faults
def test_another_user_goes_on_in_a_shared_folder_and_is_told_of_a_private_one(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    if not all(folder.stat().st_mode & 0o001 for folder in Path(os.__file__).resolve().parents):
        pytest.skip("this Python cannot be read by other users")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    shared, private = tmp_path / "shared", tmp_path / "private"
    assert fault_runs.run(shared, "until=tokens", first=_shared)[0] == 0
    code, said = fault_runs.run(shared, first=_nobody)
    assert code == 0, said
    assert fault_runs.run(private, "until=tokens", first=_private)[0] == 0
    code, said = fault_runs.run(private, first=_nobody)
    assert code == 1 and "no permission to write in" in said and "umask" in said and "Traceback" not in said


def _private() -> None:
    os.umask(0o077)


def _shared() -> None:
    os.umask(0)


def _nobody() -> None:
    os.umask(0)
    os.environ["HOME"] = "/nonexistent"
    os.setgid(65534)
    os.setuid(65534)


def _modes(folder: Path, common: bool = False) -> int:
    """Permission bits that any file below has; with `common`, those that all have."""
    modes = [path.stat().st_mode & 0o777 for path in folder.rglob("*") if not path.name.startswith(".")]
    result = 0o777 if common else 0
    for mode in modes:
        result = result & mode if common else result | mode
    return result
