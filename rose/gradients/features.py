"""The gradient stages: pool rows and target pairs become gradients, projected and stored, or meet as they come."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import torch
from datasets import Dataset
from torch.nn.functional import normalize

from rose import ranks
from rose.config.choices import AdamMap, Balance, PairFormat, Reference, StoreDtype
from rose.config.schema import Features, Numerics, Projection
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.data.rows import DroppedRow, EncodedPair, PreferencePair
from rose.errors import RoseError
from rose.gradients.adam import Moments, apply_adam
from rose.gradients.batches import batch_sizes
from rose.gradients.feature_store import ABSENT, FeatureStore, Filling, leave_out
from rose.gradients.objectives import SFT, Objective, gradients
from rose.gradients.per_example import PerExample
from rose.gradients.projection import Identity, Projector, make_projector
from rose.gradients.sketch import warn_if_concentrated
from rose.gradients.spaces import TARGETS, description, require_same
from rose.gradients.trajectory import Trajectory, weight
from rose.gradients.updates import project_updates
from rose.models import loading
from rose.models.batching import Encoded, collate, first_length, length_batches, with_first_tokens
from rose.models.log_probs import token_log_probs
from rose.models.memory import fitting
from rose.progress import track
from rose.stages.graph import stage

PAIR_TOKENS = 4096  # tokens of a batch of pairs, both answers and padding included
BALANCED_TOKENS = 1024  # the same where every batch takes a backward pass a token or segment
GRADIENT_BYTES = 4 << 30  # of a batch's gradients; a constant: all machines make the same batches
TRIED = 4  # rows of the first batch that tell whether a plain sketch is safe

Shard = tuple[int, int]  # which, from 1, of how many
Gradients = Callable[[list[int]], torch.Tensor]  # [n, p] for row numbers


@stage("features", version=3, resumable=True, together=True)
def pool_features(
    out: Path,
    checkpoint: int,
    features: Features,
    projection: Projection,
    numerics: Numerics,
    base: Path,
    warmup: Path,
    tokens: Path,
    shard: Shard | None = None,
) -> None:
    """A FeatureStore in pool order: each row's Adam update at a checkpoint, projected, of unit norm.

    The row's loss is its mean token cross-entropy, of its first `features.tokens` labelled ones where that is set:
    no later token passes through the model. dropped.jsonl lists rows whose gradient is not
    finite, {"id", "reason"}; in the store they are zeros, not valid. `checkpoint` is a number from
    1; nothing is computed at one whose learning rate is 0, which the store says. A `shard` (2, 8)
    holds the second eighth of the pool's batches, and so the bytes that the whole would.
    """
    name, rate = weight(warmup, checkpoint)
    if not rate:
        return leave_out(out, name)
    rows = Dataset.load_from_disk(str(tokens / "rows"))
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    with PerExample(trajectory.model) as engine:
        rows, batches, numbers = _pool_batches(rows, features.batch_tokens, engine, shard, features.tokens)
        projector = make_projector(projection, engine.size, engine.device, len(rows), len(batches))
        space, ids = projector.describe(), list(rows["id"])
        header = (features.dtype, space, {name: rate}, None, numbers)
        store = ranks.first(lambda: FeatureStore.create(out, ids, *header))
        take, moments = _gradients(trajectory, checkpoint, engine, rows, features.adam, features.tokens)
        _fill(store, batches, take, projector, True, moments, features.adam)
    _list_lost(out, store)


@stage("cosines", version=3, resumable=True, together=True)
def pool_cosines(
    out: Path,
    checkpoint: int,
    adam: AdamMap,
    batch_tokens: int | str,
    numerics: Numerics,
    base: Path,
    warmup: Path,
    tokens: Path,
    targets: Path,
    shard: Shard | None = None,
    first_tokens: int | None = None,
) -> None:
    """features.keep=stream: the pool's gradients meet the targets' as they come, and are not kept.

    As `pool_features`, but float32 cosines of Adam's updates with the targets' gradients, a column a
    pair. `targets` is a store of unprojected gradients at the same checkpoint, which are held in
    memory, float32 [pairs, p]. Exact, for nothing is projected; but every other set of targets
    takes the gradients again, and whatever compares pool rows with one another (whitening, greedy
    choice, other estimators) needs the store.
    """
    name, rate = weight(warmup, checkpoint)
    if not rate:
        return leave_out(out, name)
    rows = Dataset.load_from_disk(str(tokens / "rows"))
    aims = FeatureStore.open(targets)
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    with PerExample(trajectory.model) as engine:
        require_same(aims.projection, Identity(engine.size).describe(), (targets, "the pool's own gradients"))
        rows, batches, numbers = _pool_batches(rows, batch_tokens, engine, shard, first_tokens)
        space, ids = description(TARGETS, None, len(aims)), list(rows["id"])
        header = (StoreDtype.float32, space, {name: rate}, None, numbers)
        store = ranks.first(lambda: FeatureStore.create(out, ids, *header))
        take, moments = _gradients(trajectory, checkpoint, engine, rows, adam, first_tokens)
        _fill(store, batches, take, Cosines(aims, engine.device), False, moments, adam)
    _list_lost(out, store)


class Cosines:
    """A projector onto the targets' unit gradients; a zero gradient has cosine 0."""

    def __init__(self, targets: FeatureStore, device: torch.device) -> None:
        self.directions = normalize(targets.rows(0, 0, len(targets)), dim=1, eps=1e-30).to(device)

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
        products = gradients.float() @ self.directions.T
        return products / torch.where(norms == 0, 1, norms).float()


