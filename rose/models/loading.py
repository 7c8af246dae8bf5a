"""The frozen base model, its tokenizer and its adapter: of a hub id, local folder or .gguf file."""

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rose.config.schema import Base, Lora, Numerics
from rose.errors import RoseError, one_line

log = logging.getLogger(__name__)
TOLD = "chat_template_kwargs.json"  # beside a base model: what its template is told besides the messages
GIVEN = ("messages", "add_generation_prompt")
transformers.utils.logging.disable_progress_bar()


def device() -> str:
    """Where models run: the first visible GPU, else the CPU (as with `CUDA_VISIBLE_DEVICES=`)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fingerprint(base: Base) -> str:
    """Tells folders at the same path apart: sha256 of names, sizes and bytes.

    Of files of more than 1 MiB only the middle counts: the header says nothing about the weights.
    """
    if base.path is None or not Path(base.path).is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(Path(base.path).iterdir()):
        if path.is_file():
            size = path.stat().st_size
            digest.update(f"{path.name}:{size}:".encode())
            with open(path, "rb") as file:
                file.seek(max(0, size // 2 - 2**19))
                digest.update(file.read(2**20) if size > 2**20 else path.read_bytes())
    return digest.hexdigest()[:16]


def convert(base: Base, out: Path) -> None:
    """Saves the model and tokenizer of a .gguf file in transformers' format, in float32."""
    log.info("converting %s/%s to safetensors", base.path, base.gguf)
    loaded = from_pretrained(AutoModelForCausalLM, base, gguf_file=base.gguf, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):  # undone already; save_pretrained would refuse
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(out)
    from_pretrained(AutoTokenizer, base, gguf_file=base.gguf).save_pretrained(out)


def load_tokenizer(base: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a `base` artifact; without a padding token it pads with its end token."""
    tokenizer = AutoTokenizer.from_pretrained(**_source(base))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if (base / TOLD).exists():
        tokenizer.chat_template = _told(tokenizer.chat_template, json.loads((base / TOLD).read_text()))
    return tokenizer


def _told(template: Any, values: dict[str, Any]) -> Any:
    """A chat template that begins by setting `values`, wherever it is rendered.

    Raises RoseError where it reads no such name.
    """
    if isinstance(template, dict):
        return {name: _told(text, values) for name, text in template.items()}
    for name in values:
        if not template or name in GIVEN or not re.search(rf"\b{re.escape(name)}\b", template):
            what = "is for the messages alone" if name in GIVEN else "is not read by the model's chat template"
            raise RoseError(
                f"model.chat_template_kwargs.{name}={values[name]}: {what}; leave it out, or give a name it reads"
            )
    # Jinja eats the line break after a block
    return "".join(f"{{% set {name} = {value!r} %}}\n" for name, value in values.items()) + template


def load_model(base: Path, numerics: Numerics, place: str | None = None) -> PreTrainedModel:
    """The frozen model of a `base` artifact, in eval mode, on `place` or else `device()`."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        **_source(base), dtype=getattr(torch, numerics.dtype), attn_implementation=numerics.attention
    )
    model.requires_grad_(False).eval()
    return model.to(place or device())  # pyright: ignore[reportArgumentType] — stubs of its wrapper


def new_adapter(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """A fresh trainable adapter in float32; its initial weights depend on `seed` alone."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        use_rslora=lora.rank_stabilized,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise RoseError(f"model.lora.targets={list(lora.targets)}: {error}") from error


def load_adapter(model: PreTrainedModel, directory: Path) -> PeftModel:
    """The model with the adapter of `directory`, trainable, in eval mode."""
    return PeftModel.from_pretrained(model, str(directory), is_trainable=True).eval()


def _source(base: Path) -> dict[str, Any]:
    reference = base / "reference.json"
    if not reference.exists():
        return {"pretrained_model_name_or_path": str(base)}
    values = json.loads(reference.read_text())
    return {"pretrained_model_name_or_path": values.pop("path"), **values}


def from_pretrained(kind: Any, base: Base, key: str = "model.base.path", **options: Any) -> Any:
    """`kind.from_pretrained` of what the option `key` names; RoseError where it can't be had."""
    try:
        with _retrying_quietly():
            return kind.from_pretrained(
                base.path, revision=base.revision, trust_remote_code=base.trust_remote_code, **options
            )
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise RoseError(
                f"model.base.trust_remote_code=false: {base.path} brings code of its own; read it, then set true"
            ) from error
        raise RoseError(
            f"{key}={base.path}: neither a model folder here nor a hub id that can be reached "
            f"({one_line(error, 200)}); give a folder saved by save_pretrained, or a hub id with "
            "network or a filled cache"
        ) from error


@contextlib.contextmanager
def _retrying_quietly() -> Iterator[None]:
    """The hub's client says twice of each of its attempts what the error at their end says once."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(level)
