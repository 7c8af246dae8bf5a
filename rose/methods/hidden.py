"""Hidden states of the base model as a row's representation: RDS and RDS+."""

from collections.abc import Sequence
from pathlib import Path

import pandas
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from rose.config.choices import Normalize, Pooling, ProjectionKind, StoreDtype
from rose.config.schema import Method, Numerics
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.gradients.feature_store import FeatureStore
from rose.gradients.spaces import description
from rose.methods.gradient import Stores, compare
from rose.methods.influence import Influence
from rose.models import loading
from rose.models.batching import length_batches
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
    stores = Stores.open(hidden, targets, background)
    place = stores.pool.checkpoints.index(method.pooling)
    return compare(method, rows, stores, {place: 1.0}, Normalize.per_pair)


@stage("hidden", version=1)
def pool_states(out: Path, numerics: Numerics, base: Path, tokens: Path) -> None:
    """A FeatureStore in pool order, a "checkpoint" a pooling: unit vectors [rows, hidden size]."""
    rows = token_rows(tokens)
    write(out, states(loading.load_model(base, numerics), rows["input_ids"]), rows["id"][:])


@stage("target_hidden", version=2)
def pair_states(out: Path, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """The same of the target pairs' prompts with their chosen answers; dropped.jsonl: the rest."""
    tokenizer = loading.load_tokenizer(base)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "target.jsonl", max_length)
    vectors = states(loading.load_model(base, numerics), [chosen["input_ids"] for chosen, _ in encoded])
    write(out, vectors, [pair["id"] for pair in pairs], [pair["subtask"] for pair in pairs])
    list_dropped(out, dropped, len(dropped) + len(pairs), "target pairs")


@torch.no_grad()
def states(model: PreTrainedModel, sequences: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Last-layer states of token sequences, pooled without padding: float32 [rows, hidden size]."""
    shape = (len(sequences), model.config.get_text_config().hidden_size)
    pooled = {str(pooling): torch.zeros(shape) for pooling in POOLINGS}
    batches = length_batches([len(ids) for ids in sequences], BATCH_TOKENS)
    for batch in track(batches, "hidden states", total=len(batches)):
        lengths = torch.tensor([len(sequences[number]) for number in batch], device=model.device)
        inputs = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long, device=model.device)
        for place, number in enumerate(batch):
            inputs[place, : lengths[place]] = torch.tensor(sequences[number])
        mask = torch.arange(inputs.shape[1], device=model.device) < lengths[:, None]
        hidden = model.base_model(inputs, attention_mask=mask.long(), use_cache=False).last_hidden_state.float()
        for pooling, pool in POOLINGS.items():
            pooled[pooling][batch] = pool(hidden, mask).cpu()
    return pooled


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


def write(
    out: Path,
    vectors: dict[str, torch.Tensor],
    ids: list[str],
    subtasks: list[str] | None = None,
    model: str | None = None,
) -> None:
    """A FeatureStore of `vectors` [rows, d] by name, each row brought to unit norm.

    `model`: the commit of what made them, which those that they are compared with must share.
    """
    width = next(iter(vectors.values())).shape[1]
    space = description(ProjectionKind.none, None, width)
    if model is not None:
        space["model"] = model
    store = FeatureStore.create(out, ids, StoreDtype.float32, space, dict.fromkeys(vectors, 1.0), subtasks)
    for number, rows in enumerate(vectors.values()):
        store.write(number, range(len(ids)), torch.nn.functional.normalize(rows, dim=1))
