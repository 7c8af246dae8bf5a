"""The two gradient stages: projected features of the pool, and of the target pairs, at every warm-up
checkpoint.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy
import pyarrow.compute
import torch
from datasets import Dataset, load_from_disk

from rose import ranks
from rose.config.choices import AdamMap, Balance, Reference, StoreDtype
from rose.config.schema import Features, Numerics, Projection
from rose.data.encoded_pairs import encoded_pairs
from rose.errors import RoseError
from rose.gradients.adam import Moments, apply_adam
from rose.gradients.feature_store import ABSENT, FeatureStore, Filling
from rose.gradients.objectives import SFT, Objective, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import Projector, make_projector
from rose.gradients.sketch import warn_if_concentrated
from rose.gradients.trajectory import Trajectory
from rose.models import loading
from rose.models.batching import collate, length_batches, with_first_tokens
from rose.models.log_probs import token_log_probs
from rose.progress import track
from rose.stages.graph import stage

log = logging.getLogger(__name__)

PAIR_TOKENS = 4096  # tokens of a batch of pairs, both answers and padding included
BALANCED_TOKENS = 1024  # the same where every batch takes a backward pass a token or segment
GRADIENT_BYTES = 4 << 30  # of a batch's gradients; a constant, so that batches are the same on every machine


@stage("features", version=2, resumable=True, together=True)
def pool_features(
    out: Path,
    features: Features,
    projection: Projection,
    numerics: Numerics,
    base: Path,
    warmup: Path,
    tokens: Path,
) -> None:
    """A FeatureStore in pool order: Adam's updates for each row's mean token cross-entropy, projected, of
    unit norm.

    dropped.jsonl lists rows whose gradient is not finite, {"id", "reason"}; in the store they are zeros, not
    valid.
    """
    rows = load_from_disk(str(tokens / "rows"))
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    with PerExample(trajectory.model) as engine:
        batches = pool_batches(rows, features.batch_tokens, engine)
        points = len(trajectory.names)
        projector = make_projector(projection, engine.size, engine.device, points * len(rows), points * len(batches))
        described, ids = projector.describe(), list(rows["id"])
        store = ranks.first(lambda: FeatureStore.create(out, ids, features.dtype, described, trajectory.rates))
        for checkpoint, take in updates(trajectory, engine, rows, features.adam):
            fill(store, checkpoint, batches, take, projector, unit=True)
    report(out, store, [])


@stage("targets", version=1, resumable=True, together=True)
def pair_features(
    out: Path,
    objective: Objective,
    projection: Projection,
    numerics: Numerics,
    max_length: int,
    base: Path,
    warmup: Path,
    preferences: Path,
) -> None:
    """A float32 FeatureStore of the target pairs: plain gradients of `objective`, projected, not normalised.

    dropped.jsonl lists the pairs that have no features, {"id", "reason"}: those with nothing left of an
    answer after truncation are not in the store, those whose gradient is not finite are zeros in it, not
    valid.
    """
    pairs, encoded, dropped = encoded_pairs(loading.load_tokenizer(base), preferences / "target.jsonl", max_length)
    if objective.first_tokens is not None:
        pairs, encoded, alike = _shortened(pairs, encoded, objective)
        dropped += alike
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    reference = _reference(trajectory, encoded, objective.reference)
    with PerExample(trajectory.model) as engine:
        lengths = [max(len(row["input_ids"]) for row in both) for both in encoded]
        tokens = PAIR_TOKENS if objective.balance is Balance.none else BALANCED_TOKENS
        batches = length_batches(lengths, tokens // 2, max(1, _most_rows(engine.size) // 2))
        points = len(trajectory.names)
        projector = make_projector(projection, engine.size, engine.device, points * len(pairs), points * len(batches))
        ids, subtasks = ([pair[name] for pair in pairs] for name in ("id", "subtask"))
        header = (StoreDtype.float32, projector.describe(), trajectory.rates, subtasks)
        store = ranks.first(lambda: FeatureStore.create(out, ids, *header))
        for checkpoint in trajectory:
            take = partial(_pair_gradients, engine, encoded, objective, reference)
            fill(store, checkpoint, batches, take, projector, unit=False)
    report(out, store, dropped)


def pool_batches(rows: Dataset, batch_tokens: int, engine: PerExample) -> list[list[int]]:
    """Row numbers of the pool in batches of at most `batch_tokens` tokens."""
    return length_batches(_lengths(rows), batch_tokens, _most_rows(engine.size))


def updates(
    trajectory: Trajectory, engine: PerExample, rows: Dataset, adam: AdamMap
) -> Iterator[tuple[int, Callable[[list[int]], torch.Tensor]]]:
    """Each checkpoint in turn, with what takes Adam's updates [rows, p] for row numbers while the model is at it."""
    columns = rows.select_columns(["input_ids", "labels"])
    for checkpoint in trajectory:
        moments = trajectory.moments(checkpoint, engine) if adam != AdamMap.none else None
        yield checkpoint, partial(_updates, engine, columns, moments, adam)


