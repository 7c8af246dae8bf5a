"""Which values a single key may have, and the words for it."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Range = tuple[Callable[[Any], bool], str]

SHARE: Range = (lambda value: 0 < value <= 1, "in (0, 1]")
UNIT: Range = (lambda value: 0 <= value <= 1, "in [0, 1]")
INSIDE: Range = (lambda value: 0 < value < 1, "in (0, 1)")
PART: Range = (lambda value: 0 <= value < 1, "in [0, 1)")
POSITIVE: Range = (lambda value: 0 < value < float("inf"), "above 0")
NOT_NEGATIVE: Range = (lambda value: 0 <= value < float("inf"), "0 or more")
COUNT: Range = (lambda value: value >= 1, "1 or more")
OR_AUTO: Range = (lambda value: value == "auto" or (type(value) is int and value >= 1), "1 or more, or auto")
NAMES: Range = (lambda value: _names(value), "at least one name, or a pattern of whole names")

BATCHES: dict[str, Range] = {"learning_rate": POSITIVE, "batch_size": COUNT, "micro_batch_size": OR_AUTO}
TRAINING: dict[str, Range] = {
    **{"epochs": COUNT, "warmup_ratio": PART, "weight_decay": NOT_NEGATIVE, "max_grad_norm": NOT_NEGATIVE},
    **BATCHES,
}
MODEL: dict[str, Range] = {
    "max_length": COUNT,
    **BATCHES,
    **{"lora.rank": COUNT, "lora.alpha": POSITIVE, "lora.dropout": PART},
    **{"lora.targets": NAMES, "lora.exclude": NAMES},
    **{f"base.pretraining.{name}": COUNT for name in ("layers", "width", "heads", "conversations")},
    **{f"base.pretraining.training.{name}": allowed for name, allowed in TRAINING.items()},
}
METHOD: dict[str, Range] = {
    "ridge": POSITIVE,
    "layer": SHARE,
    "smoothing": NOT_NEGATIVE,
    **dict.fromkeys(("segments", "checkpoints", "components", "neighbours", "buckets", "candidates"), COUNT),
}
GROUPS: dict[str, dict[str, Range]] = {
    "world": {"distractor": UNIT},  # before what takes it over, so that the key given is the key named
    "dataset": {"world.rows": COUNT, "world.useful": UNIT, "world.distractor": UNIT, "per_source": COUNT},
    "plant": {"share": UNIT, "aside": NOT_NEGATIVE},
    "preference.pairs.world": {"targets": COUNT, "tests": COUNT, "overlap": UNIT, "distractor": UNIT},
    "preference.pairs": {"shots": COUNT, "tests": COUNT, "test_share": INSIDE, "min_score_ratio": NOT_NEGATIVE},
    "preference": {"beta": POSITIVE, "gamma": NOT_NEGATIVE, "first_tokens": COUNT},
    "features": {"batch_tokens": OR_AUTO, "shards": COUNT, "tokens": COUNT},
    "candidates": {"share": SHARE},
    "candidates.method": METHOD,
    "method": METHOD,
    "selection": {
        "ratio": SHARE,
        "per_source": SHARE,
        **dict.fromkeys(("count", "tokens", "slice", "slices", "min_length", "max_length"), COUNT),
    },
    "evaluation": {"batch_tokens": OR_AUTO, "max_new_tokens": COUNT, "temperature": NOT_NEGATIVE},
    "diagnostics": {
        "resamples": COUNT,
        "exact_rows": NOT_NEGATIVE,
        "fidelity_pairs": COUNT,
        "planted_pairs": COUNT,
        "matched_length": PART,
    },
    "diagnostics.warn": {
        **{"length_ratio": COUNT, "near_duplicates": PART, "leaked": PART},
        **dict.fromkeys(("length_correlation", "extremes", "source_mix", "subtask_share", "stability"), SHARE),
        **dict.fromkeys(("momentum_share", "projection"), SHARE),
    },
    "judge": {
        **dict.fromkeys(("max_length", "batch_tokens", "concurrency"), COUNT),
        **dict.fromkeys(("price_input", "price_output", "retries"), NOT_NEGATIVE),
        "timeout": POSITIVE,
    },
    "tasks": {"shots": NOT_NEGATIVE, "limit": COUNT, "max_new_tokens": COUNT},
    "runtime": {"threads": COUNT, "workers": COUNT},
    "model": MODEL,
    "student": MODEL,
    "warmup": {"ratio": SHARE, **TRAINING},  # after the model, whose rates and batches it takes over
    "finetune": TRAINING,
}
RANGES = {f"{group}.{name}": allowed for group, ranges in GROUPS.items() for name, allowed in ranges.items()}


def _names(value: Any) -> bool:
    """Ends of layers' names, or one regular expression (`all-linear` is one)."""
    if not isinstance(value, str):
        return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)
    with suppress(re.error):
        return bool(value) and re.compile(value) is not None
    return False
