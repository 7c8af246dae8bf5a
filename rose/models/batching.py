"""Rows to rectangular batches: sorted by length under a token budget, padded on the right."""

from collections.abc import Sequence

import numpy
import torch

IGNORED = -100  # the label of a token that carries no loss


def length_batches(lengths: Sequence[int], budget: int, max_rows: int | None = None) -> list[list[int]]:
    """Row numbers in batches whose padded size (rows × longest row) stays within `budget` tokens, longest
    first.

    A row longer than the budget gets a batch of its own. The result depends on the arguments only, so a run
    that was cut short meets the same batches again; longest first, so that a batch too big for the memory
    fails at once.
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


def with_first_tokens(row: dict, count: int) -> dict:
    """An encoded row of which only the first `count` labelled tokens carry loss."""
    labelled = [t for t, label in enumerate(row["labels"]) if label != IGNORED and t > 0]
    stop = labelled[count] if count < len(labelled) else len(row["labels"])
    return {"input_ids": row["input_ids"][:stop], "labels": row["labels"][:stop]}


def collate(rows: Sequence[dict], device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded rows to `(inputs, targets)`, both [rows, tokens] int64; `targets[:, t]` is what `inputs[:, t]`
    predicts.

    What follows a row's last label cannot reach its loss and is cut off. No attention mask is needed: padding
    is on the right and attention is causal, so no real token ever looks at a padded one.
    """
    used = [max((t for t, label in enumerate(row["labels"]) if label != IGNORED), default=1) for row in rows]
    width = max(1, *used)
    inputs = torch.zeros(len(rows), width, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORED, dtype=torch.int64)
    for i, (row, length) in enumerate(zip(rows, used, strict=True)):
        ids = row["input_ids"][:length]
        inputs[i, : len(ids)] = torch.as_tensor(ids)
        labels = row["labels"][1 : length + 1]
        targets[i, : len(labels)] = torch.as_tensor(labels)
    return inputs.to(device), targets.to(device)
