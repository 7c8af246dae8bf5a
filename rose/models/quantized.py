"""Frozen bases in 8 or 4 bits (bitsandbytes): kept so, and multiplied as model.numerics.dtype says.

A layer's weights are made whole when it is met, in the forward and again in the backward pass; what
goes through it is not rounded to fewer bits. bitsandbytes' own int8 layers round that too, and look
at all rows of a batch for what to leave out of it: a row's gradient would depend on its neighbours.
Its 4-bit layers repack themselves on some CPUs once they ran without gradients, and have none after.
"""

import copy
import functools
import importlib
from contextlib import suppress
from typing import Any

import torch
from peft.utils.integrations import dequantize_bnb_weight
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION, is_bitsandbytes_available

from rose.config.choices import Quantization
from rose.config.schema import Base
from rose.errors import RoseError, install

CONFIGS = {
    Quantization.int8: {"load_in_8bit": True},
    # as QLoRA has it (arXiv 2305.14314): the scales of the blocks are kept in 8 bits
    Quantization.nf4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


def refuse(base: Base, kind: Quantization, place: str, name: str = "model") -> None:
    """Raises RoseError where a model cannot be kept in so few bits on `place`, as far as is known without it."""
    if kind == Quantization.none:
        return
    key, remedy = f"{name}.numerics.quantization={kind}", f"{name}.numerics.quantization=none"
    if not is_bitsandbytes_available():
        needs = f"needs bitsandbytes, {BITSANDBYTES_MIN_VERSION} or newer"
        raise RoseError(f"{key}: {needs}; {install('gpu')}, or say {remedy}")
    if torch.device(place).type not in _bitsandbytes().supported_torch_devices:
        raise RoseError(f"{key}: the installed bitsandbytes does not run on a {place.upper()}; say {remedy}")
    if base.path is not None and base.gguf is None and not base.trust_remote_code:
        with suppress(OSError):  # it may be here a stage later
            _refuse_twice(AutoConfig.from_pretrained(base.path, revision=base.revision, local_files_only=True), key)


def load(kind: Quantization, place: str, where: dict[str, Any], **options: Any) -> PreTrainedModel:
    """What stands `where`, as `from_pretrained` has it, its linear layers but the output's in fewer bits."""
    key = f"model.numerics.quantization={kind}"
    _refuse_twice(AutoConfig.from_pretrained(**where), key)
    kept = BitsAndBytesConfig(**CONFIGS[kind])
    # transformers would take "cuda" for GPU number LOCAL_RANK, which a process that sees one alone does not have
    device = torch.device(place, torch.cuda.current_device()) if place == "cuda" else torch.device(place)
    model = AutoModelForCausalLM.from_pretrained(**where, **options, quantization_config=kept, device_map=device)
    kinds = _bitsandbytes().nn.Linear8bitLt, _bitsandbytes().nn.Linear4bit
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    if not layers:
        raise RoseError(f"{key}: the model has no linear layers that could be; say model.numerics.quantization=none")
    for layer in layers:
        layer.forward = functools.partial(_Whole.apply, layer)
    return model


class _Whole(torch.autograd.Function):
    """Wx + b of a layer in fewer bits, of which neither pass keeps more than that."""

    @staticmethod
    def forward(ctx: Any, layer: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.layer = layer
        return torch.nn.functional.linear(x, _whole(layer, x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[None, torch.Tensor]:
        (gradient,) = grad_outputs
        return None, gradient @ _whole(ctx.layer, gradient.dtype)


def _whole(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    weight = layer.weight
    if not hasattr(weight, "quant_state"):
        return dequantize_bnb_weight(weight, state=layer.state).to(dtype)
    # as one row: its CPU kernels scale rows wrongly that are no multiple of a block's 64 weights
    flat = copy.copy(weight.quant_state)
    flat.shape = torch.Size([flat.shape.numel()])
    return _bitsandbytes().functional.dequantize_4bit(weight.data, flat).view(weight.quant_state.shape).to(dtype)


def _refuse_twice(config: PreTrainedConfig, key: str) -> None:
    """Raises RoseError for a model that its publisher has quantised."""
    if given := getattr(config, "quantization_config", None):
        method = given.get("quant_method") if isinstance(given, dict) else given.quant_method
        fault = f"the model's own weights are quantised already ({method or 'unknown'})"
        raise RoseError(f"{key}: {fault}; give the model as it was before that")


def _bitsandbytes() -> Any:
    """Imported by its name: it is not always here, and no type checker need miss it."""
    return importlib.import_module("bitsandbytes")
