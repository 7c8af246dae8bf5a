"""What the process that jobs fork from imports, and works out, once for all of them."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import rose.run.job  # noqa: F401 — imported to be there
from rose.run.process import settle

with torch.device("meta"):  # the first adapter of a process takes a third of a second, in transformers' tables
    shape = LlamaConfig(hidden_size=2, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
    get_peft_model(LlamaForCausalLM(shape), LoraConfig(target_modules=["q_proj"]))
settle()
