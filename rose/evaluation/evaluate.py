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


@stage("evaluation", version=4)
def evaluate(
    out: Path,
    batch_tokens: int,
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
    write_items(out, items, preference_metrics(log_probs, reference), counts)


def pair_log_probs(model: Model, pairs: Sequence[EncodedPair], budget: int) -> pandas.DataFrame:
    """Summed log-probability (nats) and tokens of both answers of encoded pairs, a row a pair."""
    sums, lengths = answer_log_probs(model, [row for pair in pairs for row in pair], budget)
    return pandas.DataFrame(numpy.hstack([sums.reshape(-1, 2), lengths.reshape(-1, 2)]), columns=COLUMNS)


def preference_metrics(own: pandas.DataFrame, base: pandas.DataFrame | None) -> dict[str, numpy.ndarray]:
    """Metrics [pairs] of a model's `pair_log_probs`; where answers are compared, a tie is half.

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
