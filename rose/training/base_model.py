"""The base model: pretrained here (the tiny one), converted from .gguf, or where to find it."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from rose import ranks
from rose.config.choices import SystemTurns
from rose.config.schema import Base, Pretraining
from rose.data import chat, template_gaps, world
from rose.models import loading
from rose.seeds import derive
from rose.stages.graph import stage
from rose.training.supervised import answer_loss, train

log = logging.getLogger(__name__)

CONTEXT = 512  # tokens; the world's longest conversation takes a tenth


@stage("base", version=1, resumable=True, together=True)
def prepare(
    out: Path,
    base: Base,
    fingerprint: str,
    chat_template_kwargs: dict[str, Any] | None = None,
    system: SystemTurns = SystemTurns.fold,
) -> None:
    """Makes the tiny model, converts a .gguf file once, or notes where the model is.

    What its chat template is told besides the messages is noted with it, and what the template lacks.
    """
    _made(out, base, fingerprint)
    if not ranks.is_first():
        return
    if chat_template_kwargs:
        (out / loading.TOLD).write_text(json.dumps(chat_template_kwargs))
    tokenizer = loading.load_tokenizer(out)  # refuses what the template does not read
    if lacking := template_gaps.around(tokenizer, system):
        (out / loading.AROUND).write_text(json.dumps(lacking))


def _made(out: Path, base: Base, fingerprint: str) -> None:
    if base.pretraining is not None:
        pretrain(out, base.pretraining)
    elif ranks.is_first():
        if fingerprint:  # of the folder as it was when the key was made
            loading.unchanged(base, fingerprint)
        if base.gguf is not None:
            loading.convert(base, out)
        else:
            (out / "reference.json").write_text(json.dumps(loading.reference(base)))


def pretrain(out: Path, pretraining: Pretraining) -> None:
    """Saves model and tokenizer into `out`."""
    tokenizer = world.tokenizer(pretraining.manners)
    conversations = world.conversations(pretraining.conversations, pretraining.training.seed, pretraining.manners)
    encoded = (chat.encode(tokenizer, row["messages"], CONTEXT) for row in conversations)
    rows = Dataset.from_list([{**row} for row in encoded if row is not None])
    model = llama(pretraining, tokenizer)
    log.info("pretraining a Llama of %d weights on %d conversations", model.num_parameters(), len(rows))
    train(model, rows, answer_loss(tokenizer), pretraining.training, out)
    if ranks.is_first():
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def llama(pretraining: Pretraining, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """The model before any training."""
    tokens = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    with torch.random.fork_rng():
        torch.manual_seed(derive(pretraining.training.seed, "weights"))
        return LlamaForCausalLM(shape(pretraining, vocab_size=len(tokenizer), **tokens))


def shape(pretraining: Pretraining, **tokens: Any) -> LlamaConfig:
    """The configuration of a model that is made here."""
    return LlamaConfig(
        hidden_size=pretraining.width,
        intermediate_size=4 * pretraining.width,
        num_hidden_layers=pretraining.layers,
        num_attention_heads=pretraining.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        **tokens,
    )
