"""A model without its weights: what its configuration alone tells, at no cost and on any machine.

What cannot be is so refused where a sweep is started, where there may be neither a GPU nor the
memory for a model.
"""

import json
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rose.config.schema import Base, Lora
from rose.errors import RoseError
from rose.models import loading
from rose.training.base_model import shape


class Bare(NamedTuple):
    """What a model's configuration tells without its weights."""

    size: int | None  # weights of its adapter; None where only the model itself tells
    positions: int | None  # places that it has embeddings of; None where they are computed, as rotary ones


def adapter_size(base: Base, lora: Lora, linear: bool = True) -> int | None:
    """How many weights an adapter will have; None where only the model itself tells.

    Raises RoseError for targets that name no layer, or no `linear` one: of others no per-example
    gradients can be taken.
    """
    bare = _bare(base, lora, linear)
    return bare and bare.size


def refuse(base: Base, lora: Lora | None, max_length: int, answer: tuple[str, int] | None, name: str = "model") -> None:
    """Raises RoseError for what a model's configuration shows to be impossible, if it is here already.

    `lora`: of its adapter, if it will have one. `answer`: the key of how long an answer to a prompt
    of `max_length` tokens may be, and its value.
    """
    if (bare := _bare(base, lora, linear=False, name=name)) is not None and bare.positions is not None:
        refuse_positions(bare.positions, max_length, answer, name)


def refuse_positions(positions: int, max_length: int, answer: tuple[str, int] | None, name: str) -> None:
    """Raises RoseError where a model has too few places for a row, or for a prompt and its answer."""
    key, tokens = answer or ("", 0)
    if max_length + tokens > positions:
        asked = f"{name}.max_length={max_length}" + (f" and {key}={tokens}" if answer else "")
        remedy = f"{name}.max_length={max(1, positions - tokens)} or less" + (f", or a smaller {key}" if answer else "")
        raise RoseError(f"{asked}: the model has absolute positions, {positions} of them; say {remedy}")


def positions(model: PreTrainedModel) -> int | None:
    """How many places a model has embeddings of; None where they are computed, as rotary ones."""
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    words = model.get_input_embeddings()
    tables = [each.num_embeddings for each in model.modules() if isinstance(each, torch.nn.Embedding) and each != words]
    tables += [len(buffer) for name, buffer in model.named_buffers() if name.endswith("embed_positions")]  # GPT-J's
    return most if most and any(most <= rows <= most + 2 for rows in tables) else None  # OPT's first two are no places


def _bare(base: Base, lora: Lora | None, linear: bool, name: str = "model") -> Bare | None:
    """None where the configuration is not here, or tells nothing; it may be here a stage later."""
    settings = json.dumps(lora and vars(lora))
    if base.pretraining is not None:
        return _of_world(shape(base.pretraining).to_json_string(), settings, linear, name)
    if base.path is None or base.gguf is not None or base.trust_remote_code:
        return None
    with suppress(OSError):
        return _of_path(base.path, base.revision, settings, linear, name)
    return None


@cache  # every job of a sweep asks
def _of_world(config: str, lora: str, linear: bool, name: str) -> Bare | None:
    return _read(LlamaConfig(**json.loads(config)), lora, linear, name)


@cache
def _of_path(path: str, revision: str | None, lora: str, linear: bool, name: str) -> Bare | None:
    config = None
    with suppress(ValueError):
        config = AutoConfig.from_pretrained(path, revision=revision, local_files_only=True)
    return None if config is None else _read(config, lora, linear, name)


def _read(config: PreTrainedConfig, settings: str, linear: bool, name: str) -> Bare | None:
    model, size = None, None
    with suppress(ValueError), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if model is None:
        return None
    places = positions(model)
    if (values := json.loads(settings)) is not None:
        lora = loading.targeting(model, Lora(**values))
        _check_targets(model, lora, linear, name)
        with suppress(ValueError), torch.device("meta"):
            adapted = get_peft_model(model, loading.lora_config(lora))
            size = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    return Bare(size, places)


def _check_targets(model: PreTrainedModel, lora: Lora, only_linear: bool, key: str) -> None:
    """Raises RoseError for a target that names no layer, or no linear one: PEFT passes over it if another does.

    Likewise for what is to be excluded and names none of those.
    """
    layers = {name: module for name, module in model.named_modules() if not any(True for _ in module.children())}
    linear = {name for name, layer in layers.items() if isinstance(layer, (torch.nn.Linear, Conv1D))}
    known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    config = loading.lora_config(replace(lora, exclude=None))
    if config.target_modules == loading.ALL_LINEAR:
        config.target_modules = sorted(linear)
    else:
        for target in _each(lora.targets):
            found = {name for name in layers if _names(target, name)}
            if not found or (only_linear and not found <= linear):
                what = "is no linear layer" if found else "names no layer"
                fault = f"{_text(target)} {what} of this model; must be of {known}"
                raise RoseError(f"{key}.lora.targets={lora.targets}: {fault}")
    targeted = {name for name in layers if check_target_module_exists(config, name)}
    for excluded in _each(lora.exclude):
        if not any(_names(excluded, name) for name in targeted):
            fault = f"{_text(excluded)} names none of the targets, such as {min(targeted)}"
            raise RoseError(f"{key}.lora.exclude={lora.exclude}: {fault}; or give a pattern, as '.*vision_tower.*'")
    config.exclude_modules = loading.lora_config(lora).exclude_modules
    if not any(check_target_module_exists(config, name) for name in targeted):
        raise RoseError(f"{key}.lora.exclude={lora.exclude}: leaves none of {key}.lora.targets={lora.targets}")


def _each(names: list[str] | str | None) -> list[list[str] | str]:
    """A pattern of whole names, or each end of a name by itself."""
    return [names] if isinstance(names, str) else [[name] for name in names or ()]


def _names(target: list[str] | str, layer: str) -> bool:
    return bool(check_target_module_exists(LoraConfig(target_modules=target), layer))


def _text(target: list[str] | str) -> str:
    return target if isinstance(target, str) else target[0]
