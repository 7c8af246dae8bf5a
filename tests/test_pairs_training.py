"""Training on the pairs themselves: DPO's loss by hand, and what a few steps of it do."""

import json
import math

import pytest
import torch
from method_toys import lines
from tiny_models import adapted, llama, random_rows, slow_log_probs
from transformers import AutoModelForCausalLM

from rose import models
from rose.choices import Dtype, Reference
from rose.config import Lora, Numerics, Training
from rose.data import world
from rose.evaluation.likelihood import pair_log_probs, preference_metrics
from rose.gradients.features import encoded_pairs
from rose.gradients.objectives import Loss, Objective
from rose.training.pairs import interleave, preference_losses, tune_by_dpo, tune_on_chosen

NUMERICS = Numerics(dtype=Dtype.float32, attention="sdpa", sharded=False)
LORA = Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj"], rank_stabilized=False)
TRAINING = Training(
    epochs=12,
    learning_rate=0.02,
    batch_size=2,
    micro_batch_size=1,
    schedule="linear",
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    gradient_checkpointing=False,
    seed=0,
)


def test_the_dpo_loss_is_its_formula_with_the_base_model_as_reference():
    model, rows = adapted(), random_rows([9, 12, 7, 15])
    pairs = [{name: [rows[i][name], rows[i + 1][name]] for name in ("input_ids", "labels")} for i in (0, 2)]
    with torch.no_grad():
        tuned = [float(slow_log_probs(model, row).sum()) for row in rows]
        with model.disable_adapter():
            base = [float(slow_log_probs(model, row).sum()) for row in rows]
    gains = [after - before for after, before in zip(tuned, base, strict=True)]
    expected = [math.log(1 + math.exp(-0.3 * (gains[i] - gains[i + 1]))) for i in (0, 2)]
    each = preference_losses(model, Objective(Loss.dpo, 0.3, Reference.base), **interleave(pairs))
    assert each.tolist() == pytest.approx(expected, rel=1e-5)
    each.sum().backward()
    assert any(weight.grad.abs().sum() > 0 for name, weight in model.named_parameters() if "lora_B" in name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tokenizer = world.tokenizer()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs")
    said = [("tomato", "rope lantern", "flour flour"), ("easel", "anchor", "pedals rope"), ("rope", "flour", "tomato")]
    rows = [
        {
            "id": str(i),
            "subtask": "a",
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for i, (prompt, chosen, rejected) in enumerate(said)
    ]
    lines(path / "target.jsonl", rows)
    return path


def measured(base, pairs, adapter=None) -> dict[str, float]:
    model = models.load_model(base, NUMERICS)
    model = model if adapter is None else models.load_adapter(model, adapter)
    _, encoded, _ = encoded_pairs(models.load_tokenizer(base), pairs / "target.jsonl", 64)
    metrics = preference_metrics(pair_log_probs(model, encoded, 512), None)
    return {name: values.mean() for name, values in metrics.items()}


def test_sft_learns_the_chosen_answers(base, pairs, tmp_path):
    tune_on_chosen(tmp_path, TRAINING, LORA, NUMERICS, 64, base, pairs)
    assert measured(base, pairs, tmp_path)["chosen_loss"] < measured(base, pairs)["chosen_loss"] - 0.3


def test_dpo_learns_to_prefer_them(base, pairs, tmp_path):
    tune_by_dpo(tmp_path, TRAINING, 0.1, LORA, NUMERICS, 64, base, pairs)
    assert measured(base, pairs, tmp_path)["preference_accuracy"] == 1
    curve = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert curve[0] == pytest.approx(math.log(2), rel=1e-3)  # at first the model is its own reference
    assert curve[-1] < curve[0] - 0.05
