"""Hidden states of the base model as a row's representation, RDS and RDS+, and the pass that they and others are of."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy, normalize, pad
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
from rose.models.batching import IGNORED, Encoded, length_batches
from rose.models.log_probs import head_input
from rose.models.memory import fitting
from rose.progress import track
from rose.stages.graph import stage

BATCH_TOKENS = 4096  # padding included; the logits of its labelled tokens are in memory, and the states of all layers


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


@stage("one_pass", version=1)
def pool_pass(out: Path, layer: float, numerics: Numerics, base: Path, tokens: Path) -> None:
    """What `OnePass` says of the pool, for all that reads it, from a single pass of the model.

    A FeatureStore in pool order, [rows, hidden size] in each "checkpoint": one a pooling, unit
    vectors, and `states`, those of the answers, as they are. losses.parquet: id, and loss.
    """
    ids, rows = encoded_rows(tokens)
    found = one_pass(loading.load_model(base, numerics), rows, layer)
    write(out, found.pooled | {"states": found.states}, ids, raw=("states",))
    pandas.DataFrame({"id": ids, "loss": found.losses.numpy()}).to_parquet(out / "losses.parquet", index=False)


@stage("target_hidden", version=2)
def pair_states(out: Path, numerics: Numerics, max_length: int, base: Path, preferences: Path) -> None:
    """The pooled states of the target pairs' prompts with their chosen answers; dropped.jsonl: the rest."""
    pairs, encoded = fitting_pairs(out, base, max_length, preferences)
    found = one_pass(loading.load_model(base, numerics), [chosen for chosen, _ in encoded])
    write(out, found.pooled, [pair["id"] for pair in pairs], [pair["subtask"] for pair in pairs])


class OnePass(NamedTuple):
    """Of each row, without padding, float32 [rows, hidden size] but for the losses."""

    pooled: dict[str, torch.Tensor]  # the last layer's states of all tokens, by pooling
    states: torch.Tensor  # the mean over labelled tokens of those after a layer
    losses: torch.Tensor  # mean cross-entropy of the labelled tokens, in nats, float64 [rows]


def one_pass(model: PreTrainedModel, rows: Sequence[Encoded], layer: float = 1.0) -> OnePass:
    """`layer` is the share of the depth: 1 is the last layer, after the model's final norm."""
    head, losses = model.get_output_embeddings(), torch.zeros(len(rows), dtype=torch.float64)
    assert head is not None, "a causal language model has an output layer"

    def look(batch: list[int]) -> torch.Tensor:
        sequences = [torch.tensor(rows[number]["input_ids"]) for number in batch]
        labels = pad_sequence([torch.tensor(rows[number]["labels"]) for number in batch], True, IGNORED)
        inputs, labels = (each.to(model.device) for each in (pad_sequence(sequences, True), labels))
        lengths = torch.tensor([len(row) for row in sequences], device=model.device)
        targets = pad(labels[:, 1:], (0, 1), value=IGNORED)
        learned, lost = targets != IGNORED, torch.zeros(targets.shape, device=model.device)
        with head_input(head, lambda hidden: hidden[learned][None]):
            found = model(input_ids=inputs, use_cache=False, output_hidden_states=True)
        lost[learned] = cross_entropy(found.logits[0].float(), targets[learned], reduction="none")
        losses[batch] = (lost.double().sum(1) / learned.sum(1)).cpu()
        layers = found.hidden_states
        states, after = layers[-1].float(), layers[round(layer * (len(layers) - 1))].float()
        own = torch.arange(inputs.shape[1], device=model.device) < lengths[:, None]
        return torch.stack([*(pool(states, own) for pool in POOLINGS.values()), mean(after, labels != IGNORED)], dim=1)

    shape = (len(POOLINGS) + 1, model.config.get_text_config().hidden_size)
    *pooled, states = in_batches("one pass", [row["input_ids"] for row in rows], shape, look).unbind(1)
    return OnePass({str(name): vectors for name, vectors in zip(POOLINGS, pooled, strict=True)}, states, losses)


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean state of the tokens where `mask` is: [rows, tokens, hidden size] → [rows, hidden size]."""
    return torch.einsum("rt,rth->rh", mask / mask.sum(1, keepdim=True), hidden)


def last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The state of each row's last token: [rows, tokens, hidden size] → [rows, hidden size]."""
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


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
    raw: Sequence[str] = (),
) -> None:
    """A FeatureStore of `vectors` [rows, d] by name, each row brought to unit norm but in those that stay `raw`.

    `model`: the commit of what made them, which those that they are compared with must share.
    """
    width = next(iter(vectors.values())).shape[1]
    space = description(ProjectionKind.none, None, width)
    if model is not None:
        space["model"] = model
    store = FeatureStore.create(out, ids, StoreDtype.float32, space, dict.fromkeys(vectors, 1.0), subtasks)
    for number, (name, rows) in enumerate(vectors.items()):
        store.write(number, range(len(ids)), rows if name in raw else normalize(rows, dim=1))
