"""A disk that is full, an artifact that is damaged, a folder that is read-only: one line, and nothing half-written."""

import functools
import json
import os
import shutil
from pathlib import Path

import fault_runs
import pytest

from rose.stages import __main__ as store


def fill_disk_in(artifact: str, ballast: Path, room: int) -> None:
    """Makes the disk full but for `room` bytes when the computation of `artifact` begins."""
    from rose.stages import build

    real = build._compute

    def compute(node, part, outputs):
        if node.name == artifact:
            space = os.statvfs(ballast.parent)
            with open(ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(4096, space.f_bavail * space.f_frsize - room))
        return real(node, part, outputs)

    build._compute = compute


def full_disk(undisturbed: Path, disk: Path, artifact: str, share: float) -> None:
    """A run that finds room for `share` of what a stage writes fails in one line; with more room it goes on."""
    outputs = disk / "outputs"
    needs = json.loads((undisturbed / "stages" / artifact / "cost.json").read_text())["bytes"]
    fill = functools.partial(fill_disk_in, artifact, disk / "ballast", int(share * needs))
    code, said = fault_runs.run(outputs, first=fill)
    assert code == 1 and "Traceback" not in said, said
    assert "No space left" in said or "os error 28" in said, said
    assert not (outputs / "stages" / artifact).exists(), "published without being whole"
    assert fault_runs.parts(outputs) == []
    (disk / "ballast").unlink()


def made(outputs: Path) -> list[str]:
    """`stage/name` of every artifact, in the order of their making."""
    costs = sorted(fault_runs.costs(outputs), key=lambda path: path.stat().st_mtime_ns)
    return [f"{path.parents[1].name}/{path.parent.name}" for path in costs]


def test_a_disk_that_fills_up_in_a_stage_costs_that_stage_alone(undisturbed, tmp_path):
    *_, features = (artifact for artifact in made(undisturbed) if artifact.startswith("features/"))
    with fault_runs.mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as disk:
        full_disk(undisturbed, disk, features, 0.5)
        assert fault_runs.run(disk / "outputs")[0] == 0
        assert fault_runs.results(disk / "outputs") == fault_runs.results(undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("share", [0, 0.9])
def test_a_disk_that_fills_up_in_every_stage_in_turn_changes_no_result(undisturbed, tmp_path, share):
    with fault_runs.mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=32m", "tmpfs") as disk:
        for artifact in made(undisturbed):
            full_disk(undisturbed, disk, artifact, share)
        assert fault_runs.run(disk / "outputs")[0] == 0
        assert fault_runs.results(disk / "outputs") == fault_runs.results(undisturbed)


def test_a_read_only_folder_is_said_in_one_line_and_finished_work_can_be_read(undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "outputs")
    before = fault_runs.results(tmp_path / "outputs")
    outputs = tmp_path / "outputs"
    with fault_runs.mounted(outputs, "--bind", "-o", "ro", str(outputs)):
        code, said = fault_runs.run(outputs, "seed=1")
        assert code == 1 and "is on a read-only file system" in said and "Traceback" not in said, said
        assert store.verify(outputs, [], removing=False) == 0
        store.ls(outputs)
    assert fault_runs.results(outputs) == before


LONG = pytest.mark.faults


@pytest.mark.parametrize(
    ("stage", "harm"),
    [("features", "cut"), ("warmup", "flip")]
    + [
        pytest.param(stage, harm, marks=LONG)
        for stage in ("base", "tokens", "warmup", "features", "selection")
        for harm in ("cut", "flip")
    ],
)
def test_a_damaged_artifact_is_refused_by_whoever_reads_it_and_mended_as_told(undisturbed, tmp_path, stage, harm):
    outputs = tmp_path / "outputs"
    shutil.copytree(undisturbed, outputs)
    fault_runs.forget(outputs, {stage}, themselves=False)
    artifact = next((outputs / "stages" / stage).iterdir())
    largest = max((path for path in artifact.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    if harm == "cut":
        del data[-1:]
    else:
        data[len(data) // 2] ^= 4
    largest.write_bytes(data)

    code, said = fault_runs.run(outputs)
    assert code == 1 and "Traceback" not in said, said
    assert largest.name in said and f"verify --remove {stage}/{artifact.name}" in said
    assert store.verify(outputs, [f"{stage}/{artifact.name}"], removing=True) == 0
    code, said = fault_runs.run(outputs)
    assert code == 0, said
    assert fault_runs.results(outputs) == fault_runs.results(undisturbed)
