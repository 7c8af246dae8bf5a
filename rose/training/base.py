"""The base model: pretrained here (the tiny one), converted from a .gguf file, or where it is to be found."""

import json
import logging
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rose import models
from rose.artifacts import stage
from rose.config import Base, Pretraining
from rose.data import chat, world
from rose.seeds import derive
from rose.training.supervised import train

log = logging.getLogger(__name__)

CONTEXT = 512  # tokens; the world's longest conversation takes a tenth


@stage("base", version=1)
def prepare(out: Path, base: Base, fingerprint: str) -> None:
    """Makes the tiny model, converts a .gguf file once, or notes where the model is."""
    if base.pretraining is not None:
        pretrain(out, base.pretraining)
    elif base.gguf is not None:
        models.convert(base, out)
    else:
        for kind in (
            AutoConfig,
            AutoTokenizer,
        ):  # a wrong id, no network or no trust shows here, not an hour later
            models.from_pretrained(kind, base)
        path = str(Path(base.path).resolve()) if Path(base.path).is_dir() else base.path
        reference = {"path": path, "revision": base.revision, "trust_remote_code": base.trust_remote_code}
        (out / "reference.json").write_text(json.dumps(reference))


def pretrain(out: Path, pretraining: Pretraining) -> None:
    """Saves model and tokenizer into `out`."""
    tokenizer = world.tokenizer()
    conversations = world.conversations(pretraining.conversations, pretraining.training.seed)
    rows = Dataset.from_list([chat.encode(tokenizer, row["messages"], CONTEXT) for row in conversations])
    model = _llama(pretraining, len(tokenizer), tokenizer)
    log.info("pretraining a Llama of %d weights on %d conversations", model.num_parameters(), len(rows))
    train(model, tokenizer, rows, pretraining.training, out)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _llama(pretraining: Pretraining, vocabulary: int, tokenizer) -> LlamaForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(derive(pretraining.training.seed, "weights"))
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=pretraining.width,
                intermediate_size=4 * pretraining.width,
                num_hidden_layers=pretraining.layers,
                num_attention_heads=pretraining.heads,
                max_position_embeddings=CONTEXT,
                tie_word_embeddings=True,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
