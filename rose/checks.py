"""Which values are allowed: read before the first job starts, so that no sweep finds out after its warm-up."""

from collections.abc import Callable
from functools import reduce
from typing import Any

from rose.config import Config, Representation, Rule
from rose.errors import RoseError

Range = tuple[Callable[[float], bool], str]

SHARE: Range = (lambda value: 0 < value <= 1, "in (0, 1]")
PART: Range = (lambda value: 0 <= value < 1, "in [0, 1)")
POSITIVE: Range = (lambda value: 0 < value < float("inf"), "above 0")
NOT_NEGATIVE: Range = (lambda value: 0 <= value < float("inf"), "0 or more")
COUNT: Range = (lambda value: value >= 1, "1 or more")

TRAINING: dict[str, Range] = {
    "epochs": COUNT,
    "learning_rate": POSITIVE,
    "batch_size": COUNT,
    "micro_batch_size": COUNT,
    "warmup_ratio": PART,
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
}
RANGES: dict[str, Range] = {
    "model.max_length": COUNT,
    "model.lora.rank": COUNT,
    "model.lora.alpha": POSITIVE,
    "model.lora.dropout": PART,
    "dataset.per_source": COUNT,
    "preference.pairs.shots": COUNT,
    "preference.pairs.tests": COUNT,
    "preference.pairs.test_share": PART,
    "preference.beta": POSITIVE,
    "warmup.ratio": SHARE,
    "features.batch_tokens": COUNT,
    "method.segments": COUNT,
    "method.ridge": POSITIVE,
    "selection.ratio": SHARE,
    "evaluation.batch_tokens": COUNT,
    "evaluation.max_new_tokens": COUNT,
    "evaluation.temperature": NOT_NEGATIVE,
    "runtime.threads": COUNT,
} | {f"{run}.{name}": allowed for run in ("warmup", "finetune") for name, allowed in TRAINING.items()}


def check(config: Config) -> None:
    """Raises RoseError for a value outside its range, or for values that contradict one another."""
    for key, (holds, allowed) in RANGES.items():
        value = reduce(getattr, key.split("."), config)
        if value is not None and not holds(value):
            raise RoseError(f"{key}={value}: must be {allowed}")
    for name in ("warmup", "finetune"):
        _divides(name, getattr(config, name))
    if config.projection.dim < 1 and config.projection.kind != "none":
        raise RoseError(f"projection.dim={config.projection.dim}: must be 1 or more")
    if not config.outputs.strip():
        raise RoseError("outputs=: must name a folder")
    if (config.method.rule is Rule.random) != (config.method.representation is Representation.none):
        raise RoseError(
            f"method.rule={config.method.rule}: does not go with method.representation="
            f"{config.method.representation}; random goes with none, the others with gradients"
        )
    if config.method.rule is Rule.random and config.method.seed is None:
        raise RoseError("method.seed=null: a random choice needs a seed")


def _divides(name: str, training: Any) -> None:
    if training.batch_size % training.micro_batch_size:
        raise RoseError(
            f"{name}.micro_batch_size={training.micro_batch_size}: must divide {name}.batch_size={training.batch_size}"
        )
