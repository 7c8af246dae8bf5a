"""What is checked of a job, as stages: the part of `rose.pipeline` that is advice alone."""

from dataclasses import replace
from typing import Any

from rose import keys
from rose.config.choices import (
    IN_ITS_OWN_WORDS,
    AdamMap,
    Fault,
    Keep,
    Lesson,
    ProjectionKind,
    Representation,
    StoreDtype,
)
from rose.config.schema import Config, Method, Projection
from rose.diagnostics import diagnose, exact, fidelity, held_out, leakage, momentum, planted
from rose.gradients import features
from rose.stages.graph import Node, nodes_in
from rose.stages.kinds import HELD_OUT, PLANTED, all_of, kind_of, unsharded

WITH_MOMENTUM = (AdamMap.exact, AdamMap.published)


def checks(config: Config, job: dict[str, Node]) -> dict[str, Node]:
    """The stages that check a job, whose own are `job`; none where it trains on no selection."""
    if config.method.lesson is not Lesson.selection:
        return {}
    asked, method = config.diagnostics, keys.method(config.method, config.warmup.epochs)
    stored = method.representation is Representation.gradients and config.features.keep is Keep.store
    trained = {"numerics": config.model.numerics, "base": job["base"], "warmup": job["warmup"]}
    nodes = _fidelity(config, method, job) | _planted(config, method, job) | _error(config, job, trained)
    nodes["leakage"] = Node(leakage.leakage, pool=job["pool"], preferences=job["preferences"])
    projection = all_of("targets", job)[0].inputs["projection"]
    nodes["momentum"] = Node(momentum.momentum, adam=config.features.adam, projection=projection, **trained)
    with_momentum = stored and config.features.adam in WITH_MOMENTUM
    nodes["diagnostics"] = Node(
        diagnose.diagnose,
        **{"warn": asked.warn, "resamples": asked.resamples, "seed": asked.seed, "method": method},
        **{name: job[name] for name in ("tokens", "scores", "selection")},
        leakage=nodes["leakage"],
        momentum=(all_of("features", job), nodes["momentum"]) if with_momentum else (),
        exact=nodes["projection_error"] if stored and asked.exact_rows else None,
        fidelity=nodes["fidelity"] if asked.fidelity else None,
        **({"planted": nodes["planted"]} if asked.planted else {}),
        label=method.name,
    )
    return nodes


def _fidelity(config: Config, method: Method, job: dict[str, Node]) -> dict[str, Node]:
    """How often the score prefers the chosen answer of a held-out pair."""
    nodes = _compared(config, method, job, HELD_OUT, job["preferences"], config.diagnostics.fidelity_pairs)
    return {"held_out": nodes.pop(f"{HELD_OUT}answers"), "fidelity": nodes.pop(f"{HELD_OUT}fidelity")} | nodes


def _planted(config: Config, method: Method, job: dict[str, Node]) -> dict[str, Node]:
    """How often the score prefers a pool row to its copy with a planted fault."""
    asked = config.diagnostics
    faults = list(Fault if config.model.base.pretraining is None else IN_ITS_OWN_WORDS)
    pairs = Node(planted.planted_pairs, faults=faults, count=asked.planted_pairs, seed=asked.seed, pool=job["pool"])
    nodes = _compared(config, method, job, PLANTED, pairs, count=None)
    seen = Node(planted.seen, compared=nodes[f"{PLANTED}fidelity"])
    return {f"{PLANTED}preferences": pairs, **nodes, "planted": seen}


def _compared(
    config: Config, method: Method, job: dict[str, Node], prefix: str, pairs: Node, count: int | None
) -> dict[str, Node]:
    """The stages of the method's representation, of the answers of test pairs, and how these score.

    `prefix` is that of the stages' names.
    """
    scored = job.get("own_scores", job["scores"])
    asked, representation = config.diagnostics, scored.inputs["representation"]
    read = {"max_length": config.model.max_length, "base": job["base"], "preferences": pairs}
    answers = Node(held_out.answers_as_rows, count=count, seed=asked.seed, **read)
    pool = (job["tokens"], job["pool"], *all_of("candidates", job))
    instead = dict.fromkeys(pool, answers)
    likewise = tuple(_of(part, instead) for part in representation)
    moved = tuple(old for old, new in zip(representation, likewise, strict=True) if new != old)
    own = {name: node for name, node in job.items() if node in nodes_in(moved) and node not in pool}
    nodes = {f"{prefix}{unsharded(name)}": _of(node, instead) for name, node in own.items()}
    nodes[f"{prefix}fidelity"] = Node(
        fidelity.fidelity,
        method=method,
        matched_length=asked.matched_length,
        held_out=answers,
        representation=likewise,
        background=moved if fidelity.relative(method) else (),
        label=method.name,
    )
    return {f"{prefix}answers": answers} | nodes


def _of(part: Any, instead: dict[Node, Node]) -> Any:
    """A part of a representation, made of other rows, in one shard: `instead` says which node replaces which."""
    if isinstance(part, tuple):
        return tuple({new.name: new for new in (_of(each, instead) for each in part)}.values())
    if not isinstance(part, Node) or part in instead:
        return instead.get(part, part)
    inputs: dict[str, Any] = {
        name: instead.get(item, item) if isinstance(item, Node) else item
        for name, item in part.inputs.items()
        if name != "shard"
    }
    return part if inputs == part.inputs else Node(part.stage, **inputs)


def _error(config: Config, job: dict[str, Node], trained: dict[str, Any]) -> dict[str, Node]:
    """The projection's error: features of a sample of rows, and targets, without a projection."""
    asked, whole = config.diagnostics, Projection(ProjectionKind.none, dim=0, seed=0)
    seen = job.get("candidates", job["tokens"])
    sample = Node(exact.sample_rows, count=asked.exact_rows, seed=asked.seed, tokens=seen)
    settings = replace(config.features, dtype=StoreDtype.float32)
    rows: dict[str, Any] = {"features": settings, "projection": whole, "tokens": sample, **trained}
    unprojected: dict[str, Any] = {"projection": whole}
    nodes = {"sample": sample}
    for name, node in job.items():
        match kind_of(name):
            case "features":
                nodes[f"sample_{unsharded(name)}"] = Node(features.pool_features, node.inputs["checkpoint"], **rows)
            case "targets":
                nodes[f"sample_{name}"] = Node(features.pair_features, **node.inputs | unprojected)
    read: dict[str, Any] = {kind: all_of(kind, job) for kind in ("features", "targets")}
    read |= {kind: all_of(kind, nodes) for kind in ("sample_features", "sample_targets")}
    return nodes | {"projection_error": Node(exact.projection_error, config.preference.normalize, **read)}
