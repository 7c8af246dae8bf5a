"""What a metric's name says of it: which way is better, how far it can go, its place in a table."""

import math

LOWER_IS_BETTER = ("chosen_loss", "cost/")
SHARES = ("win_rate", "preference_accuracy", "accuracy_", "precision", "intact", "auc", "longer_wins")  # from 0 to 1
# The table's columns, in order. QUALITY: what a reader wants to win at; accuracy_: of any task.
QUALITY = ("reward", "win_rate", "preference_accuracy", "log_ratio_margin", "accuracy_", "chosen_loss")
HEADLINE = (*QUALITY, "precision", "auc", "cost/seconds")
SELECTION = (
    "precision",
    "intact",
    "auc",
    "selected_",
    "length_correlation",
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
