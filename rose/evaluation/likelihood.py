"""Held-out preference accuracy: is the chosen answer more likely than the rejected one?"""

from collections.abc import Sequence

import numpy
import pandas
from numpy.typing import ArrayLike
from torch import nn

from rose.data.chat import Encoded
from rose.models.log_probs import answer_log_probs

SIDES = ("chosen", "rejected")


def pair_log_probs(model: nn.Module, pairs: Sequence[tuple[Encoded, Encoded]], budget: int) -> pandas.DataFrame:
    """Summed log-probability (nats) and tokens of both answers of encoded pairs, a row a pair.

    Columns: chosen, rejected, chosen_tokens, rejected_tokens.
    """
    sums, lengths = answer_log_probs(model, [row for pair in pairs for row in pair], budget)
    frame = pandas.DataFrame(sums.reshape(-1, 2), columns=list(SIDES))
    return frame.assign(**{f"{side}_tokens": lengths.reshape(-1, 2)[:, index] for index, side in enumerate(SIDES)})


def preference_metrics(own: pandas.DataFrame, base: pandas.DataFrame | None) -> dict[str, numpy.ndarray]:
    """Metrics [pairs] of a model's `pair_log_probs`; where an answer is to beat another, a tie is half.

    preference_accuracy: by summed log-probability; …_per_token: by its mean; longer_wins: what "the
    longer answer is the chosen one" would score; chosen_loss: nats a token. Against the base model,
    where there is one: log_ratio_margin = (log π(y_w) − log π_base(y_w)) − (log π(y_l) −
    log π_base(y_l)), DPO's reward margin over β (arXiv 2305.18290), and …_vs_base: is it positive?
    """
    margin = own.chosen - own.rejected
    chosen, rejected = own.chosen / own.chosen_tokens, own.rejected / own.rejected_tokens
    metrics = {
        "preference_accuracy": wins(margin),
        "preference_accuracy_per_token": wins(chosen - rejected),
        "longer_wins": wins(own.chosen_tokens - own.rejected_tokens),
        "chosen_loss": -chosen.to_numpy(),
    }
    if base is not None:
        ratio = margin - (base.chosen - base.rejected)
        metrics |= {"preference_accuracy_vs_base": wins(ratio), "log_ratio_margin": ratio.to_numpy()}
    return metrics


def wins(difference: ArrayLike) -> numpy.ndarray:
    """1 where the difference is positive, ½ where it is nought, else 0; NaN stays."""
    values = numpy.asarray(difference, dtype=numpy.float64)
    return (numpy.sign(values) + 1) / 2
