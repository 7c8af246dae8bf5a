"""The readout: gradients of the output layer's weight, from one forward pass of the base model or of a checkpoint.

For an answer's tokens t with states h_t before the output layer W and slopes e_t = ∂(−log π_t)/∂(W h_t),
softmax(z_t) − onehot(y_t) where nothing follows W, the gradient of W is Σ_t e_t h_tᵀ. It is kept as
A (Σ_t e_t h_tᵀ) Bᵀ for two matrices of random signs (a Kronecker projection), whose inner products
are unbiased. Selection by such gradients of the chosen answers: LESSER (2026); by the contrast of
chosen and rejected ones: ours.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from rose.config.choices import Balance, PairFormat, StoreDtype
from rose.config.schema import Numerics
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.gradients.feature_store import ABSENT, FeatureStore, Filling, leave_out
from rose.gradients.features import shortened
from rose.gradients.objectives import SFT, Loss, Objective
from rose.gradients.sketch import random_signs
from rose.gradients.spaces import READOUT, description
from rose.gradients.trajectory import Trajectory, weight
from rose.methods.hidden import encoded_rows
from rose.models import loading
from rose.models.batching import IGNORED, Encoded, collate, length_batches, with_first_tokens
from rose.models.memory import fitting
from rose.progress import track
from rose.stages.graph import stage

BATCH_TOKENS = 2048  # padding included; the logits of its labelled tokens are in memory, three times


@stage("readout", version=1, resumable=True)
def pool_readout(
    out: Path,
    dim: int,
    seed: int,
    dtype: StoreDtype,
    numerics: Numerics,
    base: Path,
    tokens: Path,
    first_tokens: int | None = None,
    warmup: Path | None = None,
    checkpoint: int | None = None,
) -> None:
    """A FeatureStore in pool order: the gradients of rows' mean cross-entropy, projected, of unit norm.

    Of the `first_tokens` labelled ones alone where that is set: no later token passes through the model.
    At a `checkpoint` of a `warmup`, from 1, where these are; one whose mean learning rate is 0 is not computed.
    """
    name, rate = _weight(warmup, checkpoint)
    if not rate:
        return leave_out(out, name)
    ids, rows = encoded_rows(tokens)
    if first_tokens is not None:
        rows = [with_first_tokens(row, first_tokens) for row in rows]
    readout = Readout(_model(base, numerics, warmup, checkpoint), dim, seed)
    store = FeatureStore.create(out, ids, dtype, readout.space, {name: rate})
    _fill(store, readout, rows, [[number] for number in range(len(rows))], SFT, unit=True)


@stage("target_readout", version=1, resumable=True)
def pair_readout(
    out: Path,
    objective: Objective,
    dim: int,
    seed: int,
    numerics: Numerics,
    max_length: int,
    base: Path,
    preferences: Path,
    format: PairFormat = PairFormat.template,
    warmup: Path | None = None,
    checkpoint: int | None = None,
) -> None:
    """The same of the target pairs' `objective`, float32, not of unit norm; dropped.jsonl lists the rest."""
    name, rate = _weight(warmup, checkpoint)
    if not rate:
        return leave_out(out, name)
    tokenizer, file = loading.load_tokenizer(base), preferences / "target.jsonl"
    pairs, encoded, dropped = encoded_pairs(tokenizer, file, max_length, format)
    if objective.first_tokens is not None:
        pairs, encoded, alike = shortened(pairs, encoded, objective.first_tokens, objective.paired)
        dropped = [*dropped, *alike]
    rows = [row for both in encoded for row in both]
    sides = [[2 * pair, 2 * pair + 1] if objective.paired else [2 * pair] for pair in range(len(pairs))]
    readout = Readout(_model(base, numerics, warmup, checkpoint), dim, seed)
    ids, subtasks = ([pair[key] for pair in pairs] for key in ("id", "subtask"))
    store = FeatureStore.create(out, ids, StoreDtype.float32, readout.space, {name: rate}, subtasks)
    _fill(store, readout, rows, sides, objective)
    list_dropped(out, dropped, len(dropped) + len(pairs), "target pairs")


def _weight(warmup: Path | None, checkpoint: int | None) -> tuple[str, float]:
    """The name of the model that is read out, and what it counts."""
    return ("base", 1.0) if warmup is None or checkpoint is None else weight(warmup, checkpoint)


def _model(base: Path, numerics: Numerics, warmup: Path | None, checkpoint: int | None) -> PreTrainedModel | PeftModel:
    model = loading.load_model(base, numerics)
    if warmup is None or checkpoint is None:
        return model
    trajectory = Trajectory(model, warmup)
    trajectory.swap_in(checkpoint - 1)
    return trajectory.model


