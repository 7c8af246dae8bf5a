"""What a missing stage will cost: as one like it did, else by arithmetic from the configuration."""

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rose import keys
from rose.config.choices import Keep, ProjectionKind
from rose.config.schema import Config, Model
from rose.data import world
from rose.gradients.quantize import width
from rose.methods.scores import table_of
from rose.stages.graph import Node
from rose.stages.kinds import KINDS, kind_of
from rose.training import bare
from rose.training.base_model import llama

NAN = float("nan")


@dataclass(frozen=True)
class Cost:
    """NaN: not known. `seconds` are those of whatever machine measured them."""

    tokens: float = NAN
    flops: float = NAN
    bytes: float = NAN
    seconds: float = NAN
    # measured: its own cost.json; like: that of the most similar stage; counted: from the
    # configuration; at most: the same, were every row as long as model.max_length lets it be
    source: str = ""


@dataclass(frozen=True)
class Size:
    """What the arithmetic needs: numbers of things, as far as they are known."""

    rows: float
    length: float  # mean tokens a row; NaN: not known yet
    pairs: float
    tests: float
    weights: float
    trained: float


# rows that pass through the model; an answer of a pair counts as one
ROWS: dict[str, Callable[[Config, Size], float]] = {
    "warmup": lambda c, s: _warmed(c, s) * c.warmup.epochs,
    "features": lambda c, s: s.rows / c.features.shards,
    "targets": lambda c, s: 2 * s.pairs,
    "target_hidden": lambda c, s: s.pairs,
    **dict.fromkeys(("target_answer_states", "target_readout"), lambda c, s: 2 * s.pairs),
    **dict.fromkeys(("hidden", "answer_states", "readout"), lambda c, s: s.rows),
    **dict.fromkeys(("losses", "tuned_losses", "answer_losses"), lambda c, s: s.rows),
    "finetune": lambda c, s: _selected(c, s) * c.finetune.epochs,
    "pairs_sft": lambda c, s: s.pairs * c.finetune.epochs,
    "pairs_dpo": lambda c, s: 4 * s.pairs * c.finetune.epochs,
    **dict.fromkeys(("evaluation", "zero_shot"), lambda c, s: 2 * s.tests),
    **dict.fromkeys(("answers", "zero_shot_answers"), lambda c, s: s.tests),
    **dict.fromkeys(("pool", "whole_pool", "aside", "preferences", "tokens", "student_tokens"), lambda c, s: 0),
    **dict.fromkeys(("scores", "selection"), lambda c, s: 0),
}


class Costs:
    """Says what the stages of one outputs folder cost; keeps the sizes of what many stages share."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.weights: dict[str, tuple[float, float]] = {}
        self.lengths: dict[str, tuple[float, float]] = {}

    def of(self, name: str, node: Node, config: Config, nodes: dict[str, Node]) -> Cost:
        """The cost of `node`, the stage that a job's pipeline, `nodes`, calls `name`."""
        kind, target = kind_of(name), node.path(self.outputs)
        if target.exists():
            return _measured(target, "measured")
        if alike := [path for path in target.parent.glob(f"{node.label}-*") if (path / "cost.json").exists()]:
            key = _leaves(node.key)
            inputs = {path: json.loads((path / "inputs.json").read_text()) for path in alike}
            nearest = max(alike, key=lambda path: len(key & _leaves(inputs[path])))
            return _scaled(_measured(nearest, "like"), _shards(inputs[nearest]) / _shards(node.key))
        if kind not in ROWS:
            return Cost()
        student = config.student if KINDS[kind].student else None
        return _counted(kind, config, self.size(config, student or config.model, nodes["tokens"]))

    def size(self, config: Config, model: Model, tokens: Node) -> Size:
        pool, pairs = config.dataset.world, config.preference.pairs
        if tokens.name not in self.lengths and tokens.path(self.outputs).exists():
            lengths = table_of(tokens.path(self.outputs))["length"].to_numpy()
            self.lengths[tokens.name] = len(lengths), float(lengths.mean())
        rows, length = self.lengths.get(tokens.name, (pool.rows if pool else NAN, NAN))
        if (name := repr(model)) not in self.weights:
            self.weights[name] = _weights(model)
        targets = pairs.world.targets if pairs.world else pairs.shots or NAN
        tests = pairs.world.tests if pairs.world else pairs.tests or NAN
        return Size(rows, length, targets, tests, *self.weights[name])


