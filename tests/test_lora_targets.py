"""What LoRA cannot be put on is named before the first job."""

import json
import re
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from small_job import overrides
from tiny_models import LENGTHS, LORA, TRAINING, distance, engine_gradients, llama, loop_gradients, random_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3Config, GPT2Config, OPTConfig, Phi3Config

from rose.config.compose import typed
from rose.config.schema import Base, Lora, Warmup
from rose.errors import RoseError
from rose.gradients.per_example import PerExample
from rose.models import loading
from rose.run import job
from rose.stages.graph import Node
from rose.training.bare import adapter_size, refuse
from rose.training.warmup import warm_up

PHI3 = Phi3Config(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
)
OPT = OPTConfig(
    vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
    max_position_embeddings=64,
)  # fmt: skip
GEMMA3 = Gemma3Config(
    text_config={
        **{"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    },
    vision_config={
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"image_size": 28, "patch_size": 14},
    },
    mm_tokens_per_image=1,
)
GPT2 = GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=1, n_head=4)


def saved(config, folder) -> Base:
    config.save_pretrained(folder)
    return Base(str(folder), None, None, trust_remote_code=False, pretraining=None)


def adapter(config, lora: Lora) -> set[str]:
    """The layers that an adapter is put on."""
    model = loading.new_adapter(AutoModelForCausalLM.from_config(config), lora, seed=0)
    return {
        name.removeprefix("base_model.model.").rpartition(".lora_")[0]
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


@pytest.mark.parametrize(
    ("config", "targets", "wrong"),
    [
        (PHI3, ["q_proj", "k_proj", "v_proj"], "q_proj names no layer"),
        (llama(), ["q_proj", "embed_tokens"], "embed_tokens is no linear layer"),
        (llama(), ["q_proj", "norm"], "norm is no linear layer"),
        (GPT2, ["c_attn", "q_proj"], "q_proj names no layer"),
        (llama(), ".*_prj", ".*_prj names no layer"),
        (llama(), ".*(q_proj|embed_tokens)", ".*(q_proj|embed_tokens) is no linear layer"),
    ],
)
def test_a_target_that_is_no_linear_layer_of_the_model_is_named(tmp_path, config, targets, wrong):
    base = saved(config, tmp_path)
    with pytest.raises(RoseError, match=re.escape(f"model.lora.targets={targets}: {wrong} of this model; must be of")):
        adapter_size(base, replace(LORA, targets=targets))


def test_layers_of_the_model_are_taken(tmp_path):
    sizes = []
    for number, (config, targets) in enumerate(((PHI3, ["qkv_proj", "o_proj"]), (GPT2, ["c_attn"]))):
        sizes.append(adapter_size(saved(config, tmp_path / str(number)), replace(LORA, targets=targets)))
    assert sizes == [4 * (32 + 96) + 4 * (32 + 32), 4 * (32 + 96)]


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        (llama(), ["self_attn.k_proj", "self_attn.o_proj", "self_attn.q_proj", "self_attn.v_proj"]),
        (PHI3, ["self_attn.o_proj", "self_attn.qkv_proj"]),
        (OPT, ["self_attn.k_proj", "self_attn.out_proj", "self_attn.q_proj", "self_attn.v_proj"]),
        (GPT2, ["attn.c_attn", "attn.c_proj"]),  # not mlp.c_proj
    ],
)
def test_the_default_targets_are_the_attention_of_models_that_call_it_otherwise(tmp_path, config, layers):
    lora = replace(LORA, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
    found = adapter(config, lora)
    assert sorted({".".join(name.split(".")[-2:]) for name in found}) == layers
    assert len(found) == len(layers) * config.num_hidden_layers
    model = loading.new_adapter(AutoModelForCausalLM.from_config(config), lora, seed=0)
    assert adapter_size(saved(config, tmp_path), lora) == model.get_nb_trainable_parameters()[0]


def test_a_target_that_names_no_layer_is_named_for_every_model_that_is_trained(tmp_path):
    base = saved(PHI3, tmp_path)
    known = "down_proj, gate_up_proj, lm_head, o_proj, qkv_proj"
    fault = "student.lora.targets=['q_proj', 'o_proj']: q_proj names no layer of this model; must be of " + known
    with pytest.raises(RoseError, match=re.escape(fault)):
        refuse(base, replace(LORA, targets=["q_proj", "o_proj"]), 8, None, "student")
    refuse(base, None, 8, None, "student")  # without an adapter it has no targets


PEFTS_WORDS = {
    "all-linear": ("all-linear", None),
    "all-linear in a list": (["all-linear"], None),
    "a pattern": (r".*layers\.1\..*(q|v)_proj", None),
    "a list to exclude": ("all-linear", ["fc1", "q_proj"]),
    "a pattern to exclude": (["q_proj", "fc2"], r".*\.0\..*"),
}


@pytest.mark.parametrize("words", PEFTS_WORDS)
def test_targets_and_exclusions_are_what_peft_makes_of_them(tmp_path, words):
    targets, exclude = PEFTS_WORDS[words]
    given = targets[0] if targets == ["all-linear"] else targets
    theirs = LoraConfig(r=4, target_modules=given, exclude_modules=exclude, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_config(OPT), theirs)
    lora = replace(LORA, targets=targets, exclude=exclude)
    assert adapter(OPT, lora) == set(model.base_model.targeted_module_names)
    assert adapter_size(saved(OPT, tmp_path), lora) == model.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(
    ("targets", "exclude", "fault"),
    [
        (["q_proj"], ["v_proj"], "v_proj names none of the targets"),
        ("all-linear", ["encoder"], "encoder names none of the targets"),
        (["q_proj", "k_proj"], ["q_proj", "k_proj"], "leaves none of model.lora.targets=['q_proj', 'k_proj']"),
    ],
)
def test_what_excludes_nothing_or_everything_is_refused(tmp_path, targets, exclude, fault):
    with pytest.raises(RoseError, match=re.escape(f"model.lora.exclude={exclude}: {fault}")):
        adapter_size(saved(OPT, tmp_path), replace(LORA, targets=targets, exclude=exclude))


@pytest.mark.parametrize(
    "setting",
    ["model.lora.targets=[]", "model.lora.targets=null", "model.lora.targets='(q'", "model.lora.targets=[1]",
     "model.lora.targets=''", "model.lora.exclude=[]", "model.lora.exclude='*'", "model.lora.exclude={a: 1}"],
)  # fmt: skip
def test_what_can_name_no_layer_is_refused(composed, setting):
    key = setting.partition("=")[0]
    with pytest.raises(RoseError, match=f"{re.escape(key)}=.*: must be at least one name, or a pattern"):
        typed(composed(setting))


def test_a_stage_is_called_what_it_was_until_something_is_excluded():
    older = {name: value for name, value in vars(LORA).items() if name != "exclude"}
    keys = [Node(warm_up, WARMUP, replace(LORA, exclude=exclude), *[None] * 3).key for exclude in (None, ["v_proj"])]
    assert [key["inputs"]["lora"] for key in keys] == [older, older | {"exclude": ["v_proj"]}]


@pytest.mark.parametrize("targets", [["fc1"], ["fc2", "q_proj"], "all-linear"])
@pytest.mark.usefixtures("double")
def test_layers_that_see_rows_one_after_the_other_have_the_gradients_of_a_batch_one_loop(targets):
    model, rows = random_adapter(OPT, replace(LORA, targets=targets)), random_rows(LENGTHS)
    assert distance(engine_gradients(model, rows), loop_gradients(model, rows)) < 1e-12


def test_a_layer_that_sees_other_than_the_batchs_tokens_is_refused():
    model = random_adapter(OPT, replace(LORA, targets=["fc1"]))
    layer = model.get_submodule("base_model.model.model.decoder.layers.0")
    layer.fc1.register_forward_pre_hook(lambda module, args: args[0][1:])  # as an expert that sees some of them
    with PerExample(model) as engine, pytest.raises(RoseError, match=r"layers.0.fc1 sees inputs of shape \(15, 32\)"):
        engine.forward(random_rows([9, 6]))


def random_adapter(config, lora: Lora):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float64).requires_grad_(False)
    model = loading.new_adapter(base, lora, seed=0).double().eval()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


