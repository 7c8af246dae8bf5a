"""What a metric's name says of it: which way is better, how far it can go, its place in a table."""

import math

LOWER_IS_BETTER = ("chosen_loss", "cost/")
# from 0 to 1
SHARES = (
    *("win_rate", "preference_accuracy", "accuracy_", "precision", "intact", "auc", "longer_wins"),
    "candidates_recall",
)
# The table's columns, in order. QUALITY: what a reader wants to win at; accuracy_: of any task.
QUALITY = ("reward", "win_rate", "preference_accuracy", "log_ratio_margin", "accuracy_", "chosen_loss")
HEADLINE = (*QUALITY, "precision", "auc", "candidates_recall", "cost/seconds")
SELECTION = (
    "precision",
    "intact",
    "auc",
    "selected_",
    "length_correlation",
    "candidates_recall",
)  # what a selection is, whoever is trained on it
# How far the fine-tuning set the answers of test pairs apart; the same without what length alone can do.
MARGINS = ("log_ratio_margin", "log_ratio_margin_per_token", "log_ratio_margin_matched")
# What the page has beside these.
MORE = ("win_rate_length_controlled", "preference_accuracy_per_token", "preference_accuracy_vs_base", *MARGINS[1:])


def lower_is_better(metric: str) -> bool:
    return metric.startswith(LOWER_IS_BETTER)


def direction(metric: str) -> int:
    """1 where more is better, −1 where less is."""
    return -1 if lower_is_better(metric) else 1


def bounds(metric: str) -> tuple[float, float]:
    """The least and the greatest possible value."""
    if metric.startswith("cost/"):
        return 0.0, math.inf
    return (0.0, 1.0) if metric.startswith(SHARES) else (-math.inf, math.inf)


def stands_for(entry: str, metric: str) -> bool:
    """Whether `metric` is the entry, or begins with it where that ends with an underscore."""
    return metric == entry or (entry.endswith("_") and metric.startswith(entry))


def is_quality(metric: str) -> bool:
    return any(stands_for(entry, metric) for entry in QUALITY)


# A line on each column of the page's table; that of a name with an underscore at its end holds for all that begin so.
MEANINGS = {
    "reward": "mean reward of the answers by the judge; the embedded world's is exact, from 0 to 1",
    "win_rate": "share of test prompts whose answer the judge prefers to its opponent's; a tie is half",
    "win_rate_length_controlled": "what a logistic model of the difference in length says of win_rate at equal length",
    "preference_accuracy": "share of test pairs whose chosen answer the model finds likelier than the rejected one",
    "preference_accuracy_per_token": "preference_accuracy by the mean log-probability of a token",
    "preference_accuracy_vs_base": "share of test pairs whose chosen answer gained more by fine-tuning than the other",
    "log_ratio_margin": "how much further fine-tuning set the two answers of a test pair apart, in nats",
    "log_ratio_margin_per_token": "log_ratio_margin, each answer's gain over its tokens",
    "log_ratio_margin_matched": "log_ratio_margin of the pairs whose two answers are about as long",
    "accuracy_": "share of a task's questions that are answered right",
    "chosen_loss": "mean negative log-probability of a token of the chosen answers, in nats",
    "precision": "share of selected rows that are useful, where the data say which are",
    "intact": "share of selected rows without a planted fault",
    "auc": "chance that an intact row scores higher than a faulty one",
    "candidates_recall": "share of what would be selected from the whole pool that the candidates still hold",
    "cost/seconds": "seconds of the method's own stages, as each was computed, by whichever job",
}


def meaning(metric: str) -> str:
    """A line on a metric; "" of one that the page's table does not have."""
    entries = sorted((entry for entry in MEANINGS if stands_for(entry, metric)), key=len)
    return MEANINGS[entries[-1]] if entries else ""
