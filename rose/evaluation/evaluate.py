"""The evaluation stage: does a model find the chosen answer likelier than the rejected one?"""

from collections.abc import Sequence
from pathlib import Path

import numpy
import pandas
from numpy.typing import ArrayLike

from rose.config.schema import Numerics
from rose.data.dropping import list_dropped
from rose.data.encoded_pairs import encoded_pairs
from rose.data.rows import EncodedPair
from rose.evaluation.answers import Model, load
from rose.evaluation.items import Item, prompt_text, write_items
from rose.models.log_probs import answer_log_probs
from rose.stages.graph import stage

COLUMNS = ["chosen", "rejected", "chosen_tokens", "rejected_tokens"]
MATCHED = 1.2  # the longer answer has at most so many times the tokens of the shorter


@stage("evaluation", version=5)
def evaluate(
    out: Path,
    batch_tokens: int | str,
    numerics: Numerics,
    max_length: int,
    base: Path,
    adapter: Path | None,
    zero_shot: Path | None,
    preferences: Path,
) -> None:
    """Writes metrics.json, items.parquet, log_probs.parquet (id and `pair_log_probs`) and dropped.jsonl.

    `zero_shot` is the evaluation of the base model, which the others are measured against.
    """
    tokenizer, model = load(base, numerics, adapter)
    pairs, encoded, dropped = encoded_pairs(tokenizer, preferences / "test.jsonl", max_length)
    list_dropped(out, dropped, len(dropped) + len(pairs), "test pairs")
    log_probs = pair_log_probs(model, encoded, batch_tokens)
    log_probs.insert(0, "id", [pair["id"] for pair in pairs])
    log_probs.to_parquet(out / "log_probs.parquet", index=False)
    reference = None if zero_shot is None else pandas.read_parquet(zero_shot / "log_probs.parquet")
    items = [Item(pair["id"], prompt_text(pair["prompt"]), pair["subtask"]) for pair in pairs]
    counts = {"test_pairs": len(pairs), "test_pairs_dropped": len(dropped)}
    counts["test_pairs_matched"] = int(of_matched_length(log_probs).sum())
    write_items(out, items, preference_metrics(log_probs, reference), counts)


def pair_log_probs(model: Model, pairs: Sequence[EncodedPair], budget: int | str) -> pandas.DataFrame:
    """Summed log-probability (nats) and tokens of both answers of encoded pairs, a row a pair."""
    sums, lengths = answer_log_probs(model, [row for pair in pairs for row in pair], budget)
    return pandas.DataFrame(numpy.hstack([sums.reshape(-1, 2), lengths.reshape(-1, 2)]), columns=COLUMNS)


def preference_metrics(own: pandas.DataFrame, base: pandas.DataFrame | None) -> dict[str, numpy.ndarray]:
    """Metrics [pairs] of a model's `pair_log_probs`; where answers are compared, a tie is half.

    preference_accuracy: by summed log-probability; …_per_token: by its mean; longer_wins: what "the
    longer answer is the chosen one" would score; chosen_loss: nats a token. Against the base model,
    where there is one: log_ratio_margin = (log π(y_w) − log π_base(y_w)) − (log π(y_l) −
    log π_base(y_l)), DPO's reward margin over β (arXiv 2305.18290), and …_vs_base: is it positive?
    log_ratio_margin_per_token: each ratio over its answer's tokens, so that a model that makes all text
    likelier gains nothing by the length of what is chosen; …_matched: the margin of the pairs
    `of_matched_length`, NaN for the others.
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
        liked, disliked = own.chosen - base.chosen, own.rejected - base.rejected
        ratio, per_token = liked - disliked, liked / own.chosen_tokens - disliked / own.rejected_tokens
        metrics |= {"preference_accuracy_vs_base": wins(ratio), "log_ratio_margin": ratio.to_numpy()}
        metrics["log_ratio_margin_per_token"] = per_token.to_numpy()
        metrics["log_ratio_margin_matched"] = ratio.where(of_matched_length(own)).to_numpy()
    return metrics


def of_matched_length(pairs: pandas.DataFrame) -> pandas.Series:
    """Which of `pair_log_probs` have answers of about one length, at most `MATCHED` times the shorter."""
    tokens = pairs[["chosen_tokens", "rejected_tokens"]]
    return tokens.max(axis=1) <= MATCHED * tokens.min(axis=1)


def wins(difference: ArrayLike) -> numpy.ndarray:
    """1 where the difference is positive, ½ where it is nought, else 0; NaN stays."""
    values = numpy.asarray(difference, dtype=numpy.float64)
    return (numpy.sign(values) + 1) / 2
