"""Rows to rectangular batches: sorted by length under a token budget, padded on the right."""

from collections.abc import Sequence
from typing import TypedDict

import numpy
import torch
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # the label of a token that carries no loss


class Encoded(TypedDict):
    """labels[t] is input_ids[t] where the model is to learn it from those before, else IGNORED."""

    input_ids: list[int]
    labels: list[int]


def length_batches(lengths: Sequence[int] | numpy.ndarray, budget: int, max_rows: int | None = None) -> list[list[int]]:
    """Row numbers in batches whose padded size (rows × longest row) is at most `budget` tokens.

    A row longer than the budget gets a batch of its own. The result depends on the arguments only,
    so a run that was cut short meets the same batches again. The longest rows come first, so that
    a batch too big for the memory fails at once.
    """
    batches: list[list[int]] = []
    longest = 0
    for row in numpy.argsort(-numpy.asarray(lengths, dtype=numpy.int64), kind="stable").tolist():
        full = not batches or (len(batches[-1]) + 1) * longest > budget or len(batches[-1]) == max_rows
        if full:
            batches.append([])
            longest = max(int(lengths[row]), 1)
        batches[-1].append(row)
    return batches


def first_length(labels: numpy.ndarray, count: int) -> int:
    """The length of a row of these labels that ends with the `count`-th that carries loss, if it has so many."""
    labelled = numpy.flatnonzero(labels[1:] != IGNORED) + 1
    return int(labelled[count - 1]) + 1 if count <= len(labelled) else len(labels)


def with_first_tokens(row: Encoded, count: int) -> Encoded:
    """An encoded row of which only the first `count` labelled tokens carry loss."""
    labelled = [t for t, label in enumerate(row["labels"]) if label != IGNORED and t > 0]
    stop = labelled[count] if count < len(labelled) else len(row["labels"])
    return {"input_ids": row["input_ids"][:stop], "labels": row["labels"][:stop]}


def collate(rows: Sequence[Encoded], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded rows to inputs and targets, int64 [n, t]; `inputs[:, i]` predict `targets[:, i]`.

    What follows a row's last label cannot reach its loss and is cut off. No attention mask is
    needed: padding is on the right and attention is causal, so no real token looks at a padded one.
    """
    inputs, targets = [], []
    for row in rows:
        ids, labels = (numpy.asarray(row[name], dtype=numpy.int64) for name in ("input_ids", "labels"))
        length = max((1, *numpy.flatnonzero(labels != IGNORED)[-1:]))  # 1 also where no label is left
        inputs.append(torch.tensor(ids[:length]))
        targets.append(torch.tensor(numpy.append(labels[1:], IGNORED)[:length]))
    padded = pad_sequence(inputs, True), pad_sequence(targets, True, padding_value=IGNORED)
    return moved(padded[0], device), moved(padded[1], device)


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor there. A GPU fetches it from pinned memory by itself, so that nobody waits until it is idle."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu" and torch.cuda.is_available():
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