@stage("targets", version=2, resumable=True, together=True)
def pair_features(
    out: Path,
    checkpoint: int,
    objective: Objective,
    projection: Projection,
    numerics: Numerics,
    max_length: int,
    base: Path,
    warmup: Path,
    preferences: Path,
    format: PairFormat = PairFormat.template,
) -> None:
    """A float32 FeatureStore of the target pairs' gradients of `objective`, projected, not unit.

    At a `checkpoint`, as `pool_features`. dropped.jsonl lists the pairs that have no features,
    {"id", "reason"}. Those with nothing left of an answer after truncation are not in the store;
    those whose gradient is not finite are zeros in it, not valid.
    """
    name, rate = weight(warmup, checkpoint)
    if not rate:
        return leave_out(out, name)
    tokenizer, file = loading.load_tokenizer(base), preferences / "target.jsonl"
    pairs, encoded, dropped = encoded_pairs(tokenizer, file, max_length, format)
    if objective.first_tokens is not None:
        pairs, encoded, alike = shortened(pairs, encoded, objective.first_tokens, objective.paired)
        dropped = [*dropped, *alike]
    trajectory = Trajectory(loading.load_model(base, numerics), warmup)
    reference = _reference(trajectory, encoded, objective.reference)
    trajectory.swap_in(checkpoint - 1)
    with PerExample(trajectory.model) as engine:

        def take(batch: list[int]) -> torch.Tensor:
            rows = [row for number in batch for row in (encoded[number] if objective.paired else encoded[number][:1])]
            return gradients(engine, rows, objective, None if reference is None else reference[batch].flatten())

        lengths = [max(len(row["input_ids"]) for row in both) for both in encoded]
        tokens = PAIR_TOKENS if objective.balance is Balance.none else BALANCED_TOKENS
        batches = length_batches(lengths, tokens // 2, max(1, _most_rows(engine.size) // 2))
        projector = make_projector(projection, engine.size, engine.device, len(pairs), len(batches))
        ids, subtasks = ([pair[key] for pair in pairs] for key in ("id", "subtask"))
        header = (StoreDtype.float32, projector.describe(), {name: rate}, subtasks)
        store = ranks.first(lambda: FeatureStore.create(out, ids, *header))
        _fill(store, batches, take, projector, unit=False)
    _list_lost(out, store, dropped)


def _pool_batches(
    rows: Dataset, batch_tokens: int | str, engine: PerExample, shard: Shard | None, first_tokens: int | None
) -> tuple[Dataset, list[list[int]], numpy.ndarray | None]:
    """The pool's rows, and their numbers in batches of at most `batch_tokens` tokens.

    Of a shard, its own rows, and their numbers in the pool as well: the batches are those of the
    whole pool, of which each shard takes every so-many-th, as they are sorted by length.
    """
    table = rows.select_columns(["labels"]).with_format("arrow")[:]  # a view of the file
    lengths = numpy.concatenate([chunk.value_lengths().to_numpy() for chunk in table["labels"].chunks])
    if first_tokens is not None:
        labels = (row.values.to_numpy() for row in table["labels"])
        lengths = numpy.fromiter((first_length(each, first_tokens) for each in labels), lengths.dtype, len(lengths))
    sizes = batch_sizes(batch_tokens, engine, _most_rows(engine.size), int(lengths.max()))
    batches = length_batches(lengths, *sizes)
    if shard is None:
        return rows, batches, None
    batches = batches[shard[0] - 1 :: shard[1]]
    numbers = numpy.array(sorted(number for batch in batches for number in batch), dtype=numpy.int64)
    return rows.select(numbers), [numpy.searchsorted(numbers, batch).tolist() for batch in batches], numbers


def _gradients(
    trajectory: Trajectory,
    checkpoint: int,
    engine: PerExample,
    rows: Dataset,
    adam: AdamMap,
    first_tokens: int | None,
) -> tuple[Gradients, Moments | None]:
    """Brings the model to a checkpoint; returns what takes gradients there, and Adam's moments."""
    trajectory.swap_in(checkpoint - 1)
    columns = rows.select_columns(["input_ids", "labels"]).with_format("numpy")

    def take(numbers: list[int]) -> torch.Tensor:
        table = columns[numbers]
        both = zip(table["input_ids"], table["labels"], strict=True)
        batch = [Encoded(input_ids=ids, labels=labels) for ids, labels in both]
        if first_tokens is not None:
            batch = [with_first_tokens(row, first_tokens) for row in batch]
        return gradients(engine, batch, SFT)

    return take, trajectory.moments(checkpoint - 1, engine) if adam != AdamMap.none else None


def _fill(
    store: FeatureStore,
    batches: list[list[int]],
    take: Gradients,
    projector: Projector | Cosines,
    unit: bool,
    moments: Moments | None = None,
    adam: AdamMap = AdamMap.none,
) -> None:
    """Projects Adam's updates of what `take` gives for each batch into the store, brought to `unit` norm.

    Batches that are done already are passed over, and so are those of a job's other processes.
    """
    absent = store.flags(0) == ABSENT
    to_do = [batch for batch in ranks.own_batches(batches) if absent[batch].any()]
    with Filling(store, 0) as filling:

        def fill(batch: list[int]) -> None:
            raw = take(batch)
            if batch[0] == to_do[0][0]:
                warn_if_concentrated(apply_adam(raw[:TRIED].clone(), moments, adam), projector)
            projected = project_updates(raw, moments, adam, projector)
            # a row without a gradient keeps its zeros, and scores zero
            filling.write(batch, normalize(projected, dim=1, eps=1e-30) if unit else projected)

        fits = fitting(fill, "say a smaller model.max_length or model.lora.rank")
        for batch in track(to_do, f"{store.path.parent.name} {store.checkpoints[0]}"):
            fits(batch)


def _reference(trajectory: Trajectory, pairs: Sequence[EncodedPair], kind: Reference | None) -> torch.Tensor | None:
    """Summed log-probabilities [pairs, 2] under the reference: the base, or the warm-up's end."""
    if kind is None:
        return None
    rows = [row for both in pairs for row in both]
    sums = torch.zeros(len(rows), device=trajectory.model.device)

    def measure(batch: list[int]) -> None:
        log_probs, _ = token_log_probs(trajectory.model, *collate([rows[number] for number in batch]))
        sums[batch] = log_probs.sum(1).to(sums.dtype)

    fits = fitting(measure, "say a smaller model.max_length")
    with torch.no_grad(), trajectory.reference(kind):
        for batch in length_batches([len(row["input_ids"]) for row in rows], PAIR_TOKENS):
            fits(batch)
    return sums.view(-1, 2)


def shortened(
    pairs: list[PreferencePair], encoded: list[EncodedPair], count: int, paired: bool
) -> tuple[list[PreferencePair], list[EncodedPair], list[DroppedRow]]:
    """Pairs, their answers cut to `count` tokens, and those that are then alike."""
    different, shortened, dropped = [], [], []
    for pair, (chosen, rejected) in zip(pairs, encoded, strict=True):
        both = with_first_tokens(chosen, count), with_first_tokens(rejected, count)
        if paired and both[0] == both[1]:
            dropped.append({"id": pair["id"], "reason": f"the answers begin alike: preference.first_tokens={count}"})
        else:
            different.append(pair)
            shortened.append(both)
    if not different:
        raise RoseError(f"preference.first_tokens={count}: no target pair's answers differ so early")
    return different, shortened, dropped


def _list_lost(out: Path, store: FeatureStore, dropped: Sequence[DroppedRow] = ()) -> None:
    """Lists `dropped` and the rows without a gradient, once every process is done; to drop a whole pool is an error."""
    ranks.barrier()
    shard = (out / "numbers.int64").exists()  # which may be a few rows, or none
    if not store.valid.any() and not shard:
        raise RoseError("no row has a finite gradient; model.numerics.dtype=float32 or bfloat16 may help")
    lost = [
        DroppedRow(id=row["id"], reason=f"gradient not finite at {row['checkpoint']}") for row in store.not_finite()
    ]
    if ranks.is_first():
        list_dropped(out, [*dropped, *lost], len(dropped) + len(store.ids), "rows", part=shard)


def _most_rows(size: int) -> int:
    return max(1, GRADIENT_BYTES // (4 * size))
