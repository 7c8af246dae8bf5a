"""Training on the pairs themselves: DPO's loss by hand, and what a few steps of it do."""

import json
import math
from dataclasses import replace

import pytest
import torch
from method_toys import lines, tokens_of
from peft import LoraConfig, get_peft_model
from tiny_models import LORA, NUMERICS, TRAINING, adapted, llama, random_rows, slow_log_probs
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig

from rose.config.choices import Reference
from rose.data.encoded_pairs import encoded_pairs
from rose.errors import RoseError
from rose.evaluation.evaluate import pair_log_probs, preference_metrics
from rose.gradients.objectives import Loss, Objective
from rose.methods.hidden import pair_states
from rose.models import loading
from rose.training.finetune import selected_rows
from rose.training.pairs import interleave, preference_losses, tune_by_dpo, tune_on_chosen
from rose.training.supervised import _warm_up


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


def measured(base, pairs, adapter=None) -> dict[str, float]:
    model = loading.load_model(base, NUMERICS)
    model = model if adapter is None else loading.load_adapter(model, adapter)
    _, encoded, _ = encoded_pairs(loading.load_tokenizer(base), pairs / "target.jsonl", 64)
    metrics = preference_metrics(pair_log_probs(model, encoded, 512), None)
    return {name: values.mean() for name, values in metrics.items()}


def test_sft_learns_the_chosen_answers(base, pairs, tmp_path):
    tune_on_chosen(tmp_path, TRAINING, LORA, NUMERICS, 64, base, pairs)
    assert measured(base, pairs, tmp_path)["chosen_loss"] < measured(base, pairs)["chosen_loss"] - 0.3


def test_pairs_that_do_not_fit_are_named_and_listed(base, pairs, tmp_path, caplog):
    rows = [json.loads(line) for line in (pairs / "target.jsonl").read_text().splitlines()]
    for row in rows[1:]:  # too long for the model, and the same up to there
        for side, last in (("chosen", "tomato"), ("rejected", "anchor")):
            row[side] = [{"role": "assistant", "content": "rope " * 40 + last}]
    lines(tmp_path / "pairs" / "target.jsonl", rows)
    numerics = (NUMERICS, 24, base, tmp_path / "pairs")
    how = {
        "sft": lambda out: tune_on_chosen(out, TRAINING, LORA, *numerics),
        "dpo": lambda out: tune_by_dpo(out, TRAINING, 0.1, LORA, *numerics),
        "states": lambda out: pair_states(out, *numerics),
    }
    for name, make in how.items():
        caplog.clear()
        (tmp_path / name).mkdir()
        make(tmp_path / name)
        dropped = [json.loads(line) for line in (tmp_path / name / "dropped.jsonl").read_text().splitlines()]
        assert [row["id"] for row in dropped] == ["1", "2"] and "max_length=24" in dropped[0]["reason"]
        assert [
            line for line in caplog.messages if "2 of 3" in line and ("first 1 (" in line or line.endswith(": 1, 2"))
        ]


def test_selected_rows_without_tokens_are_told_apart_and_all_of_them_is_an_error(tmp_path):
    tokens = tokens_of(tmp_path / "tokens", [{"input_ids": [1, number], "labels": [1, number]} for number in range(3)])
    refused = [{"id": f"long{number}", "reason": "no answer token within 9 tokens"} for number in range(3)]
    lines(tokens / "dropped.jsonl", refused)
    for name, ids in (("some", ["long2", "r2", "r0"]), ("none", ["long0", "long1"])):
        lines(tmp_path / name / "selected.jsonl", [{"id": own} for own in ids])
    rows, dropped = selected_rows(tokens, tmp_path / "some")
    assert (rows["id"][:], dropped) == (["r0", "r2"], refused[2:])
    with pytest.raises(RoseError, match=r"student\.max_length: none of the 2 selected rows .*within 9 tokens"):
        selected_rows(tokens, tmp_path / "none")


def test_dpo_learns_to_prefer_them(base, pairs, tmp_path):
    tune_by_dpo(tmp_path, TRAINING, 0.1, LORA, NUMERICS, 64, base, pairs)
    assert measured(base, pairs, tmp_path)["preference_accuracy"] == 1
    curve = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert curve[0] == pytest.approx(math.log(2), rel=1e-3)  # at first the model is its own reference
    assert curve[-1] < curve[0] - 0.05


DROPPING = {
    "a Llama's attention": llama(attention_dropout=0.5),
    "GPT-2's modules": GPT2Config(
        vocab_size=61, n_positions=64, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5
    ),
    "OPT's functions, and whole layers": OPTConfig(
        vocab_size=61, max_position_embeddings=64, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48,
        num_hidden_layers=2, num_attention_heads=4, dropout=0.5, attention_dropout=0.5, layerdrop=0.5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DROPPING)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_untrained_adapter_is_its_own_reference_whatever_the_model_drops(kind, checkpointing):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(DROPPING[kind])
    lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.5)
    model = get_peft_model(model, lora).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    rows = random_rows([9, 12, 7, 15])
    pairs = [{name: [rows[i][name], rows[i + 1][name]] for name in ("input_ids", "labels")} for i in (0, 2)]
    each = preference_losses(model, Objective(Loss.dpo, 0.3, Reference.base), **interleave(pairs))
    assert each.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    each.sum().backward()
    dropouts = [module.p for name, module in model.named_modules() if name.endswith("lora_dropout.default")]
    assert dropouts and set(dropouts) == {0.5}  # the adapter's own is a setting


@pytest.mark.parametrize("ratio", [0.03, 0.9])
def test_a_training_of_one_step_moves_the_weights(base, pairs, tmp_path, ratio, caplog):
    once = replace(TRAINING, epochs=1, batch_size=4, micro_batch_size=4, warmup_ratio=ratio)
    tune_by_dpo(tmp_path, once, 0.1, LORA, NUMERICS, 64, base, pairs)
    (step,) = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert step["learning_rate"] == TRAINING.learning_rate and "moved no weight" not in caplog.text
    before, after = measured(base, pairs), measured(base, pairs, tmp_path)
    assert before["chosen_loss"] != after["chosen_loss"]


@pytest.mark.parametrize(
    ("ratio", "steps", "risen"),
    [(0.03, 1, 0), (0.9, 1, 0), (0.6, 2, 0), (0.03, 16, 0), (0.0, 9, 0), (0.03, 28, 1), (0.03, 100, 3), (0.5, 2, 1)],
)
def test_the_rate_rises_over_no_more_steps_than_leave_some_to_train(ratio, steps, risen):
    assert math.ceil(_warm_up(ratio, steps) * steps) == risen


def test_a_training_that_moves_nothing_says_so(base, pairs, tmp_path, caplog):
    tune_on_chosen(tmp_path, replace(TRAINING, learning_rate=1e-60, epochs=1), LORA, NUMERICS, 64, base, pairs)
    assert "moved no weight in 2 steps: look at learning_rate=1e-60, warmup_ratio=0, epochs=1" in caplog.text
