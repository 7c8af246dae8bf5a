"""features.batch_tokens=auto: batches of the pool as large as a GPU's free memory takes."""

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from rose import ranks
from rose.gradients.per_example import PerExample

ON_A_CPU = 2048  # tokens, as conf/features has them
USABLE = 0.8  # of the memory that is free; the rest is for fragments, and for what the estimate leaves out
VECTORS = 3  # as long as a gradient: Adam's two moments and a projection's signs


def batch_sizes(asked: int | str, engine: PerExample, most_rows: int, longest: int) -> tuple[int, int]:
    """Tokens and rows of a batch: as `asked`, or, for auto, what all of a job's processes have room for."""
    if isinstance(asked, int):
        return asked, most_rows
    if engine.device.type != "cuda":
        return ON_A_CPU, most_rows
    free = torch.cuda.mem_get_info(engine.device)[0]
    free += torch.cuda.memory_reserved(engine.device) - torch.cuda.memory_allocated(engine.device)
    here = fitting(free, token_bytes(engine.model, longest), 4 * engine.size)
    tokens, rows = zip(*ranks.together(lambda: here), strict=True)
    return min(tokens), min(rows)


def fitting(free: int, token: int, gradient: int) -> tuple[int, int]:
    """Tokens and rows of a batch that fit into `free` bytes, where a token and a row's gradient take so many.

    One half is for what is kept of the tokens for the backward pass, one for the gradients, which
    are there twice while Adam's map and the projection are at them.
    """
    half = max(0.0, USABLE * free - VECTORS * gradient) / 2
    return max(1, int(half / token)), max(1, int(half / (2 * gradient)))


def token_bytes(model: PeftModel, longest: int) -> int:
    """What a token of a row as long as the `longest` keeps for the backward pass, estimated from above.

    All that enters or leaves a linear layer, LoRA's own among them, is about twice what is kept; the
    rest is for what comes and goes. The output layer's logits are there thrice in float32, and
    where attention is not fused its weights on all other tokens twice.
    """
    config = model.config.get_text_config()
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))]
    sides = sum(sum(layer.weight.shape) if isinstance(layer, Conv1D) else layer.in_features + layer.out_features
                for layer in layers)  # fmt: skip
    own: Any = model.get_base_model().config
    fused = own._attn_implementation != "eager"
    seen = 0 if fused else config.num_hidden_layers * config.num_attention_heads * longest
    return model.dtype.itemsize * sides + 12 * config.vocab_size + 8 * seen
