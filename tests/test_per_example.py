"""The engine against a loop of batch-1 backward passes through the unchanged model."""

import pytest
import torch
from tiny_models import (
    DEVICES,
    LENGTHS,
    adapted,
    distance,
    engine_gradients,
    llama,
    loop_gradients,
    random_rows,
)
from transformers import (
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from rose.errors import RoseError
from rose.gradients.per_example import PerExample

SIZES = dict(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=128,
)  # fmt: skip
FAMILIES = {
    "llama": (llama(), "all-linear"),
    "llama attention": (llama(num_key_value_heads=1), ["q_proj", "v_proj"]),
    "mistral sliding": (
        MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8),
        ["k_proj", "o_proj"],
    ),
    "qwen2": (Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True), ["q_proj", "up_proj"]),
    "qwen3": (Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8), ["q_proj", "k_proj", "down_proj"]),
    "gemma2 soft-capped": (
        Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, sliding_window=8, final_logit_softcapping=3.0),
        ["q_proj", "v_proj", "gate_proj"],
    ),
    "gpt-neox": (GPTNeoXConfig(**SIZES), ["query_key_value", "dense", "dense_h_to_4h"]),
    "gpt2 transposed": (GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4), ["c_attn", "c_proj"]),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("double")
def test_gradients_equal_a_batch_one_loop(family, device):
    config, targets = FAMILIES[family]
    model, rows = adapted(config, targets).to(device), random_rows(LENGTHS)
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-12


@pytest.mark.parametrize("lora", [{"use_rslora": True}, {"lora_dropout": 0.3}, {"layers_to_transform": [1]}])
@pytest.mark.usefixtures("double")
def test_lora_options(lora):
    model, rows = adapted(**lora), random_rows(LENGTHS)
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-12


@pytest.mark.usefixtures("double")
def test_an_adapted_output_layer():
    model, rows = adapted(targets=["q_proj", "lm_head"]), random_rows(LENGTHS)
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-12


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.usefixtures("double")
def test_gradient_checkpointing(reentrant):
    model, rows = adapted(targets=["q_proj", "down_proj"]), random_rows(LENGTHS)
    expected = loop_gradients(model, rows)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()
    assert distance(engine_gradients(model, rows), expected) < 1e-12


@pytest.mark.usefixtures("double")
def test_a_row_does_not_depend_on_its_batch():
    model, rows = adapted(), random_rows(LENGTHS)
    together = engine_gradients(model, rows)
    for order in ([3, 1], [4, 0, 2], [2]):
        assert distance(engine_gradients(model, [rows[i] for i in order]), together[order]) < 1e-12


def test_a_row_that_is_not_finite_stays_alone():
    model, rows = adapted(), random_rows(LENGTHS)
    expected = engine_gradients(model, rows)
    with PerExample(model) as engine:
        log_probs, _ = engine.forward(rows)
        gradients = engine.backward((-log_probs.mean(1) * torch.tensor([1, torch.nan, 1, 1, 1])).sum())
        assert gradients[1].isnan().any()
        assert gradients[[0, 2, 3, 4]].isfinite().all()
    assert expected.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_bases_agree_up_to_their_rounding(dtype, tolerance, device):
    exact, rows = adapted(), random_rows(LENGTHS)
    model = adapted(dtype=dtype).to(device)
    gradients = engine_gradients(model, rows).cpu()
    assert gradients.dtype == torch.float32
    model.base_model.model.to(torch.float32)
    exact.load_state_dict(model.state_dict())  # the same rounded weights, in float64
    assert distance(gradients, loop_gradients(exact, rows)) < tolerance


def test_columns_follow_named_parameters():
    model = adapted(targets=["v_proj", "q_proj", "down_proj"])
    engine = PerExample(model)
    trainable = [(name, weight.numel()) for name, weight in model.named_parameters() if weight.requires_grad]
    assert engine.names == [name for name, _ in trainable]
    assert engine.size == sum(count for _, count in trainable)
    assert [(s.stop - s.start) for s in engine.slices.values()] == [count for _, count in trainable]


def test_leaving_restores_the_model():
    model, rows = adapted(), random_rows([9])
    inputs = torch.tensor([rows[0]["input_ids"]])
    before = model(input_ids=inputs).logits
    with PerExample(model) as engine:
        engine.forward(rows)
    assert torch.equal(model(input_ids=inputs).logits, before)
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(weight.grad is None for weight in model.parameters())


def test_inside_the_engine_the_base_model_is_still_there():
    model, rows = adapted(), random_rows([9])
    inputs = torch.tensor([rows[0]["input_ids"]])
    with model.disable_adapter():
        base = model(input_ids=inputs).logits
    with PerExample(model) as engine, model.disable_adapter(), torch.no_grad():
        assert engine.size
        assert torch.equal(model(input_ids=inputs).logits, base)


def test_dora_is_refused():
    with pytest.raises(RoseError, match="plain LoRA"):
        PerExample(adapted(use_dora=True))


def test_other_trainable_weights_are_refused():
    model = adapted()
    model.get_input_embeddings().weight.requires_grad_()
    with pytest.raises(RoseError, match="embed_tokens"):
        PerExample(model)


def tied(model):
    """The model, its second layer's projections those of the first, adapter and all."""
    first, second = (layer.self_attn for layer in model.base_model.model.model.layers)
    for name in ("q_proj", "v_proj"):
        setattr(second, name, getattr(first, name))
    return model


@pytest.mark.usefixtures("double")
def test_a_layer_that_is_passed_twice_adds_up():
    model, rows = tied(adapted()), random_rows(LENGTHS)
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-12


@pytest.mark.usefixtures("double")
def test_what_a_loss_does_not_reach_is_zero_whatever_the_buffer_held(monkeypatch):
    model, rows = adapted(targets=["q_proj", "down_proj"]), random_rows(LENGTHS)
    expected = loop_gradients(model, rows)
    undefined = lambda *sizes, **options: torch.full(sizes, torch.nan, **options)  # noqa: E731
    monkeypatch.setattr(torch, "empty", undefined)
    with PerExample(model) as engine:
        log_probs, mask = engine.forward(rows)
        assert (
            engine.backward(log_probs.sum() * 0 + torch.ones((), requires_grad=True), again=True).count_nonzero() == 0
        )
        found = engine.backward(-(log_probs.sum(1) / mask.sum(1)).sum(), again=True)
        assert distance(found, expected) < 1e-12
        assert torch.equal(engine.backward(torch.ones((), requires_grad=True)), torch.zeros_like(found))


@pytest.mark.parametrize(("targets", "casts"), [(["q_proj", "k_proj", "v_proj"], 1), (["q_proj", "o_proj"], 2)])
def test_layers_that_share_an_input_cast_it_once_a_pass(targets, casts, monkeypatch):
    model, rows, seen = adapted(targets=targets, dtype=torch.bfloat16), random_rows(LENGTHS), []
    widened = PerExample.widened

    def counted(self, x):
        seen.append(widened(self, x))
        return seen[-1]

    monkeypatch.setattr(PerExample, "widened", counted)
    engine_gradients(model, rows)
    assert len(seen) == 2 * 2 * len(targets)  # two layers, forwards and backwards
    # and the last of the forward pass is the first of the backward one
    assert len({id(wide) for wide in seen}) == 2 * 2 * casts - 1
