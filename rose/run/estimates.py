"""What a missing stage will cost: as one like it did, by as much as it has more to do, else by arithmetic.

More to do is more rows, longer ones or more weights. Where it is not known by how much, nothing is said to be alike.
"""

import json
import math
import re
from collections import Counter
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
from rose.config.data import Dataset
from rose.config.schema import Config, Model
from rose.data import files, world
from rose.data.sources import Split
from rose.gradients.quantize import width
from rose.methods.scores import table_of
from rose.stages.graph import Node, ordered
from rose.stages.kinds import CANDIDATES, KINDS, kind_of
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
    # measured: its own cost.json; like: that of the most similar stage, scaled to this one's rows,
    # tokens and weights; counted: from the configuration and the rows' length, or that of the most
    # similar pool's; at most: the same, were every row as long as model.max_length lets it be
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


UNKNOWN = Size(NAN, NAN, NAN, NAN, NAN, NAN)

# rows that pass through the model; an answer of a pair counts as one
ROWS: dict[str, Callable[[Config, Size], float]] = {
    "warmup": lambda c, s: _warmed(c, s) * c.warmup.epochs,
    "features": lambda c, s: s.rows / c.features.shards,
    "targets": lambda c, s: 2 * s.pairs,
    "target_hidden": lambda c, s: s.pairs,
    **dict.fromkeys(("target_answer_states", "target_readout"), lambda c, s: 2 * s.pairs),
    **dict.fromkeys(("one_pass", "readout"), lambda c, s: s.rows),
    **dict.fromkeys(("tuned_losses", "answer_losses"), lambda c, s: s.rows),
    "finetune": lambda c, s: _selected(c, s) * c.finetune.epochs,
    "pairs_sft": lambda c, s: s.pairs * c.finetune.epochs,
    "pairs_dpo": lambda c, s: 4 * s.pairs * c.finetune.epochs,
    **dict.fromkeys(("evaluation", "zero_shot"), lambda c, s: 2 * s.tests),
    **dict.fromkeys(("answers", "zero_shot_answers"), lambda c, s: s.tests),
    **dict.fromkeys(("pool", "whole_pool", "aside", "preferences", "tokens", "student_tokens"), lambda c, s: 0),
    **dict.fromkeys(("scores", "candidates", "own_scores", "selection"), lambda c, s: 0),
}


# what other stages of a kind go through, row by row: a file of the stage that they rest on
TARGETS = ("targets", "target_hidden", "target_answer_states", "target_readout", "pairs_sft", "pairs_dpo")
TESTS = ("evaluation", "zero_shot", "answers", "zero_shot_answers", "verdicts", "zero_shot_verdicts")
BASES: dict[str, str] = {kind: "preferences/target.jsonl" for kind in TARGETS}
BASES |= {kind: "preferences/test.jsonl" for kind in TESTS}
POOL = "pool/pool.jsonl"
STAGE = re.compile(r'"(\w+/[\w-]+-[0-9a-f]{12})"')  # the name of one, in another's inputs.json


