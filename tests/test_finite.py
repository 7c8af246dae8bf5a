"""A row that would poison the weights is named and left out, as if it had never been there."""

import json
import math

import pytest
import torch
from datasets import Dataset
from tiny_models import SAME_BYTES, llama
from transformers import AutoModelForCausalLM

from rose.config.schema import Lora, Training
from rose.data import world
from rose.errors import RoseError
from rose.models.loading import new_adapter
from rose.training import supervised
from rose.training.warmup import Checkpoints

POISON, TOKENS = 7, 40  # the token whose embedding is not a number; all others are below
TRAINING = Training(
    epochs=2,
    learning_rate=0.01,
    batch_size=4,
    micro_batch_size=2,
    schedule="linear",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    seed=0,
)


def rows(count: int, poisoned: set[int]) -> list[dict]:
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(count):
        ids = torch.randint(POISON + 1, TOKENS, (6,), generator=draw).tolist()
        ids[1] = POISON if number in poisoned else ids[1]
        found.append({"id": f"row{number}", "input_ids": ids, "labels": ids})
    return found


def trained(data: list[dict], out, value: float) -> tuple[dict, Checkpoints]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(llama(vocab_size=TOKENS)).requires_grad_(False)
    with torch.no_grad():
        model.get_input_embeddings().weight[POISON] = value
    lora = Lora(rank=2, alpha=4, dropout=0.1, targets=["q_proj", "v_proj"], rank_stabilized=False)
    model = new_adapter(model, lora, seed=0)
    saver = Checkpoints(out, model)
    loss = supervised.answer_loss(world.tokenizer())
    supervised.train(model, Dataset.from_list(data), loss, TRAINING, out, saver)
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}, saver


@SAME_BYTES
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_whose_loss_is_not_finite_is_named_and_training_is_that_of_the_others(tmp_path, caplog, value):
    bad, good = tmp_path / "bad", tmp_path / "good"
    for out in (bad, good):
        out.mkdir()
    data = rows(9, poisoned={4, 7})
    weights, seen = trained(data, bad, value)
    expected, plain = trained([row for row in data if POISON not in row["input_ids"]], good, value)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert seen.memory == plain.memory and len(seen.memory["entries"]) == TRAINING.epochs
    assert (bad / "log.jsonl").read_bytes() == (good / "log.jsonl").read_bytes()
    dropped = [json.loads(line) for line in (bad / "dropped.jsonl").read_text().splitlines()]
    assert [row["id"] for row in dropped] == ["row4", "row7"] and "not finite" in dropped[0]["reason"]
    assert "row4, row7" in caplog.text
    assert not (good / "dropped.jsonl").exists()


def test_training_that_has_diverged_says_so_rather_than_blame_the_rows(tmp_path):
    with pytest.raises(RoseError, match="diverged at step 1: .* 5 of 6 rows .*learning_rate") as error:
        trained(rows(6, poisoned={0, 1, 2, 3, 4}), tmp_path, math.nan)
    assert "\n" not in str(error.value)
