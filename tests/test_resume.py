"""Training that is killed and goes on gives the bytes of one that was left alone."""

import dataclasses
import json
import os
import types
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny_models import NUMERICS, SAME_BYTES, llama
from transformers import AutoModelForCausalLM, TrainerCallback

from rose.config.choices import Manners
from rose.config.schema import Lora, Warmup
from rose.data import chat, world
from rose.training import resume, supervised
from rose.training.warmup import sample, warm_up

LORA = Lora(rank=4, alpha=8, dropout=0.1, targets=["q_proj", "v_proj"], rank_stabilized=False)
WARMUP = Warmup(
    epochs=3,
    learning_rate=0.02,
    batch_size=4,
    micro_batch_size=2,
    schedule="linear",
    warmup_ratio=0.1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    seed=0,
    ratio=1.0,
)


class Killed(BaseException):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Killed


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(vocab_size=len(tokenizer))).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    rows = [
        {"id": str(i), **chat.encode(tokenizer, row["messages"], 64)}
        for i, row in enumerate(world.conversations(22, 0, Manners.phrases))
    ]
    Dataset.from_list(rows).save_to_disk(folder / "tokens" / "rows")
    return folder / "base", folder / "tokens"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    warm_up(out, WARMUP, LORA, NUMERICS, *inputs)
    return files(out)


@SAME_BYTES
@pytest.mark.parametrize("kills", [(3,), (6, 8), (12,), (17,)])  # of 18 steps, in an epoch and at its edge
def test_a_killed_warm_up_goes_on_to_the_same_bytes(inputs, whole, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(resume, "EVERY", 0.0)
    begun = []
    train = supervised.Trainer.train
    monkeypatch.setattr(
        supervised.Trainer,
        "train",
        lambda self, resume_from_checkpoint: (
            begun.append(resume_from_checkpoint) or train(self, resume_from_checkpoint=resume_from_checkpoint)
        ),
    )
    watch = supervised.finite.Watch
    for step in kills:
        monkeypatch.setattr(supervised.finite, "Watch", lambda step=step: KillAt(step))
        with pytest.raises(Killed):
            warm_up(tmp_path, WARMUP, LORA, NUMERICS, *inputs)
    monkeypatch.setattr(supervised.finite, "Watch", watch)
    warm_up(tmp_path, WARMUP, LORA, NUMERICS, *inputs)
    assert [path and int(path.rsplit("-")[-1]) for path in begun] == [None, *kills]
    assert files(tmp_path) == whole


def test_a_checkpoint_that_was_torn_is_not_gone_on_from(inputs, whole, tmp_path):
    torn = resume.folder(tmp_path) / "checkpoint-5"
    torn.mkdir(parents=True)
    (torn / "trainer_state.json").write_text(json.dumps({"global_step": 5}))
    warm_up(tmp_path, WARMUP, LORA, NUMERICS, *inputs)
    assert files(tmp_path) == whole


def test_a_checkpoint_is_vouched_for_when_it_is_on_the_disk(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    synced, fsync = [], os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, (folder / resume.WHOLE).exists()))

    monkeypatch.setattr(os, "fsync", watched)
    arguments, state = types.SimpleNamespace(output_dir=tmp_path), types.SimpleNamespace(global_step=5)
    resume.Save().on_save(arguments, state, None)
    assert ("model.safetensors", False) in synced and ("checkpoint-5", False) in synced
    assert (resume.WHOLE, True) in synced and synced[-1] == ("checkpoint-5", True)


def test_a_warm_up_of_more_than_its_ratio_says_so(caplog):
    rows = Dataset.from_dict({"id": list(range(30))})
    assert len(sample(rows, dataclasses.replace(WARMUP, ratio=0.3, batch_size=64))) == 30
    assert "warmup.ratio=0.3 of 30 rows is 9" in caplog.text
    caplog.clear()
    assert len(sample(rows, dataclasses.replace(WARMUP, ratio=0.3, batch_size=8))) == 9
    assert not caplog.text
