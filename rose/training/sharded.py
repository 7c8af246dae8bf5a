"""The model in training: its new adapter, and weights that the job's processes share out (FSDP2).

Shared out is a model that does not fit one device. torch's `fully_shard` does it, not accelerate,
which would not do it on CPUs, where it is tested.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import Trainer

from rose import ranks
from rose.config.schema import Lora, Numerics
from rose.models import loading
from rose.seeds import derive


def fresh_adapter(base: Path, lora: Lora, numerics: Numerics, seed: int) -> PeftModel:
    """A `base` artifact's model with a new adapter, shared out where `numerics.sharded` says so."""
    sharded = numerics.sharded and ranks.world_size() > 1
    model = loading.load_model(base, numerics, "cpu" if sharded else None)
    model = loading.new_adapter(model, lora, derive(seed, "adapter"))
    if sharded:
        _shard(model)
    return model


def _shard(model: PeftModel) -> None:
    """Leaves each process its part of every weight; a layer is put together when its turn comes."""
    layers: set[str] = set(getattr(model.get_base_model(), "_no_split_modules", None) or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module)
    fully_shard(model)


def unwrapped(trainer: type[Trainer]) -> type[Trainer]:
    """A Trainer that takes a sharded model as it is; accelerate would wrap it once more."""

    class Unwrapped(trainer):
        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    return Unwrapped


def trainable(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor of which this process may have a part only; all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def save_adapter(model: PeftModel, out: Path) -> None:
    """Writes the adapter in PEFT's own format, by the first process; all must call."""
    weights = {name: whole(weight.detach()) for name, weight in trainable(model)}
    if ranks.is_first():
        model.save_pretrained(str(out), state_dict=weights)
