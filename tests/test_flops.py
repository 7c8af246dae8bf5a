"""The plan's arithmetic of FLOPs beside what torch's own counter sees of each kind of pass, on a small model."""

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import llama, random_rows
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from bench import flops
from rose.config.choices import Balance
from rose.gradients.objectives import SFT, gradients
from rose.gradients.per_example import PerExample
from rose.methods.hidden import one_pass
from rose.methods.readout import Readout
from rose.models.batching import collate
from rose.models.log_probs import token_log_probs
from rose.run.estimates import Size, _counted

# wide beside its vocabulary and its rows, as large models are: what the arithmetic leaves out is a few percent
SHAPE = llama(hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_key_value_heads=4)
ROWS = random_rows([33] * 8)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(SHAPE, dtype=torch.float32).eval()


def adapted(model):
    return get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])).eval()


class Nowhere(nullcontext):
    parents = frozenset({"Global"})


def counted(run) -> float:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Nowhere()  # its own asks which module runs, which `torch.autograd.grad` does not allow
    with counter:
        run()
    return counter.get_total_flops()


def planned(kind: str, model) -> float:
    """Of the ROWS, whose last tokens predict nothing."""
    trained = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    weights = sum(weight.numel() for weight in model.parameters()) - trained
    return _counted(kind, flops.composed(), Size(len(ROWS), 32, len(ROWS) / 2, 0, weights, trained)).flops


@pytest.mark.parametrize("kind", ["features", "targets"])
def test_per_example_gradients_cost_what_is_planned(model, kind):
    model = adapted(model)
    with PerExample(model) as engine:
        found = counted(lambda: gradients(engine, ROWS, SFT))
    assert found == pytest.approx(planned(kind, model), rel=0.1)


@pytest.mark.parametrize("kind", ["readout", "one_pass", "target_answer_states"])
def test_one_forward_pass_costs_what_is_planned(model, kind):
    if kind == "readout":
        made = Readout(model, 64, 0)
        found = counted(lambda: made.gradients(ROWS, mean=True, balance=Balance.none))
    else:
        found = counted(lambda: one_pass(model, ROWS))
    assert found == pytest.approx(planned(kind, model), rel=0.1)


def test_an_epoch_of_training_costs_what_is_planned(model):
    model, config = adapted(model).train(), flops.composed()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    weights = sum(weight.numel() for weight in model.parameters()) - trained
    rows = int(len(ROWS) / config.warmup.ratio)  # of which the warm-up takes the ROWS
    expected = _counted("warmup", config, Size(rows, 32, 0, 0, weights, trained)).flops / config.warmup.epochs
    taken = max(config.warmup.batch_size, config.warmup.ratio * rows) / len(ROWS)

    def step():
        log_probs, _ = token_log_probs(model, *collate(ROWS))
        log_probs.sum().backward()

    assert counted(step) * taken == pytest.approx(expected, rel=0.1)


def test_on_lesss_setting_a_method_is_the_sum_of_its_passes_over_the_pool_and_the_pairs():
    """By hand: 2 FLOPs a weight and token forward, as many backward, 2 a trained weight."""
    size = flops.LESS
    token, forward = 4 * size.weights + 2 * size.trained, 2 * size.weights
    pool, pairs = 270_679 * 300, 2 * 90 * 300
    expected = {
        "less, four checkpoints": token * (4 * 0.05 * pool + 4 * pool + 4 * pairs),
        "less, the last of four": token * (4 * 0.05 * pool + pool + pairs),
        "less, one epoch": token * (0.05 * pool + pool + pairs),
        "readout": forward * (pool + pairs),
        "hidden_contrast": forward * (pool + pairs),
    }
    assert {name: flops.flops(flops.composed(), size, each) for name, each in flops.METHODS.items()} == pytest.approx(
        expected, rel=1e-3
    )