class Readout:
    """Projected gradients [n, dim] of a model's output layer; its two sides have `shape`, rows × columns of dim."""

    def __init__(self, model: PreTrainedModel | PeftModel, dim: int, seed: int) -> None:
        self.model = model.requires_grad_(False).eval()
        head = model.get_output_embeddings()
        assert head is not None, "a causal language model has an output layer"
        self.head = head
        self.shape, self.space = sides(dim), description(READOUT, seed, dim)
        vocabulary, hidden = self.head.weight.shape
        self.left = self._map(seed, "vocabulary", vocabulary, self.shape[0])
        self.right = self._map(seed, "states", hidden, self.shape[1])

    def _map(self, seed: int, name: str, size: int, dim: int) -> torch.Tensor:
        """±1/√dim, [size, dim]: the same on every machine."""
        signs = random_signs(seed, f"readout {name}", size * dim).view(size, dim)
        return (signs / math.sqrt(dim)).to(self.model.device)

    def gradients(self, rows: Sequence[Encoded], mean: bool, balance: Balance) -> torch.Tensor:
        """Of each row's summed, or `mean`, −log π: float32 [n, dim].

        balance=tokens: each token's gradient is brought to unit norm before.
        """
        inputs, targets = collate(rows, self.model.device)
        errors, states, mask = slopes(self.model, self.head, inputs, targets)
        weight = errors.new_ones(len(errors))
        if balance is Balance.tokens:  # ‖e hᵀ‖ = ‖e‖ ‖h‖
            weight /= (errors.norm(dim=1) * states.norm(dim=1)).clamp(min=1e-30)
        left, right = errors @ self.left * weight[:, None], states @ self.right
        by_row = [each.new_zeros(*mask.shape, each.shape[1]) for each in (left, right)]
        for into, each in zip(by_row, (left, right), strict=True):
            into[mask] = each
        found = torch.einsum("nta,ntb->nab", *by_row).flatten(1)
        return found / mask.sum(1, keepdim=True) if mean else found


def sides(dim: int) -> tuple[int, int]:
    """The two factors of dim that are nearest, the greater first: 8192 → 128 × 64."""
    columns = next(each for each in range(math.isqrt(dim), 0, -1) if dim % each == 0)
    return dim // columns, columns


def slopes(
    model: PreTrainedModel | PeftModel, head: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """e and h of labelled tokens, float32 [tokens, vocabulary] and [tokens, hidden size], and where these are, [n, t].

    What follows the head, such as a cap on the logits, is differentiated too; the model itself is not.
    """
    mask, seen = targets != IGNORED, {}

    def before(module: torch.nn.Module, args: tuple) -> tuple:
        seen["states"] = args[0][mask][None]
        return seen["states"], *args[1:]

    def after(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        seen["logits"] = output.detach().requires_grad_()
        return seen["logits"]

    hooks = head.register_forward_pre_hook(before), head.register_forward_hook(after)
    try:
        with torch.enable_grad():
            logits = model(input_ids=inputs, use_cache=False).logits[0]
            precise = logits if logits.dtype == torch.float64 else logits.float()
            loss = torch.nn.functional.cross_entropy(precise, targets[mask], reduction="sum")
            (errors,) = torch.autograd.grad(loss, seen["logits"])
    finally:
        for hook in hooks:
            hook.remove()
    wide = torch.float64 if errors.dtype == torch.float64 else torch.float32
    return errors[0].to(wide), seen["states"][0].to(wide), mask


def _fill(
    store: FeatureStore,
    readout: Readout,
    rows: Sequence[Encoded],
    parts: Sequence[list[int]],
    objective: Objective,
    unit: bool = False,
) -> None:
    """Writes a row of the store for each of `parts`: the number of a row, or those of a pair's two answers."""
    mean = objective.loss in (Loss.sft, Loss.simpo)
    lengths = [max(len(rows[number]["input_ids"]) for number in part) * len(part) for part in parts]
    absent = store.flags(0) == ABSENT
    with Filling(store, 0) as filling:

        def fill(batch: list[int]) -> None:
            both = [rows[number] for part in batch for number in parts[part]]
            each = readout.gradients(both, mean, objective.balance)
            found = each[0::2] - each[1::2] if objective.paired else each
            filling.write(batch, normalize(found, dim=1, eps=1e-30) if unit else found)

        fits = fitting(fill, "say a smaller model.max_length")
        for batch in track(length_batches(lengths, BATCH_TOKENS), store.path.parent.name):
            if absent[batch].any():
                fits(batch)
