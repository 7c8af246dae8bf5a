"""What the stage `answers` leaves, written by hand, and a random reward model."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from rose.data import world


def write_answers(folder: Path, contests: Iterable[tuple[str, str]]) -> Path:
    """One pair a contest, (answer, reference)."""
    folder.mkdir()
    rows = [
        {"id": f"pair-{i}", "subtask": "s", "prompt": [{"role": "user", "content": f"question {i}?"}]}
        | {"answer": answer, "reference": reference}
        for i, (answer, reference) in enumerate(contests)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def save_reward_model(folder: Path, pads: bool) -> Path:
    """A random Llama with one output, and the world's tokenizer with its chat template."""
    tokenizer = world.tokenizer()
    if not pads:
        tokenizer.pad_token = None
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForSequenceClassification(
        LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **shape)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
