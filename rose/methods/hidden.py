"""Hidden states of the base model as a row's representation: RDS and RDS+."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from rose.config.choices import Normalize, Pooling, ProjectionKind, StoreDtype
from rose.config.schema import Method, Numerics
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.data.rows import EncodedPair, PreferencePair
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import description
from rose.methods.gradient import compare
from rose.methods.influence import Influence
from rose.models import loading
from rose.models.batching import Encoded, length_batches
from rose.models.memory import fitting
from rose.progress import track
from rose.stages.graph import stage

BATCH_TOKENS = 8192  # padding included; no logits are kept


def influence(
    method: Method, rows: pandas.DataFrame, hidden: Path, targets: Path, background: Path | None = None
) -> Influence:
    """Cosine of each row's state and each pair's (prompt and chosen answer).

    `method.pooling` is last: the last token's state (RDS, the baseline of arXiv 2402.04333), or
    weighted: Σ_t t/(Σt) · h_t over the row's tokens (RDS+, arXiv 2503.01807). h is the last layer's
    state, after its norm.
    """
    pool = FeatureStore.open(hidden)
    place = pool.checkpoints.index(method.pooling)
    return compare(method, rows, {place: 1.0}, Normalize.per_pair, pool, targets, background)


@stage("hidden", version=1)
def pool_states(out: Path, numerics: Numerics, base: Path, tokens: Path) -> None:
    """A FeatureStore in pool order, a "checkpoint" a pooling: unit vectors [rows, hidden size]."""
    rows = token_rows(tokens)
    write(out, states(loading.load_model(base, numerics), rows["input_ids"]), rows["id"][:])


@stage("target_hidden", version=2)
def pair_states(out: Path, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """The same of the target pairs' prompts with their chosen answers; dropped.jsonl: the rest."""
    pairs, encoded = fitting_pairs(out, base, max_length, preferences)
    vectors = states(loading.load_model(base, numerics), [chosen["input_ids"] for chosen, _ in encoded])
    write(out, vectors, [pair["id"] for pair in pairs], [pair["subtask"] for pair in pairs])


def states(model: PreTrainedModel, sequences: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Last-layer states of token sequences, pooled without padding: float32 [rows, hidden size]."""

    def pooled(batch: list[int]) -> torch.Tensor:
        rows = [torch.tensor(sequences[number]) for number in batch]
        inputs = pad_sequence(rows, batch_first=True).to(model.device)
        lengths = torch.tensor([len(row) for row in rows], device=model.device)
        mask = torch.arange(inputs.shape[1], device=model.device) < lengths[:, None]
        hidden = model.base_model(inputs, attention_mask=mask.long(), use_cache=False).last_hidden_state.float()
        return torch.stack([pool(hidden, mask) for pool in POOLINGS.values()], dim=1)

    shape = (len(POOLINGS), model.config.get_text_config().hidden_size)
    by_pooling = in_batches("hidden states", sequences, shape, pooled).unbind(1)
    return {str(pooling): vectors for pooling, vectors in zip(POOLINGS, by_pooling, strict=True)}


def last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of each row's last token: [rows, tokens, hidden size] → [rows, hidden size]."""
    return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]


def weighted(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Σ_t t/(Σt) · h_t over each row's own tokens, t = 1, 2, …"""
    place = mask.cumsum(1) * mask
    return torch.einsum("rt,rth->rh", place / place.sum(1, keepdim=True), hidden)


POOLINGS = {Pooling.last: last, Pooling.weighted: weighted}


def token_rows(tokens: Path) -> Dataset:
    """id, dataset (source), input_ids and labels of each row of a `tokens` artifact."""
    return Dataset.load_from_disk(tokens / "rows")


def encoded_rows(tokens: Path) -> tuple[list[str], list[Encoded]]:
    """The ids of a `tokens` artifact, and its rows."""
    rows = token_rows(tokens)
    return rows["id"][:], rows.select_columns(["input_ids", "labels"]).to_list()


def fitting_pairs(
    out: Path, base: Path, max_length: int, preferences: Path
) -> tuple[list[PreferencePair], list[EncodedPair]]:
    """The target pairs and their encoded answers; dropped.jsonl lists those that nothing is left of."""
    pairs, encoded, dropped = encoded_pairs(loading.load_tokenizer(base), preferences / "target.jsonl", max_length)
    list_dropped(out, dropped, len(dropped) + len(pairs), "target pairs")
    return pairs, encoded


@torch.no_grad()
def in_batches(
    what: str, sequences: Sequence[Sequence[int]], shape: tuple[int, ...], vectors: Callable[[list[int]], torch.Tensor]
) -> torch.Tensor:
    """[rows, *shape]: what `vectors` makes of the numbers of `sequences` of about one length, for all of them."""
    result = torch.zeros(len(sequences), *shape)

    def place(batch: list[int]) -> None:
        result[batch] = vectors(batch).cpu()

    fits = fitting(place, "say a smaller model.max_length")
    for batch in track(length_batches([len(ids) for ids in sequences], BATCH_TOKENS), what):
        fits(batch)
    return result


def write(
    out: Path,
    vectors: dict[str, torch.Tensor],
    ids: list[str],
    subtasks: list[str] | None = None,
    model: str | None = None,
    unit: bool = True,
) -> None:
    """A FeatureStore of `vectors` [rows, d] by name, each row brought to `unit` norm.

    `model`: the commit of what made them, which those that they are compared with must share.
    """
    width = next(iter(vectors.values())).shape[1]
    space = description(ProjectionKind.none, None, width)
    if model is not None:
        space["model"] = model
    store = FeatureStore.create(out, ids, StoreDtype.float32, space, dict.fromkeys(vectors, 1.0), subtasks)
    for number, rows in enumerate(vectors.values()):
        store.write(number, range(len(ids)), torch.nn.functional.normalize(rows, dim=1) if unit else rows)
