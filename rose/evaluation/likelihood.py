"""Held-out preference accuracy: does the model find the chosen answer more likely than the rejected one?"""

from collections.abc import Sequence

import numpy
import torch
from transformers import PreTrainedModel

from rose.gradients.batching import collate, length_batches
from rose.gradients.per_example import token_log_probs
from rose.progress import track


def preference_metrics(model: PreTrainedModel, pairs: Sequence[tuple[dict, dict]], budget: int) -> dict[str, float]:
    """Accuracies over encoded (chosen, rejected) pairs, a tie counting half, and the loss on chosen answers.

    preference_accuracy: by summed log-probability; …_per_token: by its mean; longer_wins: what "the longer answer is
    the chosen one" would score; chosen_loss: nats a token, mean over pairs.
    """
    sums, lengths = answer_log_probs(model, [row for pair in pairs for row in pair], budget)
    sums, lengths = sums.reshape(-1, 2), lengths.reshape(-1, 2)
    return {
        "preference_accuracy": first_wins(sums),
        "preference_accuracy_per_token": first_wins(sums / lengths),
        "longer_wins": first_wins(lengths),
        "chosen_loss": float(-(sums[:, 0] / lengths[:, 0]).mean()),
    }


def first_wins(values: numpy.ndarray) -> float:
    """Share of rows of `values` [pairs, 2] whose first entry is larger; a tie counts half."""
    return float(((values[:, 0] > values[:, 1]) + 0.5 * (values[:, 0] == values[:, 1])).mean())


@torch.no_grad()
def answer_log_probs(model: PreTrainedModel, rows: Sequence[dict], budget: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Summed log-probability and number of the labelled tokens of each encoded row."""
    sums, lengths = numpy.zeros(len(rows)), numpy.zeros(len(rows))
    for batch in track(length_batches([len(row["input_ids"]) for row in rows], budget), "likelihood of test pairs"):
        inputs, targets = collate([rows[index] for index in batch], model.device)
        log_probs, mask = token_log_probs(model, inputs, targets)
        sums[batch] = log_probs.double().sum(1).cpu().numpy()
        lengths[batch] = mask.sum(1).cpu().numpy()
    return sums, lengths