def fill(
    store: FeatureStore,
    checkpoint: int,
    batches: Sequence[list[int]],
    take: Callable[[list[int]], torch.Tensor],
    projector: Projector,
    unit: bool,
) -> None:
    """Projects `take(row numbers)`, gradients [rows, p], into the store; batches that are done already are
    passed over, and so are those of a job's other processes.
    """
    absent = store.flags(checkpoint) == ABSENT
    left = [batch for batch in ranks.own_batches(batches) if absent[batch].any()]
    with Filling(store, checkpoint) as filling:
        for batch in track(left, f"{store.path.parent.name} {store.checkpoints[checkpoint]}", total=len(left)):
            taken = take(batch)
            if batch is left[0]:
                warn_if_concentrated(taken, projector)
            projected = projector.project(taken)
            if unit:
                norms = torch.linalg.vector_norm(projected, dim=1, keepdim=True)
                projected = projected / torch.where(norms == 0, 1, norms)  # without a gradient: zeros, score zero
            filling.write(batch, projected)


def _updates(
    engine: PerExample, rows: Dataset, moments: Moments | None, adam: AdamMap, numbers: list[int]
) -> torch.Tensor:
    columns = rows[numbers]
    batch = [
        {"input_ids": ids, "labels": labels}
        for ids, labels in zip(columns["input_ids"], columns["labels"], strict=True)
    ]
    return apply_adam(gradients(engine, batch, SFT), moments, adam)


def _pair_gradients(
    engine: PerExample,
    pairs: Sequence[tuple[dict, dict]],
    objective: Objective,
    reference: torch.Tensor | None,
    numbers: list[int],
) -> torch.Tensor:
    rows = [row for number in numbers for row in (pairs[number] if objective.paired else pairs[number][:1])]
    return gradients(engine, rows, objective, None if reference is None else reference[numbers].flatten())


def _reference(
    trajectory: Trajectory, pairs: Sequence[tuple[dict, dict]], kind: Reference | None
) -> torch.Tensor | None:
    """Summed log-probabilities [pairs, 2] under the reference: the base model, or the end of the warm-up."""
    if kind is None:
        return None
    rows = [row for both in pairs for row in both]
    sums = torch.zeros(len(rows), device=trajectory.model.device)
    with torch.no_grad(), trajectory.reference(kind):
        for batch in length_batches([len(row["input_ids"]) for row in rows], PAIR_TOKENS):
            log_probs, _ = token_log_probs(trajectory.model, *collate([rows[number] for number in batch], sums.device))
            sums[batch] = log_probs.sum(1).to(sums.dtype)
    return sums.view(-1, 2)


def _shortened(
    pairs: list[dict], encoded: list[tuple[dict, dict]], objective: Objective
) -> tuple[list[dict], list[tuple[dict, dict]], list[dict]]:
    """Pairs, their answers cut to `objective.first_tokens`, and {"id", "reason"} of those that are left no contrast."""
    kept, shortened, dropped = [], [], []
    for pair, both in zip(pairs, encoded, strict=True):
        first, second = (with_first_tokens(row, objective.first_tokens) for row in both)
        if objective.paired and first == second:
            reason = f"the answers begin alike: preference.first_tokens={objective.first_tokens}"
            dropped.append({"id": pair["id"], "reason": reason})
        else:
            kept.append(pair)
            shortened.append((first, second))
    if not kept:
        raise RoseError(f"preference.first_tokens={objective.first_tokens}: no target pair's answers differ so early")
    return kept, shortened, dropped


def report(out: Path, store: FeatureStore, dropped: list[dict]) -> None:
    """Writes dropped.jsonl, once every process is done, and says how many rows are in it; all of them is an error."""
    ranks.barrier()
    dropped = dropped + [
        {"id": row["id"], "reason": f"gradient not finite at {row['checkpoint']}"} for row in store.not_finite()
    ]
    if ranks.is_first():
        (out / "dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in dropped))
    if dropped:
        log.warning("%d rows have no features, first %s; see dropped.jsonl", len(dropped), dropped[0])
    if not store.valid.any():
        raise RoseError("no row has a finite gradient; model.numerics.dtype=float32 or bfloat16 may help")


def _lengths(rows: Dataset) -> numpy.ndarray:
    tables = rows.select_columns(["input_ids"]).with_format("arrow").iter(10_000)
    return numpy.concatenate([pyarrow.compute.list_value_length(table["input_ids"]).to_numpy() for table in tables])


def _most_rows(size: int) -> int:
    return max(1, GRADIENT_BYTES // (4 * size))
