"""The frozen base model, its tokenizer and its adapter: of a hub id, local folder or .gguf file."""

import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import xxhash
from huggingface_hub import HfApi, is_offline_mode
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from rose import device as devices
from rose.config.choices import Attention, Quantization
from rose.config.schema import Base, Lora, Numerics
from rose.errors import RoseError, one_line
from rose.models import quantized
from rose.stages import checksums

log = logging.getLogger(__name__)
TOLD = "chat_template_kwargs.json"  # beside a base model: what its template is told besides the messages
AROUND = "around_chat_template.json"  # likewise: what its template lacks, before and after it
ALL_LINEAR = "all-linear"  # PEFT's word for every linear layer but the output's
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]  # what most models call the linear layers of their attention
GIVEN = ("messages", "add_generation_prompt")
transformers.utils.logging.disable_progress_bar()


def device() -> str:
    """Where models run: the first visible GPU, else the CPU (as with `CUDA_VISIBLE_DEVICES=`)."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def fingerprint(base: Base) -> str:
    """Tells folders at the same path apart: xxh3 of the names and whole bytes of all their files."""
    files = _files(base)
    return xxhash.xxh3_128_hexdigest(json.dumps(files).encode())[:16] if files is not None else ""


def _files(base: Base) -> dict[str, str] | None:
    """The digest of each file of a model's folder; None where it is no folder here.

    What begins with a dot is not the model's: version control, and the notes of who downloaded it.
    """
    if base.path is None or not Path(base.path).is_dir():
        return None
    folder = Path(base.path)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    own = [name for name in names if not re.search(r"(^|/)(\.|__pycache__/)", name)]
    return {name: checksums.remembered(folder / name).hex() for name in own}


def unchanged(base: Base, known: str, key: str = "model.base.path", files: Mapping[str, str] | None = None) -> None:
    """Raises RoseError where a folder is not the one of the fingerprint `known`, the key's part.

    `files`: the digests of that one's files, if they are known, to say what has changed.
    """
    found = fingerprint(base)
    if found == known:
        return
    now = _files(base)
    if now is None:
        change = "is no folder here any more"
    elif files is None:
        change = f"its files have changed (fingerprint {known}, now {found})"
    else:
        names = sorted(name for name in {*files, *now} if files.get(name) != now.get(name))
        change = f"{names[0] if len(names) == 1 else f'{len(names)} files, {names[0]} first,'} changed"
        change += f" (fingerprint {known or 'none'}, now {found})"
    raise RoseError(
        f"{key}={base.path}: {change} since the job's stages were named by it; put the former files back, or "
        "run again: a changed model has stages of its own"
    )


def reference(base: Base) -> dict[str, Any]:
    """Where a model is and which one it is, for `load_tokenizer` and `load_model` to hold to.

    A path stays as it was given, so that a copied project means its own folder. A hub's branch is
    pinned to the commit it stands at: it may move before the next stage loads it.
    """
    files, held = _files(base), pinned(base)
    for kind in (AutoConfig, AutoTokenizer):  # what is wrong shows here, not in an hour
        from_pretrained(kind, held)
    commit = held.revision if files is None else None
    if files is None:
        log.info("model.base.path=%s is loaded at %s", base.path, commit or "no commit that could be known")
    where = {"path": base.path, "revision": base.revision, "trust_remote_code": base.trust_remote_code}
    return where | {"commit": commit, "fingerprint": fingerprint(base), "files": files or {}}


def pinned(base: Base) -> Base:
    """At the commit that a hub's branch or tag stands at, where the hub or its cache can tell."""
    revision = base.revision
    if base.path is not None and not Path(base.path).exists():
        with contextlib.suppress(Exception):  # no hub, or no such model: loading it says so in better words
            where = {"revision": revision, "local_files_only": is_offline_mode()}
            revision = HfApi().resolve_revision(base.path, **where).resolved
    return dataclasses.replace(base, revision=revision)


def convert(base: Base, out: Path) -> None:
    """Saves the model and tokenizer of a .gguf file in transformers' format, in float32."""
    log.info("converting %s/%s to safetensors", base.path, base.gguf)
    base = pinned(base)
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
    if (base / AROUND).exists():
        tokenizer.chat_template = _within(tokenizer.chat_template, *json.loads((base / AROUND).read_text()))
    one_template(tokenizer)
    return tokenizer


