"""Bases in 8 and 4 bits (bitsandbytes), on a CPU: gradients, a whole job, and what cannot be."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import FAMILIES, save
from fixtures_models import in_float64
from peft import PeftModel
from small_job import computed, overrides
from tiny_models import (
    DEVICES,
    LENGTHS,
    LORA,
    NUMERICS,
    distance,
    engine_gradients,
    llama,
    loop_gradients,
    random_rows,
    slow_log_probs,
)
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, MixtralConfig

from rose.config.choices import Quantization
from rose.config.compose import typed
from rose.config.schema import Base
from rose.data import world
from rose.data.chat import encode
from rose.errors import RoseError
from rose.models import loading, quantized
from rose.run import job
from rose.stages.graph import Node
from rose.training.trial import try_out

HERE = importlib.util.find_spec("bitsandbytes") is not None
BITS = pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed: pip install -e '.[gpu]'")
KINDS = [Quantization.int8, Quantization.nf4]
CONFIGS = {
    "llama": llama(attention_bias=True),
    "gpt2 transposed": GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0),
}


def folder_of(config, folder: Path) -> Path:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def loaded(folder: Path, kind: Quantization, dtype: str = "float32", place: str = "cpu") -> torch.nn.Module:
    return loading.load_model(folder, replace(NUMERICS, dtype=dtype, quantization=kind), place)


def adapted(folder: Path, kind: Quantization, dtype: str = "float32", place: str = "cpu") -> PeftModel:
    """With random LoRA weights on every quantised layer."""
    model = loading.new_adapter(loaded(folder, kind, dtype, place), replace(LORA, targets="all-linear"), seed=0).eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


@BITS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_equal_a_batch_one_loop_on_the_same_base(family, kind, tmp_path, monkeypatch):
    model, rows = adapted(folder_of(CONFIGS[family], tmp_path), kind), random_rows(LENGTHS)
    in_float64(monkeypatch)  # all but what the base keeps in fewer bits: so nothing hides behind rounding
    for weight in [*model.parameters(), *model.buffers()]:
        weight.data = weight.data.double() if weight.dtype == torch.float32 else weight.data
    together = engine_gradients(model, rows)
    assert distance(together, loop_gradients(model, rows)) < 1e-12
    for order in ([3, 1], [4, 0, 2], [2]):
        assert distance(engine_gradients(model, [rows[i] for i in order]), together[order]) < 1e-12


@BITS
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_every_family_equal_a_batch_one_loop_in_four_bits(family, tmp_path, monkeypatch):
    save(FAMILIES[family], tmp_path)
    lora = replace(LORA, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
    base = loaded(tmp_path, Quantization.nf4)
    if hasattr(base.config, "num_experts_per_tok"):
        base.set_experts_implementation("eager")  # the others know no float64
    model = loading.new_adapter(base, lora, seed=0).eval()
    rows = random_rows([5, 23, 11])
    in_float64(monkeypatch)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        weight.data = weight.data.double() if weight.dtype == torch.float32 else weight.data
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    assert any("bit" in type(layer).__name__ for layer in base.modules())
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-10


@BITS
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05), ("float16", 0.01)])
def test_gradients_in_less_than_float64_agree_up_to_its_rounding(dtype, tolerance, kind, device, tmp_path):
    model, rows = adapted(folder_of(llama(), tmp_path), kind, dtype, device), random_rows(LENGTHS)
    before = loop_gradients(model, rows)
    assert distance(engine_gradients(model, rows), before) < tolerance
    with torch.no_grad():
        slow_log_probs(model, rows[1])  # as a reference model's turn, after which some layers would repack themselves
    assert torch.equal(loop_gradients(model, rows), before)


@BITS
def test_int8_weights_are_rounded_to_127_steps_of_their_rows_largest(tmp_path):
    folder = folder_of(llama(), tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(folder).model.layers[0].mlp.up_proj.weight.detach()
    layer = loaded(folder, Quantization.int8).model.layers[0].mlp.up_proj
    largest = whole.half().float().abs().amax(1, keepdim=True)
    expected = (whole.half().float() / largest * 127).round() * largest / 127
    assert layer.weight.dtype == torch.int8
    torch.testing.assert_close(layer(torch.eye(32)).T, expected, atol=1e-6, rtol=0)


@BITS
def test_nf4_weights_are_one_of_sixteen_a_block(tmp_path):
    folder = folder_of(llama(), tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(folder).model.layers[0].mlp.up_proj.weight.detach()
    layer = loaded(folder, Quantization.nf4).model.layers[0].mlp.up_proj
    found = layer(torch.eye(32)).T
    assert layer.weight.numel() * 2 == whole.numel() and layer.weight.dtype == torch.uint8
    blocks = found.reshape(-1, 64)
    assert max(len(block.unique()) for block in blocks) <= 16
    gaps = (found - whole).abs().reshape(-1, 64) / whole.abs().reshape(-1, 64).amax(1, keepdim=True)
    assert gaps.max() < 0.16  # half of NF4's widest gap, of -1 and -0.696, and the scale's own rounding


@BITS
def test_the_output_layer_stays_whole(tmp_path):
    model = loaded(folder_of(llama(tie_word_embeddings=False), tmp_path), Quantization.nf4)
    assert type(model.lm_head) is torch.nn.Linear and model.lm_head.weight.dtype == torch.float32
    kept = {name.rpartition(".")[2] for name, layer in model.named_modules() if "bit" in type(layer).__name__}
    assert kept == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A model whose rows are whole blocks: of others bitsandbytes' own 4-bit kernels for CPUs read wrong weights."""
    tokenizer, folder = world.tokenizer(), tmp_path_factory.mktemp("wide")
    tokenizer.save_pretrained(folder)
    return folder_of(llama(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64), folder)