WARMUP = Warmup(**{**vars(TRAINING), "epochs": 1, "batch_size": 2}, ratio=1.0)
TEXT_ALONE = ".*vision_tower.*"


@pytest.mark.parametrize("exclude", [None, TEXT_ALONE])
@pytest.mark.usefixtures("double")
def test_of_a_model_that_also_sees_the_text_alone_has_gradients(exclude):
    model, rows = random_adapter(GEMMA3, replace(LORA, exclude=exclude)), random_rows(LENGTHS)
    with PerExample(model) as engine:
        seeing = [columns for name, columns in engine.slices.items() if "vision" in name]
    taken = engine_gradients(model, rows)
    assert len(seeing) == (4 if exclude is None else 0) and not any(taken[:, columns].any() for columns in seeing)
    text = torch.ones(taken.shape[1], dtype=torch.bool)
    for columns in seeing:
        text[columns] = False
    for name, weight in model.named_parameters():
        weight.requires_grad_(weight.requires_grad and "vision" not in name)
    assert distance(taken[:, text], loop_gradients(model, rows)) < 1e-12


@pytest.mark.parametrize("exclude", ["null", TEXT_ALONE])
def test_a_model_that_also_sees_goes_through_a_whole_selection(composed, inputs, tmp_path, exclude):
    tokenizer = AutoTokenizer.from_pretrained(inputs / "model")
    config = Gemma3Config(
        **{**GEMMA3.to_dict(), "text_config": GEMMA3.text_config.to_dict() | {"vocab_size": len(tokenizer)}}
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    settings = [f"model.base.path={tmp_path}/model", f"model.lora.exclude={exclude}", "until=selection"]
    job.run(typed(composed(*overrides(inputs, tmp_path), *settings)), tmp_path / "job", "test")
    assert json.loads((tmp_path / "job" / "status.json").read_text())["error"] is None
    (moments,) = tmp_path.glob("stages/warmup/*/checkpoint-1/moments.safetensors")
    seeing = [value for name, value in load_file(moments).items() if "vision" in name]
    assert len(seeing) == (12 if exclude == "null" else 0) and not any(value.any() for value in seeing)