def _measured(path: Path, source: str) -> Cost:
    cost = json.loads((path / "cost.json").read_text())
    tokens = cost.get("tokens_forward", NAN) + cost.get("tokens_backward", NAN)  # absent where an older version ran
    return Cost(tokens, cost.get("flops", NAN), cost.get("bytes", NAN), cost.get("seconds", NAN), source)


def _scaled(cost: Cost, factor: float) -> Cost:
    return replace(cost, **{name: getattr(cost, name) * factor for name in ("tokens", "flops", "bytes", "seconds")})


def _shards(key: dict[str, Any]) -> int:
    """Among how many stages the pool's rows are shared out, of which the key's is one."""
    return (key["inputs"].get("shard") or (1, 1))[1]


def _leaves(value: object, place: str = "") -> set[tuple[str, str]]:
    """The values of a key, with their places: the more two keys share, the more alike."""
    if isinstance(value, dict):
        return {leaf for name, item in value.items() for leaf in _leaves(item, f"{place}.{name}")}
    return {(place, json.dumps(value))}


def _counted(kind: str, config: Config, size: Size) -> Cost:
    """2 FLOPs a weight and token forward; backward as many again plus 2 a trained weight."""
    tokens = ROWS[kind](config, size) * _length(config, size)
    backward = tokens if KINDS[kind].backward else 0
    flops = 2 * size.weights * tokens + 2 * (size.weights + size.trained) * backward
    source = "at most" if tokens and math.isnan(size.length) else "counted"
    return Cost(tokens + backward, flops, _bytes(kind, config, size), source=source)


def _length(config: Config, size: Size) -> float:
    return config.model.max_length if math.isnan(size.length) else size.length


def _warmed(config: Config, size: Size) -> float:
    """Not known where the pool's rows are not, which Python's max and min would pass over."""
    least = float(numpy.maximum(config.warmup.batch_size, config.warmup.ratio * size.rows))
    return float(numpy.minimum(size.rows, least))


def _selected(config: Config, size: Size) -> float:
    amount = keys.selection(config.method, config.selection, config.warmup, config.finetune)
    if amount.tokens:
        return amount.tokens / _length(config, size)
    return float(numpy.fmin(amount.count, size.rows)) if amount.count else amount.ratio * size.rows


def _bytes(kind: str, config: Config, size: Size) -> float:
    stream, dim, each = config.features.keep is Keep.stream, config.projection.dim, width(config.features.dtype, 1000)
    whole = size.trained if stream or config.projection.kind == ProjectionKind.none else dim
    stored = {
        "features": size.rows / config.features.shards * (4 * size.pairs if stream else each / 1000 * whole),
        "targets": size.pairs * 4 * whole,
        "readout": size.rows * each / 1000 * dim,
        "target_readout": size.pairs * 4 * dim,
        "warmup": config.warmup.epochs * 3 * 4 * size.trained,  # the adapter and two moments
        "finetune": 4 * size.trained,
    }
    return stored.get(kind, NAN)


def _weights(model: Model) -> tuple[float, float]:
    """Weights of a model and its adapter, by its configuration; NaN where that is not here."""
    base, lora = model.base, model.lora
    with torch.device("meta"), suppress(OSError, ValueError):
        if base.pretraining is not None:
            whole = llama(base.pretraining, world.tokenizer())
        else:
            assert base.path is not None  # one of the two is set
            whole = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base.path, revision=base.revision))
        return whole.num_parameters(), bare.adapter_size(base, lora, linear=False) or NAN
    return NAN, NAN
