"""What is checked of a job, as stages: the part of `rose.pipeline` that comes to nothing but advice."""

from dataclasses import replace
from typing import Any

from rose.config.choices import AdamMap, Keep, Lesson, ProjectionKind, Representation, StoreDtype
from rose.config.schema import Config, Method, Projection
from rose.diagnostics.diagnose import diagnose
from rose.diagnostics.exact import projection_error, sample_rows
from rose.diagnostics.fidelity import fidelity, relative
from rose.diagnostics.held_out import answers_as_rows
from rose.diagnostics.leakage import leakage
from rose.diagnostics.momentum import momentum
from rose.gradients.features import pair_features, pool_features
from rose.gradients.objectives import Objective
from rose.stages.build import Node

WITH_MOMENTUM = (AdamMap.exact, AdamMap.published)


def checks(
    config: Config,
    method: Method,
    objective: Objective,
    projection: Projection,
    representation: tuple,
    made: dict[str, Node],
) -> dict[str, Node]:
    """The stages that check a job, by name. `made` are the job's own; the rest is as the pipeline gives it to these.

    A job that trains on no selection has no `diagnostics`.
    """
    if method.lesson is not Lesson.selection:
        return {}
    asked, features = config.diagnostics, config.features
    stored = method.representation is Representation.gradients and features.keep is Keep.store
    named = _fidelity(config, method, representation, made) | _error(config, objective, made)
    named["leakage"] = Node(leakage, made["pool"], made["preferences"])
    model = (config.model.numerics, made["base"], made["warmup"])
    named["momentum"] = Node(momentum, features.adam, projection, *model)
    named["diagnostics"] = Node(
        diagnose,
        asked.warn,
        asked.resamples,
        asked.seed,
        method,
        made["tokens"],
        made["scores"],
        made["selection"],
        named["leakage"],
        (made["features"], named["momentum"]) if stored and features.adam in WITH_MOMENTUM else (),
        named["projection_error"] if stored and asked.exact_rows else None,
        named["fidelity"] if asked.fidelity else None,
        label=method.name,
    )
    return named


def _fidelity(config: Config, method: Method, representation: tuple, made: dict[str, Node]) -> dict[str, Node]:
    """Selector fidelity: the stages that make the method's representation, once more, of held-out answers."""
    asked, pool = config.diagnostics, (made["tokens"], made["pool"])
    limits = (asked.fidelity_pairs, asked.seed, config.model.max_length)
    held_out = Node(answers_as_rows, *limits, made["base"], made["preferences"])
    likewise = tuple(_of(part, dict.fromkeys(pool, held_out)) for part in representation)
    moved = {
        old: new for old, new in zip(representation, likewise, strict=True) if isinstance(old, Node) and new != old
    }
    named = {f"held_out_{name}": moved[node] for name, node in made.items() if node in moved and node not in pool}
    background = tuple(moved) if relative(method) else ()
    named["fidelity"] = Node(fidelity, method, asked.matched_length, held_out, likewise, background, label=method.name)
    return {"held_out": held_out} | named


def _of(part: Any, instead: dict[Node, Node]) -> Any:
    """A part of a representation, made of other rows: `instead` says which node takes the place of which."""
    if not isinstance(part, Node) or part in instead:
        return instead[part] if isinstance(part, Node) else part
    inputs = [instead.get(item, item) if isinstance(item, Node) else item for item in part.inputs]
    return Node(part.function, *inputs) if inputs != list(part.inputs) else part


def _error(config: Config, objective: Objective, made: dict[str, Node]) -> dict[str, Node]:
    """The projection's error: features of a sample of rows, and targets, without a projection."""
    model, asked = config.model, config.diagnostics
    whole = Projection(ProjectionKind.none, dim=0, seed=0)
    trained = (made["base"], made["warmup"])
    sample = Node(sample_rows, asked.exact_rows, asked.seed, made["tokens"])
    full = replace(config.features, dtype=StoreDtype.float32)
    features = Node(pool_features, full, whole, model.numerics, *trained, sample)
    targets = Node(pair_features, objective, whole, model.numerics, model.max_length, *trained, made["preferences"])
    compared = (features, targets, made["features"], made["targets"])
    return {
        "sample": sample,
        "sample_features": features,
        "sample_targets": targets,
        "projection_error": Node(projection_error, config.preference.normalize, *compared),
    }