def one_template(tokenizer: PreTrainedTokenizerBase, key: str = "model.base.path") -> None:
    """Raises RoseError where the tokenizer has several chat templates, and none of them is the default."""
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        fault = f"has the chat templates {', '.join(sorted(templates))} but no 'default'"
        remedy = "name one of them so, in tokenizer_config.json or additional_chat_templates/, or keep one alone"
        raise RoseError(f"{key}={tokenizer.name_or_path}: {fault}; {remedy}")


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


def _within(template: Any, before: str, after: str) -> Any:
    """A chat template, or each of several, between what it lacks."""
    if isinstance(template, dict):
        return {name: _within(text, before, after) for name, text in template.items()}
    return before + template + after


def load_model(base: Path, numerics: Numerics, place: str | None = None) -> PreTrainedModel:
    """The frozen model of a `base` artifact, in eval mode, on `place` or else `device()`.

    Sets how exactly this process multiplies from now on (`rose.device.multiply`).
    """
    devices.multiply(numerics.matmul)
    # unsaid, transformers takes sdpa, or eager for a model that has none, such as Gemma 2
    attention = None if numerics.attention == Attention.sdpa else numerics.attention
    options = {"dtype": getattr(torch, numerics.dtype), "attn_implementation": attention}
    if numerics.quantization != Quantization.none:
        return quantized.load(numerics.quantization, place or device(), _source(base), **options).requires_grad_(False)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(**_source(base), **options)
    model.requires_grad_(False).eval()
    return model.to(place or device())  # pyright: ignore[reportArgumentType] — stubs of its wrapper


def new_adapter(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """A fresh trainable adapter in float32; its initial weights depend on `seed` alone."""
    named = targeting(model, lora)
    if named != lora:
        log.info("model.lora.targets=%s: are %s in this model", lora.targets, named.targets)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, lora_config(named))
        except ValueError as error:
            raise RoseError(f"model.lora.targets={lora.targets}: {error}") from error


def targeting(model: torch.nn.Module, lora: Lora) -> Lora:
    """The adapter with the linear layers of a model's attention for targets, where it has not all of ATTENTION.

    Some fuse them (qkv_proj, c_attn), or call the last one otherwise (dense, out_proj).
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if lora.targets != ATTENTION or names.issuperset(ATTENTION):
        return lora
    # with the attention's own name: GPT-2 has a c_proj outside it too
    found = {
        f"{name.rpartition('.')[2]}.{part}"
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Attention")
        for part, layer in module.named_children()
        if isinstance(layer, (torch.nn.Linear, Conv1D))
    }
    return dataclasses.replace(lora, targets=sorted(found)) if found else lora


def lora_config(lora: Lora) -> LoraConfig:
    """The adapter in PEFT's words; all-linear may stand in a list, as names do."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=ALL_LINEAR if lora.targets in (ALL_LINEAR, [ALL_LINEAR]) else lora.targets,
        exclude_modules=lora.exclude,
        use_rslora=lora.rank_stabilized,
        task_type="CAUSAL_LM",
    )


def load_adapter(model: PreTrainedModel, directory: Path) -> PeftModel:
    """The model with the adapter of `directory`, trainable, in eval mode."""
    return PeftModel.from_pretrained(model, str(directory), is_trainable=True).eval()


def _source(base: Path) -> dict[str, Any]:
    """What `from_pretrained` loads a `base` artifact from. RoseError where that is another model now."""
    path = base / "reference.json"
    if not path.exists():
        return {"pretrained_model_name_or_path": str(base)}
    values = json.loads(path.read_text())
    where, trust = values["path"], values["trust_remote_code"]
    if "fingerprint" in values:  # older ones have none
        given = Base(where, values["revision"], None, trust, None)
        unchanged(given, values["fingerprint"], files=values["files"])
    revision = values.get("commit") or values["revision"]
    return {"pretrained_model_name_or_path": where, "revision": revision, "trust_remote_code": trust}


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
