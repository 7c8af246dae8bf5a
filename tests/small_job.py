"""A person's own files, small enough that a whole job on them takes seconds, and the command that runs one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rose.__main__ import ROOT
from rose.data import world
from rose.stages.kinds import kind_of

TOPICS = ["tomato", "lantern", "flour", "anchor", "easel", "pedals"]


def write_inputs(folder: Path) -> None:
    """A random Llama, a pool of 24 rows of which one is too long to keep an answer, and 6 pairs in unequal subtasks."""
    tokenizer = world.tokenizer()
    tokenizer.pad_token = None  # as Llama's and Mistral's come
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pool = [
        {"id": f"row{i}", "prompt": f"{TOPICS[i % 6]} {i}", "completion": TOPICS[(i + 1) % 6], "quality": i}
        for i in range(24)
    ]
    pool[5]["prompt"] = "tomato " * 100
    pairs = [
        {"prompt": f"about {topic} ?", "chosen": f"{topic} rope", "rejected": "flour", "subtask": "ab"[i == 0]}
        for i, topic in enumerate(TOPICS[:2] + TOPICS[3:])
    ]
    for name, rows in (("pool.jsonl", pool), ("pairs.jsonl", pairs), ("test.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def overrides(inputs: Path, outputs: Path) -> list[str]:
    return [
        "model=local",
        f"model.base.path={inputs}/model",
        "model.numerics.dtype=float32",
        "model.max_length=48",
        "model.lora.rank=2",
        "model.learning_rate=0.01",
        "model.batch_size=4",
        "dataset=local",
        f"dataset.path={inputs}/pool.jsonl",
        "preference=local",
        f"preference.path={inputs}/pairs.jsonl",
        f"preference.test_path={inputs}/test.jsonl",
        "warmup.epochs=2",
        "finetune.epochs=1",
        "projection=sketch",
        "projection.dim=32",
        "selection.ratio=0.25",
        "tracking=none",
        f"outputs={outputs}",
    ]


def computed(stages: dict) -> list[str]:
    """The kinds of the stages that were computed."""
    return list(dict.fromkeys(kind_of(name) for name, stage in stages.items() if stage["state"] == "computed"))


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def rose(*arguments: str) -> subprocess.CompletedProcess:
    return python("-m", "rose", *arguments)
