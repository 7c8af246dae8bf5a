"""How much of a batch a GPU has room for, by an estimate; and what does not fit is halved."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn
from transformers.pytorch_utils import Conv1D

from rose.errors import RoseError, one_line

log = logging.getLogger(__name__)

Batch = list[int]  # row numbers
USABLE = 0.8  # of the memory that is free; the rest is for fragments, and for what the estimate leaves out


def fitting(do: Callable[[Batch], None], remedy: str) -> Callable[[Batch], None]:
    """`do` of a batch, by halves, quarters, … where the device has no room for all of it.

    Rows do not depend on one another, so what becomes of them is the same but for rounding. Later
    batches are cut into as many parts at once. Raises RoseError where a row alone does not fit;
    `remedy` says what to set.
    """
    parts = 1

    def by_parts(batch: Batch) -> None:
        nonlocal parts
        done, size = 0, -(-len(batch) // parts)
        while done < len(batch):
            part = batch[done : done + size]
            fault = _attempt(do, part)
            if fault is None:
                done += len(part)
                continue
            if len(part) == 1:
                reason = f"a row alone does not fit the device's memory ({one_line(fault, 150)})"
                raise RoseError(f"{reason}; {remedy}") from fault
            size, parts = -(-len(part) // 2), 2 * parts
            log.warning("%d rows do not fit the device's memory at once: batches are cut into %d", len(part), parts)

    return by_parts


def _attempt(do: Callable[[Batch], None], part: Batch) -> RuntimeError | None:
    """What the device said if it lacked the memory; all that was taken for it is free again."""
    try:
        do(part)
        return None
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
            raise
        fault = error.with_traceback(None)  # its frames hold the batch's tensors
    clear_device_cache(garbage_collection=True)
    return fault


def tokens_at_once(asked: int | str, model: Any, longest: int, on_a_cpu: int) -> int:
    """Tokens of a batch: as `asked`, or, for auto, what a GPU has room for, with a backward pass or without."""
    if isinstance(asked, int):
        return asked
    if model.device.type != "cuda":
        return on_a_cpu
    return max(1, int(USABLE * free_bytes(model.device) / token_bytes(model, longest)))


def free_bytes(gpu: torch.device) -> int:
    """What nothing has taken, or this process has taken and does not use."""
    unused = torch.cuda.memory_reserved(gpu) - torch.cuda.memory_allocated(gpu)
    return torch.cuda.mem_get_info(gpu)[0] + unused


def token_bytes(model: Any, longest: int) -> int:
    """What a token of a row as long as the `longest` keeps for the backward pass, estimated from above.

    All that enters or leaves a linear layer, LoRA's own among them, is about twice what is kept; the
    rest is for what comes and goes. The output layer's logits are there thrice in float32, and
    where attention is not fused its weights on all other tokens twice.
    """
    config = model.config.get_text_config()
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))]
    sides = sum(sum(layer.weight.shape) if isinstance(layer, Conv1D) else layer.in_features + layer.out_features
                for layer in layers)  # fmt: skip
    fused = model.config._attn_implementation != "eager"
    seen = 0 if fused else config.num_hidden_layers * config.num_attention_heads * longest
    return model.dtype.itemsize * sides + 12 * config.vocab_size + 8 * seen
