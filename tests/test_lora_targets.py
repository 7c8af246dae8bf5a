"""What LoRA cannot be put on is named before the first job."""

import re
from dataclasses import replace

import pytest
from tiny_models import LORA, llama
from transformers import GPT2Config, Phi3Config

from rose.config.schema import Base
from rose.errors import RoseError
from rose.training.bare import adapter_size

PHI3 = Phi3Config(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, pad_token_id=0
)
GPT2 = GPT2Config(vocab_size=61, n_positions=64, n_embd=32, n_layer=1, n_head=4)


@pytest.mark.parametrize(
    ("config", "targets", "wrong"),
    [
        (PHI3, ["q_proj", "k_proj", "v_proj", "o_proj"], "q_proj names no layer"),
        (llama(), ["q_proj", "embed_tokens"], "embed_tokens is no linear layer"),
        (llama(), ["q_proj", "norm"], "norm is no linear layer"),
        (GPT2, ["c_attn", "q_proj"], "q_proj names no layer"),
    ],
)
def test_a_target_that_is_no_linear_layer_of_the_model_is_named(tmp_path, config, targets, wrong):
    config.save_pretrained(tmp_path)
    base = Base(str(tmp_path), None, None, trust_remote_code=False, pretraining=None)
    with pytest.raises(RoseError, match=re.escape(f"model.lora.targets={targets}: {wrong} of this model; must be of")):
        adapter_size(base, replace(LORA, targets=targets))


def test_layers_of_the_model_are_taken(tmp_path):
    sizes = []
    for number, (config, targets) in enumerate(((PHI3, ["qkv_proj", "o_proj"]), (GPT2, ["c_attn"]))):
        config.save_pretrained(tmp_path / str(number))
        base = Base(str(tmp_path / str(number)), None, None, trust_remote_code=False, pretraining=None)
        sizes.append(adapter_size(base, replace(LORA, targets=targets)))
    assert sizes == [4 * (32 + 96) + 4 * (32 + 32), 4 * (32 + 96)]
