"""Several processes on one job: the same bytes as one, the same steps, and nobody waits for the dead."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from small_job import overrides, python
from tiny_models import SAME_BYTES, random_rows

from rose.__main__ import ROOT
from rose.config.compose import typed
from rose.errors import RoseError
from rose.run import job
from rose.stages.kinds import kind_of
from rose.training.processes import micro_batches

EXACT = ["model.lora.dropout=0", "model.micro_batch_size=2"]


def two_processes(name: str, folder: Path) -> list[str]:
    done = python(str(ROOT / "tests" / "two_processes.py"), name, str(folder), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def files_of(folder: Path) -> dict[str, bytes]:
    told = {"cost.json", "checksums.json", "README.md"}  # of seconds and memory
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in told}


def furthest(one: Path, other: Path) -> float:
    """Largest difference of two safetensors files, beside each tensor's largest entry."""
    first, second = load_file(one), load_file(other)
    assert set(first) == set(second)
    return max(
        ((first[name] - second[name]).abs().max() / first[name].abs().max().clamp(min=1e-12)).item() for name in first
    )


@SAME_BYTES
def test_two_processes_fill_one_store_with_the_bytes_of_one(composed, inputs, tmp_path):
    single, both = tmp_path / "single", tmp_path / "both"
    torch.set_num_threads(1)
    job.run(typed(composed(*overrides(inputs, single), *EXACT)), single / "job", "test")
    for name in ("base", "pool", "preferences", "tokens", "warmup"):
        shutil.copytree(single / "stages" / name, both / "stages" / name)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rose"]
    done = python(*torchrun, *overrides(inputs, both), *EXACT)
    assert done.returncode == 0, done.stderr
    (directory,) = (both / "runs").iterdir()
    assert json.loads((directory / "status.json").read_text()) == {"state": "done", "error": None}
    stages = json.loads((directory / "stages.json").read_text())
    alone = json.loads((single / "job" / "stages.json").read_text())
    assert stages["warmup"]["state"] == "reused" and stages["features 2 of 2"]["state"] == "computed"
    apart = [name for name in stages if kind_of(name) in ("features", "targets")]
    assert len(apart) == 4
    for name in (*apart, "scores", "selection"):
        assert files_of(both / stages[name]["dir"]) == files_of(single / alone[name]["dir"])
        assert stages[name]["tokens_backward"] == alone[name]["tokens_backward"]
    tuned = [folder / "adapter_model.safetensors" for folder in (single / "job" / "adapter", directory / "adapter")]
    assert furthest(*tuned) < 1e-3
    assert done.stderr.count("features 2 of 2 computed") == 1
    assert (directory / "rose.log").read_text().count("features 2 of 2 computed") == 1
    assert not list((both / "stages").glob("*/.*.part"))


def test_two_processes_make_the_steps_of_one_sharing_the_weights_or_not(base, pairs, tmp_path):
    for name, folder in (("base", base), ("pairs", pairs)):
        (tmp_path / name).symlink_to(folder)
    rows = [{"id": str(i), "dataset": "d", **row} for i, row in enumerate(random_rows([7, 9, 12, 8, 10, 6, 11]))]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "tokens" / "rows"))
    two_processes("train", tmp_path)
    for shared in ("two", "sharded"):
        for name, file in (
            ("warmup", "checkpoint-2/adapter_model"),
            ("warmup", "checkpoint-2/moments"),
            ("dpo", "adapter_model"),
        ):
            one, other = (tmp_path / f"{name}-{count}" / f"{file}.safetensors" for count in ("one", shared))
            assert furthest(one, other) < 1e-3
        for name in ("warmup", "dpo"):
            one, other = (
                [json.loads(line) for line in (tmp_path / f"{name}-{count}" / "log.jsonl").read_text().splitlines()]
                for count in ("one", shared)
            )
            assert len(one) == len(other) == 4
            for first, second in zip(one, other, strict=True):
                assert second == pytest.approx(first, rel=1e-3)
        manifests = [(tmp_path / f"warmup-{count}" / "manifest.json").read_text() for count in ("one", shared)]
        assert manifests[0] == manifests[1]


def test_of_a_sharded_model_each_of_two_processes_holds_half(base, tmp_path):
    (tmp_path / "base").symlink_to(base)
    two_processes("halves", tmp_path)
    shares = [float((tmp_path / f"share-{rank}").read_text()) for rank in range(2)]
    assert shares == pytest.approx([0.5, 0.5], abs=0.01)


def test_a_process_that_fails_or_dies_ends_the_stage_on_all(tmp_path):
    *said, statuses = two_processes("end", tmp_path)
    failed, died, again = json.loads(statuses)
    assert failed == [1, 0]  # the first process speaks, and fails, for both
    assert "0 Elsewhere: process 1: ValueError: no" in said
    assert not list((tmp_path / "stages" / "failing").iterdir())
    assert died == [1, -9]
    assert any(line.startswith("0 Lost: another process of this job has ended") for line in said)
    assert again == [0, 0]  # it goes on from what was left
    (folder,) = (tmp_path / "stages" / "dying").iterdir()
    assert (folder / "lines-0").read_text() == "begun\nbegun\n"


def test_work_outlives_another_process_whose_device_is_full(tmp_path):
    *said, statuses = two_processes("lack", tmp_path)
    assert json.loads(statuses) == [[1, 0], [0, 0]]
    assert "0 Elsewhere: process 1: OutOfMemoryError: CUDA out of memory." in said
    (folder,) = (tmp_path / "stages" / "lacking").iterdir()
    assert (folder / "lines-0").read_text() == "begun\nbegun\n"


@pytest.mark.parametrize(
    ("world", "batch", "micro", "expected"),
    [(1, 16, 4, (4, 4)), (2, 16, 4, (4, 2)), (4, 16, 4, (4, 1)), (8, 16, 4, (2, 1)), (3, 12, 2, (2, 2))],
)
def test_the_batch_is_the_same_however_many_share_it(composed, monkeypatch, world, batch, micro, expected):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    sizes = [f"warmup.batch_size={batch}", f"warmup.micro_batch_size={micro}"]
    assert micro_batches(typed(composed(*sizes)).warmup) == expected


@pytest.mark.parametrize(
    ("world", "micro", "expected"),
    [(3, 16, "batch_size=16: must be a multiple of the 3 processes"), (2, 16, None), (2, 3, "micro_batch_size=3")],
)
def test_a_batch_that_cannot_be_shared_is_refused(composed, monkeypatch, world, micro, expected):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    training = typed(composed()).warmup
    training.micro_batch_size = micro
    if expected is None:
        assert micro_batches(training) == (8, 1)
    else:
        with pytest.raises(RoseError, match=expected):
            micro_batches(training)


def test_a_sweep_under_torchrun_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = python("-m", "rose", "-m", "method=rose,less", f"outputs={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "rose: WORLD_SIZE=2: several processes share one job, not a sweep; torchrun starts one job"
    ]