@BITS
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_job_leaves_an_adapter_that_is_the_same_to_peft(run, wide, outputs, kind):
    settings = (f"model.base.path={wide}", f"model.numerics.quantization={kind}")
    directory, stages = run(*settings, "until=evaluation")
    assert {"warmup", "features", "targets", "finetune", "zero_shot", "evaluation"} <= set(computed(stages))
    _, more = run(*settings, "until=answers")
    assert {"answers", "zero_shot_answers"} <= set(computed(more))
    base = outputs / more["base"]["dir"]
    turns = [{"role": "user", "content": "tomato"}, {"role": "assistant", "content": "rope flour"}]
    row = encode(loading.load_tokenizer(base), turns, 40)
    ours = slow_log_probs(loading.load_adapter(loaded(base, kind), directory / "adapter"), row)
    assert not torch.allclose(ours, slow_log_probs(loaded(base, kind), row), atol=1e-4)
    config = BitsAndBytesConfig(**quantized.CONFIGS[kind])
    theirs = AutoModelForCausalLM.from_pretrained(wide, dtype=torch.float32, quantization_config=config)
    theirs = PeftModel.from_pretrained(theirs, directory / "adapter")
    for module in theirs.modules():  # in training, their int8 layers round no inputs; ours have dropout, which is off
        module.training = "Dropout" not in type(module).__name__
    torch.testing.assert_close(slow_log_probs(theirs, row), ours, atol=1e-5, rtol=0)


@BITS
@pytest.mark.parametrize("kind", KINDS)
def test_training_on_pairs_and_with_checkpointed_layers(run, kind):
    settings = (f"model.numerics.quantization={kind}", "method=pairs_dpo", "finetune.gradient_checkpointing=true")
    directory, _ = run(*settings, "until=finetune")
    steps = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert steps and all(step["grad_norm"] > 0 for step in steps)


def test_a_stage_is_called_what_it_was_until_its_base_is_quantised():
    older = {name: value for name, value in vars(NUMERICS).items() if name not in ("quantization", "matmul", "sharded")}
    keys = [
        Node(try_out, 8, None, None, False, replace(NUMERICS, quantization=kind), None).key["inputs"]["numerics"]
        for kind in (Quantization.none, Quantization.nf4)
    ]
    assert keys == [older, older | {"quantization": "nf4"}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["model=tiny"],
            "model.numerics.quantization=int8: model=tiny is made here, in full; say none, or model=local",
        ),
        (
            ["model=local", "model.base.path=x", "model.numerics.sharded=true"],
            "model.numerics.sharded=true: cannot share out the weights of model.numerics.quantization=int8; must",
        ),
    ],
)
def test_what_cannot_be_quantised_is_refused(composed, settings, said):
    with pytest.raises(RoseError, match=re.escape(said)):
        typed(composed(*settings, "model.numerics.quantization=int8"))


def test_a_value_that_is_no_kind_is_refused(composed):
    with pytest.raises(Exception, match="quantization=int4"):
        typed(composed("model.numerics.quantization=int4"))


def test_without_bitsandbytes_the_first_line_says_what_to_install(composed, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "is_bitsandbytes_available", lambda: False)
    config = typed(composed(*overrides(inputs, tmp_path), "model.numerics.quantization=nf4"))
    job.run(config, tmp_path / "job", "test")
    error = json.loads((tmp_path / "job" / "status.json").read_text())["error"]
    assert error == (
        "model.numerics.quantization=nf4: needs bitsandbytes, 0.46.1 or newer; .venv/bin/pip install -c "
        "constraints.txt -e '.[gpu]', or say model.numerics.quantization=none"
    )
    assert not (tmp_path / "stages").exists()


@BITS
def test_a_device_that_bitsandbytes_does_not_know_is_refused(monkeypatch):
    import bitsandbytes

    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    with pytest.raises(RoseError, match=r"student.numerics.quantization=int8: .* does not run on a CPU; say student"):
        quantized.refuse(Base("x", None, None, False, None), Quantization.int8, "cpu", "student")


@BITS
def test_weights_that_their_publisher_quantised_are_refused(tmp_path):
    config = llama()
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    config.save_pretrained(tmp_path)
    base = Base(str(tmp_path), None, None, False, None)
    for refused in (
        lambda: quantized.refuse(base, Quantization.nf4, "cpu"),
        lambda: quantized.load(Quantization.nf4, "cpu", {"pretrained_model_name_or_path": str(tmp_path)}),
    ):
        with pytest.raises(RoseError, match=r"quantization=nf4: the model's own weights are quantised already \(gptq"):
            refused()


@BITS
def test_of_experts_the_attention_alone_is_quantised(tmp_path):
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    config = MixtralConfig(vocab_size=61, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1, **sizes)
    model, rows = loaded(folder_of(config, tmp_path), Quantization.nf4), random_rows(LENGTHS)
    kept = {name.rpartition(".")[2] for name, layer in model.named_modules() if "bit" in type(layer).__name__}
    assert kept == {"q_proj", "k_proj", "v_proj", "o_proj"}
    model = loading.new_adapter(model, LORA, seed=0).eval()
    assert engine_gradients(model, rows).isfinite().all()
