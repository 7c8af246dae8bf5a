"""One process, one device: which it is, how exactly it multiplies, and whose errors are whose."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy
import pytest
import torch
from datasets import Dataset
from method_toys import composed_method, store
from pretended_device import PretendedGpu
from small_job import overrides
from tiny_models import NUMERICS, SAME_BYTES, TRAINING, adapted, random_rows
from torch.nn import DataParallel
from transformers import TrainingArguments

from rose import device, pipeline, ranks
from rose.__main__ import ROOT
from rose.config.choices import Matmul
from rose.config.compose import typed
from rose.data import world
from rose.errors import RoseError
from rose.gradients.feature_store import FeatureStore
from rose.methods import estimators
from rose.methods.estimators import View
from rose.models import loading
from rose.run import job
from rose.run.launchers.processes import _devices
from rose.run.launchers.ray import gpus
from rose.stages.build import build
from rose.stages.cost import metered
from rose.stages.graph import Node, stage
from rose.training import supervised


@pytest.fixture
def machine(monkeypatch):
    """machine(count) has so many GPUs, as far as torch can tell; returned: which one was chosen."""
    chosen = []

    def has(count: int) -> list[int]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return has


@pytest.mark.parametrize(("count", "rank", "chosen"), [(8, 0, 0), (8, 7, 7), (1, 0, 0), (1, 5, 0)])
def test_a_process_takes_the_gpu_of_its_rank_or_the_one_that_it_sees(machine, monkeypatch, count, rank, chosen):
    seen, backends = machine(count), []
    for name, value in {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 8,
        "MASTER_ADDR": "x",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **_: backends.append(backend))
    monkeypatch.setattr(torch.distributed, "new_group", lambda **_: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with ranks.joined():
        assert seen == [chosen] and backends == ["nccl"]


def test_more_processes_than_gpus_are_refused_in_one_line(machine):
    machine(2)
    with pytest.raises(RoseError, match="LOCAL_RANK=2: a process uses one GPU, and this machine has 2; start .* 2"):
        device.choose(2)


@SAME_BYTES
def test_training_in_one_process_makes_the_same_steps_however_many_gpus_it_sees(tmp_path, monkeypatch):
    original = TrainingArguments._setup_devices.func

    def of_two(arguments):
        place = original(arguments)
        arguments._n_gpu = 2
        return place

    found, seen = cached_property(of_two), []
    found.__set_name__(TrainingArguments, "_setup_devices")
    rows = [{"id": str(i), **row} for i, row in enumerate(random_rows([6, 9, 7, 8, 5, 6]))]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        model, loss = adapted(dtype=torch.float32), supervised.answer_loss(world.tokenizer())
        model.register_forward_pre_hook(
            lambda module, inputs, named: seen.append(len(named["input_ids"])), with_kwargs=True
        )
        supervised.train(model, Dataset.from_list(rows), loss, replace(TRAINING, epochs=1), tmp_path / name)
        monkeypatch.setattr(TrainingArguments, "_setup_devices", found)
        monkeypatch.setattr(DataParallel, "__init__", None)
    one, two = ((tmp_path / name / "log.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two and len(one.splitlines()) == 3 and seen == [1] * 12


def test_a_batch_that_training_has_no_room_for_is_an_error_that_says_what_to_set(tmp_path, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(supervised.Trainer, "training_step", full)
    loss, rows = supervised.answer_loss(world.tokenizer()), Dataset.from_list(random_rows([6, 9]))
    with pytest.raises(RoseError, match="micro_batch_size=1: .* out of memory.*gradient_checkpointing=true") as error:
        supervised.train(adapted(dtype=torch.float32), rows, loss, TRAINING, tmp_path)
    assert device.failed(error.value)


@pytest.mark.parametrize(("room", "parts"), [(1000, [8, 8]), (5, [8, 4, 4, 4, 4]), (1, [8, 4, 2] + [1] * 16)])
def test_auto_halves_what_training_holds_at_once_until_it_fits_and_makes_the_same_steps(
    tmp_path, monkeypatch, room, parts
):
    """Of 8 rows a step, 16 rows in all: nothing of the attempts that did not fit is left in the weights."""
    seen, step = [], supervised.Trainer.training_step

    def limited(self, model, inputs, *rest, **named):
        seen.append(len(inputs["input_ids"]))
        if seen[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return step(self, model, inputs, *rest, **named)

    loss, rows = supervised.answer_loss(world.tokenizer()), Dataset.from_list(random_rows(range(6, 22)))
    losses = {}
    for name, size in (("auto", "auto"), ("one", 1)):
        if name == "auto":
            monkeypatch.setattr(supervised.Trainer, "training_step", limited)
        (tmp_path / name).mkdir()
        training = replace(TRAINING, epochs=1, batch_size=8, micro_batch_size=size)
        supervised.train(adapted(dtype=torch.float32), rows, loss, training, tmp_path / name)
        monkeypatch.setattr(supervised.Trainer, "training_step", step)
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses[name] = [json.loads(line)["loss"] for line in lines]
    assert seen == parts
    assert losses["auto"] == pytest.approx(losses["one"], rel=1e-5) and len(losses["one"]) == 2


def test_checkpointed_layers_are_computed_twice_and_make_the_same_steps(tmp_path):
    """Whatever transformers calls the option, in the oldest version and in the newest."""
    loss, rows = supervised.answer_loss(world.tokenizer()), Dataset.from_list(random_rows(range(6, 10)))
    passes, losses = {}, {}
    for checkpointed in (False, True):
        (folder := tmp_path / str(checkpointed)).mkdir()
        model, seen = adapted(dtype=torch.float32), []
        layer = model.get_submodule("base_model.model.model.layers.0.mlp")
        layer.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        supervised.train(model, rows, loss, replace(TRAINING, epochs=1, gradient_checkpointing=checkpointed), folder)
        lines = (folder / "log.jsonl").read_text().splitlines()
        passes[checkpointed], losses[checkpointed] = len(seen), [json.loads(line)["loss"] for line in lines]
    assert passes == {False: 4, True: 8}
    assert losses[True] == pytest.approx(losses[False], rel=1e-5) and len(losses[True]) == 2


@pytest.mark.parametrize(
    ("error", "its"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:94, unhandled cuda error"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("no"), False),
        (RoseError("CUDA out of memory"), False),
    ],
)
def test_which_errors_are_the_devices(error, its):
    assert device.failed(error) is its
    wrapped = RoseError("a row alone does not fit")
    wrapped.__cause__ = error
    assert device.failed(wrapped) is its


@stage("precision", version=1)
def precision(out: Path, base: Path) -> None:
    """Which precision a stage begins with, and what a model that is loaded for TF32 makes of it."""
    found = [torch.get_float32_matmul_precision()]
    loading.load_model(base, replace(NUMERICS, matmul=Matmul.high))
    (out / "found").write_text(json.dumps([*found, torch.get_float32_matmul_precision()]))


@stage("given", version=1)
def given(out: Path, folder: str) -> None:
    for file in Path(folder).iterdir():
        (out / file.name).symlink_to(file)


def test_every_stage_begins_exact_and_a_model_is_multiplied_as_its_numerics_say(base, tmp_path):
    try:
        device.multiply("high")  # as by TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1, below
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
        made = build(Node(precision, Node(given, str(base))), tmp_path)
        assert json.loads((made / "found").read_text()) == ["highest", "high"]
        loading.load_model(base, NUMERICS)
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    finally:
        device.multiply()


def test_a_container_that_enables_tf32_changes_nothing():
    script = "import torch; from rose import device; p = torch.get_float32_matmul_precision; print(p()); "
    script += "device.multiply(); print(p(), torch.backends.cuda.matmul.allow_tf32)"
    environment = os.environ | {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["high", "highest", "False"]


def test_matmul_is_in_the_key_where_it_is_not_the_default(composed):
    def names(*changes: str) -> dict[str, str]:
        return {name: node.name for name, node in pipeline.stages(typed(composed(*changes))).items()}

    plain, high = names(), names("model.numerics.matmul=high")
    assert plain == names("model.numerics.matmul=highest")
    changed = {name for name in plain if plain[name] != high[name]}
    assert {"warmup", "features 4 of 4", "evaluation"} <= changed and not {"pool", "tokens", "preferences"} & changed


def test_training_in_float16_is_refused_before_anything_and_reading_in_it_is_not(composed, inputs, tmp_path):
    changes = [*overrides(inputs, tmp_path), "model.numerics.dtype=float16"]
    said = r"^model\.numerics\.dtype=float16: .* must be bfloat16 or float32 where a model is trained"
    with pytest.raises(RoseError, match=said):
        pipeline.stages(typed(composed(*changes)))
    pipeline.stages(typed(composed(*changes, "method=zero_shot")))
    for until in ("tokens", "scores", "selection", "diagnostics"):  # nothing is trained as far as that
        pipeline.stages(typed(composed(*changes, "method=readout", f"until={until}")))
    trains = [
        ("readout", "finetune"),
        ("readout", "answers"),
        ("readout", "warmup"),
        ("rose", "scores"),  # at a warm-up's checkpoint
        ("loss_drop", "scores"),  # after the pairs
    ]
    for method, until in trains:
        with pytest.raises(RoseError, match=said):
            pipeline.stages(typed(composed(*changes, f"method={method}", f"until={until}")))


def refuse(*_, **__):
    raise AssertionError("a GPU was asked for")


def test_measuring_a_stage_that_uses_no_gpu_makes_no_context_on_it(machine, monkeypatch):
    machine(1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "memory_allocated", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    with metered() as cost:
        pass
    assert cost["peak_memory"] > 1_000_000


@pytest.mark.parametrize(("before", "peak", "of_gpu"), [(7, 123, True), (7, 7, False), (0, 0, False)])
def test_peak_memory_is_the_gpus_where_the_stage_put_something_there(machine, monkeypatch, before, peak, of_gpu):
    machine(1)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: before)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak)
    with metered() as cost:
        pass
    assert (cost["peak_memory"] == peak) is of_gpu


def test_on_ray_a_job_has_a_gpu_where_there_is_one_unless_it_is_told_otherwise():
    assert gpus({"num_cpus": 1, "num_gpus": None}, {"CPU": 8.0, "GPU": 4.0}) == 1
    assert gpus({"num_cpus": 1}, {"CPU": 8.0}) == 0
    assert gpus({"num_gpus": 0}, {"GPU": 4.0}) == 0
    assert gpus({"num_gpus": 0.5}, {"GPU": 4.0}) == 0.5


@pytest.mark.parametrize(
    ("visible", "at_once", "each"),
    [
        (None, 2, ["0,2", "1,3"]),
        (None, 5, ["0", "1", "2", "3", "0"]),  # more jobs than GPUs share them
        ("5,7", 2, ["5", "7"]),
    ],
)
def test_jobs_beside_one_another_share_out_the_gpus_that_are_to_be_seen(machine, monkeypatch, visible, at_once, each):
    machine(4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _devices(at_once) == each


def test_jobs_beside_one_another_are_told_of_no_gpu_where_there_is_none(machine, monkeypatch):
    machine(0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _devices(2) == [None, None]


def test_a_job_says_that_it_uses_one_of_several_gpus(machine, composed, inputs, tmp_path, caplog, monkeypatch):
    machine(4)
    monkeypatch.setattr(loading, "device", lambda: "cpu")
    config = typed(composed(*overrides(inputs, tmp_path), "until=base"))
    with caplog.at_level("INFO"):
        job.run(config, tmp_path / "job", "test")
    assert "4 GPUs are here, and a process uses one: torchrun --nproc_per_node 4" in caplog.text


ROWS, TARGETS = (numpy.random.default_rng(0).normal(size=size).round(3) for size in ((9, 5), (3, 5)))


@pytest.mark.parametrize("big", [True, False])
@pytest.mark.parametrize("count", [9, 4])  # more rows than columns, and fewer
@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_scores_of_a_big_store_are_made_on_the_gpu_and_are_the_same(tmp_path, monkeypatch, name, count, big):
    pool = View(FeatureStore.open(store(tmp_path / "pool", [ROWS[:count].tolist()], [1.0])), 0)
    method, aims, subtasks = composed_method("rose"), torch.tensor(TARGETS).float(), ["a", "a", "b"]

    def scores() -> torch.Tensor:
        return estimators.ESTIMATORS[name](method, pool, estimators.whiten(pool, aims, 0.1), subtasks)

    expected, moved = scores(), []
    monkeypatch.setattr(estimators, "BIG", 1 if big else 1 << 30)
    monkeypatch.setattr(loading, "device", lambda: "cuda")
    with PretendedGpu(moved):
        found = scores()
        assert found.device.type == "cpu"
    assert torch.equal(found, expected) and bool(moved) is big
