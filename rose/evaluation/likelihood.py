"""Held-out preference accuracy: does the model find the chosen answer more likely than the rejected one?"""

from collections.abc import Sequence

import numpy
import pandas
from transformers import PreTrainedModel

from rose.models.log_probs import answer_log_probs

SIDES = ("chosen", "rejected")


def pair_log_probs(model: PreTrainedModel, pairs: Sequence[tuple[dict, dict]], budget: int) -> pandas.DataFrame:
    """Summed log-probability (nats) and tokens of both answers of encoded (chosen, rejected) pairs, a row a pair.

    Columns: chosen, rejected, chosen_tokens, rejected_tokens.
    """
    sums, lengths = answer_log_probs(model, [row for pair in pairs for row in pair], budget)
    frame = pandas.DataFrame(sums.reshape(-1, 2), columns=list(SIDES))
    return frame.assign(**{f"{side}_tokens": lengths.reshape(-1, 2)[:, index] for index, side in enumerate(SIDES)})


def preference_metrics(own: pandas.DataFrame, base: pandas.DataFrame | None) -> dict[str, numpy.ndarray]:
    """Metrics [pairs] of a model's `pair_log_probs`; where one answer is to beat another, a tie counts half.

    preference_accuracy: by summed log-probability; …_per_token: by its mean; longer_wins: what "the longer answer is
    the chosen one" would score; chosen_loss: nats a token. Against the base model, where there is one, with
    log_ratio_margin = (log π(y_w) − log π_base(y_w)) − (log π(y_l) − log π_base(y_l)), which is DPO's reward margin
    over β (arXiv 2305.18290): …_vs_base, whether it is positive.
    """
    margin = own["chosen"] - own["rejected"]
    metrics = {
        "preference_accuracy": wins(margin),
        "preference_accuracy_per_token": wins(
            own["chosen"] / own["chosen_tokens"] - own["rejected"] / own["rejected_tokens"]
        ),
        "longer_wins": wins(own["chosen_tokens"] - own["rejected_tokens"]),
        "chosen_loss": -(own["chosen"] / own["chosen_tokens"]).to_numpy(),
    }
    if base is not None:
        ratio = margin - (base["chosen"] - base["rejected"])
        metrics |= {"preference_accuracy_vs_base": wins(ratio), "log_ratio_margin": ratio.to_numpy()}
    return metrics


def wins(difference: pandas.Series | numpy.ndarray) -> numpy.ndarray:
    """1 where the difference is positive, ½ where it is nought, else 0; NaN stays."""
    values = numpy.asarray(difference, dtype=numpy.float64)
    return (numpy.sign(values) + 1) / 2