class Costs:
    """Says what the stages of one outputs folder cost; keeps the sizes of what many stages share."""

    def __init__(self, outputs: Path):
        self.outputs = outputs
        self.weights: dict[str, tuple[float, float]] = {}
        self.lengths: dict[str, tuple[float, float]] = {}
        self.counts: dict[Path, int] = {}

    def of(self, name: str, node: Node, config: Config, nodes: dict[str, Node]) -> Cost:
        """The cost of `node`, the stage that a job's pipeline, `nodes`, calls `name`."""
        kind, target = kind_of(name).removeprefix(CANDIDATES), node.path(self.outputs)
        if kind == "finetune" and node.stage.name in ROWS:
            kind = node.stage.name  # of the pairs, not of a selection
        if target.exists():
            return _measured(target, "measured")
        student = config.student if kind in KINDS and KINDS[kind].student else None
        size = self.size(config, student or config.model, nodes) if "tokens" in nodes else UNKNOWN
        if nodes.get("candidates") in node.upstream:
            size = replace(size, rows=size.rows * config.candidates.share)
        counted = _counted(kind, config, size) if kind in ROWS else Cost()
        nearest = self.nearest(node)
        return counted if nearest is None else self.like(nearest, kind, node, config, counted, size) or counted

    def nearest(self, node: Node) -> Path | None:
        """The finished stage of this name and version whose inputs have most in common with the node's."""
        key = _leaves(node.key)
        there = [path.parent for path in node.path(self.outputs).parent.glob(f"{node.label}-*/cost.json")]
        inputs = {path: _read(path / "inputs.json") for path in there}
        alike = [path for path in inputs if inputs[path].get("version") == node.key["version"]]
        return max(alike, key=lambda path: len(key & _leaves(inputs[path])), default=None)

    def like(self, other: Path, kind: str, node: Node, config: Config, counted: Cost, size: Size) -> Cost | None:
        """What the stage `other` cost, scaled to the node; None where it is not known by how much."""
        found = _measured(other, "like")
        if math.isnan(found.flops) and math.isnan(found.seconds):
            return None
        if kind in ROWS and kind not in BASES and found.flops > 0:  # the pool's rows, whose lengths are known
            rows, work = counted.tokens / found.tokens, counted.flops / found.flops
            if counted.source == "at most":
                return None
        else:
            rows = self.ratio(BASES.get(kind, POOL), node, other, size)
            if kind not in BASES:
                rows *= self.part(node.key, config) / self.part(_read(other / "inputs.json"), config)
            work = rows * (self.heavier(node, other, found, size) if found.tokens > 0 else 1.0)
        if math.isnan(work):
            return None
        stored = counted.bytes if counted.bytes > 0 else found.bytes * rows
        return Cost(found.tokens * rows, found.flops * work, stored, found.seconds * work, "like")

    def part(self, key: dict[str, Any], config: Config) -> float:
        """How much of the pool a stage with this key reads: a shard, of the candidates alone."""
        rows, part = str(key["inputs"].get("tokens")), 1 / (key["inputs"].get("shard") or (1, 1))[1]
        if not rows.startswith("candidates/"):
            return part
        made = self.outputs / "stages" / rows / "inputs.json"
        return part * (json.loads(made.read_text())["inputs"] if made.exists() else vars(config.candidates))["share"]

    def ratio(self, basis: str, node: Node, other: Path, size: Size) -> float:
        """How many times the rows of the stage `other` the node goes through."""
        stage, file = basis.split("/")
        mine = {each.name for each in ordered(node) if each.name.startswith(f"{stage}/")}
        theirs = {name for name in self.upstream(f"{other.parent.name}/{other.name}") if name.startswith(f"{stage}/")}
        if mine == theirs:
            return 1.0
        coming = {"pool.jsonl": size.rows, "target.jsonl": size.pairs, "test.jsonl": size.tests}[file]
        counts = [sum(self.count(name, file) for name in names) for names in (mine, theirs)]
        return (counts[0] or coming) / (counts[1] or NAN)

    def heavier(self, node: Node, other: Path, found: Cost, size: Size) -> float:
        """How many times the weights of that stage's model the node's has."""
        mine = {each.name for each in ordered(node) if each.name.startswith("base/")}
        if mine == {name for name in self.upstream(f"{other.parent.name}/{other.name}") if name.startswith("base/")}:
            return 1.0
        return size.weights / (found.flops / found.tokens / 2)

    def upstream(self, name: str) -> set[str]:
        """A stage that is there, and all that it rests on."""
        inputs = self.outputs / "stages" / name / "inputs.json"
        names = set(STAGE.findall(inputs.read_text())) if inputs.exists() else set()
        return {name}.union(*map(self.upstream, names))

    def count(self, name: str, file: str) -> int:
        """Rows of a stage's file; 0 where it is not there."""
        path = self.outputs / "stages" / name / file
        if path not in self.counts:
            self.counts[path] = files.count(path)
        return self.counts[path]

    def size(self, config: Config, model: Model, nodes: dict[str, Node]) -> Size:
        """Of a pool that is not here yet: as many rows as its files have, as long as the most similar pool's are."""
        tokens = nodes["tokens"]
        if tokens.name not in self.lengths:
            there = [path for path in (tokens.path(self.outputs), self.nearest(tokens)) if path and path.exists()]
            lengths = lengths_of(there[0]) if there else numpy.array([])
            own = tokens.path(self.outputs) in there
            rows = len(lengths) if own else self.count(nodes["pool"].name, "pool.jsonl") or rows_of(config.dataset)
            self.lengths[tokens.name] = float(rows), float(lengths.mean()) if len(lengths) else NAN
        rows, length = self.lengths[tokens.name]
        if (name := repr(model)) not in self.weights:
            self.weights[name] = _weights(model)
        made, pairs = config.preference.pairs.world, nodes["preferences"].name
        # else only the pairs say how many: shots and tests are a subtask's
        targets = self.count(pairs, "target.jsonl") or (made.targets if made else NAN)
        tests = self.count(pairs, "test.jsonl") or (made.tests if made else NAN)
        return Size(rows, length, targets, tests, *self.weights[name])


def lengths_of(tokens: Path) -> numpy.ndarray:
    """Tokens of each row; of a damaged artifact none: whoever reads it for its contents says what is wrong."""
    try:
        return table_of(tokens)["length"].to_numpy()
    except Exception:
        return numpy.array([])


def rows_of(dataset: Dataset) -> float:
    """How many rows a pool will have, as its files have them; NaN where they are not here, or large."""
    if dataset.world is not None:
        return dataset.world.rows
    location = files.Location("dataset.path", dataset.path, dataset.files, dataset.revision, Split.train)
    if not files.is_small(location):
        return NAN
    most = math.inf if dataset.per_source is None else dataset.per_source
    return sum(min(rows, most) for rows in Counter(row.source for row in files.read_rows(location)).values())


def _measured(path: Path, source: str) -> Cost:
    cost = _read(path / "cost.json")
    tokens = cost.get("tokens_forward", NAN) + cost.get("tokens_backward", NAN)  # absent where an older version ran
    return Cost(tokens, cost.get("flops", NAN), cost.get("bytes", NAN), cost.get("seconds", NAN), source)


def _read(path: Path) -> dict[str, Any]:
    """Empty where it is damaged or gone: an estimate does without, and whoever needs the stage says what is wrong."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


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
    cut = config.features.tokens is not None and kind in ("features", "readout")  # by how much is in the labels
    source = "at most" if tokens and (math.isnan(size.length) or cut) else "counted"
    return Cost(tokens + backward, flops, _bytes(kind, config, size), source=source)


def _length(config: Config, size: Size) -> float:
    return config.model.max_length if math.isnan(size.length) else size.length


def _warmed(config: Config, size: Size) -> float:
    """Not known where the pool's rows are not, which Python's max and min would pass over."""
    least = float(numpy.maximum(config.warmup.batch_size, config.warmup.ratio * size.rows))
    return float(numpy.minimum(size.rows, least))


def _selected(config: Config, size: Size) -> float:
    amount = keys.selection(config.method, config.selection, config.warmup, config.finetune)
    if amount.slice:
        return size.rows / amount.slices
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
